"""Fakes at the ports, as far as planning needs them. What does not belong here: anything that moves a row.

They hold what a test gives them and note what they were asked; verbs that would touch a database raise.
"""

# ruff: noqa: ARG002 - a port has the arguments that its caller gives

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from jivs_pipeline.core.digest import Canon, Digest, Spelling
from jivs_pipeline.core.model import Catalog, Column, ServerInfo, Table
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, Range, TablePlan, Wire
from jivs_pipeline.core.ports import ExistingTable, LedgerView, Piece, Snapshot, Survey

__all__ = ["FakeSource", "FakeTarget", "survey_of"]


def survey_of(columns: Sequence[Column], **changes: Any) -> Survey:
    """A survey of 10 rows and 100 bytes that carries `columns` as they are declared."""
    values: dict[str, Any] = {
        "rows": 10,
        "rows_exact": True,
        "bytes": 100,
        "chunk_by": ChunkBy.WHOLE,
        "chunk_columns": (),
        "chunks": (Chunk(index=0),),
        "columns": tuple(
            ColumnPlan(
                source=c.name,
                target=c.name,
                source_type=c.type,
                target_type=c.type,
                arrow="string",
                canon=Canon.TEXT,
            )
            for c in columns
        ),
        "lane": Lane.ARROW,
        "wire": Wire.BINARY,
        "spelling": Spelling.CANONICAL,
    }
    return Survey(**{**values, **changes})


class FakeSource:
    """A source whose catalog is given.

    Args:
        surveys: table name -> what differs from `survey_of`, by field.

    Attributes:
        asked: table name -> the columns, the filter and the chunk size that its survey was asked for.
    """

    def __init__(self, catalog: Catalog, surveys: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._catalog = catalog
        self._surveys = surveys or {}
        self.schema: str | None = "never asked"
        self.asked: dict[str, tuple[tuple[str, ...], str | None, int]] = {}

    def info(self) -> ServerInfo:
        return ServerInfo("legacy", "sqlite", "3.45")

    def catalog(self, schema: str | None) -> Catalog:
        self.schema = schema
        return self._catalog

    def survey(self, table: Table, columns: Sequence[Column], where: str | None, chunk_bytes: int) -> Survey:
        self.asked[table.name] = (tuple(c.name for c in columns), where, chunk_bytes)
        return survey_of(columns, **self._surveys.get(table.name, {}))

    def snapshot(self, readers: int) -> AbstractContextManager[Snapshot]:
        raise AssertionError("planning opens no snapshot")

    def close(self) -> None: ...


def _touched(verb: str) -> NoReturn:
    raise AssertionError(f"planning touches nothing, but it called {verb}")


class FakeTarget:
    """A target that has some tables, and a ledger.

    Args:
        existing: what is there, by name.
        made: `schema.table` of those that this migration made.
        rows: of each table, with keys from 0 on.
    """

    def __init__(
        self, existing: Iterable[ExistingTable] = (), made: Iterable[str] = (), rows: int = 0
    ) -> None:
        self.rows = rows
        self._existing = {t.name: t for t in existing}
        self._made = tuple(made)
        self.inspected: tuple[str, tuple[str, ...]] = ("", ())

    def info(self) -> ServerInfo:
        return ServerInfo("warehouse", "postgresql", "18.1")

    def inspect(self, schema: str, names: Sequence[str]) -> Mapping[str, ExistingTable]:
        self.inspected = (schema, tuple(names))
        return {n: t for n, t in self._existing.items() if n in names}

    def objects(self, schema: str) -> frozenset[tuple[str, str]]:
        return frozenset(("table", name) for name in self._existing)

    def ledger(self, key: str, since: int = 0) -> LedgerView:
        return LedgerView(epoch=1, steps={(table, "create"): ("g1", {}) for table in self._made})

    def claim(self, key: str, control_id: str, epoch: int, owner: str) -> None:
        _touched("claim")

    def release(self) -> None:
        _touched("release")

    def ensure_schema(self, schema: str) -> None:
        _touched("ensure_schema")

    def reset(self, table: TablePlan) -> None:
        _touched("reset")

    def apply(self, step: Any, generation: str) -> bool:
        _touched("apply")

    def load_chunk(
        self,
        table: TablePlan,
        chunk: Chunk,
        generation: str,
        rows: int,
        size: int,
        digest: str,
        pieces: Iterable[Piece],
    ) -> bool:
        _touched("load_chunk")

    def digest(self, table: TablePlan) -> Digest:
        _touched("digest")

    def digest_now(self, table: TablePlan) -> Digest:
        _touched("digest_now")

    def cuts(self, table: TablePlan, within: Range, rows: int) -> tuple[int, ...]:
        return tuple(range(rows, self.rows, rows))

    def count(self, table: TablePlan) -> int:
        _touched("count")

    def close(self) -> None: ...


def _is_source(source: FakeSource) -> Any:
    """Whether the fakes still fit their ports is the type checker's to say."""
    from jivs_pipeline.core.ports import Source
    from jivs_pipeline.engine.ports import Target

    checked: Callable[[Source, Target], Any] = lambda *_: None  # noqa: E731
    return checked(source, FakeTarget())
