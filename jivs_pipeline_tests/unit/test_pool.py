"""The pool of chunk jobs, its guard, and the one layer of retries."""

from __future__ import annotations

import threading
import time

import pytest

from jivs_pipeline.core.errors import (
    BreakerOpen,
    Crowded,
    DataError,
    FencedError,
    InterruptedRun,
    JivsError,
    NotReady,
    PausedRun,
    SnapshotLost,
    TransientError,
)
from jivs_pipeline.engine.pool import Guard, run_all, with_retries


class Fast(Guard):
    """A guard that notes how long it was asked to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.check()


# The guard


def test_a_guard_lets_pass_until_it_is_stopped():
    guard = Guard()
    guard.check()
    guard.check_inside()
    guard.stop(PausedRun("stop"))
    with pytest.raises(PausedRun):
        guard.check()


def test_a_pause_waits_for_the_end_of_a_chunk_and_a_fence_does_not():
    guard = Guard()
    guard.stop(PausedRun("stop"))
    assert list(guard.watched([1, 2])) == [1, 2]
    guard.stop(FencedError("overtaken"), at_once=True)
    with pytest.raises(PausedRun):  # the first reason stands
        guard.check_inside()


def test_pieces_are_watched_one_by_one():
    guard, seen = Guard(), []

    def take(piece: int) -> None:
        seen.append(piece)
        if piece == 2:
            guard.stop(FencedError("overtaken"), at_once=True)

    with pytest.raises(FencedError):
        list(map(take, guard.watched(range(10))))
    assert seen == [0, 1, 2]


def test_sleep_ends_when_the_guard_is_stopped():
    guard = Guard()
    threading.Timer(0.05, guard.stop, [PausedRun("stop")]).start()
    began = time.monotonic()
    with pytest.raises(PausedRun):
        guard.sleep(30)
    assert time.monotonic() - began < 10
    Guard().sleep(0)


# The pool


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_job_runs_once(workers):
    done: list[int] = []
    run_all([lambda n=n: done.append(n) for n in range(50)], workers, Guard())
    assert sorted(done) == list(range(50))
    if workers == 1:
        assert done == sorted(done)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_job_begins_when_those_have_ended_that_it_waits_for(workers):
    ended: list[int] = []
    after = {0: {3, 4}, 1: {0}, 4: {5}, 6: set[int]()}

    def job(n: int) -> None:
        missing = after.get(n, set()) - set(ended)
        time.sleep(0.002)
        assert not missing
        ended.append(n)

    run_all([lambda n=n: job(n) for n in range(7)], workers, Guard(), after)
    assert sorted(ended) == list(range(7))
    if workers == 1:
        assert ended == [2, 3, 5, 4, 0, 1, 6]  # the first that may


def test_jobs_that_wait_for_each_other_are_not_left_out_without_a_word():
    with pytest.raises(ValueError, match=r"\[1, 2\] wait for each other"):
        run_all([lambda: None] * 3, 2, Guard(), {1: {2}, 2: {1}})


def test_no_jobs_are_fine():
    run_all([], 4, Guard())


def test_as_many_jobs_run_side_by_side_as_there_are_workers():
    together = threading.Barrier(3, timeout=10)
    run_all([lambda: together.wait() and None] * 3, 3, Guard())
    assert not together.broken


def test_no_more_jobs_run_side_by_side_than_there_are_workers():
    lock, running, most = threading.Lock(), 0, 0

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1

    run_all([job] * 12, 2, Guard())
    assert most == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_error_is_raised_and_what_has_not_begun_never_begins(workers):
    began: list[int] = []
    release = threading.Event()

    def job(n: int) -> None:
        began.append(n)
        if n == 0:
            raise DataError("first")
        if n == 1:
            release.wait(0.2)

    with pytest.raises(DataError, match="first"):
        run_all([lambda n=n: job(n) for n in range(50)], workers, Guard())
    assert began == [0] if workers == 1 else set(began) <= {0, 1, 2}


def test_a_job_that_has_begun_is_waited_for():
    started, ended = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        time.sleep(0.1)
        ended.set()

    def failing() -> None:
        started.wait(10)
        raise DataError("no")

    with pytest.raises(DataError):
        run_all([slow, failing], 2, Guard())
    assert ended.is_set()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_guard_ends_the_run_between_jobs(workers):
    guard, done = Guard(), []

    def job(n: int) -> None:
        done.append(n)
        guard.stop(PausedRun("stop"))

    with pytest.raises(PausedRun):
        run_all([lambda n=n: job(n) for n in range(20)], workers, guard)
    assert 1 <= len(done) <= workers


def test_ctrl_c_ends_jobs_inside_of_their_chunk(monkeypatch):
    guard, stopped = Guard(), threading.Event()

    def job() -> None:
        try:
            for _ in range(1000):
                guard.check_inside()
                time.sleep(0.005)
        except InterruptedRun:
            stopped.set()
            raise

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jivs_pipeline.engine.pool.wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_all([job, job], 2, guard)
    assert stopped.is_set()


# Retries


def failing(*errors: Exception):
    left = list(errors)

    def job() -> None:
        if left:
            raise left.pop(0)

    return job


def test_a_transient_error_is_tried_again_after_two_and_four_seconds_with_jitter():
    guard, told = Fast(), []
    with_retries(
        failing(TransientError("one"), TransientError("two")),
        guard,
        lambda n, e, d: told.append((n, str(e), d)),
    )
    assert [2 <= guard.waits[0] <= 3, 4 <= guard.waits[1] <= 5, len(guard.waits)] == [True, True, 2]
    assert told == [(1, "one", guard.waits[0]), (2, "two", guard.waits[1])]


def test_the_third_transient_error_is_raised_as_it_is():
    guard = Fast()
    last = TransientError("three")
    with pytest.raises(TransientError) as caught:
        with_retries(failing(TransientError("one"), TransientError("two"), last), guard, lambda *_: None)
    assert caught.value is last
    assert len(guard.waits) == 2


def test_a_server_that_is_not_ready_is_waited_for_and_costs_no_attempt():
    guard = Fast()
    away = [NotReady("starting") for _ in range(20)]
    errors = [TransientError("one"), *away, TransientError("two"), NotReady("again")]
    with_retries(failing(*errors), guard, lambda *_: None)
    assert len(guard.waits) == len(errors)
    assert guard.waits[1:21] == [1.0] * 20
    assert 4 <= guard.waits[21] <= 5, "the second attempt at work"


def test_a_server_that_stays_away_is_waited_for_as_long_as_the_patience_lasts():
    guard = Fast()
    guard.patience_seconds = 0.05
    began = time.monotonic()

    def job() -> None:
        time.sleep(0.01)
        raise NotReady("gone")

    with pytest.raises(NotReady):
        with_retries(job, guard, lambda *_: None)
    assert 0.05 < time.monotonic() - began < 5
    assert guard.waits


@pytest.mark.parametrize(
    "error",
    [
        BreakerOpen("left alone"),
        DataError("bad"),
        FencedError("gone"),
        PausedRun("p"),
        JivsError("x"),
        ValueError("bug"),
        OSError("disk"),
    ],
)
def test_nothing_else_is_tried_again(error):
    guard = Fast()
    with pytest.raises(type(error)) as caught:
        with_retries(failing(error, error), guard, lambda *_: pytest.fail("told"))
    assert caught.value is error
    assert guard.waits == []


def test_an_error_that_is_left_to_an_outer_retry_is_tried_again_there_only():
    guard, outer = Fast(), Fast()
    tried: list[int] = []

    def inner() -> None:
        tried.append(1)
        with_retries(failing(SnapshotLost("s")), guard, lambda *_: pytest.fail("told"), but=(SnapshotLost,))

    with pytest.raises(SnapshotLost):
        with_retries(inner, outer, lambda *_: None, only=SnapshotLost)
    assert (len(tried), guard.waits, len(outer.waits)) == (3, [], 2)
    with pytest.raises(TransientError):
        with_retries(failing(TransientError("t")), outer, lambda *_: None, only=SnapshotLost)
    assert len(outer.waits) == 2


def test_a_stop_ends_the_waiting_for_another_attempt():
    guard = Fast()
    with pytest.raises(PausedRun):
        with_retries(failing(TransientError("one")), guard, lambda *_: guard.stop(PausedRun("stop")))


def test_a_crowded_endpoint_is_waited_for_by_its_own_patience_and_told_once() -> None:
    """Its looks are no attempts; of each there would be a row in migration_retries."""
    guard, looks, told = Fast(), 0, list[int]()

    def job() -> str:
        nonlocal looks
        looks += 1
        if looks < 20:
            raise Crowded("full", patience_seconds=60)
        return "in"

    assert with_retries(job, guard, lambda attempt, *_: told.append(attempt)) == "in"
    assert (looks, told) == (20, [1])
    assert max(guard.waits) <= 1

    def never() -> None:
        raise Crowded("full", patience_seconds=0)

    guard.patience_seconds = 60
    with pytest.raises(Crowded):
        with_retries(never, guard, lambda *_: None)
