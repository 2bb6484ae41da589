"""One table's chunks from a snapshot into the target: what is recorded, what fails, and that no reader is left standing."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.errors import SnapshotLost, TerminalError, TransientError
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, Plan, TablePlan, Wire
from jivs_pipeline.core.ports import CopiedRows, LedgerView
from jivs_pipeline.core.spec import Quarantine
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine import pool
from jivs_pipeline.engine.load import load, whole
from jivs_pipeline.engine.pool import Guard
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.engine.resume import resumable
from jivs_pipeline.engine.run import Extracted, Run

TABLE = TablePlan(
    source_schema="public", source_table="t", target_schema="public", target_table="t",
    columns=(ColumnPlan(source="a", target="a", source_type="text", target_type="text"),),
    lane=Lane.COPY, wire=Wire.BINARY, spelling=Spelling.RECORD, chunks=(Chunk(index=0), Chunk(index=1)), streamed=True,
)  # fmt: skip


class _Snapshot:
    """Two rows of five bytes per chunk, in two pieces."""

    consistency = "one snapshot"

    def __init__(self) -> None:
        self.open = 0
        self.errors: dict[int, list[Exception]] = {}

    def digest(self, _: TablePlan, chunk: Chunk) -> Digest:
        if errors := self.errors.get(chunk.index):
            raise errors.pop(0)
        return Digest(2, chunk.index, 7)

    def copy(self, _: TablePlan, __: Chunk) -> Iterator[CopiedRows]:
        assert self.open == 0, "a reader of an earlier attempt still stands in its COPY"
        self.open += 1
        try:
            yield CopiedRows(bytearray(b"first"), 1)
            yield CopiedRows(bytearray(b"again"), 1)
        finally:
            self.open -= 1

    def next_values(self, _: TablePlan) -> dict[str, int]:
        return {"a": 9}


class _Target:
    def __init__(self) -> None:
        self.chunks: dict[int, Any] = {}
        self.errors: list[Exception] = []
        self.kept: list[Exception] = []

    def ledger(self, *_: object) -> LedgerView:
        return LedgerView(epoch=1)

    def load_chunk(
        self,
        _: TablePlan,
        chunk: Chunk,
        generation: str,
        rows: int,
        size: int | None,
        digest: str,
        pieces: Any,
    ) -> bool:
        if chunk.index in self.chunks:
            return False  # as the ledger says of a commit whose answer was lost
        first = next(pieces)
        if self.errors and not isinstance(self.errors[0], _Unanswered):
            # An error keeps the frames that it went through, and so whatever they have in hand.
            self.kept.append(error := self.errors.pop(0))
            raise error
        self.chunks[chunk.index] = (generation, rows, size, digest, bytes(first) + b"".join(pieces))
        if self.errors:
            raise self.errors.pop(0)
        return True

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


class _Unanswered(TransientError):
    """The commit stands, and nobody says so."""


class _Checkpoints:
    def __init__(self) -> None:
        self.done_: list[tuple[Phase, dict[str, Any]]] = []
        self.failures: dict[str, str] = {}

    def done(self, _: str, phase: Phase, __: str, **counted: Any) -> None:
        self.done_.append((phase, counted))

    def failed(self, table: str, _: object, __: str, data: dict[str, Any]) -> None:
        self.failures[table] = data["message"]

    def retried(self, *_: object) -> None: ...


class _Builder:
    def number(self, _: TablePlan, next_values: dict[str, int]) -> list[str]:
        return [str(next_values)]

    def __getattr__(self, _: str) -> Any:
        return lambda *_: []


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FIRST_DELAY_SECONDS", 0.0)


def _run() -> tuple[Run, _Snapshot, _Target, _Checkpoints]:
    snapshot, target, checkpoints = _Snapshot(), _Target(), _Checkpoints()
    plan = Plan(
        key="k", spec_hash="", source="s", target="t", source_dialect="", source_version="", target_version="",
        tables=(TABLE,),
    )  # fmt: skip
    run = Run(
        spec=cast("Any", SimpleNamespace(key="k", parallelism=1, verify="digest", quarantine=Quarantine())), run_id="r", control_id="c", epoch=1,
        owner="o", source=cast("Any", None), target=cast("Any", target), staging=cast("Any", None),
        checkpoints=cast("Any", checkpoints), builder=cast("Any", _Builder()), guard=Guard(), progress=Progress(),
        pace=cast("Any", SimpleNamespace(took=lambda *_: None, settle=lambda: None)), plan=plan, generation="new",
        rules=cast("Any", None), snapshot=cast("Any", snapshot),
    )  # fmt: skip
    return run, snapshot, target, checkpoints


def test_the_manifest_is_recorded_with_the_load():
    run, _, target, checkpoints = _run()
    load(run)
    sent = b"firstagain"
    assert target.chunks == {n: ("new", 2, None, Digest(2, n, 7).hex, sent) for n in (0, 1)}
    assert [phase for phase, _ in checkpoints.done_] == [Phase.EXTRACT, Phase.LOAD]
    assert all((c["rows"], c["size"], c["chunks"]) == (4, 20, 2) for _, c in checkpoints.done_)
    manifest = Extracted.parse("new", checkpoints.done_[0][1]["data"])
    assert manifest == run.extracted["public.t"]
    assert manifest.digest == Digest(4, 1, 14)
    assert manifest.next_values == {"a": 9}
    assert run.loaded == {"public.t"}
    assert run.snapshot is None


def test_a_reader_is_given_back_before_its_chunk_is_tried_again():
    """Else the next attempt waits for a place that the one before still holds."""
    run, _, target, _ = _run()
    target.errors = [TransientError("cut"), TransientError("cut")]
    load(run)
    assert len(target.chunks) == 2
    assert run.loaded == {"public.t"}


def test_bytes_are_known_although_the_answer_to_the_commit_was_lost():
    run, _, target, _ = _run()
    target.errors = [_Unanswered("cut at the commit")]
    load(run)
    assert [c.bytes for c in run.extracted["public.t"].chunks] == [10, 10]


def test_a_table_that_fails_has_no_manifest_and_is_not_loaded():
    run, snapshot, _, checkpoints = _run()
    snapshot.errors = {1: [TerminalError("no such value")]}
    load(run)
    assert checkpoints.failures == {"public.t": "no such value"}
    assert run.extracted == {}
    assert run.loaded == whole(run) == set()


def test_a_lost_snapshot_is_not_waited_for_but_told():
    """Another attempt would find the same; all that is not loaded has to be read from another one."""
    run, snapshot, _, checkpoints = _run()
    snapshot.errors = {1: [SnapshotLost("gone"), AssertionError("tried again")]}
    with pytest.raises(SnapshotLost):
        load(run)
    assert checkpoints.failures == {}
    assert whole(run) == set()


def test_a_run_that_goes_on_reads_a_streamed_table_again_unless_it_is_loaded():
    run, _, _, _ = _run()
    load(run)
    assert resumable(run)
    run.loaded = set()
    assert not resumable(run)
