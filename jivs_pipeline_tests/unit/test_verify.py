"""Comparing what source and target say of a table."""

from __future__ import annotations

import pytest

from jivs_pipeline.core.digest import Canon, Digest, Spelling
from jivs_pipeline.core.model import Column, Identity, Table
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, Lane, TablePlan, Wire
from jivs_pipeline.engine.verify import compare

A, B, C = Digest(2, 10, -3), Digest(1, 7, 7), Digest(1, 8, 7)


def test_equal_chunks_are_equal():
    found = compare([A, B], [A, B], counts_only=False)
    assert found["equal"] is True
    assert found["different_chunks"] == []
    assert (found["source_rows"], found["target_rows"]) == (3, 3)
    assert found["source_digest"] == found["target_digest"] == (A + B).hex


def test_the_chunk_that_differs_is_named():
    found = compare([A, B], [A, C], counts_only=False)
    assert found["equal"] is False
    assert found["different_chunks"] == [1]


def test_rows_in_the_wrong_chunk_are_a_difference_although_the_sums_agree():
    found = compare([A, B], [B, A], counts_only=False)
    assert found["source_digest"] == found["target_digest"]
    assert found["equal"] is False
    assert found["different_chunks"] == [0, 1]


def test_a_target_that_cannot_tell_chunks_apart_is_compared_as_a_whole():
    assert compare([A, B], [A + B], counts_only=False)["equal"] is True
    found = compare([A, B], [A + C], counts_only=False)
    assert (found["equal"], found["different_chunks"]) == (False, [])


def test_counts_show_no_digests():
    found = compare([Digest(2), Digest(1)], [Digest(3)], counts_only=True)
    assert found["equal"] is True
    assert found["source_digest"] is found["target_digest"] is None
    assert compare([Digest(2), Digest(1)], [Digest(4)], counts_only=True)["equal"] is False


def _plan(by: ChunkBy, keys: tuple[str, ...], type_: str, *, identity: bool = False) -> TablePlan:
    numbered = Identity() if identity else None
    return TablePlan(
        source_schema="main",
        source_table="t",
        target_schema="public",
        target_table="t",
        columns=(
            ColumnPlan(source="Id", target="number", source_type="?", target_type=type_, canon=Canon.INTEGER),
            ColumnPlan(source="b", target="b", source_type="text", target_type="text"),
        ),
        lane=Lane.ARROW,
        wire=Wire.BINARY,
        spelling=Spelling.CANONICAL,
        chunk_by=by,
        chunk_columns=keys,
        chunks=(Chunk(index=0, upper=("5",)), Chunk(index=1, lower=("5",))),
        definition=Table("public", "t", (Column("number", type_, identity=numbered), Column("b", "text"))),
    )


@pytest.mark.parametrize(
    ("plan", "key"),
    [
        (_plan(ChunkBy.KEY, ("Id",), "bigint"), "number"),
        (_plan(ChunkBy.KEY, ("Id",), "text"), None),
        (_plan(ChunkBy.KEY, ("Id", "b"), "bigint"), None),
        (_plan(ChunkBy.CTID, (), "bigint", identity=True), None),
        (_plan(ChunkBy.ROWID, (), "bigint", identity=True), "number"),
        (_plan(ChunkBy.ROWID, (), "bigint"), None),
        (_plan(ChunkBy.WHOLE, (), "bigint"), None),
    ],
)
def test_only_an_integer_key_tells_chunks_apart_in_the_target(plan, key):
    assert plan.chunk_key == key
