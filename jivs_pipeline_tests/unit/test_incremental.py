"""Finding where two ends differ, and what the plan says of tables that are compared."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.errors import DataError, SpecError
from jivs_pipeline.core.model import Catalog, Column, Key, Table
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, Range, TableMode, TablePlan, Wire
from jivs_pipeline.core.ports import CopiedRows, ExistingColumn, ExistingTable
from jivs_pipeline.core.spec import parse_spec
from jivs_pipeline.engine.incremental import Comparison, joined_copies, part_of
from jivs_pipeline.engine.planning import build_plan
from jivs_pipeline.engine.pool import Guard
from jivs_pipeline.infra.rules.book import RuleBook
from jivs_pipeline.infra.rules.python_rule import PythonRules
from jivs_pipeline_tests.fakes import FakeSource, FakeTarget

Rows = dict[int, str]


def _inside(key: int, within: Range) -> bool:
    return (within[0] is None or key >= within[0]) and (within[1] is None or key < within[1])


def _digest(rows: Rows, within: Range) -> Digest:
    return sum((Digest(1, hash((k, v)), 0) for k, v in rows.items() if _inside(k, within)), Digest())


class _Source:
    def __init__(self, rows: Rows) -> None:
        self.rows, self.asked, self.hashed = rows, 0, 0
        self.fresh: list[int] = []

    def hashes(self, table: TablePlan, *_: Any) -> Iterator[tuple[bytes, tuple[str]]]:
        assert table.where == "(x) AND wm >= '7'"
        return ((b"", (str(key),)) for key in self.fresh)

    def digest(self, _: TablePlan, chunk: Chunk) -> Digest:
        self.asked += 1
        bounds = [None if b is None else int(b[0]) for b in (chunk.lower, chunk.upper)]
        digest = _digest(self.rows, (bounds[0], bounds[1]))
        self.hashed += digest.rows
        return digest


class _Target:
    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def digests_within(self, _: TablePlan, within: Range, cuts: Sequence[int]) -> tuple[Digest, ...]:
        edges = [within[0], *cuts, within[1]]
        return tuple(_digest(self.rows, part) for part in itertools.pairwise(edges))

    def highest(self, _: TablePlan, column: str) -> str:
        assert column == "wm"
        return "7"

    def cuts(self, _: TablePlan, within: Range, rows: int) -> tuple[int, ...]:
        keys = sorted(k for k in self.rows if _inside(k, within))
        return tuple(keys[rows::rows])


TABLE = TablePlan(
    source_schema="main", source_table="t", target_schema="public", target_table="t",
    columns=(ColumnPlan(source="id", target="id", source_type="bigint", target_type="bigint"),),
    lane=Lane.COPY, wire=Wire.BINARY, spelling=Spelling.RECORD, mode=TableMode.UPDATE,
    chunk_by=ChunkBy.KEY, chunk_columns=("id",), existing_key=("id",),
    chunks=(Chunk(index=0, upper=("50000",)), Chunk(index=1, lower=("50000",))),
)  # fmt: skip


def _compared(source: Rows, target: Rows, table: TablePlan = TABLE) -> tuple[list[Range], int]:
    end: Any = _Source(source)
    there: Any = _Target(target)
    comparison = Comparison(table, end, there, Guard())
    found: list[Range] = []
    for chunk in table.chunks:
        digest, ranges = comparison.differing(chunk)
        bounds = [None if b is None else int(b[0]) for b in (chunk.lower, chunk.upper)]
        assert digest == _digest(source, (bounds[0], bounds[1]))
        found += ranges
    return found, end.asked


@pytest.mark.parametrize("seed", range(6))
def test_every_difference_is_in_a_range_and_little_else(seed: int) -> None:
    """Whatever is outside of the ranges is the same; inside are at most 256 rows for each change, and it."""
    rng = random.Random(seed)
    target = dict.fromkeys(rng.sample(range(100000), 30000), "v")
    source = dict(target)
    changes = rng.choice([0, 1, 2, 5, 40])
    for key in rng.sample(sorted(target), changes):
        rng.choice(
            [
                source.pop,
                lambda k: source.update({k: "w"}),
                lambda k: source.update({k + 100_000: "n"}),
            ]
        )(key)
    ranges, asked = _compared(source, target)
    assert all(a[1] is not None and b[0] is not None and a[1] <= b[0] for a, b in itertools.pairwise(ranges))
    inside = [k for k in {**source, **target} if any(_inside(k, r) for r in ranges)]
    assert {k for k in {**source, **target} if source.get(k) != target.get(k)} <= set(inside)
    assert len(inside) <= 257 * changes + changes
    assert asked <= 2 + 3 * 16 * changes


@pytest.mark.parametrize("lies", [False, True])
def test_a_watermark_is_a_hint_and_no_proof(lies: bool) -> None:
    """Told where rows are new, nothing is halved; what it does not tell is found all the same."""
    table = TABLE.model_copy(
        update={"watermark": "wm", "watermark_column": "wm", "where": "x", "chunks": (Chunk(index=0),)}
    )
    target = dict.fromkeys(range(0, 200_000, 2), "v")
    source = {**target, **dict.fromkeys([10, 12, 50_001, 199_998, 300_000], "new")}
    there: Any = _Source(source)
    # Of keys that are new, and of one that is not.
    there.fresh = [300_000, 12, 10, 50_001, 100_000, 199_998]
    if lies:
        source |= {70_000: "untold"}
        del source[150_000]
    here: Any = _Target(target)
    _, ranges = Comparison(table, there, here, Guard()).differing(table.chunks[0])
    different = {k for k in {**source, **target} if source.get(k) != target.get(k)}
    assert all(any(_inside(k, r) for r in ranges) for k in different)
    assert all(a[1] is not None and b[0] is not None and a[1] < b[0] for a, b in itertools.pairwise(ranges))
    found = sum(any(_inside(k, r) for r in ranges) for k in {**source, **target})
    assert found == len(different) if not lies else found < 2 * 257 + len(different)
    # Once all rows, and then those that are told; without a watermark, all rows twice at least.
    if not lies:
        assert (there.hashed, there.asked) == (len(source) + 6, 6)


def test_neighbours_are_read_at_once() -> None:
    source = dict.fromkeys(range(100_000), "new")
    ranges, asked = _compared(source, dict.fromkeys(source, "old"))
    assert ranges == [(None, 50000), (50000, None)]
    assert asked < 120, "what differs all over was cut up"


def test_rows_of_an_empty_target_are_all_read() -> None:
    ranges, asked = _compared(dict.fromkeys(range(9), "v"), {})
    assert (ranges, asked) == ([(None, 50000)], 2)


def test_without_a_key_all_chunks_differ_or_none() -> None:
    table = TABLE.model_copy(update={"chunk_by": ChunkBy.CTID, "chunk_columns": ()})
    rows = dict.fromkeys(range(0, 90_000, 1000), "v")
    assert _compared(rows, rows, table)[0] == []
    assert _compared(rows, {**rows, 1: "v"}, table)[0] == [(None, None), (None, None)]


def test_a_part_is_a_chunk_of_its_own() -> None:
    chunk = TABLE.chunks[1]
    assert part_of(chunk, (-5, 7)) == Chunk(index=1, lower=("-5",), upper=("7",))
    assert part_of(chunk, (None, None)) is chunk


HEADER, TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


def _stream(*pieces: bytes) -> Iterator[CopiedRows]:
    return (CopiedRows(piece, 1) for piece in pieces)


@pytest.mark.parametrize(
    "pieces",
    [(b"",), (b"row",), (b"row", b"other row"), (b"row\xff\xff",)],
)
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_binary_streams_become_one(pieces: tuple[bytes, ...], cut: int) -> None:
    """With one header and one trailer, however the trailer was cut."""
    first, *rest = pieces
    whole = [HEADER + first, *rest, TRAILER[:cut], TRAILER[cut:]]
    streams = [_stream(*whole), _stream(HEADER + b"x" + TRAILER)]
    joined = b"".join(bytes(p.data) for p in joined_copies(Wire.BINARY, streams))
    assert joined == HEADER + b"".join(pieces) + b"x" + TRAILER


def test_no_binary_stream_is_a_stream_without_rows() -> None:
    assert b"".join(bytes(p.data) for p in joined_copies(Wire.BINARY, [])) == HEADER + TRAILER
    assert list(joined_copies(Wire.TEXT, [])) == []


@pytest.mark.parametrize("pieces", [(b"no header" + bytes(20),), (HEADER + b"no end",), ()])
def test_a_broken_binary_stream_is_an_error(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(DataError):
        list(joined_copies(Wire.BINARY, [_stream(*pieces)]))


# The plan

FILM = Table(
    "main",
    "film",
    (Column("id", "bigint", nullable=False), Column("title", "text")),
    primary_key=Key("film_pkey", ("id",)),
)
ID = ExistingColumn("id", "bigint", required=True, generated=False, filled=False)
TITLE = ExistingColumn("title", "text", required=False, generated=False, filled=False)
MORE = ExistingColumn("more", "text", required=False, generated=False, filled=True)


def _planned(*existing: ExistingTable, rows: int = 0, survey: Any = None, **changes: Any) -> Any:
    spec = parse_spec(
        {"key": "k", "source": "legacy", "target": "warehouse", "type": "incremental", **changes}
    )
    source: Any = FakeSource(Catalog("main", (FILM,)), {"film": survey or {}})
    target: Any = FakeTarget(existing, rows=rows)
    return build_plan(spec, source, target, RuleBook(PythonRules()))


def test_a_table_that_is_there_is_compared_by_its_key_and_a_new_one_is_made() -> None:
    assert _planned().tables[0].mode is TableMode.CREATE
    table = _planned(ExistingTable("film", "r", (ID, TITLE), key=("id",))).tables[0]
    assert (table.mode, table.chunk_key, len(table.chunks)) == (TableMode.UPDATE, "id", 1)


@pytest.mark.parametrize(("rows", "chunks"), [(1000, 10), (600, 6), (40, None)])
def test_chunks_are_cut_at_the_targets_keys(rows: int, chunks: int | None) -> None:
    """Where the target has few of the source's rows, the source's own chunks stay, and all of them are compared."""
    blocks = tuple(Chunk(index=n) for n in range(10))
    survey = {"chunk_by": ChunkBy.CTID, "chunk_columns": (), "chunks": blocks, "rows": 1000}
    film = ExistingTable("film", "r", (ID, TITLE), key=("id",))
    table = _planned(film, rows=rows, survey=survey).tables[0]
    assert table.chunk_key == ("id" if chunks else None)
    assert len(table.chunks) == (chunks or 10)
    if chunks:
        assert [c.lower for c in table.chunks][:2] == [None, ("100",)]


def test_a_table_without_an_integer_key_is_said_to_be_compared_whole() -> None:
    plan = _planned(ExistingTable("film", "r", (ID, TITLE)))
    assert plan.tables[0].chunk_key is None
    assert [(w.table, w.kind) for w in plan.warnings] == [("main.film", "lossy")]
    assert "as a whole" in plan.warnings[0].reason


def test_a_table_that_the_source_has_no_more_is_named_and_left_alone() -> None:
    plan = _planned(ExistingTable("film", "r", (ID, TITLE), key=("id",)), ExistingTable("old", "r"))
    assert [(w.table, "left alone" in w.reason) for w in plan.warnings] == [("public.old", True)]


@pytest.mark.parametrize(
    ("existing", "problem"),
    [
        (ExistingTable("film", "r", (ID,), key=("id",)), "no column 'title'"),
        (ExistingTable("film", "r", (ID, TITLE, MORE), key=("id",)), "'more'"),
        (ExistingTable("film", "p", (ID, TITLE), key=("id",)), "partitioned"),
        (ExistingTable("film", "r", (ID, TITLE), key=("id",), parent="films"), "partitioned"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_become_the_sources_is_refused_by_name(
    existing: ExistingTable, problem: str
) -> None:
    assert problem in _planned(existing).tables[0].refused


@pytest.mark.parametrize(
    "changes",
    [
        {"on_existing": "truncate"},
        {"rules": {"film": {"load": "upsert"}}},
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="type: incremental"):
        _planned(**changes)


def test_a_schedule_needs_no_word_on_tables_that_are_there() -> None:
    values = {"key": "k", "source": "a", "target": "b", "schedule": "0 3 * * *"}
    assert parse_spec({**values, "type": "incremental"}).schedule
    with pytest.raises(SpecError):
        parse_spec(values)
