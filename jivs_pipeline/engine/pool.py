"""A bounded pool of threads for the chunks of a phase, and the retry around each.

What belongs here: running jobs side by side, stopping early, trying transient faults again.
What does not: what the jobs do.

Threads, because every long call in a job (libpq, SQLite, Arrow, fsync) releases the GIL.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from heapq import heappop, heappush
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from jivs_pipeline.core.errors import (
    BreakerOpen,
    CancelledRun,
    Crowded,
    InterruptedRun,
    JivsError,
    NotReady,
    PausedRun,
)

__all__ = ["STOPS", "Guard", "run_all", "with_retries"]

_T = TypeVar("_T")

STOPS = (CancelledRun, InterruptedRun, PausedRun)
"""What somebody wanted of the run, wherever in it that comes out: never the fault of the table at hand."""

ATTEMPTS = 3
FIRST_DELAY_SECONDS = 2.0
LONGEST_LOOK_SECONDS = 1.0
"""How often it is looked whether a server is there again."""


class Guard:
    """Says whether the run may go on. Set from the heartbeat or a signal, asked between chunks.

    Args:
        patience_seconds: how long a server that is not ready is waited for.
    """

    def __init__(self, patience_seconds: float = 30.0) -> None:
        self.patience_seconds = patience_seconds
        self._reason: JivsError | None = None
        self._stopped = threading.Event()
        self._at_once = False
        self._interrupts: list[Callable[[], None]] = []

    def on_interrupt(self, interrupt: Callable[[], None]) -> None:
        """Have `interrupt` called when the run must stop inside of chunks: it ends what a server is busy with."""
        self._interrupts.append(interrupt)

    def stop(self, reason: JivsError, *, at_once: bool = False) -> None:
        """End the run with this error at the next chunk boundary, or inside of chunks; the first reason stands."""
        if self._reason is None:
            self._reason = reason
        self._at_once = self._at_once or at_once
        self._stopped.set()
        for interrupt in self._interrupts if at_once else ():
            interrupt()

    def check(self) -> None:
        """Raise the reason when there is one; asked between chunks."""
        if self._reason is not None:
            raise self._reason

    def check_inside(self) -> None:
        """Raise the reason when it cannot wait for the end of a chunk; asked between pieces."""
        if self._at_once:
            self.check()

    def watched(self, pieces: Iterable[_T]) -> Iterator[_T]:
        """The pieces, with a look at the guard before each."""
        for piece in pieces:
            self.check_inside()
            yield piece

    def sleep(self, seconds: float) -> None:
        """Wait, but not past a stop."""
        self._stopped.wait(seconds)
        self.check()


def run_all(
    jobs: Sequence[Callable[[], None]],
    workers: int,
    guard: Guard,
    after: Mapping[int, Collection[int]] | None = None,
) -> None:
    """Run the jobs on `workers` threads, in their order. The first error ends the rest and is raised.

    A job that has begun is always waited for, so that nothing of it runs on when this returns.

    Args:
        after: for a job's number those of the jobs that must have ended before. Who is free begins the first that may.
    """
    failed = threading.Event()

    def guarded(job: Callable[[], None]) -> None:
        # Said by the worker itself: by the time the main thread hears of an error, others would have begun.
        if failed.is_set():
            return
        guard.check()
        try:
            job()
        except BaseException:
            failed.set()
            raise

    if not jobs:
        return
    order = _Order(len(jobs), after or {})
    # Also for one job: Ctrl-C reaches the main thread, which must be free to cancel what a server is busy with.
    with ThreadPoolExecutor(max_workers=min(workers, len(jobs)), thread_name_prefix="jivs") as pool:
        busy: dict[Future[None], int] = {}
        try:
            while True:
                for number in order.begin(workers - len(busy)):
                    # Each in a context of its own, which has what is bound for log records.
                    busy[pool.submit(copy_context().run, guarded, jobs[number])] = number
                if not busy:
                    order.check()
                    return
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    order.end(busy.pop(future))
                    future.result()
        except BaseException as error:
            failed.set()
            if not isinstance(error, Exception):
                # Ctrl-C or a termination: whoever pressed it does not wait for the end of a chunk.
                guard.stop(
                    InterruptedRun("The run was interrupted", hint="Run it again to go on"), at_once=True
                )
            raise


class _Order:
    """Which of some numbered jobs may begin: the lowest first, each after those that it waits for."""

    def __init__(self, count: int, after: Mapping[int, Collection[int]]) -> None:
        self._waits = {number: set(before) for number, before in after.items() if before}
        self._followers: dict[int, list[int]] = {}
        for number, before in self._waits.items():
            for one in before:
                self._followers.setdefault(one, []).append(number)
        self._ready = [number for number in range(count) if number not in self._waits]

    def begin(self, most: int) -> list[int]:
        """Some that may begin; they are not given out again."""
        return [heappop(self._ready) for _ in range(min(most, len(self._ready)))]

    def check(self) -> None:
        """Whether all were given out: jobs that wait for each other would be left out without a word."""
        if self._waits:
            raise ValueError(f"Jobs {sorted(self._waits)} wait for each other")

    def end(self, number: int) -> None:
        """Those that waited for this one alone may begin now."""
        for follower in self._followers.pop(number, ()):
            self._waits[follower].discard(number)
            if not self._waits[follower]:
                del self._waits[follower]
                heappush(self._ready, follower)


def with_retries(
    job: Callable[[], _T],
    guard: Guard,
    told: Callable[[int, JivsError, float], None],
    *,
    only: type[JivsError] = JivsError,
    but: tuple[type[JivsError], ...] = (),
) -> _T:
    """Run `job`, trying transient errors again: 3 attempts, 2 s doubled, with jitter.

    This is the only layer that retries; drivers and callers do not. A server that is not ready is no attempt: it is
    waited for as long as the guard's patience lasts.

    Args:
        told: called before each wait with the attempt's number, its error and the delay in seconds.
        only: the errors that this job may be tried again for, where an inner one has its own retries.
        but: the errors that are left to an outer one.
    """
    counted = 0
    away_since: float | None = None
    told_crowded = False

    def enough(state: RetryCallState) -> bool:
        nonlocal counted, away_since
        if isinstance(error := _error(state), NotReady):
            away_since = away_since or time.monotonic()
            patience = guard.patience_seconds if error.patience_seconds is None else error.patience_seconds
            return time.monotonic() - away_since > patience
        counted, away_since = counted + 1, None
        return counted >= ATTEMPTS

    def pause(state: RetryCallState) -> float:
        if isinstance(_error(state), NotReady):
            return min(LONGEST_LOOK_SECONDS, guard.patience_seconds / 4)
        jitter = random.uniform(0, min(1.0, FIRST_DELAY_SECONDS))  # noqa: S311 - nobody has to be kept from guessing it
        return FIRST_DELAY_SECONDS * 2**counted + jitter

    def tell(state: RetryCallState) -> None:
        nonlocal told_crowded
        error = _error(state)
        if isinstance(error, Crowded):
            # Its patience is long and its looks are many; what they see is the same.
            if told_crowded:
                return
            told_crowded = True
        if isinstance(error, JivsError) and state.next_action is not None:
            told(state.attempt_number, error, state.next_action.sleep)

    def again(error: BaseException) -> bool:
        # An open breaker stays open for longer than all our attempts: the run fails at once, and another may help.
        return isinstance(error, only) and error.transient and not isinstance(error, (BreakerOpen, *but))

    return Retrying(
        stop=enough,
        wait=pause,
        retry=retry_if_exception(again),
        sleep=guard.sleep,
        before_sleep=tell,
        reraise=True,
    )(job)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
