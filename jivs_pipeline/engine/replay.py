"""`jivs quarantine replay`: rows in quarantine are read anew, and those that are good now go into the target, once.

What belongs here: the order of claiming, reading, loading and forgetting. What does not: reading a row again
(`infra/sources/`) and the transactions (`infra/target.py`, `infra/quarantine.py`).

A replay holds the migration like a run does. Rows are added to the target together with a step in its ledger that says
which they are, and leave the quarantine afterwards: a replay that was killed in between finds the step and does not add
them again. Where the target does not take a row of several, each of them gets a transaction of its own.

Rules that a replay is given stand in the plan behind those of the run before a row is made by them (`new_rules.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from jivs_pipeline.core.claims import Claim
from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import ConfigError, DataError, JivsError
from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.plan import RULED, Plan, TablePlan, Wire
from jivs_pipeline.core.ports import Sieve, Snapshot, Source
from jivs_pipeline.core.quarantine import Again, KeptRow, Regained, RejectedBy, value_of
from jivs_pipeline.core.spec import Spec, parse_spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.engine.encode import encode_batches
from jivs_pipeline.engine.new_rules import with_new_rules
from jivs_pipeline.engine.order import parents_first
from jivs_pipeline.engine.pool import Guard, with_retries
from jivs_pipeline.engine.ports import Target
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.engine.pulse import Pulse
from jivs_pipeline.engine.run import Extracted
from jivs_pipeline.engine.services import Services
from jivs_pipeline.engine.steering import settle_dead

__all__ = ["Outcome", "replay"]

_TRIED: tuple[RejectedBy, ...] = ("source", "rules", "target")


@dataclass(slots=True)
class Outcome:
    """What became of the rows: how many went in by table, and of those that stay how many for which reason."""

    went_in: dict[str, int] = field(default_factory=dict[str, int])
    stay: dict[tuple[str, str | None, str], int] = field(
        default_factory=dict[tuple[str, str | None, str], int]
    )

    def document(self, key: str) -> dict[str, Any]:
        """The JSON form."""
        return {
            "key": key,
            "replayed": sum(self.went_in.values()),
            "stayed": sum(self.stay.values()),
            "tables": [{"table": t, "replayed": n} for t, n in sorted(self.went_in.items())],
            "reasons": [
                {"table": table, "column": column, "reason": reason, "rows": rows}
                for (table, column, reason), rows in sorted(self.stay.items(), key=str)
            ],
        }

    def stays(self, table: str, column: str | None, reason: str, rows: int = 1) -> None:
        """Count rows that stay."""
        place = (table, column, reason)
        self.stay[place] = self.stay.get(place, 0) + rows


def replay(services: Services, key: str, run_id: str, given: Spec | None = None) -> Outcome:
    """Try the rows in quarantine again.

    Args:
        given: a spec with other rules, for rows that those before it reject.

    Raises:
        ConfigError: there is no such migration, nothing of it is loaded, or an end does not let us in.
        SpecError: the given spec changes what a replay cannot change.
        ConflictError: it is held by somebody, or its state does not allow it.
    """
    settle_dead(services, key, Status.FAILED)
    row = services.control.migration(key)
    if row["plan"] is None:
        raise ConfigError(f"Migration {key!r} has loaded nothing yet", hint=f"Run {key} first")
    if parse_spec(row["spec"]).type == "incremental":
        raise ConfigError(
            f"Migration {key!r} is incremental: each of its runs tries the rows in quarantine again",
            hint="Run it again",
        )
    waiting = services.control.quarantine.tables(key)
    outcome = Outcome()
    spec, plan = parse_spec(row["spec"]), Plan.model_validate(row["plan"])
    amended = plan if given is None else with_new_rules(plan, spec, given, set(waiting), services.rules)
    with services.opened(spec) as (source, target), _held(services, key, run_id, target) as (claim, guard):
        if amended != plan:
            plan = amended
            with_retries(partial(services.control.quarantine.amend, claim, plan), guard, _tell_nobody)
        points = services.control.checkpoints(key)
        loaded = {p.table for p in points if p.phase is Phase.LOAD and p.ok}
        # What rules have made of a table has a manifest of its own, which stands behind that of the extraction.
        manifests = {
            p.table: Extracted.parse(p.generation, p.data)
            for phase in (Phase.EXTRACT, Phase.TRANSFORM)
            for p in points
            if p.phase is phase and p.ok and p.table in loaded
        }
        read = {p.table: p for p in points if p.phase is Phase.EXTRACT and p.ok}
        for table in parents_first(plan.carried):
            if rows := waiting.get(table.target, 0):
                if table.target in manifests:
                    manifest = manifests[table.target]
                    one = _Table(services, claim, guard, source, target, table, manifest, plan.tables)
                    if table.rules is not None and (point := read.get(table.target)):
                        one.read = Extracted.parse(point.generation, point.data)
                    one.replay(outcome)
                else:
                    outcome.stays(table.target, None, "the table is not loaded", rows)
    return outcome


@contextmanager
def _held(services: Services, key: str, run_id: str, target: Target) -> Iterator[tuple[Claim, Guard]]:
    """The migration, held like by a run, and the target claimed for it."""
    claim = services.take_over(key, run_id, target.ledger(key).epoch)
    guard = Guard(services.patience_seconds)
    guard.on_interrupt(target.interrupt)
    pulse = Pulse(services.control, services.leases, claim, guard, Progress(), services.pulse_seconds)
    try:
        with_retries(partial(target.take_permits, 1), guard, _tell_nobody)
        claiming = partial(target.claim, key, services.control.control_id(), claim.epoch, claim.owner.owner)
        with_retries(claiming, guard, _tell_nobody)
        yield claim, guard
        with_retries(target.release, guard, _tell_nobody)
    finally:
        pulse.stop()
        with suppress(JivsError):
            services.control.release(claim)
        services.leases.release(key)


def _tell_nobody(_attempt: int, _error: JivsError, _delay: float) -> None:
    """Retries are events of runs; this is none."""


class _Table:
    """One table's rows in quarantine."""

    def __init__(
        self,
        services: Services,
        claim: Claim,
        guard: Guard,
        source: Source,
        target: Target,
        table: TablePlan,
        manifest: Extracted,
        tables: Sequence[TablePlan],
    ) -> None:
        self._rules = services.rules
        self._tables = tables
        self._room = services.staging.path(claim.key, manifest.generation, ".")
        self._store = services.control.quarantine
        self._claim = claim
        self._guard = guard
        self._source = source
        self._target = target
        self._table = table
        self._manifest = manifest
        self.read: Extracted | None = None
        """Of a table with rules, the extraction before them."""

    def replay(self, outcome: Outcome) -> None:
        """Try all rows, some at a time."""
        self._finish(outcome)
        for by in _TRIED:
            after = 0
            while rows := self._store.page(self._claim.key, self._table.target, after, by):
                self._guard.check()
                after = rows[-1].id
                if by == "target":
                    self._try_as_kept(rows, outcome)
                else:
                    self._try(rows, outcome, ruled=by == "rules")

    def _finish(self, outcome: Outcome) -> None:
        """Rows that a replay has added and not taken out of the quarantine any more."""
        ledger = self._target.ledger(self._claim.key)
        done = [
            undo["replayed"]
            for (name, _), (generation, undo) in ledger.steps.items()
            if name == self._table.target and generation == self._manifest.generation and "replayed" in undo
        ]
        for noted in done:
            if noted["chunk"] < 0:
                self._let_go(noted["ids"], outcome)
                continue
            before = Digest.parse(noted["read"]) if noted.get("read") else None
            self._forget(noted["ids"], noted["chunk"], Digest.parse(noted["digest"]), before, outcome)

    def _try(self, rows: Sequence[KeptRow], outcome: Outcome, *, ruled: bool) -> None:
        table = self._table
        with self._source.snapshot(1) as snapshot:
            read = self._reading(snapshot, rows, ruled=ruled)
            if read is None:
                outcome.stays(table.target, None, "its source cannot read single rows again", len(rows))
                return
            again = read(apart=False)
            stay = dict(again.stay)
            refused: set[int] = set()
            for good in again.good:
                try:
                    self._load(good, outcome)
                except DataError:
                    refused |= set(good.ids)
            if refused:
                # Which of them it was that the target did not take: one after the other.
                single = read(apart=True)
                stay |= self._one_by_one([g for g in single.good if refused.issuperset(g.ids)], outcome)
        for column, reason in stay.values():
            outcome.stays(table.target, column, reason)
        if stay:
            with_retries(partial(self._store.stay, self._claim, stay), self._guard, _tell_nobody)

    def _try_as_kept(self, rows: Sequence[KeptRow], outcome: Outcome) -> None:
        """Rows that the target has refused, which were good in their source: as they were, until none goes in any more."""
        table = self._table
        sources = {c.target: c.source if c.carrier != RULED else c.target for c in table.columns}
        schema = pa.schema([pa.field(c.target, pa.string()) for c in table.columns])
        waiting, stay = list(rows), dict[int, tuple[str | None, str]]()
        while waiting:
            left: list[KeptRow] = []
            for row in waiting:
                self._guard.check()
                values = [[value_of(row.row.get(source))] for source in sources.values()]
                batch = pa.record_batch([pa.array(v, pa.string()) for v in values], schema=schema)
                pieces = [bytes(p) for p in encode_batches([batch], Wire.CSV)]
                name = f"take back {short_hash(self._manifest.generation, str(row.id))}"
                noted = {"ids": [row.id], "chunk": row.chunk}
                load = partial(self._target.take_back, table, name, self._manifest.generation, noted, pieces)
                try:
                    with_retries(load, self._guard, _tell_nobody)
                except DataError as error:
                    stay[row.id] = (error.column, error.message)
                    left.append(row)
                else:
                    stay.pop(row.id, None)
                    self._let_go([row.id], outcome)
            if len(left) == len(waiting):
                break
            waiting = left
        for column, reason in stay.values():
            outcome.stays(table.target, column, reason)
        if stay:
            with_retries(partial(self._store.stay, self._claim, stay), self._guard, _tell_nobody)

    def _let_go(self, ids: Sequence[int], outcome: Outcome) -> None:
        """Take rows out of the quarantine that the target has refused and has now; the ledger knows it already."""
        if not self._store.has(self._claim.key, ids):
            return
        forget = partial(self._store.replayed, self._claim, self._table.target, ids, None)
        with_retries(forget, self._guard, _tell_nobody)
        outcome.went_in[self._table.target] = outcome.went_in.get(self._table.target, 0) + len(ids)

    def _reading(
        self, snapshot: Snapshot, rows: Sequence[KeptRow], *, ruled: bool
    ) -> Callable[..., Again] | None:
        """How rows are read anew: those that rules have rejected by their keys, others by their places in the source;
        None where that cannot be.
        """
        table = self._table
        refined = self._rules.refined(snapshot, self._tables, self._room, sifts=True)
        if ruled:
            return partial(refined.again, table, rows)
        if not isinstance(snapshot, Sieve):
            return None
        if table.rules is None:
            return partial(snapshot.again, table, rows, self._manifest.digest)
        rest = self.read.digest if self.read else Digest()

        # Each by itself in any case: a row that the rules reject must not keep others out.
        return lambda **_: refined.judged(table, snapshot.again(table.as_read, rows, rest, apart=True))

    def _one_by_one(self, rows: Sequence[Regained], outcome: Outcome) -> dict[int, tuple[str | None, str]]:
        """Until none goes in any more: one may refer to another of its table."""
        stay: dict[int, tuple[str | None, str]] = {}
        waiting = list(rows)
        while waiting:
            left: list[Regained] = []
            for row in waiting:
                try:
                    self._load(row, outcome)
                except DataError as error:
                    stay[row.ids[0]] = (error.column, error.message)
                    left.append(row)
                else:
                    stay.pop(row.ids[0], None)
            if len(left) == len(waiting):
                break
            waiting = left
        return stay

    def _load(self, good: Regained, outcome: Outcome) -> None:
        """Add rows to the target, all or none.

        Raises:
            DataError: the target does not take one of them.
        """
        table, digest = self._table, good.digest
        self._guard.check()
        noted = {"rows": digest.rows, "digest": digest.stored(), "chunk": good.chunk, "ids": list(good.ids)}
        noted |= {"read": good.read.stored()} if good.read else {}
        pieces = [bytes(p) for p in encode_batches(good.batches, table.wire)]
        name = f"replay {short_hash(self._manifest.generation, *map(str, good.ids))}"
        load = partial(self._target.load_again, table, name, self._manifest.generation, noted, pieces)
        with_retries(load, self._guard, _tell_nobody)
        self._forget(good.ids, good.chunk, digest, good.read, outcome)

    def _forget(
        self, ids: Sequence[int], chunk: int, digest: Digest, before: Digest | None, outcome: Outcome
    ) -> None:
        """Take rows that are in the target out of the quarantine."""
        if not self._store.has(self._claim.key, ids):
            return
        self._manifest = self._manifest.regained(chunk, digest)
        if self.read is not None and before is not None:
            self.read = self.read.regained(chunk, before)
        read = self.read.stored() if self.read and before else None
        forget = partial(
            self._store.replayed, self._claim, self._table.target, ids, self._manifest.stored(), read
        )
        with_retries(forget, self._guard, _tell_nobody)
        outcome.went_in[self._table.target] = outcome.went_in.get(self._table.target, 0) + digest.rows
