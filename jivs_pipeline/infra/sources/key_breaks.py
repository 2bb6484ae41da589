"""Rows that the keys between tables forbid: no value of theirs is bad, but PostgreSQL would not take them all.

What belongs here: which keys to ask about, and in which order. What does not: SQL (`sqlite_keys`, `mysql_sieve`).

A row whose parent is taken out is taken out, too, so it is asked again until nothing more is found; rows that refer to
each other stay or go together.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from jivs_pipeline.core.model import ForeignKey, Table
from jivs_pipeline.core.plan import ColumnPlan, TableMode, TablePlan
from jivs_pipeline.core.ports import Refusal

__all__ = ["KeyBreaks", "Reference"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key between two planned tables, by the source's columns."""

    table: TablePlan
    columns: tuple[ColumnPlan, ...]
    parent: TablePlan
    parent_columns: tuple[ColumnPlan, ...]

    @property
    def broken(self) -> Refusal:
        """What is said of a row that breaks it."""
        names = ", ".join(c.source for c in self.columns)
        reason = f"breaks foreign key ({names}): {self.parent.source_table} has no such row, or it is in quarantine, too"
        return Refusal(self.columns[0].source, reason)


class _Reader(Protocol):
    def twins(self, table: TablePlan, key: Sequence[ColumnPlan]) -> Iterable[str]:
        """Positions of rows whose key an earlier row has, as PostgreSQL compares."""
        ...

    def orphans(self, reference: Reference, without: Collection[str]) -> Iterable[str]:
        """Positions of rows whose parent is not there, or bad, or at one of the positions `without`."""
        ...


class KeyBreaks:
    """Rows of some tables that break keys, found when the first of them is asked for."""

    def __init__(self, reader: _Reader, tables: Sequence[TablePlan]) -> None:
        self._reader = reader
        # What was there before has keys of its own, which are not those of the source.
        self._tables = [t for t in tables if t.mode in {TableMode.CREATE, TableMode.REPLACE}]
        self._found: dict[str, dict[str, Refusal]] | None = None
        self._lock = threading.Lock()

    def of(self, table: TablePlan) -> Mapping[str, Refusal]:
        """The reason by position. Nothing may be lent from the reader meanwhile."""
        with self._lock:
            if self._found is None:
                self._found = self._find()
            return self._found.get(table.target, {})

    def _find(self) -> dict[str, dict[str, Refusal]]:
        found = {t.target: dict[str, Refusal]() for t in self._tables}
        for table in self._tables:
            for key in _keys(table):
                names = ", ".join(c.source for c in key)
                why = Refusal(
                    key[0].source, f"duplicate of key ({names}) in PostgreSQL; the first row is kept"
                )
                for position in self._reader.twins(table, key):
                    found[table.target].setdefault(position, why)
        references = list(self._references())
        before = -1
        while (now := sum(map(len, found.values()))) != before:
            before = now
            for reference in references:
                gone = found[reference.parent.target]
                for position in self._reader.orphans(reference, tuple(gone)):
                    found[reference.table.target].setdefault(position, reference.broken)
        return found

    def _references(self) -> Iterator[Reference]:
        tables = {(t.target_schema, t.target_table): t for t in self._tables}
        for table in self._tables:
            for key in table.definition.foreign_keys if table.definition else ():
                parent = tables.get((key.target_schema, key.target_table))
                if parent is not None and (reference := _reference(table, key, parent)):
                    yield reference


def _reference(table: TablePlan, key: ForeignKey, parent: TablePlan) -> Reference | None:
    columns, theirs = _columns(table, key.columns), _columns(parent, key.target_columns)
    return Reference(table, columns, parent, theirs) if columns and theirs else None


def _columns(table: TablePlan, targets: Sequence[str]) -> tuple[ColumnPlan, ...]:
    """The columns of these names in the target; none where one is not carried."""
    planned = {c.target: c for c in table.columns}
    return tuple(planned[t] for t in targets) if all(t in planned for t in targets) else ()


def _keys(table: TablePlan) -> Iterator[tuple[ColumnPlan, ...]]:
    definition: Table | None = table.definition
    if definition is None:
        return
    keys = [k.columns for k in (definition.primary_key, *definition.unique_keys) if k is not None]
    for index in definition.indexes:
        plain = [part.column for part in index.parts if part.column is not None]
        if index.unique and index.predicate is None and len(plain) == len(index.parts):
            keys.append(tuple(plain))
    for key in keys:
        if columns := _columns(table, key):
            yield columns
