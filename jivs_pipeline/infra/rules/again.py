"""Rows in quarantine, refined anew: those that rules have rejected by their keys, for rules know no places in a source.

What belongs here: finding them among a chunk's rows and judging them. What does not: loading them (`engine/replay.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from jivs_pipeline.core.plan import RULED, Chunk, TablePlan
from jivs_pipeline.core.ports import Refined
from jivs_pipeline.core.quarantine import Again, KeptRow, Regained
from jivs_pipeline.infra.sources.row_text import digest_of_texts

__all__ = ["Keys", "judged", "key_of", "refined_again"]

Reasons = dict[int, tuple[str | None, str]]
Key = tuple[str | None, ...]

_NO_KEY = "its table has no primary key of columns that rules leave as they are"
_OTHERS = "what its rules make of it depends on other rows: roll back and run again"
_GONE = "its chunk of the source has no row with that key any more"


def refined_again(
    refined: Callable[[TablePlan, Chunk], Iterator[Refined]],
    table: TablePlan,
    rows: Sequence[KeptRow],
    *,
    apart: bool,
) -> Again:
    """Judge rows by the rules as they are now.

    Args:
        refined: the rows of a chunk, refined.
        apart: each good row by itself, instead of all of a batch together.
    """
    key = key_of(table)
    if not key:
        return Again((), {row.id: (None, _NO_KEY) for row in rows})
    stay: Reasons = {}
    good: list[Regained] = []
    chunks = {c.index: c for c in table.chunks}
    wanted: dict[int, dict[Key, int]] = {}
    for row in rows:
        wanted.setdefault(row.chunk, {})[tuple(row.key.get(source) for source, _ in key)] = row.id
    for number, ids in wanted.items():
        for part in refined(table, chunks[number]) if number in chunks else ():
            for bad in part.bad:
                if (id_ := ids.pop(tuple(bad.key.get(source) for source, _ in key), None)) is not None:
                    stay[id_] = (bad.column, bad.reason)
            good += _good(table, part, number, [target for _, target in key], ids, apart=apart)
        stay |= dict.fromkeys(ids.values(), (None, _GONE))
    return Again(good, stay)


def judged(refine: Callable[[pa.RecordBatch], Refined], table: TablePlan, again: Again) -> Again:
    """Rows that are good in their source by now, each by itself, as the rules make them.

    Args:
        refine: applies the rules to a batch.
        again: as the source has read them, each apart.
    """
    stay = dict(again.stay)
    rules = table.rules
    if rules is not None and (rules.dedupe or rules.python):
        return Again((), {**stay, **{i: (None, _OTHERS) for one in again.good for i in one.ids}})
    good: list[Regained] = []
    for one in again.good:
        for batch in one.batches:
            refined = refine(batch)
            for bad in refined.bad:
                stay |= dict.fromkeys(one.ids, (bad.column, bad.reason))
            if refined.batch.num_rows:
                good.append(replace(one, batches=[refined.batch], digest=refined.digest, read=one.digest))
    return Again(good, stay)


class Keys:
    """Keys of a table's rows that are in quarantine; none where rules change its primary key."""

    def __init__(self, table: TablePlan, kept: Sequence[Mapping[str, Any]]) -> None:
        self._table = table
        self._key = key_of(table)
        self._kept = (
            {tuple(row.get(source) for source, _ in self._key) for row in kept} if self._key else set()
        )

    def without(self, refined: Refined) -> tuple[Refined, int]:
        """A batch without those rows, the bad ones among them included, and how many they were."""
        if not self._kept:
            return refined, 0
        bad = [row for row in refined.bad if tuple(row.key.get(s) for s, _ in self._key) not in self._kept]
        known = len(refined.bad) - len(bad)
        texts = zip(*(refined.batch.column(name).to_pylist() for _, name in self._key), strict=True)
        stay = [place for place, key in enumerate(texts) if key not in self._kept]
        left_out = refined.batch.num_rows - len(stay)
        if not left_out:
            return replace(refined, bad=bad), known
        places = pa.array(stay, pa.int64())
        canon = [column.take(places) for column in refined.canon]
        digest = digest_of_texts(self._table, canon, len(stay))
        batch = refined.batch.take(places)
        return replace(refined, batch=batch, canon=canon, digest=digest, bad=bad), known + left_out


def key_of(table: TablePlan) -> list[tuple[str, str]]:
    """Source and target of the primary key's columns; empty where rules change one."""
    definition = table.definition
    names = definition.primary_key.columns if definition and definition.primary_key else ()
    kept = {c.target: c.source for c in table.columns if c.carrier != RULED}
    return [(kept[n], n) for n in names] if all(n in kept for n in names) else []


def _good(
    table: TablePlan, part: Refined, number: int, key: Sequence[str], ids: dict[Key, int], *, apart: bool
) -> Iterator[Regained]:
    """Those of a batch that are good by now; their keys leave `ids`."""
    texts = zip(*(part.batch.column(name).to_pylist() for name in key), strict=True)
    found = [(place, id_) for place, one in enumerate(texts) if (id_ := ids.pop(one, None)) is not None]
    for group in [[f] for f in found] if apart else [found] if found else []:
        places = pa.array([place for place, _ in group], pa.int64())
        digest = digest_of_texts(table, [c.take(places) for c in part.canon], len(group))
        yield Regained(tuple(id_ for _, id_ in group), number, [part.batch.take(places)], digest)
