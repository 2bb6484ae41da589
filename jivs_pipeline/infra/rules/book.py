"""The rules as the engine knows them: checked into plans, applied to batches, and to a source as it is now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jivs_pipeline.core.plan import Check, TablePlan
from jivs_pipeline.core.ports import Snapshot
from jivs_pipeline.core.spec import TableRule, ValidationRule
from jivs_pipeline.infra.rules.masks import fingerprint, pads
from jivs_pipeline.infra.rules.python_rule import PythonRules

if TYPE_CHECKING:
    import pyarrow as pa

    from jivs_pipeline.infra.rules.checks import Checker
    from jivs_pipeline.infra.rules.refiner import Refiner
    from jivs_pipeline.infra.rules.snapshot import RefinedSnapshot

__all__ = ["RuleBook"]

_INTEGERS = {"SMALLINT", "INTEGER", "BIGINT"}
Placed = Iterable[tuple[int, "pa.RecordBatch"]]
"""Batches, each with its chunk's index."""


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Implements `engine.ports.RuleBook`. DuckDB is imported by whoever has rules only.

    Attributes:
        python: where functions are.
        mask_key: of `mask: hmac`.
    """

    python: PythonRules
    mask_key: bytes | None = None

    def compile(self, table: TablePlan, rule: TableRule, others: Mapping[str, TablePlan]) -> TablePlan:
        """See `compiler.compile_rules`."""
        from jivs_pipeline.infra.rules.compiler import compile_rules

        key_hash = fingerprint(self.mask_key) if self.mask_key else None
        return compile_rules(table, rule, others, self.python, key_hash)

    def refiner(self, table: TablePlan, lookups: Sequence[Iterable[pa.RecordBatch]] = ()) -> Refiner:
        """The rules of a table, for one thread; `lookups` are the rows of the tables that it looks into."""
        from jivs_pipeline.infra.rules.refiner import Refiner

        return Refiner(table, self.python, pads(self.mask_key) if self.mask_key else {}, lookups)

    def duplicates(
        self, table: TablePlan, batches: Iterable[tuple[int, pa.RecordBatch]], room: Path
    ) -> Mapping[int, Collection[int]]:
        """See `duplicates.duplicates`."""
        from jivs_pipeline.infra.rules.duplicates import duplicates

        return duplicates(table, batches, room)

    def compile_checks(
        self, rule: ValidationRule, place: str, table: TablePlan, tables: Sequence[TablePlan]
    ) -> Sequence[Check]:
        """See `checks.compile_checks`."""
        from jivs_pipeline.infra.rules.checks import compile_checks

        return compile_checks(rule, place, table, tables)

    def checker(self, table: TablePlan, checks: Sequence[Check]) -> Checker:
        """Checks of a table's rows as they will be loaded, for one thread."""
        from jivs_pipeline.infra.rules.checks import Checker

        return Checker(table.columns, checks)

    def alike(self, batches: Placed, columns: Sequence[str], room: Path) -> Iterable[tuple[int, int]]:
        """See `checks.alike`."""
        from jivs_pipeline.infra.rules.checks import alike

        return alike(batches, columns, room)

    def orphans(
        self,
        table: TablePlan,
        children: Placed,
        columns: Sequence[str],
        parent: TablePlan,
        parents: Placed,
        there: Sequence[str],
        room: Path,
    ) -> Iterable[tuple[int, int]]:
        """See `checks.orphans`: values are compared as those of the parent's columns."""
        from jivs_pipeline.infra.rules.checks import orphans
        from jivs_pipeline.infra.rules.duck import seen_type

        types = {c.target: seen_type(c) for c in parent.columns}
        own = {c.target: seen_type(c) for c in table.columns}
        pairs = zip(columns, there, strict=True)
        # As texts where the two are of different kinds, so that nothing is converted on the way.
        both = [types[b] if types[b] == own[a] else _wider(types[b], own[a]) for a, b in pairs]
        return orphans(children, columns, parents, there, both, room)

    def refined(
        self,
        snapshot: Snapshot,
        tables: Sequence[TablePlan],
        room: Path,
        *,
        sifts: bool = False,
        kept: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> RefinedSnapshot:
        """A source as its rules make it; see `snapshot.RefinedSnapshot`."""
        from jivs_pipeline.infra.rules.snapshot import RefinedSnapshot

        return RefinedSnapshot(snapshot, self.refiner, tables, room, sifts=sifts, kept=kept or {})


def _wider(a: str, b: str) -> str:
    """A type in which values of two can be compared."""
    return "BIGINT" if {a, b} <= _INTEGERS else "VARCHAR"
