"""Records of CSV that are no rows of their table: telling them from the others, and reading past them.

What belongs here: judging the records of a group, and dropping byte ranges. What does not: splitting (`csv_scan`),
whether a single field converts (`csv_types`).

A record's position is its range of bytes in the chunk's UTF-8. Both readers, pyarrow and our scanner, get the chunk's
bytes without these ranges, so that neither has to know what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pyarrow import compute

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.plan import Sifted, TablePlan
from jivs_pipeline.core.quarantine import BadRow, RawText
from jivs_pipeline.infra.sources.csv_census import Looked, looked_at, misfit
from jivs_pipeline.infra.sources.csv_open import CsvFile, CsvTable, pieces, raw_bytes, source_length, tolerant
from jivs_pipeline.infra.sources.csv_scan import Group
from jivs_pipeline.infra.sources.csv_types import spelled

__all__ = ["DOUBLE", "bad_rows", "counted", "judged", "row_of", "sifted"]

DOUBLE = "a key that a record before it has"
_NUL = "a NUL character, or bytes that are not in the file's encoding"

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them


def judged(group: Group, looked: Sequence[Looked]) -> dict[int, tuple[int | None, str]]:
    """Number of each bad record of the group -> number of its first bad column, and the reason."""
    found: dict[int, tuple[int | None, str]] = {}
    for record in np.flatnonzero(~group.good).tolist():
        found[record] = (None, "too few or too many fields")
    records = np.flatnonzero(group.good)
    if group.data.find(b"\0", group.first, group.end) >= 0:
        nuls = np.flatnonzero(np.frombuffer(group.data, np.uint8)[: group.end] == 0)
        nuls = nuls[nuls >= group.first]
        for record in np.unique(np.searchsorted(group.begins, nuls, side="right") - 1).tolist():
            found.setdefault(record, (None, _NUL))
    for number, _, spell, required in looked:
        if not group.rows:
            break
        values = group.column(number)
        marks = [("NULL, which this column may not hold", _pc.is_null(values))] if required else []
        if spell is not None:
            marks.append(("", _pc.and_(_pc.is_valid(values), _pc.is_null(spelled(values, spell)))))
        for reason, bad in marks:
            for row in np.flatnonzero(bad.to_numpy(zero_copy_only=False)).tolist():
                found.setdefault(int(records[row]), (number, reason))
    return dict(sorted(found.items()))


def counted(table: CsvTable, group: Group, looked: Sequence[Looked]) -> Iterable[tuple[str, str]]:
    """Column and reason of each bad record, for a survey."""
    for number, reason in judged(group, looked).values():
        yield ("" if number is None else table.columns[number]), reason or misfit(table, number or 0)


def bad_rows(
    connection: Connection,
    table: CsvTable,
    file: CsvFile,
    plan: TablePlan,
    groups: Iterable[Group],
    start: int,
    doubles: Collection[int],
) -> Iterator[BadRow]:
    """The bad records of a chunk that begins at byte `start` of the file, and those that begin at `doubles` in its text."""
    looked = looked_at(table, [c.source for c in plan.columns])
    double = np.array(sorted(doubles), np.int64)
    at, place = 0, start
    above: int | None = None
    for group in groups:
        ends = np.append(group.begins[1:], group.end)
        rows = np.cumsum(group.good) - 1
        base, passed = at - group.first, group.first
        data = memoryview(group.data)
        wrong = judged(group, looked)
        for record in np.flatnonzero(np.isin(group.begins + base, double)).tolist():
            wrong.setdefault(record, (table.columns.index(table.schema.key[0]), DOUBLE))
        for record, (number, reason) in sorted(wrong.items()):
            begin, end = int(group.begins[record]), int(ends[record])
            place += source_length(data[passed:begin], file.encoding)
            passed = begin
            position = f"{base + begin}-{base + end}"
            size = source_length(data[begin:end], file.encoding)
            raw = raw_bytes(connection, file, place, size) if reason == _NUL else None
            text = raw if raw is not None else bytes(data[begin:end])
            if above is None:
                above = _lines(connection, file, start)
            where = {"file": file.name, "line": above + int(group.record_lines[record])}
            if number is None:
                yield _whole(position, where, reason, RawText(text.rstrip(b"\r\n")))
                continue
            row = row_of(group, int(rows[record]), table, plan)
            key = {c: row[c] for c in table.schema.key if row.get(c) is not None}
            # A double is not found by its key.
            named = key if key and len(key) == len(table.schema.key) and reason != DOUBLE else where
            yield BadRow.of(position, named, table.columns[number], reason or misfit(table, number), row)
        place += source_length(data[passed : group.end], file.encoding)
        at = base + group.end


def _lines(connection: Connection, file: CsvFile, start: int) -> int:
    """Lines between the header and a chunk, which are counted only where a bad record asks for its line."""
    before = pieces(connection, file, file.begin, start, errors=tolerant(file)) if start > file.begin else ()
    return sum(piece.count(b"\n") for piece in before)


def _whole(position: str, where: Mapping[str, Any], reason: str, record: RawText) -> BadRow:
    made = BadRow.of(position, where, "record", reason, {"record": record})
    return BadRow(made.position, made.key, None, reason, made.value, made.row)


def row_of(group: Group, row: int, table: CsvTable, plan: TablePlan) -> dict[str, str | None]:
    """Carried values of a row of the group, by column."""
    one = Group(
        group.data, group.starts[row : row + 1], group.ends[row : row + 1], group.begins, group.end,
        group.lines[row : row + 1], group.dialect, group.good, group.record_lines,
    )  # fmt: skip
    return {c.source: one.column(table.columns.index(c.source))[0].as_py() for c in plan.columns}


def sifted(texts: Iterable[bytes], chunk: Sifted) -> Iterator[bytes]:
    """The chunk's bytes without the ranges of its bad records, or those of some records alone."""
    dropping = chunk.only is None
    positions = chunk.without if chunk.only is None else chunk.only
    ranges = sorted(tuple(map(int, p.split("-"))) for p in positions)
    at = number = 0
    for piece in texts:
        done, view = 0, memoryview(piece)
        while done < len(piece):
            while number < len(ranges) and ranges[number][1] <= at + done:
                number += 1
            begin, end = ranges[number] if number < len(ranges) else (at + len(piece), at + len(piece))
            inside = begin <= at + done
            until = min((end if inside else begin) - at, len(piece))
            if inside != dropping:
                yield bytes(view[done:until])
            done = until
        at += len(piece)
