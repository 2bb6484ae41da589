"""Mutants: our own protocol, broken in one place each, and the tests that must notice.

What belongs here: the table of mutants and how one is run. What does not: the tests that kill them, which test the
product and know nothing of this, and counting the rounds (`faults/test_mutants.py`).
"""

from jivs_pipeline_tests.mutants.of_control import CONTROL
from jivs_pipeline_tests.mutants.of_engine import ENGINE
from jivs_pipeline_tests.mutants.of_events import EVENTS
from jivs_pipeline_tests.mutants.of_limits import LIMITS
from jivs_pipeline_tests.mutants.of_rules import RULES
from jivs_pipeline_tests.mutants.of_sources import SOURCES
from jivs_pipeline_tests.mutants.of_target import TARGET
from jivs_pipeline_tests.mutants.running import Edit, Mutant

__all__ = ["MUTANTS", "Edit", "Mutant"]

MUTANTS: tuple[Mutant, ...] = (*ENGINE, *TARGET, *CONTROL, *EVENTS, *LIMITS, *RULES, *SOURCES)
"""The first two are the ones that `make test` runs."""
