"""Mutants of what sources and targets bear: rates and permits."""

from jivs_pipeline_tests.mutants.running import Edit, Mutant

__all__ = ["LIMITS"]

_PERMITS = "jivs_pipeline/infra/permits.py"
_RATES = "jivs_pipeline/infra/rates.py"
_TEST_PERMITS = "jivs_pipeline_tests/integration/test_permits.py"
_TEST_RATES = "jivs_pipeline_tests/integration/test_rates.py"

LIMITS = (
    Mutant(
        "two take the same permit",
        "Who looks at the same moment finds the same connections free.",
        (Edit(_PERMITS, '            db.execute(_SQL["lock_endpoint"], {"endpoint": endpoint})\n', ""),),
        (f"{_TEST_PERMITS}::test_twenty_processes_never_have_more_than_four_connections",),
    ),
    Mutant(
        "permits of the dead are never free",
        "A killed run keeps its connections until its lease is over.",
        (
            Edit(
                _PERMITS,
                'return bool(row["silent"]) or is_dead(row["boot_id"], row["pid"], row["process_start"])',
                'return bool(row["silent"])',
            ),
        ),
        (f"{_TEST_PERMITS}::test_permits_are_gone_with_their_process",),
    ),
    Mutant(
        "a permit is not renewed",
        "A run that takes longer than a lease loses its permits while its connections are open.",
        (
            Edit(
                _PERMITS,
                'self._link.once(lambda db, permit=permit: db.execute(_SQL["take_permit"], permit))',
                "self._link.once(lambda _: None)",
            ),
        ),
        (f"{_TEST_PERMITS}::test_a_holder_that_lives_is_seen_to_live",),
    ),
    Mutant(
        "each keeps the rate for itself",
        "Two migrations read a source twice as fast as it bears.",
        (Edit(_RATES, "return self._shared(costs)", "return self._alone(costs)"),),
        (f"{_TEST_RATES}::test_two_share_the_time_of_a_source",),
    ),
    Mutant(
        "unused time is kept",
        "A source that was left alone for a minute is then read for a minute without any limit.",
        (Edit(_RATES, "math.max(free_at, now - burst)", "free_at"),),
        (f"{_TEST_RATES}::test_nothing_is_owed_to_a_source_that_was_not_read",),
    ),
)
