"""The plan as data: JSON forms, hashes, sums."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from jivs_pipeline.core.digest import Canon, Spelling
from jivs_pipeline.core.model import Check, Column, ForeignKey, Identity, Index, IndexPart, Key, Table
from jivs_pipeline.core.plan import (
    Chunk,
    ChunkBy,
    ColumnPlan,
    Lane,
    Plan,
    PlanWarning,
    TableMode,
    TablePlan,
    Wire,
)

DEFINITION = Table(
    "public", "film", (Column("id", "bigint", nullable=False, identity=Identity(start=7)), Column("name", "text", default="'x'")),
    primary_key=Key("film_pkey", ("id",)),
    unique_keys=(Key(None, ("name",), include=("id",)),),
    foreign_keys=(ForeignKey(None, ("id",), "public", "actor", ("id",)),),
    checks=(Check(None, "id > 0"),),
    indexes=(Index("i", (IndexPart("name", descending=True),), predicate="id > 1"),),
)  # fmt: skip


def table(name: str = "film", **changes: object) -> TablePlan:
    values = {
        "source_schema": "main", "source_table": name, "target_schema": "public", "target_table": name,
        "columns": (ColumnPlan(source="id", target="id", source_type="INTEGER", target_type="bigint", arrow="int64", canon=Canon.INTEGER),),
        "lane": Lane.ARROW, "wire": Wire.BINARY, "spelling": Spelling.CANONICAL, "rows": 10, "bytes": 100, "definition": DEFINITION,
        "chunk_by": ChunkBy.KEY, "chunk_columns": ("id",), "chunks": (Chunk(index=0, upper=("5",)), Chunk(index=1, lower=("5",))),
    }  # fmt: skip
    return TablePlan.model_validate({**values, **changes})


def plan(*tables: TablePlan, **changes: object) -> Plan:
    values = {
        "key": "k", "spec_hash": "h", "source": "a", "target": "b", "source_dialect": "sqlite", "source_version": "3", "target_version": "18",
        "tables": tables or (table(),), "warnings": (PlanWarning(table="film", kind="lossy", reason="r"),),
    }  # fmt: skip
    return Plan.model_validate({**values, **changes})


def test_a_stored_plan_is_the_same_plan():
    before = plan(table(), table("actor", mode=TableMode.APPEND, where="a > 1"))
    after = Plan.model_validate_json(before.model_dump_json())
    assert after == before
    assert after.hash == before.hash
    assert after.tables[0].definition == DEFINITION
    assert Plan.model_validate(before.model_dump(mode="json")) == before


@pytest.mark.parametrize(
    "change",
    [
        {"where": "a > 1"}, {"target_table": "films"}, {"mode": TableMode.REPLACE}, {"chunks": (Chunk(index=0),)}, {"wire": Wire.CSV}, {"lane": Lane.COPY},
        {"spelling": Spelling.RECORD}, {"columns": ()}, {"definition": None}, {"chunk_by": ChunkBy.ROWID}, {"refused": "x"}, {"target_schema": "s"},
    ],
)  # fmt: skip
def test_whatever_decides_what_arrives_changes_a_tables_hash(change):
    assert table(**change).hash != table().hash


@pytest.mark.parametrize("change", [{"rows": 11}, {"bytes": 1}, {"rows_exact": False}])
def test_an_estimate_does_not_change_a_tables_hash(change):
    assert table(**change).hash == table().hash


@pytest.mark.parametrize(
    "change", [{"key": "l"}, {"spec_hash": "i"}, {"source_version": "4"}, {"tables": ()}, {"warnings": ()}]
)
def test_everything_changes_the_plans_hash(change):
    assert plan(**change).hash != plan().hash
    assert plan().hash == plan().hash


def test_names_of_tables_are_schema_and_table():
    assert table().source == "main.film"
    assert table().target == "public.film"
    assert plan().table("public.film") == table()
    with pytest.raises(KeyError):
        plan().table("film")


def test_refused_tables_are_not_carried_and_not_counted():
    both = plan(table(), table("actor", refused="too odd", rows=99, bytes=99))
    assert both.carried == (table(),)
    assert (both.rows, both.bytes) == (10, 100)


def test_a_table_has_one_unbounded_chunk_unless_said_otherwise():
    fields = TablePlan.model_fields
    assert fields["chunks"].default == (Chunk(index=0, lower=None, upper=None),)
    assert fields["chunk_by"].default is ChunkBy.WHOLE


def test_plans_do_not_change_and_take_nothing_unknown():
    with pytest.raises(ValidationError):
        plan().key = "x"
    with pytest.raises(ValidationError):
        table(colour="red")
