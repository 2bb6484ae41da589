"""What becomes of a request, given the latest run for it and its migration's state."""

from __future__ import annotations

from itertools import product

import pytest

from jivs_pipeline.core.requests import (
    Again,
    Asked,
    Ended,
    Launch,
    Launched,
    RequestRef,
    RequestStatus,
    RunState,
    Wait,
    judge_request,
)
from jivs_pipeline.core.states import Status

R, S = RequestStatus, Status
REF = RequestRef("7b0f", 2)


def asked(status: RequestStatus, migration: Status) -> Asked:
    return Asked(REF, "shop", {}, status, 0, None, migration, None)


GOING = RunState("r", None)
RETRIED = RunState("r", "FAILURE", again=True)
STOPPED = RunState("r", "CANCELED", interrupted=True)


@pytest.mark.parametrize(
    ("status", "migration", "run", "expected"),
    [
        (R.QUEUED, S.QUEUED, None, Launch()),
        # Its run was deleted before it began; the daemon launches no second one for a run that is there.
        (R.LAUNCHED, S.QUEUED, None, Launch()),
        (R.QUEUED, S.COMPLETED, None, Launch()),
        (R.QUEUED, S.RUNNING, None, Wait()),
        (R.RUNNING, S.RUNNING, None, Wait()),
        (R.RUNNING, S.FAILED, None, Ended(R.FAILED)),
        (R.QUEUED, S.QUEUED, GOING, Launched("r")),
        (R.LAUNCHED, S.QUEUED, GOING, Wait()),
        (R.RUNNING, S.RUNNING, GOING, Wait()),
        (R.RUNNING, S.FAILED, RETRIED, Wait()),
        (R.LAUNCHED, S.QUEUED, RETRIED, Wait()),
        (R.RUNNING, S.FAILED, RunState("r", "FAILURE"), Ended(R.FAILED)),
        (R.RUNNING, S.MISMATCH, RunState("r", "FAILURE"), Ended(R.FAILED)),
        (R.LAUNCHED, S.QUEUED, RunState("r", "FAILURE"), Ended(R.FAILED)),
        # The reaper has to settle the migration first.
        (R.RUNNING, S.RUNNING, RunState("r", "FAILURE"), Wait()),
        # Nothing was left to do.
        (R.LAUNCHED, S.COMPLETED, RunState("r", "SUCCESS"), Ended(R.COMPLETED)),
        (R.LAUNCHED, S.QUEUED, RunState("r", "CANCELED"), Ended(R.CANCELLED)),
        (R.LAUNCHED, S.CANCELLED, RunState("r", "CANCELED"), Ended(R.CANCELLED)),
        (R.RUNNING, S.PAUSED, RunState("r", "CANCELED"), Ended(R.PAUSED)),
        (R.LAUNCHED, S.QUEUED, STOPPED, Again()),
    ],
)
def test_fate(status: RequestStatus, migration: Status, run: RunState | None, expected: object) -> None:
    assert judge_request(asked(status, migration), run) == expected


def test_what_was_acted_on_is_not_decided_again() -> None:
    """A look that repeats an earlier one, as after a crash, does nothing more."""
    for migration in Status:
        first = judge_request(asked(R.QUEUED, migration), GOING)
        assert first == Launched("r")
        assert judge_request(asked(R.LAUNCHED, migration), GOING) == Wait()


def test_nothing_ends_while_its_run_goes_on() -> None:
    for status, migration in product((R.QUEUED, R.LAUNCHED, R.RUNNING), Status):
        assert not isinstance(judge_request(asked(status, migration), GOING), Ended | Again | Launch)
        assert not isinstance(judge_request(asked(status, migration), RETRIED), Ended | Again | Launch)


def test_the_run_key_names_the_attempt() -> None:
    assert RequestRef.parse(str(REF)) == REF
    assert str(REF) == "7b0f/2"
    for text in ("", "x", "x/", "/1", "x/y"):
        assert RequestRef.parse(text) is None
