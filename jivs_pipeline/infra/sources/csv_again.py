"""Records of CSV that are in quarantine, found again in files that somebody has corrected.

What belongs here: finding a record and judging it anew. What does not: what makes a record bad (`csv_sieve`).

With a key in the schema file a record is found by its key. Without, by its line, if all other records are still those
that were loaded: their digest says so, and then nothing has moved. Else the stored values are tried as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.core.quarantine import Again, KeptRow, Regained
from jivs_pipeline.infra.sources.csv_census import Looked, looked_at, misfit, scanned
from jivs_pipeline.infra.sources.csv_open import CsvTable, pieces, tolerant
from jivs_pipeline.infra.sources.csv_scan import Group, Problems
from jivs_pipeline.infra.sources.csv_sieve import judged, row_of
from jivs_pipeline.infra.sources.csv_types import spelled, speller, written
from jivs_pipeline.infra.sources.files_open import changed
from jivs_pipeline.infra.sources.row_text import digest_of_texts

__all__ = ["read_again"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them

_Values = Mapping[str, str | None]
_Place = tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    """Records at the wanted places, each with its values or with what is wrong, and the digest of all others."""

    found: dict[_Place, list[tuple[_Values | None, tuple[str | None, str]]]] = field(
        default_factory=dict[_Place, list[tuple[_Values | None, tuple[str | None, str]]]]
    )
    rest: Digest = field(default_factory=Digest)


def read_again(
    connection: Connection,
    table: CsvTable,
    plan: TablePlan,
    rows: Sequence[KeptRow],
    rest: Digest,
    *,
    apart: bool,
) -> Again:
    """The rows as the files have them now; `rest` is the digest of what was loaded."""
    places = {row.id: _place(table, row) for row in rows}
    seen = _look(connection, table, plan, set(places.values()))
    stay: dict[int, tuple[str | None, str]] = {}
    good: dict[int, list[tuple[int, _Values]]] = {}
    for row in rows:
        place = places[row.id]
        records = seen.found.get(place, [])
        if place[0] == "line" and seen.rest != rest:
            records = []  # other lines were changed, too, so that this may be another record's by now
        if len(records) > 1:
            stay[row.id] = (None, "the files have its key more than once")
            continue
        values, wrong = records[0] if records else _stored(table, plan, row)
        if values is None:
            stay[row.id] = wrong
        else:
            good.setdefault(row.chunk, []).append((row.id, values))
    parts = [
        (chunk, part)
        for chunk, found in good.items()
        for part in ([[one] for one in found] if apart else [found])
    ]
    return Again([_made(table, plan, chunk, part) for chunk, part in parts], stay)


def _place(table: CsvTable, row: KeptRow) -> _Place:
    key = table.schema.key
    if key and set(key) == set(row.key) and not any(row.key[k] is None for k in key):
        return ("key", *(str(row.key[k]) for k in key))
    return ("line", str(row.key.get("file")), str(row.key.get("line")))


def _look(connection: Connection, table: CsvTable, plan: TablePlan, wanted: set[_Place]) -> _Seen:
    seen = _Seen()
    looked = looked_at(table, [c.source for c in plan.columns])
    numbers = [table.columns.index(c.source) for c in plan.columns]
    spellers = [speller(table.types[n]) for n in numbers]
    for file in table.files:
        problems = Problems()
        texts = pieces(connection, file, file.begin, errors=tolerant(file))
        for group in scanned(texts, file, len(table.columns), problems, file.line):
            bad = judged(group, looked)
            mine = dict(_mine(group, table, file.name, wanted))
            rows = np.cumsum(group.good) - 1
            others = np.ones(group.rows, bool)
            for record in {*bad, *mine}:
                if group.good[record]:
                    others[rows[record]] = False
            kept = pa.array(others)
            columns = [
                spelled(group.column(n), s).filter(kept) for n, s in zip(numbers, spellers, strict=True)
            ]
            seen.rest += digest_of_texts(plan, columns, int(others.sum()))
            for record, place in mine.items():
                values = None if record in bad else row_of(group, int(rows[record]), table, plan)
                seen.found.setdefault(place, []).append((values, _wrong(table, *bad.get(record, (None, "")))))
        if problems.fatal:
            raise changed(connection, plan.source, file.name, problems.reasons()[-1])
    return seen


def _wrong(table: CsvTable, number: int | None, reason: str) -> tuple[str | None, str]:
    if number is None:
        return None, reason
    return table.columns[number], reason or misfit(table, number)


def _mine(group: Group, table: CsvTable, file: str, wanted: set[_Place]) -> Iterator[tuple[int, _Place]]:
    """Records of the group that are at a wanted place."""
    lines = [int(p[2]) for p in wanted if p[0] == "line" and p[1] == file and p[2].isdecimal()]
    for record in np.flatnonzero(np.isin(group.record_lines, lines)).tolist():
        yield record, ("line", file, str(int(group.record_lines[record])))
    keys = {p[1:] for p in wanted if p[0] == "key"}
    if not keys or not group.rows:
        return
    columns = [group.column(table.columns.index(name)) for name in table.schema.key]
    likely = np.ones(group.rows, bool)
    for number, column in enumerate(columns):
        values = pa.array(sorted({k[number] for k in keys}), pa.string())
        likely &= _pc.is_in(column, values).to_numpy(zero_copy_only=False)
    records = np.flatnonzero(group.good)
    for row in np.flatnonzero(likely).tolist():
        if (key := tuple(str(c[row].as_py()) for c in columns)) in keys:
            yield int(records[row]), ("key", *key)


def _stored(table: CsvTable, plan: TablePlan, row: KeptRow) -> tuple[_Values | None, tuple[str | None, str]]:
    """The values that are kept in quarantine, should they be good by now."""
    values = {name: None if v is None else str(v) for name, v in row.row.items() if not isinstance(v, dict)}
    if set(values) != {c.source for c in plan.columns}:
        return None, (row.column, "the files do not have it any more, and what is kept of it is no row")
    looked: list[Looked] = looked_at(table, list(values))
    for number, name, spell, required in looked:
        one = pa.array([values[name]], pa.string())
        if required and values[name] is None:
            return None, (name, "NULL, which this column may not hold")
        if spell is not None and values[name] is not None and spelled(one, spell)[0].as_py() is None:
            return None, (name, misfit(table, number))
    return values, (None, "")


def _made(table: CsvTable, plan: TablePlan, chunk: int, rows: Sequence[tuple[int, _Values]]) -> Regained:
    arrays = [pa.array([values[c.source] for _, values in rows], pa.string()) for c in plan.columns]
    schema = pa.schema([pa.field(c.target, pa.string()) for c in plan.columns])
    types = [table.types[table.columns.index(c.source)] for c in plan.columns]
    texts = [spelled(array, speller(type_)) for array, type_ in zip(arrays, types, strict=True)]
    loaded = [written(array, c.carrier) for array, c in zip(arrays, plan.columns, strict=True)]
    batch = pa.RecordBatch.from_arrays(loaded, schema=schema)
    return Regained(tuple(i for i, _ in rows), chunk, [batch], digest_of_texts(plan, texts, len(rows)))
