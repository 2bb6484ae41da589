"""What is loaded again and what is not, and that nothing is loaded unchecked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, Plan, TableMode, TablePlan, Wire
from jivs_pipeline.core.ports import LedgerView, Piece
from jivs_pipeline.core.spec import Quarantine
from jivs_pipeline.engine.arrow_types import arrow_schema
from jivs_pipeline.engine.load import load
from jivs_pipeline.engine.pool import Guard
from jivs_pipeline.engine.progress import Progress
from jivs_pipeline.engine.run import ChunkFile, Extracted, Run
from jivs_pipeline.infra.staging import Staging

TEXT = "never loaded when damaged"


def _table(lane: Lane, mode: TableMode = TableMode.CREATE) -> TablePlan:
    return TablePlan(
        source_schema="main", source_table="t", target_schema="public", target_table="t",
        columns=(ColumnPlan(source="a", target="a", source_type="?", target_type="text", arrow="string"),),
        lane=lane, wire=Wire.BINARY, spelling=Spelling.CANONICAL, mode=mode, chunks=(Chunk(index=0), Chunk(index=1)),
    )  # fmt: skip


class _Target:
    """Notes what was done to it, in order."""

    def __init__(self, ledger: LedgerView) -> None:
        self._ledger = ledger
        self.done: list[Any] = []

    def claim(self, *_: object) -> None: ...

    def ensure_schema(self, _: str) -> None: ...

    def ledger(self, *_: object) -> LedgerView:
        return self._ledger

    def reset(self, table: TablePlan) -> None:
        self.done.append(("reset", table.target))

    def apply(self, step: Any, generation: str) -> bool:
        self.done.append((step, generation))
        return True

    def load_chunk(self, _: TablePlan, chunk: Chunk, generation: str, *rest: Any) -> bool:
        pieces: Iterable[Piece] = rest[-1]
        assert b"".join(bytes(piece) for piece in pieces)
        self.done.append((chunk.index, generation))
        return True


class _Checkpoints:
    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.loaded: list[str] = []

    def done(self, table: str, *_: object, **__: object) -> None:
        self.loaded.append(table)

    def failed(self, table: str, _: object, __: str, data: Mapping[str, Any]) -> None:
        self.failures[table] = data["message"]

    def retried(self, *said: object) -> None:
        pytest.fail(f"nothing in here is of the moment: {said}")


class _Builder:
    def create(self, *_: object) -> list[str]:
        return ["create"]

    def __getattr__(self, _: str) -> Any:
        return lambda *_: []


def _run(root: Path, table: TablePlan, ledger: LedgerView) -> tuple[Run, _Target, _Checkpoints]:
    staging, files = Staging(root), []
    staging.prepare("k", "new")
    for chunk in table.chunks:
        with staging.writing("k", "new", f"{chunk.index}") as sink:
            if table.lane is Lane.COPY:
                sink.write(TEXT.encode())
            else:
                schema = arrow_schema(table.columns)
                with pa.ipc.new_file(sink, schema) as writer:
                    writer.write_batch(pa.record_batch([[TEXT]], schema=schema))
            size, digest = sink.bytes, sink.digest
        files.append(ChunkFile(chunk.index, f"{chunk.index}", 1, size, digest, Digest(1, 2, 3)))
    target, checkpoints = _Target(ledger), _Checkpoints()
    plan = Plan(
        key="k", spec_hash="", source="s", target="t", source_dialect="", source_version="", target_version="",
        tables=(table,),
    )  # fmt: skip
    run = Run(
        spec=cast("Any", SimpleNamespace(key="k", parallelism=1, quarantine=Quarantine())), run_id="r", control_id="c", epoch=1, owner="o",
        source=cast("Any", None), target=cast("Any", target), staging=staging, checkpoints=cast("Any", checkpoints),
        builder=cast("Any", _Builder()), rules=cast("Any", None), guard=Guard(), progress=Progress(), pace=cast("Any", None), plan=plan,
        extracted={table.target: Extracted("new", tuple(files), {}, "one snapshot")},
    )  # fmt: skip
    return run, target, checkpoints


def _ledger(generation: str, *more: tuple[str, str]) -> LedgerView:
    """The first chunk is in, and what it landed in."""
    return LedgerView(
        epoch=1,
        steps={step: (generation, {}) for step in (("public.t", "create"), *more)},
        chunks={("public.t", 0): (generation, 1, 1)},
    )


def test_what_the_ledger_has_is_not_loaded_again(tmp_path: Path):
    _, target, checkpoints = _loaded(tmp_path, _ledger("new"))
    assert target.done == [("create", "new"), (1, "new")]
    assert checkpoints.loaded == ["public.t"]


def test_a_table_of_another_extraction_is_made_anew(tmp_path: Path):
    """Else rows of two snapshots would be in it, or none where both have the chunk."""
    _, target, checkpoints = _loaded(tmp_path, _ledger("old"))
    assert target.done == [("reset", "public.t"), ("create", "new"), (0, "new"), (1, "new")]
    assert checkpoints.loaded == ["public.t"]


def test_rows_of_another_extraction_that_were_merged_stay(tmp_path: Path):
    """They are among others' and cannot be told from them."""
    run, target, checkpoints = _loaded(tmp_path, _ledger("old", ("*", "merge")), TableMode.APPEND)
    assert target.done == []
    assert checkpoints.failures["public.t"].startswith("Rows of an earlier extraction were already merged")
    assert run.loaded == set()


def _loaded(
    root: Path, ledger: LedgerView, mode: TableMode = TableMode.CREATE
) -> tuple[Run, _Target, _Checkpoints]:
    run, target, checkpoints = _run(root, _table(Lane.COPY, mode), ledger)
    load(run)
    return run, target, checkpoints


@pytest.mark.parametrize("lane", list(Lane))
def test_a_staged_file_is_checked_before_it_is_loaded(tmp_path: Path, lane: Lane):
    """One byte of a value has changed, and the file can be read all the same."""
    run, target, checkpoints = _run(tmp_path, _table(lane), LedgerView())
    path = run.staging.path("k", "new", "1")
    content = path.read_bytes()
    assert content.count(b"never") == 1
    path.write_bytes(content.replace(b"never", b"always"[:5]))
    load(run)
    assert target.done == [("create", "new"), (0, "new")]
    assert "is damaged" in checkpoints.failures["public.t"]
    assert checkpoints.loaded == []
