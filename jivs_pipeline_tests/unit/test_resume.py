"""What a run takes over from an earlier one when its plan is made anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jivs_pipeline.core.claims import Checkpoint
from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, Plan, TablePlan, Wire
from jivs_pipeline.core.ports import LedgerView
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.resume import recall, renew, resumable
from jivs_pipeline.engine.run import ChunkFile, Extracted, Run, TableFailure


def table(name: str, *, columns: int = 1, chunks: int = 1, refused: str | None = None) -> TablePlan:
    return TablePlan(
        source_schema="main",
        source_table=name,
        target_schema="public",
        target_table=name,
        columns=tuple(
            ColumnPlan(source=f"c{n}", target=f"c{n}", source_type="?", target_type="text")
            for n in range(columns)
        ),
        lane=Lane.ARROW,
        wire=Wire.BINARY,
        spelling=Spelling.CANONICAL,
        chunks=tuple(Chunk(index=n) for n in range(chunks)),
        refused=refused,
    )


def plan(*tables: TablePlan) -> Plan:
    return Plan(
        key="k", spec_hash="", source="s", target="t", source_dialect="", source_version="", target_version="",
        tables=tables,
    )  # fmt: skip


def manifest(generation: str) -> Extracted:
    file = ChunkFile(0, "name", 1, 10, "hash", Digest(1, 2, 3))
    return Extracted(generation, (file,), {}, "one snapshot")


def run(
    before: Plan, *, extracted: tuple[str, ...] = (), loaded: tuple[str, ...] = (), staged: bool = True
) -> Run:
    nothing = cast("Any", None)
    staging = SimpleNamespace(has=lambda *_: staged)
    return Run(
        spec=cast("Any", SimpleNamespace(key="k")), run_id="r", control_id="c", epoch=1, owner="o", source=nothing,
        target=nothing, staging=cast("Any", staging), checkpoints=nothing, builder=nothing, rules=cast("Any", None), guard=nothing,
        progress=nothing, pace=nothing, plan=before, extracted={t: manifest("old") for t in extracted}, generation="old",
        loaded=set(loaded),
    )  # fmt: skip


def test_loaded_tables_keep_the_plan_they_were_loaded_by():
    made = run(plan(table("a"), table("b")), extracted=("public.a", "public.b"), loaded=("public.a",))
    renew(made, plan(table("a", chunks=3), table("b", chunks=3)), "new")
    assert len(made.plan.table("public.a").chunks) == 1
    assert len(made.plan.table("public.b").chunks) == 3
    assert made.loaded == set(made.extracted) == {"public.a"}
    assert made.generation == "new"


def test_a_loaded_table_that_is_planned_otherwise_is_read_again():
    made = run(plan(table("a")), extracted=("public.a",), loaded=("public.a",))
    renew(made, plan(table("a", columns=2)), "new")
    assert made.loaded == set()
    assert made.extracted == {}


def test_a_loaded_table_that_the_spec_no_longer_takes_is_let_go():
    made = run(
        plan(table("a"), table("b")), extracted=("public.a", "public.b"), loaded=("public.a", "public.b")
    )
    renew(made, plan(table("b")), "new")
    assert made.loaded == {"public.b"}
    assert [t.target for t in made.plan.tables] == ["public.b"]


def test_a_plan_is_continued_only_if_everything_that_is_not_loaded_is_staged():
    tables = plan(table("a"), table("b"))
    both = ("public.a", "public.b")
    assert resumable(run(tables, extracted=both, loaded=("public.a",)))
    assert not resumable(run(tables, extracted=("public.a",), loaded=("public.a",)))
    assert not resumable(run(tables, extracted=both, loaded=("public.a",), staged=False))
    assert resumable(run(tables, extracted=both, loaded=both, staged=False))
    assert not resumable(run(plan()))
    assert not resumable(run(plan(table("a"), table("x", refused="no")), extracted=("public.a",)))


def test_a_failure_of_the_rows_needs_new_rows_and_one_of_a_step_does_not():
    made = run(plan(table("a")), extracted=("public.a",))
    made.failures["public.a"] = TableFailure("an index", rows_stand=True)
    assert resumable(made)
    made.failures["public.a"] = TableFailure("a value")
    assert not resumable(made)


@pytest.mark.parametrize(
    ("there", "loaded"),
    [
        pytest.param({0: "old", 1: "old"}, {"public.a"}, id="whole"),
        pytest.param({}, set[str](), id="made anew"),
        pytest.param({0: "old"}, set[str](), id="restored"),
        pytest.param({0: "newer", 1: "newer"}, set[str](), id="of another extraction"),
    ],
)
def test_the_ledger_of_the_target_has_the_last_word(there: dict[int, str], loaded: set[str]):
    """The control database calls the table loaded; the target may have been restored or made anew since."""
    made = run(plan(table("a", chunks=2)))
    ledger = LedgerView(1, {}, {("public.a", n): (generation, 1, 10) for n, generation in there.items()})
    made.target = cast("Any", SimpleNamespace(ledger=lambda *_: ledger))
    files = tuple(ChunkFile(n, f"{n}", 1, 10, "hash", Digest(1, 2, 3)) for n in range(2))
    staged = Extracted("old", files, {}, "one snapshot").stored()
    points = [
        Checkpoint("public.a", Phase.EXTRACT, "old", data=staged),
        Checkpoint("public.a", Phase.LOAD, "old"),
    ]
    recall(made, points, lambda: "new")
    assert made.loaded == loaded
    assert made.generation == ("new" if loaded else "old")
