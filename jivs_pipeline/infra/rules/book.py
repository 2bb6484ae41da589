"""The rules as the engine knows them: checked into plans, applied to batches, and to a source as it is now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.ports import Snapshot
from jivs_pipeline.core.spec import TableRule
from jivs_pipeline.infra.rules.masks import fingerprint, pads
from jivs_pipeline.infra.rules.python_rule import PythonRules

if TYPE_CHECKING:
    import pyarrow as pa

    from jivs_pipeline.infra.rules.refiner import Refiner
    from jivs_pipeline.infra.rules.snapshot import RefinedSnapshot

__all__ = ["RuleBook"]


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Implements `engine.ports.RuleBook`. DuckDB is imported by whoever has rules only.

    Attributes:
        python: where functions are.
        mask_key: of `mask: hmac`.
    """

    python: PythonRules
    mask_key: bytes | None = None

    def compile(self, table: TablePlan, rule: TableRule) -> TablePlan:
        """See `compiler.compile_rules`."""
        from jivs_pipeline.infra.rules.compiler import compile_rules

        return compile_rules(table, rule, self.python, fingerprint(self.mask_key) if self.mask_key else None)

    def refiner(self, table: TablePlan) -> Refiner:
        """The rules of a table, for one thread."""
        from jivs_pipeline.infra.rules.refiner import Refiner

        return Refiner(table, self.python, pads(self.mask_key) if self.mask_key else {})

    def duplicates(
        self, table: TablePlan, batches: Iterable[tuple[int, pa.RecordBatch]], room: Path
    ) -> Mapping[int, Collection[int]]:
        """See `duplicates.duplicates`."""
        from jivs_pipeline.infra.rules.duplicates import duplicates

        return duplicates(table, batches, room)

    def refined(self, snapshot: Snapshot, room: Path) -> RefinedSnapshot:
        """A source as its rules make it."""
        from jivs_pipeline.infra.rules.snapshot import RefinedSnapshot

        return RefinedSnapshot(snapshot, self.refiner, room)
