"""What a spec may be refused for is found before any state is written: exit 2, and nothing is left behind.

What belongs here: asking both ends. What does not: what is wrong with a spec (`engine/planning.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jivs_pipeline.core.errors import BreakerOpen, ConnectionFailed, Crowded, JivsError, SpecError
from jivs_pipeline.core.spec import Spec

__all__ = ["before_anything", "preflight", "submittable"]


def preflight(runtime: Any, spec: Spec) -> None:
    """Everything that makes a run exit 2 is found before any state is written."""
    from jivs_pipeline.engine.planning import check, check_rules

    # Where nobody may connect to the source now, the run finds out when it may.
    with before_anything(), suppress(Crowded), runtime.opened(spec) as (source, target):
        checked = check(spec, source, target, filters=True)
        row = runtime.control.find(spec.key)
        # Rules that a plan was made of are right, and looking at all rows once more is dear.
        if row is None or row["plan"] is None or row["spec_hash"] != spec.hash:
            check_rules(spec, checked, source, runtime.rules)


def submittable(runtime: Any, spec: Spec) -> None:
    """Rules and validations of a request that do not fit are found before it is queued, where both ends can be asked.

    Raises:
        SpecError: the spec is wrong; whatever else is in the way now may be gone when the daemon runs it.
    """
    if not spec.rules and not spec.validation:
        return
    try:
        preflight(runtime, spec)
    except SpecError:
        raise
    except JivsError:
        # Of this machine, or of this moment.
        return


@contextmanager
def before_anything() -> Iterator[None]:
    """An endpoint that is left alone is, before anything was touched, a connection that does not work."""
    try:
        yield
    except BreakerOpen as error:
        raise ConnectionFailed(error.message, hint=error.hint) from error
