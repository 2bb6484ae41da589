"""The verdict of a run: what has to stand before it may say that it is completed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jivs_pipeline.core.claims import Checkpoint, Claim, Owner
from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.errors import MismatchError, TerminalError
from jivs_pipeline.core.incidents import Incidents
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Lane, Plan, TablePlan, Wire
from jivs_pipeline.core.ports import LedgerView
from jivs_pipeline.core.signature import ReportKey
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Phase, Status
from jivs_pipeline.engine.migrate import Migration
from jivs_pipeline.engine.run import ChunkFile, Extracted, Run, TableFailure
from jivs_pipeline.engine.services import Services

TABLES = tuple(
    TablePlan(
        source_schema="main", source_table=name, target_schema="public", target_table=name,
        columns=(ColumnPlan(source="a", target="a", source_type="?", target_type="text"),),
        lane=Lane.ARROW, wire=Wire.BINARY, spelling=Spelling.CANONICAL, chunks=(Chunk(index=0), Chunk(index=1)),
    )
    for name in ("t", "u")
)  # fmt: skip
PLAN = Plan(
    key="k", spec_hash="", source="s", target="t", source_dialect="", source_version="", target_version="",
    tables=TABLES,
)  # fmt: skip
FILES = tuple(ChunkFile(n, f"{n}", 1, 10, "hash", Digest(1, 2, 3)) for n in range(2))
ALL = {(t.target, n): ("g", 1, 10) for t in TABLES for n in range(2)}
NOW = dt.datetime(2024, 2, 29, tzinfo=dt.UTC)


class _Control:
    """Its verbs note in `story` what matters here."""

    def __init__(self, story: list[Any], points: list[Checkpoint]) -> None:
        self._story = story
        self._points = points

    def set_phase(self, *_: object) -> None: ...

    def measure(self, *_: object) -> None: ...

    def checkpoints(self, _: str) -> list[Checkpoint]:
        return self._points

    def performance(self, _: str) -> list[Any]:
        return []

    def incidents(self, _: str) -> Incidents:
        return Incidents()

    def migration(self, key: str) -> dict[str, Any]:
        return {
            "key": key, "run_id": "r", "status": Status.RUNNING, "plan": PLAN.model_dump(mode="json"), "plan_hash": "",
            "spec_hash": "", "spec": {}, "source_name": "s", "target_name": "t", "epoch": 1, "error": None,
            "result": None, "started_at": NOW, "finished_at": None,
        }  # fmt: skip

    def end(self, _: Claim, status: Status, **__: object) -> None:
        self._story.append(status)


def _verified(*equal: bool | None) -> list[Checkpoint]:
    return [
        Checkpoint(t.target, Phase.VERIFY, "g", data={"equal": said})
        for t, said in zip(TABLES, equal, strict=True)
        if said is not None
    ]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Migration, list[Any]]]:
    """A run before its last phase, and the story of what it does then."""

    def make(
        ledger: dict[tuple[str, int], tuple[str, int, int]], points: list[Checkpoint]
    ) -> tuple[Migration, list[Any]]:
        story: list[Any] = []
        nothing = cast("Any", None)
        control = _Control(story, points)
        staging = SimpleNamespace(discard=lambda *_: story.append("discard"), has=lambda *_: True)
        leases = cast("Any", SimpleNamespace(release=lambda _: story.append("lease")))
        target = SimpleNamespace(
            ledger=lambda *_: LedgerView(1, {}, ledger), release=lambda: story.append("release")
        )
        services = Services(
            control=cast("Any", control), staging=cast("Any", staging), builder=nothing, rules=cast("Any", None), leases=leases, ends=nothing, opened=nothing,
            opened_target=nothing, take=nothing, take_over=nothing, reports=tmp_path, new_id=nothing, versions={},
            now=lambda: NOW, rate=nothing, report_key=lambda: ReportKey(b"a key"),
        )  # fmt: skip
        spec = Spec(key="k", source="s", target="t")
        made = Migration(services, spec, "r")
        made._claim = Claim(
            "k", 1, "r", Owner("o", "h", "b", 1, "1"), resumed=False, plan=None, same_spec=True
        )
        made._run = Run(
            spec=spec, run_id="r", control_id="c", epoch=1, owner="o", source=cast("Any", SimpleNamespace(close=lambda: None)), target=cast("Any", target),
            staging=cast("Any", staging), checkpoints=cast("Any", SimpleNamespace(retried=pytest.fail)), builder=nothing, rules=cast("Any", None), guard=made.guard,
            progress=made.progress, pace=nothing, plan=PLAN, loaded={t.target for t in TABLES},
            extracted={t.target: Extracted("g", FILES, {}, "one snapshot") for t in TABLES},
        )  # fmt: skip
        return made, story

    return make


Make = Callable[..., tuple[Migration, list[Any]]]


def test_all_is_well(make: Make):
    """What is kept for a resumption goes first, so that a completed migration has none of it."""
    made, story = make(ALL, _verified(True, True))
    made.finish()
    assert story == ["release", "discard", "lease", Status.COMPLETED]


@pytest.mark.parametrize(
    ("missing", "generation"),
    [(("public.u", 1), "g"), (("public.t", 0), "another extraction")],
    ids=["missing", "of another extraction"],
)
def test_no_run_succeeds_while_the_ledger_lacks_a_chunk(
    make: Make, missing: tuple[str, int], generation: str
):
    """Although verify found both sides equal: the target may have been restored since."""
    ledger = {**ALL, missing: (generation, 1, 10)}
    if generation == "g":
        del ledger[missing]
    made, story = make(ledger, _verified(True, True))
    with pytest.raises(TerminalError, match=f"ledger of {missing[0]} lacks 1 of 2 chunks"):
        made.finish()
    assert story == []


@pytest.mark.parametrize("said", [False, None], ids=["different", "not compared"])
def test_a_table_that_differs_is_no_success(make: Make, said: bool | None):
    """What it was loaded from is kept."""
    made, story = make(ALL, _verified(True, said))
    with pytest.raises(MismatchError, match=r"1 of 2 tables differ from the source: public\.u"):
        made.finish()
    assert story == ["lease", Status.MISMATCH]


def test_a_table_that_failed_is_no_success(make: Make):
    """Whether or not the others are equal."""
    made, story = make(ALL, _verified(True, None))
    assert made._run
    made._first = False
    made._run.failures["public.u"] = TableFailure("no such type")
    with pytest.raises(TerminalError, match=r"1 of 2 tables failed \(public\.u\): no such type"):
        made.finish()
    assert story == ["lease", Status.FAILED]
