"""Rows that rules have rejected, read and refined anew: by their keys, for rules know no places in a source.

What belongs here: finding them among a chunk's rows and judging them. What does not: loading them (`engine/replay.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from jivs_pipeline.core.plan import RULED, Chunk, TablePlan
from jivs_pipeline.core.ports import Refined
from jivs_pipeline.core.quarantine import Again, KeptRow, Regained
from jivs_pipeline.infra.sources.row_text import digest_of_texts

__all__ = ["refined_again"]

Reasons = dict[int, tuple[str | None, str]]
Key = tuple[str | None, ...]

_NO_KEY = "its table has no primary key of columns that rules leave as they are"
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
    key = _key(table)
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


def _key(table: TablePlan) -> list[tuple[str, str]]:
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
