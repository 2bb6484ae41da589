"""What hangs on a table, in the target's names: keys, indexes, checks and references that can be carried.

What belongs here: renaming, and leaving out aloud what hangs on dropped columns. What does not: which
columns are carried (`planning.py`) and SQL (`infra/ddl.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.model import Catalog, Check, Column, ForeignKey, Index, Key, Table
from jivs_pipeline.core.names import qualified
from jivs_pipeline.core.plan import RULED, ColumnPlan, PlanWarning, Rules, TablePlan

__all__ = ["Definer", "point_references"]

_EXPRESSION = "its expression may use a renamed, changed or dropped column"


@dataclass(slots=True)
class Definer:
    """Turns a source's table into the target's definition, noting in `warnings` what is lost.

    Attributes:
        names: source column -> target column, of the columns that are kept.
        planned: how those are carried; generated columns are kept but not carried.
        broken: source columns of foreign keys -> rows that break them.
        rules: what is done to the rows.
    """

    table: Table
    kept: Sequence[Column]
    names: Mapping[str, str]
    planned: Sequence[ColumnPlan]
    broken: Mapping[tuple[str, ...], int]
    warnings: list[PlanWarning] = field(default_factory=list[PlanWarning])
    rules: Rules | None = None

    def define(self, schema: str, name: str) -> Table:
        """The table as `schema.name` of the target."""
        table = self.table
        types = {c.target: c.target_type for c in self.planned}
        columns = [
            self._column(c, types.get(self.names[c.name], c.type))
            for c in self.kept
            if c.generated is None or self._keeps_expression(c.name, "generated column")
        ]
        known = set(self.names.values())
        columns += [Column(c.target, c.target_type) for c in self.planned if c.target not in known]
        primary = table.primary_key
        if primary and not self._has(primary.name or "primary key", "primary key", primary.columns):
            primary = None
        return replace(
            table,
            schema=schema,
            name=name,
            columns=tuple(columns),
            primary_key=self._key(primary, "primary key") if primary else None,
            unique_keys=tuple(self._unique_keys()),
            foreign_keys=tuple(self._foreign_keys()),
            checks=tuple(self._checks()),
            indexes=tuple(self._indexes()),
        )

    def _column(self, column: Column, type_: str) -> Column:
        """The column in the target; of one whose values a rule makes, only a default of the same type still fits."""
        found = _typed(column, self.names[column.name], type_)
        planned = next((c for c in self.planned if c.target == found.name), None)
        if planned is None or planned.carrier != RULED:
            return found
        if column.identity is not None:
            self._warn(column.name, "numbering: a rule changes the column's values", lossy=True)
        default = column.default if type_ == column.type and not self._alike(column.name) else None
        if column.default is not None and default is None:
            self._warn(column.name, "default: a rule changes the column's values", lossy=True)
        return replace(
            found, nullable=planned.nullable, default=default, identity=None, generated=None, made=False,
            extension=None, numbers_from=None, collation=column.collation if type_ == column.type else None,
        )  # fmt: skip

    def _alike(self, name: str) -> bool:
        """Whether a mask makes all values of a column the same."""
        made = self.rules.made if self.rules else ()
        return any(m.origin == name and m.alike for m in made)

    @property
    def _changed(self) -> bool:
        """Whether an expression's text, which we do not rewrite, may now mean something else or nothing."""
        if any(c.carrier == RULED for c in self.planned):
            return True
        return len(self.names) != len(self.table.columns) or any(a != b for a, b in self.names.items())

    def _warn(self, name: str, reason: str, *, lossy: bool = False) -> None:
        kind = "lossy" if lossy else "refused"
        self.warnings.append(PlanWarning(table=f"{self.table.qualified}.{name}", kind=kind, reason=reason))

    def _has(self, name: str, kind: str, needed: Sequence[str]) -> bool:
        missing = ", ".join(c for c in needed if c not in self.names)
        if missing:
            self._warn(name, f"{kind}: column {missing} is dropped")
        alike = ", ".join(c for c in needed if self._alike(c)) if kind != "index" else ""
        if alike:
            self._warn(name, f"{kind}: the values of column {alike} are all masked alike")
        return not missing and not alike

    def _keeps_expression(self, name: str, kind: str) -> bool:
        if self._changed:
            self._warn(name, f"{kind}: {_EXPRESSION}")
        return not self._changed

    def _renamed(self, columns: Iterable[str]) -> tuple[str, ...]:
        return tuple(self.names[c] for c in columns)

    def _included(self, name: str, kind: str, include: Sequence[str]) -> tuple[str, ...]:
        # Without them a key or an index is slower, and means the same.
        if gone := ", ".join(c for c in include if c not in self.names):
            self._warn(name, f"{kind}: its INCLUDE loses column {gone}, which is dropped", lossy=True)
        return self._renamed(c for c in include if c in self.names)

    def _key(self, key: Key, kind: str) -> Key:
        include = self._included(key.name or kind, kind, key.include)
        return replace(key, columns=self._renamed(key.columns), include=include)

    def _unique_keys(self) -> Iterable[Key]:
        for key in self.table.unique_keys:
            if self._has(key.name or "unique key", "unique key", key.columns):
                yield self._key(key, "unique key")

    def _indexes(self) -> Iterable[Index]:
        for index in self.table.indexes:
            if not self._has(index.name, "index", [p.column for p in index.parts if p.column]):
                continue
            expressive = index.predicate or any(p.expression for p in index.parts)
            if expressive and not self._keeps_expression(index.name, "index"):
                continue
            parts = tuple(replace(p, column=self.names[p.column]) if p.column else p for p in index.parts)
            yield replace(index, parts=parts, include=self._included(index.name, "index", index.include))

    def _checks(self) -> Iterable[Check]:
        for check in self.table.checks:
            if self._keeps_expression(check.name or "check", "check constraint"):
                yield check

    def _foreign_keys(self) -> Iterable[ForeignKey]:
        for key in self.table.foreign_keys:
            name = key.name or "_".join(key.columns)
            if not self._has(name, "foreign key", key.columns):
                continue
            if rows := self.broken.get(key.columns):
                self._warn(
                    name,
                    f"foreign key: {counted(rows, 'row of the source breaks', 'rows of the source break')} it",
                )
                continue
            yield replace(key, columns=self._renamed(key.columns))


def _typed(column: Column, name: str, type_: str) -> Column:
    # What is set for one type need not be possible for another.
    same = column.made or column.type == type_
    return replace(column, name=name, type=type_, settings=column.settings if same else ())


def point_references(
    table: TablePlan, tables: Sequence[TablePlan], catalog: Catalog, warnings: list[PlanWarning]
) -> TablePlan:
    """Foreign keys point at the target's names; those to tables that do not come along are left out aloud."""
    if table.definition is None or not table.definition.foreign_keys:
        return table
    plans = {t.source_table: t for t in tables}
    references: list[ForeignKey] = []
    for key in table.definition.foreign_keys:
        parent = plans.get(key.target_table) if key.target_schema == catalog.schema else None
        if reason := _unreachable(key, parent):
            name = f"{table.source}.{key.name or '_'.join(key.columns)}"
            warnings.append(PlanWarning(table=name, kind="refused", reason=f"foreign key: {reason}"))
        elif parent is not None:
            columns = {c.source: c for c in parent.columns}
            there = [columns[c] for c in key.target_columns]
            here = {c.target: c for c in table.columns}
            pairs = zip([here[c] for c in key.columns], there, strict=True)
            if apart := ", ".join(a.target for a, b in pairs if _apart(a, b)):
                name = f"{table.source}.{key.name or '_'.join(key.columns)}"
                reason = f"foreign key: rules change {apart} and what it refers to in different ways"
                warnings.append(PlanWarning(table=name, kind="refused", reason=reason))
                continue
            references.append(
                replace(
                    key,
                    target_schema=parent.target_schema,
                    target_table=parent.target_table,
                    target_columns=tuple(c.target for c in there),
                )
            )
    definition = replace(table.definition, foreign_keys=tuple(references))
    return table.model_copy(update={"definition": definition})


def _apart(child: ColumnPlan, parent: ColumnPlan) -> bool:
    """Whether rules have made a column and the one that it refers to into different things."""
    if RULED not in {child.carrier, parent.carrier}:
        return False
    return (child.note, child.target_type) != (parent.note, parent.target_type)


def _unreachable(key: ForeignKey, parent: TablePlan | None) -> str | None:
    if parent is None:
        return f"{qualified(key.target_schema, key.target_table)} is not part of this migration"
    if parent.refused:
        return f"{parent.source} is refused"
    carried = {c.source for c in parent.columns}
    missing = ", ".join(c for c in key.target_columns if c not in carried)
    return f"column {missing} of {parent.source} is not carried" if missing else None
