"""The sequence of a migration, and the only place that has it.

What belongs here: beginning, the seven phases, ending; which earlier work is used again. What does not:
what a phase does, and Dagster, whose ops call one method each.

A run that continues an earlier one keeps, per table, what is proved: tables that are loaded stay; if
the extraction was finished, the rest is loaded from the same staged snapshot; else everything that is
not loaded is read again from a new one.
"""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from structlog.contextvars import bound_contextvars

from jivs_pipeline.core.claims import Claim
from jivs_pipeline.core.connections import redact
from jivs_pipeline.core.errors import (
    CancelledRun,
    FencedError,
    InterruptedRun,
    JivsError,
    MismatchError,
    PausedRun,
    SnapshotLost,
    SpecError,
    TerminalError,
)
from jivs_pipeline.core.estimates import Estimate, estimate
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.ports import Source
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.core.validation import CheckResult, blocking
from jivs_pipeline.engine import extract, load, transform, validate, verify
from jivs_pipeline.engine.checkpoints import ControlCheckpoints
from jivs_pipeline.engine.document import build_document
from jivs_pipeline.engine.pace import Pace
from jivs_pipeline.engine.planning import build_plan
from jivs_pipeline.engine.pool import Guard, with_retries
from jivs_pipeline.engine.ports import Target
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.engine.pulse import Pulse
from jivs_pipeline.engine.report_file import pending_report
from jivs_pipeline.engine.resume import note_refusals, recall, renew, require_ledger, resumable
from jivs_pipeline.engine.rollback import rollback
from jivs_pipeline.engine.run import Run, expected, take_permits
from jivs_pipeline.engine.services import Services

__all__ = ["Migration"]

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


_STATUS_OF: dict[type[JivsError], Status] = {
    PausedRun: Status.PAUSED,
    InterruptedRun: Status.PAUSED,
    CancelledRun: Status.CANCELLED,
}
"""How a run ends that was asked to; every other error fails it."""


class Migration:
    """One run of one migration. Methods are called in the order of `Phase`, by ops or by a test.

    Args:
        services: the ports.
        spec: what to migrate.
        run_id: Dagster's run id, or any unique text.
        progress: counters that somebody may be watching.
    """

    def __init__(self, services: Services, spec: Spec, run_id: str, progress: Progress | None = None) -> None:
        self._services = services
        self._spec = spec
        self._run_id = run_id
        self.progress = progress or Progress()
        self.guard = Guard(services.patience_seconds)
        self.error: JivsError | None = None
        self._run: Run | None = None
        self._claim: Claim | None = None
        self._pulse: Pulse | None = None
        self._ended_as: Status | None = None
        self._last: dict[str, Any] | None = None
        self.expected: Estimate | None = None
        self.validation: list[CheckResult] = []
        self._first = True
        self._open = ExitStack()

    # Beginning and ending

    @property
    def finished_before(self) -> bool:
        """Whether this very migration is already completed, so that there is nothing to do."""
        row = self._services.control.find(self._spec.key)
        return bool(
            row
            and row["status"] == Status.COMPLETED
            and self._spec.type == "full"
            and row["spec_hash"] == self._spec.hash
            and row["epoch"] > 0
            and self._services.ends(self._spec).other_than(row) is None
        )

    def nothing_to_do(self) -> bool:
        """Whether it is finished before. When it is to be loaded again may still have changed, and is noted."""
        if not self.finished_before:
            return False
        self._services.control.reschedule(self._spec)
        return True

    def begin(self) -> bool:
        """Open both ends and take the migration: conflict, or a new epoch and a heartbeat.

        Returns:
            False when it is completed already, perhaps by the run that was waited for.

        Raises:
            ConfigError: an end does not let us in; the migration's state is as before.
            ConflictError: somebody else holds it.
        """
        if self._run is not None:
            return True  # every op asks
        with self._named():
            return self._begin()

    def _begin(self) -> bool:
        services, spec = self._services, self._spec
        if self.nothing_to_do():
            return False
        source, target, floor = with_retries(self._open_ends, self.guard, lambda *_: None)
        claim = services.take(spec, self._run_id, floor)
        if claim is None:
            self._open.close()
            return False
        self._claim = claim
        _LOG.info("Taken", extra={"epoch": claim.epoch, "resumed": claim.resumed})
        self._pulse = Pulse(
            services.control, services.leases, claim, self.guard, self.progress, services.pulse_seconds
        )
        self.guard.on_interrupt(target.interrupt)
        empty = Plan(
            key=spec.key, spec_hash=spec.hash, source=spec.source, target=spec.target, source_dialect="",
            source_version="", target_version="", tables=(),
        )  # fmt: skip
        self._run = Run(
            spec=spec, run_id=self._run_id, control_id=services.control.control_id(), epoch=claim.epoch,
            owner=claim.owner.owner, source=source, target=target, staging=services.staging,
            checkpoints=ControlCheckpoints(services.control, claim), builder=services.builder, rules=services.rules,
            guard=self.guard,
            progress=self.progress, pace=Pace(spec.limits, services.rate(spec), self.guard),
            plan=claim.plan or empty, since=claim.since,
        )  # fmt: skip
        self._open.callback(self._run.let_go)
        self._patiently(Phase.PLAN, partial(take_permits, source, target, spec.parallelism))
        if claim.plan is not None:
            points = services.control.checkpoints(spec.key)
            self._patiently(Phase.PLAN, partial(recall, self._run, points, self._new_generation))
        return True

    def _open_ends(self) -> tuple[Source, Target, int]:
        """Both ends, and the highest epoch that the target knows."""
        with ExitStack() as opening:
            source, target = opening.enter_context(self._services.opened(self._spec))
            floor = target.ledger(self._spec.key).epoch
            self._open = opening.pop_all()
        return source, target, floor

    @property
    def taken(self) -> bool:
        """Whether this run has taken its migration, so that it can say how it ends."""
        return self._claim is not None

    @property
    def report(self) -> str | None:
        """Where this run's report is; None before it has ended, and where none could be written."""
        return self._last["report"] if self._last else None

    @property
    def _ended(self) -> bool:
        return self._ended_as is not None

    def close(self, why: Callable[[str], JivsError] | None = None) -> None:
        """Release everything. A run that did not end goes on later; one that failed is rolled back where it shall be.

        Args:
            why: says of a key why its run did not come to its end.
        """
        if self._claim is not None and not self._ended and self.error is None:
            self.abort(why(self._claim.key) if why else InterruptedRun("The run ended before its last phase"))
        if self._pulse is not None:
            self._pulse.stop()
        with suppress(Exception):
            self._open.close()
        if self._claim is not None:
            if not self._ended:
                with suppress(JivsError):
                    self._services.control.release(self._claim)
            self._services.leases.release(self._claim.key)
        if self._ended_as in {Status.FAILED, Status.MISMATCH} and self._spec.on_failure == "rollback":
            # A failure was told; what the rollback stumbles over is found in the state and by `jivs rollback`.
            with suppress(JivsError):
                rollback(self._services, self._spec.key, self._run_id)

    def abort(self, error: BaseException) -> None:
        """Record why the run stops: `paused`, `cancelled`, `failed`, or nothing when another run owns the migration."""
        with self._named():
            if not isinstance(error, JivsError):
                _LOG.error("Not foreseen: %s", type(error).__name__, exc_info=error)
            self._abort(error)

    def _abort(self, error: BaseException) -> None:
        known = error if isinstance(error, JivsError) else TerminalError(
            f"{type(error).__name__}: {redact(str(error).splitlines()[0] if str(error) else 'no message')}",
            hint="Run again with --debug; if it stays, please report it",
        )  # fmt: skip
        if self._claim is not None and not self._ended:
            # Whatever an overtaken run stumbles over, that it was overtaken is the reason.
            try:
                self._services.control.heartbeat(self._claim)
            except FencedError as fenced:
                self.error = known = fenced
            except JivsError:
                pass
        if self.error is None:
            self.error = known
        if self._ended or isinstance(known, FencedError) or self._claim is None:
            return
        status = _STATUS_OF.get(type(known), Status.FAILED)
        if status is Status.CANCELLED:
            # Before the state says so: a cancelled migration keeps no rows outside of the target.
            with suppress(JivsError):
                self._services.staging.discard(self._claim.key, self._claim.epoch)
        with suppress(FencedError):
            self._end(status, known)

    # The phases

    def plan(self) -> Plan:
        """Phase 1: what will be done. A plan whose extraction is finished is kept, so that a run resumes on it."""
        with self._phase(Phase.PLAN):
            run = self._the_run()
            if resumable(run) and self._the_claim().same_spec:
                # Steps that failed are tried again on the rows that stand.
                run.failures = {}
            else:
                fresh = self._patiently(
                    Phase.PLAN, lambda: build_plan(run.spec, run.source, run.target, run.rules, run.since)
                )
                renew(run, fresh, self._new_generation())
                note_refusals(run)
                self.expected = estimate(fresh, self._services.control.past_runs())
            self._services.control.save_plan(self._the_claim(), run.plan, sorted(run.extracted))
            return run.plan

    def extract(self) -> None:
        """Phase 2: rows of one snapshot into staging."""
        with self._phase(Phase.EXTRACT):
            with_retries(
                partial(extract.extract, self._planned()),
                self.guard,
                partial(self._read_anew, Phase.EXTRACT),
                only=SnapshotLost,
            )

    def _read_anew(self, phase: Phase, attempt: int, error: JivsError, delay: float) -> None:
        """Forget what was read from a snapshot that is lost: all tables that are not loaded have to be of one."""
        run = self._the_run()
        run.checkpoints.retried("*", phase, None, attempt, error, delay)
        renew(run, run.plan, self._new_generation())
        note_refusals(run)
        self._services.control.save_plan(self._the_claim(), run.plan, sorted(run.extracted))
        self.progress.enter(phase, expected(run.sound, run.extracted))

    def transform(self) -> None:
        """Phase 3: rules over the staged set. Renames, drops and filters were done while reading."""
        with self._phase(Phase.TRANSFORM):
            transform.transform(self._planned())

    def validate(self) -> None:
        """Phase 4: checks over the staged set.

        Raises:
            MismatchError: rows do not pass what they must; the target is as it was.
        """
        with self._phase(Phase.VALIDATE):
            run = self._planned()
            self.validation = validate.validate(run)
            stopping = blocking(self.validation, strict=run.spec.strict)
            if stopping:
                # The rows are not loaded, and the next run reads them anew: corrected, it is hoped.
                run.staging.discard(run.key, run.epoch)
        if stopping:
            more = f" and {len(stopping) - 1} more" if len(stopping) > 1 else ""
            message = f"Validation stopped the migration before the load: {stopping[0].sentence}{more}"
            hint = f"See jivs quarantine list {run.key} for examples; correct the source or the rules and run again"
            raise self._verdict(Status.MISMATCH, MismatchError(message, hint=hint))

    def load(self) -> None:
        """Phase 5: tables, rows, keys, indexes, references."""
        with self._phase(Phase.LOAD):
            job = partial(load.load, self._planned())
            with_retries(job, self.guard, self._stream_anew, only=SnapshotLost)

    def _stream_anew(self, attempt: int, error: JivsError, delay: float) -> None:
        """The snapshot that was streamed from is lost: tables that are loaded stay, the others are read from another one."""
        run = self._the_run()
        run.let_go()
        run.loaded = load.whole(run)
        self._read_anew(Phase.LOAD, attempt, error, delay)
        extract.extract(run)

    def verify(self) -> None:
        """Phase 6: the target's rows against the source's."""
        with self._phase(Phase.VERIFY):
            run = self._planned()
            # Tables that are merged together are not loaded while one of them has failed, which `finish` says.
            if not run.loaded and run.sound and not run.failures:
                raise TerminalError(
                    "Nothing was loaded before verify", hint="Run the migration again from its start"
                )
            verify.verify(run)

    def finish(self) -> dict[str, Any]:
        """Phase 7: the verdict. Cleans up, writes the report and ends the run.

        Raises:
            TerminalError: a table failed; the message names each.
            MismatchError: a table differs from its source.
        """
        with self._phase(Phase.FINISH):
            run = self._planned()
            points = self._services.control.checkpoints(run.key)
            verified = {
                p.table: p.data for p in points if p.phase is Phase.VERIFY and p.data.get("equal") is not None
            }
            different = [t.target for t in run.sound if not verified.get(t.target, {"equal": False})["equal"]]
            self._patiently(Phase.FINISH, partial(require_ledger, run))
            if not run.failures and not different:
                self._patiently(Phase.FINISH, run.target.release)
                self._services.staging.discard(run.key, run.epoch)
        if run.failures:
            raise self._verdict(Status.FAILED, _failed_tables(run))
        if different:
            message = f"{len(different)} of {len(run.plan.tables)} tables differ from the source: {', '.join(different)}"
            raise self._verdict(
                Status.MISMATCH, MismatchError(message, hint=f"See jivs verify {run.key} --level rows")
            )
        self._end(Status.COMPLETED, None)
        return self.document()

    def document(self) -> dict[str, Any]:
        """The document of the contract, of this run or of the one that finished before."""
        if self._last is not None:
            return self._last
        control = self._services.control
        row = control.migration(self._spec.key)
        key = self._spec.key
        return build_document(row, control.checkpoints(key), control.performance(key), control.incidents(key))

    # Inside

    def _named(self, **more: str) -> AbstractContextManager[None]:
        """Log records inside of the block say which run they are of."""
        return bound_contextvars(key=self._spec.key, run_id=self._run_id, **more)

    def _the_run(self) -> Run:
        if self._run is None:
            raise TerminalError("The run was not begun", hint="This is a bug; please report it")
        return self._run

    def _the_claim(self) -> Claim:
        if self._claim is None:
            raise TerminalError("The run was not begun", hint="This is a bug; please report it")
        return self._claim

    def _planned(self) -> Run:
        """The run with a plan; one that Dagster starts in the middle has it from the control database."""
        run = self._the_run()
        if not run.plan.tables:
            raise SpecError(f"Migration {run.key!r} has no plan yet", hint="Run it from its first op, plan")
        return run

    def _patiently(self, phase: Phase, job: Callable[[], _T]) -> _T:
        """A job of the run as a whole: a fault of the moment does not end it."""
        return with_retries(job, self.guard, partial(self._the_run().checkpoints.retried, "*", phase, None))

    @contextmanager
    def _phase(self, phase: Phase) -> Iterator[None]:
        self._catch_up(phase)
        with self._named(phase=phase.value), self._measured(phase):
            yield

    @contextmanager
    def _measured(self, phase: Phase) -> Iterator[None]:
        self.guard.check()
        run, control = self._the_run(), self._services.control
        if phase not in {Phase.PLAN, Phase.EXTRACT} and run.snapshot is None:
            # Nothing is asked of the source any more; its connection is another migration's now.
            run.source.close()
        control.set_phase(self._the_claim(), phase)
        self.progress.enter(phase, expected(run.sound, run.extracted))
        _LOG.info("Phase begins")
        usage = resource.getrusage(resource.RUSAGE_SELF)
        try:
            yield
        finally:
            seconds, progress = self.progress.leave(phase), self.progress
            counted = {"rows": progress.rows, "bytes": progress.bytes, "seconds": round(seconds, 3)}
            _LOG.info("Phase over", extra=counted)
            after = resource.getrusage(resource.RUSAGE_SELF)
            with suppress(JivsError):
                control.measure(
                    self._the_claim(),
                    phase,
                    {
                        "seconds": seconds,
                        "rows": self.progress.rows,
                        "bytes": self.progress.bytes,
                        "cpu_seconds": after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime,
                        "peak_rss": after.ru_maxrss * 1024,
                        "samples": self.progress.samples() if phase is Phase.LOAD else [],
                    },
                )

    def _catch_up(self, phase: Phase) -> None:
        """A run that Dagster starts in the middle ("from failure") does first what is missing before it.

        Otherwise a table that failed in an early phase, whose verdict only `finish` gives, would never be repaired.
        """
        first, self._first = self._first, False
        run = self._the_run()
        if not first or phase is Phase.PLAN or not run.plan.tables:
            return
        behind = phase in {Phase.VERIFY, Phase.FINISH} and any(
            t.target not in run.loaded for t in run.plan.carried
        )
        if run.failures or behind or not resumable(run):
            for earlier in list(Phase)[: list(Phase).index(phase)]:
                getattr(self, earlier.value)()

    def _verdict(self, status: Status, error: JivsError) -> JivsError:
        self._end(status, error)
        self.error = error
        return error

    def _end(self, status: Status, error: JivsError | None) -> None:
        with self._named():
            self._write_end(status, error)
            level = logging.ERROR if status in {Status.FAILED, Status.MISMATCH} else logging.INFO
            _LOG.log(level, "Ended as %s%s", status.value, f": {error.message}" if error else "")

    def _write_end(self, status: Status, error: JivsError | None) -> None:
        control, claim, services = self._services.control, self._the_claim(), self._services
        fields = error.document()["error"] if error else None
        row = {
            **control.migration(claim.key),
            "status": status,
            "error": fields,
            "finished_at": services.now(),
        }
        document = build_document(
            row, control.checkpoints(claim.key), control.performance(claim.key), control.incidents(claim.key),
            resumed=claim.resumed, versions=services.versions, seconds=self.progress.seconds, failures=self._failures(),
            expected=self.expected,
        )  # fmt: skip
        # The page is put in place once the state stands: an overtaken run must not replace its successor's.
        with pending_report(document, services.reports / f"{claim.key}.html", services.report_key) as report:
            document["report"] = report
            if self._pulse is not None:
                self._pulse.stop()
            # Before the end: whoever acts on it must not find a lease that nobody needs any more.
            services.leases.release(claim.key)
            control.end(claim, status, error=fields, result=document)
            self._ended_as, self._last = status, json.loads(json.dumps(document))

    def _new_generation(self) -> str:
        """Names an extraction by the epoch that makes it, so that no older run can take it for its own."""
        return f"{self._the_claim().epoch:010d}-{self._services.new_id()}"

    def _failures(self) -> Mapping[str, Mapping[str, Any]]:
        return {t: f.stored() for t, f in self._run.failures.items()} if self._run else {}


def _failed_tables(run: Run) -> TerminalError:
    names = ", ".join(sorted(run.failures))
    first = next(iter(run.failures.values()))
    message = f"{len(run.failures)} of {len(run.plan.tables)} tables failed ({names}): {first.message}"
    return TerminalError(
        message, hint=first.hint or f"Correct it and run {run.key} again; the other tables are kept"
    )
