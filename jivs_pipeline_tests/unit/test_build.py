"""What is built on rows: what waits for what, and what is left out when something fails."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jivs_pipeline.core.digest import Spelling
from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.model import Check, Column, ForeignKey, Index, IndexPart, Key, Table
from jivs_pipeline.core.plan import Lane, TableMode, TablePlan, Wire
from jivs_pipeline.core.spec import Quarantine
from jivs_pipeline.engine.build import build
from jivs_pipeline.engine.pool import Guard
from jivs_pipeline.infra import ddl


def _table(name: str, size: int, *parents: str) -> TablePlan:
    definition = Table(
        schema="s",
        name=name,
        columns=(Column("a", "integer"),),
        primary_key=Key(None, ("a",)),
        indexes=tuple(Index(f"{name}_{n}", (IndexPart("a"),)) for n in range(2)),
        checks=(Check("c", "a > 0"),),
        foreign_keys=tuple(ForeignKey(f"to_{p}", ("a",), "s", p, ("a",)) for p in parents),
        comment="said",
    )
    return TablePlan(
        source_schema="s", source_table=name, target_schema="s", target_table=name, lane=Lane.COPY,
        wire=Wire.BINARY, spelling=Spelling.RECORD, mode=TableMode.CREATE, columns=(), chunks=(), rows=0,
        rows_exact=True, bytes=size, definition=definition,
    )  # fmt: skip


class _Target:
    """Notes when each step begins and ends, and fails the one that it is told to."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.said: list[tuple[str, str, str]] = []
        self._lock = threading.Lock()

    def apply(self, step: ddl.Step, _: str) -> None:
        self._say("begins", step)
        time.sleep(0.002)
        if f"{step.table} {step.name}" == self.failing:
            raise DataError("rows break it")
        self._say("ends", step)

    def _say(self, what: str, step: ddl.Step) -> None:
        with self._lock:
            self.said.append((what, step.table.removeprefix("s."), step.name))

    def names(self, table: str) -> list[str]:
        return [name for what, of, name in self.said if what == "ends" and of == table]


def _built(tables: list[TablePlan], *, workers: int, failing: str = "") -> tuple[_Target, dict[str, str]]:
    target, failures = _Target(failing), dict[str, str]()

    def fail(table: TablePlan, _: object, error: Exception, *, rows_stand: bool) -> None:
        assert not rows_stand, "bad rows are read anew"
        failures[table.target] = str(error)

    run = SimpleNamespace(
        plan=SimpleNamespace(tables=tables, carried=tables), extracted={}, failures=failures, fail=fail,
        target=target, builder=ddl, guard=Guard(), spec=SimpleNamespace(parallelism=workers, quarantine=Quarantine()),
        checkpoints=SimpleNamespace(retried=lambda *_: None), generation_of=lambda _: "g",
    )  # fmt: skip
    build(cast("Any", run), tables)
    return target, failures


@pytest.mark.parametrize("workers", [1, 2, 6])
def test_every_step_is_run_and_none_before_what_it_needs(workers: int):
    """Two tables that refer to each other, one that refers to itself, and one that refers to both."""
    tables = [
        _table("small", 1, "both", "small"),
        _table("both", 2, "small"),
        _table("large", 3, "small", "both"),
    ]
    target, failures = _built(tables, workers=workers)
    assert not failures
    for table in tables:
        steps = [
            *ddl.build_keys(table), *ddl.build_indexes(table), *ddl.build_checks(table), *ddl.analyze(table),
            *ddl.build_references(table), *ddl.check_references(table), *ddl.describe(table),
        ]  # fmt: skip
        assert sorted(target.names(table.target_table)) == sorted(s.name for s in steps)
    place = {said: n for n, said in enumerate(target.said)}
    for what, table, name in target.said:
        if what != "begins":
            continue
        here = place["begins", table, name]
        before = [("ends", table, "primary key")] if name != "primary key" else []
        if name.startswith("check"):
            before += [("ends", table, f"index {table}_{n}") for n in range(2)]
        if "foreign key" in name:
            parent = name.rpartition("_")[2]
            before += [("ends", table, "analyze"), ("ends", parent, "analyze")]
        if name.startswith("checking"):
            before.append(("ends", table, name.removeprefix("checking ")))
        if name == "comments":
            before += [("ends", table, n) for n in target.names(table) if n.startswith("checking")]
        assert all(place[one] < here for one in before), (table, name)
    assert target.said[0] == ("begins", "large", "primary key")


def test_references_are_made_one_at_a_time():
    """Each locks two tables."""
    tables = [_table(f"t{n}", n, f"t{(n + 1) % 6}") for n in range(6)]
    target, _ = _built(tables, workers=6)
    made = [what for what, _, name in target.said if name.startswith("foreign")]
    assert made == ["begins", "ends"] * 6


def test_what_refers_to_a_table_that_failed_waits_for_another_run():
    tables = [_table("child", 9, "parent"), _table("parent", 1), _table("other", 2)]
    target, failures = _built(tables, workers=2, failing="s.parent check c")
    assert failures == {"s.parent": "rows break it"}
    assert not [name for name in target.names("child") if "foreign" in name]
    assert "comments" in target.names("child")
    assert "comments" in target.names("other")
    assert "analyze" not in target.names("parent")
