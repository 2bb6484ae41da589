"""What is staged is of one snapshot, and is what the source says that it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from jivs_pipeline.core.claims import Claim, Owner
from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.errors import SnapshotLost
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, Plan, TablePlan, Wire
from jivs_pipeline.core.ports import CopiedRows
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.engine.arrow_types import arrow_schema
from jivs_pipeline.engine.migrate import Migration
from jivs_pipeline.engine.pace import Pace
from jivs_pipeline.engine.run import Run
from jivs_pipeline.engine.services import Services
from jivs_pipeline.infra.staging import Staging


def _plan(lane: Lane) -> Plan:
    tables = tuple(
        TablePlan(
            source_schema="main", source_table=name, target_schema="public", target_table=name, lane=lane,
            columns=(ColumnPlan(source="a", target="a", source_type="?", target_type="text", arrow="string"),),
            wire=Wire.BINARY, spelling=Spelling.CANONICAL, chunks=(Chunk(index=0), Chunk(index=1)),
        )
        for name in ("t", "u")
    )  # fmt: skip
    return Plan(
        key="k", spec_hash="", source="s", target="t", source_dialect="", source_version="", target_version="",
        tables=tables,
    )  # fmt: skip


class _Snapshot:
    consistency = "one snapshot"

    def __init__(self, name: str, lost_at: tuple[str, int] | None = None, rows: int = 1) -> None:
        self._name = name
        self._lost_at = lost_at
        self._rows = rows

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[CopiedRows]:
        yield CopiedRows(f"{self._name} {table.target} {chunk.index}".encode(), 1)
        if (table.target, chunk.index) == self._lost_at:
            raise SnapshotLost("the session that held it was lost")

    def batches(self, table: TablePlan, _: Chunk) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([["a row"]], schema=arrow_schema(table.columns))

    def digest(self, *_: object) -> Digest:
        return Digest(self._rows, 2, 3)

    def next_values(self, _: TablePlan) -> Mapping[str, int]:
        return {}


def _migration(
    root: Path, lane: Lane, snapshots: list[_Snapshot], monkeypatch: pytest.MonkeyPatch, parallelism: int = 1
) -> tuple[Run, Migration, dict[str, str]]:
    failures: dict[str, str] = {}

    @contextmanager
    def snapshot(*_: object) -> Iterator[_Snapshot]:
        yield snapshots.pop(0)

    def failed(table: str, _: object, __: str, data: Mapping[str, Any]) -> None:
        failures[table] = data["message"]

    def ignore(*_: object, **__: object) -> None: ...

    nothing = cast("Any", None)
    control = SimpleNamespace(set_phase=ignore, measure=ignore, save_plan=ignore)
    ids = count()
    services = Services(
        control=cast("Any", control), staging=Staging(root), builder=nothing, rules=cast("Any", None), leases=nothing, ends=nothing, opened=nothing,
        opened_target=nothing, take=nothing, take_over=nothing, reports=root, new_id=lambda: f"{next(ids)}",
        versions={}, now=nothing, rate=lambda _: lambda _: 0.0,
        report_key=nothing,
    )  # fmt: skip
    spec = Spec(key="k", source="s", target="t", parallelism=parallelism)
    made = Migration(services, spec, "r")
    made._first = False
    made._claim = Claim("k", 1, "r", Owner("o", "h", "b", 1, "1"), resumed=False, plan=None, same_spec=True)
    checkpoints = SimpleNamespace(done=ignore, retried=ignore, failed=failed)
    made._run = Run(
        spec=spec, run_id="r", control_id="c", epoch=1, owner="o", source=cast("Any", SimpleNamespace(snapshot=snapshot)),
        target=nothing, staging=services.staging, checkpoints=cast("Any", checkpoints), builder=nothing, rules=cast("Any", None),
        guard=made.guard, progress=made.progress,
        pace=Pace(spec.limits, lambda _: 0.0, made.guard), plan=_plan(lane), generation=made._new_generation(),
    )  # fmt: skip
    monkeypatch.setattr(made.guard, "sleep", ignore)
    return made._run, made, failures


def test_a_lost_snapshot_begins_the_extraction_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also for the table that was staged as a whole: rows of two snapshots never go together."""
    snapshots = [_Snapshot("first", lost_at=("public.u", 0)), _Snapshot("second")]
    run, made, failures = _migration(tmp_path, Lane.COPY, snapshots, monkeypatch)
    before = run.generation
    made.extract()
    staged = {
        run.staging.path("k", m.generation, c.name).read_text()
        for m in run.extracted.values()
        for c in m.chunks
    }
    assert staged == {f"second public.{t} {n}" for t in ("t", "u") for n in range(2)}
    assert {m.generation for m in run.extracted.values()} == {run.generation} != {before}
    assert [d.name for d in next(tmp_path.iterdir()).iterdir()] == [run.generation]
    assert failures == {}


def test_two_reads_that_differ_fail_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The digest is a read of its own; a source that changed between the two is not loaded."""
    run, made, failures = _migration(tmp_path, Lane.ARROW, [_Snapshot("s", rows=3)], monkeypatch)
    made.extract()
    assert run.extracted == {}
    assert failures["public.t"] == "Two reads of chunk 0 of main.t gave 1 and 3 rows"


class _Meeting(_Snapshot):
    """A digest ends when the rows of its chunk are being read, and they end after it."""

    def __init__(self) -> None:
        super().__init__("s")
        self._both = Barrier(2, timeout=20)

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        self._both.wait()
        yield from super().batches(table, chunk)

    def digest(self, _: TablePlan, chunk: Chunk) -> Digest:
        self._both.wait()
        return Digest(1, 2, chunk.index)


def test_the_two_reads_of_a_chunk_go_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whichever is done first."""
    run, made, failures = _migration(tmp_path, Lane.ARROW, [_Meeting()], monkeypatch, parallelism=2)
    made.extract()
    assert failures == {}
    found = {t: [(c.rows, c.digest) for c in m.chunks] for t, m in run.extracted.items()}
    expected = [(1, Digest(1, 2, n)) for n in range(2)]
    assert found == {"public.t": expected, "public.u": expected}
