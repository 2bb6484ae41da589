"""Which rows differ, where the digests of a table do: by key, and by column.

What belongs here: comparing row hashes in bounded memory. What does not: making them, which each end does itself.

Keys and the names of columns are told to whoever asks; they are kept nowhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from zlib import crc32

from jivs_pipeline.core.errors import RefusedError
from jivs_pipeline.core.plan import ColumnPlan, TablePlan
from jivs_pipeline.core.ports import HashedRow, Snapshot
from jivs_pipeline.engine.ports import Target

__all__ = ["differing_rows"]

_HELD = 300_000
"""Rows whose hashes are held at a time; more are compared in as many passes as it takes."""

Key = tuple[str | None, ...]
Hashes = dict[Key, list[bytes]]


def differing_rows(
    table: TablePlan, snapshot: Snapshot, target: Target, chunks: Sequence[int], rows: int, most: int
) -> list[dict[str, Any]]:
    """Up to `most` rows that one end has and the other has not, or has otherwise; empty where no key tells rows apart.

    Args:
        chunks: indexes of those that differ; empty when only the whole table is known to.
        rows: how many there are in those, at the end that has more.

    Returns:
        For each `key` (column -> text), `kind` (`changed`, `missing` or `extra` in the target) and for changed ones
        `columns`.
    """
    key = _key(table)
    if not key:
        return []
    ends = _Ends(table, snapshot, target, tuple(chunks), key)
    found: list[dict[str, Any]] = []
    passes = -(-rows // _HELD) or 1
    try:
        for number in range(passes):
            changed: list[Key] = []
            for one, there, here in ends.unequal(table, passes, number):
                if there and here:
                    changed.append(one)
                else:
                    found.append({"key": _named(key, one), "kind": "missing" if there else "extra"})
                if len(found) + len(changed) >= most:
                    break
            columns = ends.columns(changed)
            found += [
                {"key": _named(key, one), "kind": "changed", "columns": columns.get(one, [])}
                for one in changed
            ]
            if len(found) >= most:
                break
    except RefusedError:
        return []  # a row too large to be hashed alone
    return found


def _key(table: TablePlan) -> tuple[ColumnPlan, ...]:
    definition = table.definition
    if definition is None:
        return ()
    required = {c.name for c in definition.columns if not c.nullable}
    keys = [k.columns for k in (definition.primary_key, *definition.unique_keys) if k]
    carried = {c.target: c for c in table.columns}
    names = next((k for k in keys if required.issuperset(k) or (k is keys[0] and definition.primary_key)), ())
    return tuple(carried[n] for n in names) if carried.keys() >= set(names) else ()


def _named(key: Sequence[ColumnPlan], values: Key) -> dict[str, str | None]:
    return {c.target: v for c, v in zip(key, values, strict=True)}


@dataclass(frozen=True, slots=True)
class _Ends:
    """Both ends of a table, as far as it differs."""

    table: TablePlan
    snapshot: Snapshot
    target: Target
    chunks: tuple[int, ...]
    key: tuple[ColumnPlan, ...]

    def unequal(
        self, table: TablePlan, passes: int = 1, number: int = 0, only: Collection[Key] | None = None
    ) -> Iterator[tuple[Key, list[bytes], list[bytes]]]:
        """Keys whose rows differ in the columns of `table`, with what the source and the target have of them."""
        there, here = (
            _grouped(rows, passes, number, only) for rows in (self._source(table), self._target(table))
        )
        for key in {**there, **here}:
            if sorted(there.get(key, [])) != sorted(here.get(key, [])):
                yield key, there.get(key, []), here.get(key, [])

    def _source(self, table: TablePlan) -> Iterable[HashedRow]:
        chunks = [c for c in table.chunks if not self.chunks or c.index in self.chunks]
        return chain.from_iterable(self.snapshot.hashes(table, c, self.key) for c in chunks)

    def _target(self, table: TablePlan) -> Iterable[HashedRow]:
        return self.target.hashes_now(table, self.key, self.chunks or None)

    def columns(self, keys: Sequence[Key]) -> Mapping[Key, list[str]]:
        """In which columns the rows with these keys differ, found by halving."""
        found: dict[Key, list[str]] = {}

        def look(columns: Sequence[ColumnPlan], suspects: Collection[Key]) -> None:
            part = self.table.model_copy(update={"columns": (*self.key, *columns)})
            guilty = [key for key, _, _ in self.unequal(part, only=suspects)]
            if not guilty:
                return
            if len(columns) == 1:
                for key in guilty:
                    found.setdefault(key, []).append(columns[0].target)
                return
            half = len(columns) // 2
            look(columns[:half], guilty)
            look(columns[half:], guilty)

        if keys and (rest := [c for c in self.table.columns if c not in self.key]):
            look(rest, keys)
        return found


def _grouped(rows: Iterable[HashedRow], passes: int, number: int, only: Collection[Key] | None) -> Hashes:
    wanted = None if only is None else frozenset(only)
    grouped: Hashes = {}
    for hashed, key in rows:
        if wanted is not None:
            if key not in wanted:
                continue
        elif passes > 1 and crc32(repr(key).encode()) % passes != number:
            continue
        grouped.setdefault(key, []).append(hashed)
    return grouped
