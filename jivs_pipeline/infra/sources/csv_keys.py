"""Records of CSV whose key, as the schema file declares it, another record has: PostgreSQL would take one of them.

What belongs here: finding them. What does not: what makes a single record bad (`csv_sieve`).

Keys are compared as PostgreSQL will: `1` and `01` are one integer. A pass over the files keeps a hash of eight bytes of
each key; only where two are equal a second pass looks at the keys themselves. Of tables with more records than are held,
doubles are found when the key is built.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute
from xxhash import xxh3_64_intdigest

from jivs_pipeline.infra.sources.csv_census import Looked
from jivs_pipeline.infra.sources.csv_open import CsvTable
from jivs_pipeline.infra.sources.csv_scan import Group
from jivs_pipeline.infra.sources.csv_sieve import judged
from jivs_pipeline.infra.sources.csv_types import spelled, speller

__all__ = ["KeyHashes", "twins"]

_HELD = 8_000_000

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them


class KeyHashes:
    """Hashes of a table's keys, taken while its groups pass."""

    def __init__(self, table: CsvTable) -> None:
        self._table = table
        self._parts: list[Any] = []
        self._rows = 0

    def take(self, group: Group) -> None:
        """Note the keys of the group's records."""
        self._rows += group.rows
        if self._rows <= _HELD and self._table.schema.key and group.rows:
            texts = _texts(self._table, group)
            self._parts.append(np.array([_hash(t) for t in texts if t is not None], np.uint64))

    def doubled(self) -> Collection[int]:
        """Hashes that there are more than once; none where there were too many."""
        if self._rows > _HELD or not self._parts:
            return ()
        hashes = np.sort(np.concatenate(self._parts))
        return frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def twins(
    table: CsvTable,
    looked: Sequence[Looked],
    groups: Iterable[Group],
    doubled: Collection[int],
    seen: set[str],
) -> Iterator[int]:
    """Where good records begin in the text of the groups, whose key an earlier good record has.

    Args:
        doubled: hashes of the keys that may be doubles.
        seen: keys of records before these; it grows.
    """
    at = 0
    for group in groups:
        base = at - group.first
        texts = _texts(table, group) if group.rows else []
        rows = [(n, t) for n, t in enumerate(texts) if t is not None and _hash(t) in doubled]
        bad = judged(group, looked) if rows else {}
        records = np.flatnonzero(group.good)
        for row, text in rows:
            record = int(records[row])
            if record in bad:
                continue
            if text in seen:
                yield base + int(group.begins[record])
            seen.add(text)
        at = base + group.end


def _hash(text: str) -> int:
    return xxh3_64_intdigest(text.encode(errors="surrogateescape"))


def _texts(table: CsvTable, group: Group) -> list[str | None]:
    """The key of each record; None where a part of it is NULL or no value of its type."""
    parts: list[Any] = []
    for name in table.schema.key:
        number = table.columns.index(name)
        text = spelled(group.column(number), speller(table.types[number]))
        if pa.types.is_binary(text.type):
            text = pa.array([v if v is None else v.hex() for v in text.to_pylist()], pa.string())
        parts.append(_pc.binary_join_element_wise(_pc.utf8_length(text).cast(pa.string()), text, ":"))
    return _pc.binary_join_element_wise(*parts, "").to_pylist()
