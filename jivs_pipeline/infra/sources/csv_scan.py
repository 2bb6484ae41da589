"""Where the records and fields of CSV begin and end: a strict scanner over UTF-8.

What belongs here: splitting, and naming what is no CSV. What does not: opening and decoding files
(`csv_open`), types (`csv_types`).

Why a scanner of our own: byte ranges of records need an index that no library gives, rows have to be counted
by somebody else than pyarrow, which loads them, and pyarrow reads silently what is damaged: a quote that nobody
closes takes the rest of the file, an empty line is a row of NULLs, text after a closing quote is joined to it.
Quotes are paired by their parity, which is exact as long as each stands where a field begins or ends; one that
does not is refused, so that parity and the reading of pyarrow are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

__all__ = ["Dialect", "Group", "Problems", "first_record", "scan"]

_BLOCK = 1 << 22
_LARGE = 1 << 23  # bytes of a column's fields that only a large record can have
_WIDE = 1 << 30
_SHORT = 64  # bytes of a field from which on slices are faster than gathering bytes
_NUL, _LF, _CR = 0, 10, 13
_MAX_RECORD = 1 << 30  # PostgreSQL holds no value of 1 GiB

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # of numpy, or of pyarrow, which has no stubs that a checker can follow


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written. `quote` None: nothing is quoted; `nulls`: unquoted fields that are NULL."""

    delimiter: str = ","
    quote: str | None = '"'
    nulls: tuple[str, ...] = ("",)


@dataclass(slots=True)
class Problems:
    """What is wrong in a table's files: how often, and where first."""

    found: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    fatal: bool = False
    """Whether the rest of a file was not looked at."""

    def add(self, kind: str, count: int, file: str, line: int) -> None:
        """Count `kind`, of which the first is in this line."""
        before, first = self.found.get(kind, (0, f"line {line:,} of {file}"))
        self.found[kind] = (before + count, first)

    def stop(self, kind: str, file: str, line: int, count: int = 1) -> None:
        """Something after which nothing of the file can be trusted."""
        self.add(kind, count, file, line)
        self.fatal = True

    def reasons(self) -> list[str]:
        """A sentence for each kind."""
        return [
            f"{kind}: {count:,} in all, first in {first}"
            + ("; the rest of that file was not looked at" if self.fatal else "")
            for kind, (count, first) in self.found.items()
        ]


@dataclass(frozen=True, slots=True)
class _Split:
    """Separators of complete records: positions, which of them end a record, newlines before each, what is left."""

    at: Array
    ends_record: Array
    lines: Array
    rest: int
    fault: tuple[str, int] | None = None
    nul: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Some complete records.

    Attributes:
        data: UTF-8, which the positions are of.
        starts, ends: of fields, one row per record that has as many as it should; quotes are inside.
        begins: where each record begins, also those with too many or too few fields.
        end: where the last one ends.
        lines: line of each row of `starts`.
        good: of each record in `begins`, whether it has the right number of fields.
        record_lines: line of each record in `begins`.
    """

    data: bytes | bytearray
    starts: Array
    ends: Array
    begins: Array
    end: int
    lines: Array
    dialect: Dialect
    good: Array
    record_lines: Array

    @property
    def first(self) -> int:
        """Where its text begins in `data`."""
        return int(self.begins[0])

    def part(self, start: int, end: int) -> Group:
        """Some of its records."""
        rows = slice(*(int(np.count_nonzero(self.good[:record])) for record in (start, end)))
        return Group(
            self.data,
            self.starts[rows],
            self.ends[rows],
            self.begins[start:end],
            int(self.begins[end]) if end < len(self.begins) else self.end,
            self.lines[rows],
            self.dialect,
            self.good[start:end],
            self.record_lines[start:end],
        )

    @property
    def rows(self) -> int:
        """Records with the right number of fields."""
        return len(self.starts)

    def column(self, number: int) -> Array:
        """Values of a column as an Arrow array of strings."""
        starts, ends = self.starts[:, number], self.ends[:, number]
        octets = np.frombuffer(self.data, np.uint8)
        quoted = np.zeros(len(starts), bool)
        if self.dialect.quote is not None:
            filled = np.flatnonzero(ends > starts)
            quoted[filled] = octets[starts[filled]] == ord(self.dialect.quote)
        starts, ends = starts + quoted, ends - quoted
        quote = self.dialect.quote if quoted.any() else None
        if quote is not None and int((ends - starts).sum()) > _LARGE:
            values = _unquoted(octets, starts, ends, ord(quote))
        else:
            values = _gathered(octets, starts, ends)
            if quote is not None:
                # An unquoted field has no quotes: those were refused.
                values = _pc.replace_substring(values, quote * 2, quote)
        nulls = ~quoted & _pc.is_in(values, pa.array(self.dialect.nulls, pa.string())).to_numpy(
            zero_copy_only=False
        )
        return _pc.if_else(pa.array(nulls), pa.scalar(None, pa.string()), values) if nulls.any() else values


def _gathered(octets: Array, starts: Array, ends: Array) -> Array:
    lengths = ends - starts
    offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    if len(starts) == 1:
        alone: Any = pa.StringArray  # where it is
        return alone.from_buffers(
            1, pa.py_buffer(offsets), pa.py_buffer(octets[int(starts[0]) : int(ends[0])])
        )
    total = int(offsets[-1])
    if total > _SHORT * max(len(starts), 1):
        # Each is copied once, to where it belongs: a list of slices would be one more copy of 100 MB.
        gathered = np.empty(total, np.uint8)
        for to, a, b in zip(offsets[:-1].tolist(), starts.tolist(), ends.tolist(), strict=True):
            gathered[to : to + b - a] = octets[a:b]
    else:
        gathered = octets[np.repeat(starts - offsets[:-1], lengths) + np.arange(total)]
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(gathered))


def _count(octets: Array, one: int) -> int:
    blocks = range(0, len(octets), _BLOCK)
    return sum(int(np.count_nonzero(octets[b : b + _BLOCK] == one)) for b in blocks)


def _unquoted(octets: Array, starts: Array, ends: Array, quote: int) -> Array:
    """Fields with every second of their quotes left out, each byte copied once: Arrow's function makes three of 100 MB."""
    fields = [octets[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    pairs = [_count(f, quote) // 2 for f in fields]
    if not any(pairs):
        return _gathered(octets, starts, ends)
    offsets = np.zeros(len(fields) + 1, np.int32)
    np.cumsum([len(f) - n for f, n in zip(fields, pairs, strict=True)], out=offsets[1:])
    gathered = np.empty(int(offsets[-1]), np.uint8)
    for to, whole in zip(offsets[:-1].tolist(), fields, strict=True):
        seen = 0
        for begin in range(0, len(whole), _BLOCK):
            block = whole[begin : begin + _BLOCK]
            quotes = np.flatnonzero(block == quote)
            kept = np.delete(block, quotes[1 - seen % 2 :: 2])
            gathered[to : to + len(kept)] = kept
            to, seen = to + len(kept), seen + len(quotes)  # noqa: PLW2901
    return pa.StringArray.from_buffers(len(fields), pa.py_buffer(offsets), pa.py_buffer(gathered))


def _table(octets: Iterable[int]) -> Array:
    """Which of the 256 octets these are, to be asked by index."""
    wanted = np.zeros(256, bool)
    wanted[list(octets)] = True
    return wanted


@dataclass(slots=True)
class _Splitter:
    """Looks at the special characters of some bytes block by block, and keeps only those that separate fields.

    A value of 100 MB may be a fifth quotes, commas and newlines: their places in one array would take as much as the value.
    """

    octets: Array
    dialect: Dialect
    last: bool
    stray: int | None = None
    bare: int | None = None
    """Lines of the first quote inside a field, and of the first carriage return that is no part of an end of a line."""
    open_line: int | None = None
    """Line of the last quote that opens a field."""
    odd: int = 0
    newlines: int = 0
    at: list[Array] = field(default_factory=list[Array])
    ends_record: list[Array] = field(default_factory=list[Array])
    lines: list[Array] = field(default_factory=list[Array])
    nuls: list[Array] = field(default_factory=list[Array])
    """Places of NUL, and the lines that they are in."""
    nul_lines: list[Array] = field(default_factory=list[Array])

    def look(self) -> None:
        """At all of it, up to the first quote that is astray."""
        delimiter = ord(self.dialect.delimiter)
        quote = None if self.dialect.quote is None else ord(self.dialect.quote)
        special = _table({_NUL, _LF, _CR, delimiter} | ({quote} if quote is not None else set()))
        around = _table({_LF, _CR, delimiter} | ({quote} if quote is not None else set()))
        places = np.int32 if len(self.octets) < _WIDE else np.int64
        for begin in range(0, len(self.octets), _BLOCK):
            at = (np.flatnonzero(special[self.octets[begin : begin + _BLOCK]]) + begin).astype(places)
            if not len(at):
                continue
            kind = self.octets[at]
            lines = np.cumsum(kind == _LF, dtype=np.int32) + np.int32(self.newlines)
            self.newlines = int(lines[-1])
            outside: Array = np.ones(len(at), bool)
            if quote is not None:
                outside = self._outside(at, kind == quote, lines, around)
                if self.stray is not None:
                    return
            self._take(at, kind, lines, outside, delimiter)

    def _outside(self, at: Array, quotes: Array, lines: Array, around: Array) -> Array:
        """Which of the block's characters are in no quoted field."""
        parity = ((np.cumsum(quotes, dtype=np.int32) + self.odd) & 1).astype(np.uint8)
        numbers = np.flatnonzero(quotes)
        if len(numbers):
            opening = numbers[parity[numbers] == 1]
            closing = numbers[parity[numbers] == 0]
            size = len(self.octets)
            begins = (at[opening] == 0) | around[self.octets[np.maximum(at[opening] - 1, 0)]]
            # What follows the last byte is not known yet, or nothing.
            ends = (at[closing] == size - 1) | around[self.octets[np.minimum(at[closing] + 1, size - 1)]]
            bad = np.concatenate([opening[~begins], closing[~ends]])
            if len(bad):
                self.stray = int(lines[bad.min()])
            if parity[-1]:
                self.open_line = int(lines[numbers[-1]])
        self.odd = int(parity[-1])
        return (parity == 0) & ~quotes

    def _take(self, at: Array, kind: Array, lines: Array, outside: Array, delimiter: int) -> None:
        size = len(self.octets)
        if self.bare is None:
            returns = np.flatnonzero(outside & (kind == _CR))
            ended = (at[returns] + 1 < size) & (self.octets[np.minimum(at[returns] + 1, size - 1)] == _LF)
            bare = returns[~ended & (self.last | (at[returns] < size - 1))]
            self.bare = int(lines[bare[0]]) if len(bare) else None
        newline = outside & (kind == _LF)
        separators = np.flatnonzero(newline | (outside & (kind == delimiter)))
        self.at.append(at[separators])
        self.ends_record.append(newline[separators])
        self.lines.append(lines[separators])
        if len(nuls := np.flatnonzero(kind == _NUL)):
            self.nuls.append(at[nuls])
            self.nul_lines.append(lines[nuls])


def _joined(parts: list[Array], kind: Any) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _split(data: bytes | bytearray, dialect: Dialect, *, last: bool) -> _Split:
    found = _Splitter(np.frombuffer(data, np.uint8), dialect, last)
    found.look()
    fault: tuple[str, int] | None = None
    if found.stray is not None:
        fault = ("a quote inside a field that is not quoted, or text after a closing quote", found.stray)
    elif found.bare is not None:
        fault = ("a carriage return without a newline", found.bare)
    elif last and found.odd:
        fault = ("a quote that is never closed", found.open_line or 0)
    places, ends_record = _joined(found.at, np.int32), _joined(found.ends_record, bool)
    passed = _joined(found.lines, np.int32)
    if fault is not None:
        return _Split(places[:0], ends_record[:0], passed[:0], 0, fault)
    ended = np.flatnonzero(ends_record)
    rest = int(places[ended[-1]]) + 1 if len(ended) else 0
    nuls = _joined(found.nuls, np.int32)
    counted = np.flatnonzero((nuls < rest) | last)
    nul = (len(counted), int(_joined(found.nul_lines, np.int32)[counted[0]])) if len(counted) else None
    if not last:
        keep = int(ended[-1]) + 1 if len(ended) else 0
        return _Split(places[:keep], ends_record[:keep], passed[:keep], rest, None, nul)
    if rest < len(data):
        # The last line has no newline.
        places = np.append(places, len(data))
        ends_record = np.append(ends_record, True)
        passed = np.append(passed, found.newlines)
    return _Split(places, ends_record, passed, len(data), None, nul)


def _fields(data: bytes | bytearray, split: _Split) -> tuple[Array, Array]:
    """Where fields start and end."""
    octets = np.frombuffer(data, np.uint8)
    starts = np.concatenate([[0], split.at[:-1] + 1])
    ends = split.at.copy()
    filled = np.flatnonzero(split.ends_record & (ends > starts) & (ends < len(data)))
    # CRLF: a quoted field ends with its quote, so this return is never inside a value.
    ends[filled] -= octets[ends[filled] - 1] == _CR
    return starts, ends


def first_record(data: bytes, dialect: Dialect, *, last: bool) -> tuple[list[str | None], int, int] | None:
    """Values of the first record, its bytes and its lines; None when there is no whole record.

    Raises:
        ValueError: what is wrong with it.
    """
    split = _split(data, dialect, last=last)
    if not len(split.at):
        if split.fault is not None:
            # What is wrong may be further down, and is told with the rows.
            end = data.find(b"\n") + 1
            if 0 < end < len(data):
                return first_record(data[:end], dialect, last=True)
            raise ValueError(f"{split.fault[0]} in line {split.fault[1] + 1}")
        return None
    starts, ends = _fields(data, split)
    end = int(np.flatnonzero(split.ends_record)[0]) + 1
    numbers = np.zeros(1, np.int64)
    group = Group(
        data, starts[:end].reshape(1, end), ends[:end].reshape(1, end), numbers, 0, numbers, dialect,
        np.ones(1, bool), numbers,
    )  # fmt: skip
    length = min(int(split.at[end - 1]) + 1, len(data))
    values = [group.column(n)[0].as_py() for n in range(end)]
    return values, length, data[:length].count(b"\n")


def scan(
    pieces: Iterable[bytes], dialect: Dialect, columns: int, problems: Problems, file: str, line: int
) -> Iterator[Group]:
    """Records of UTF-8 that begins with one, in groups.

    Args:
        pieces: at least one record's worth is kept, however large it is.
        columns: fields that a record must have.
        problems: is told what is wrong; groups leave those records out.
        file: its name for people.
        line: number of the first line.
    """
    data, enough = bytearray(), 0
    for piece, last in _with_last(pieces):
        # It grows in its place: pieces in a list would be there twice when they are joined.
        data += piece
        # A record that did not end is looked at again when twice as much is there, so that it is not squared work.
        if len(data) < enough and not last:
            continue
        split = _split(data, dialect, last=last)
        if split.nul is not None:
            said = "NUL characters, which PostgreSQL's text cannot hold"
            problems.add(said, split.nul[0], file, line + split.nul[1])
        if split.fault is not None:
            problems.stop(split.fault[0], file, line + split.fault[1])
            return
        if len(split.at):
            yield from _apart(_group(data, split, dialect, columns, problems, file, line))
            line += data.count(b"\n", 0, split.rest)
            data = data[split.rest :]
        if len(data) > _MAX_RECORD:
            problems.stop("a record of more than 1 GiB", file, line)
            return
        enough = 2 * len(data)


def _apart(group: Group) -> Iterator[Group]:
    """The group with its large records as groups of their own, whose fields need not be copied."""
    lengths = np.diff(np.append(group.begins, group.end))
    seen = 0
    for number in np.flatnonzero(lengths > _LARGE).tolist():
        if seen < number:
            yield group.part(seen, number)
        yield group.part(number, number + 1)
        seen = number + 1
    if seen < len(lengths):
        yield group.part(seen, len(lengths)) if seen else group


def _with_last(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    before: bytes | None = None
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    if before is not None:
        yield before, True


def _group(
    data: bytes | bytearray,
    split: _Split,
    dialect: Dialect,
    columns: int,
    problems: Problems,
    file: str,
    line: int,
) -> Group:
    starts, ends = _fields(data, split)
    ended = np.flatnonzero(split.ends_record)
    counts = np.diff(np.concatenate([[-1], ended]))
    firsts = np.concatenate([[0], ended[:-1] + 1])
    begins = starts[firsts].astype(np.int64)
    # Newlines before a record: those up to the separator that ended the one before it.
    lines = line + np.concatenate([[0], split.lines[ended[:-1]]])
    good = counts == columns
    if not good.all():
        for kind, bad in (("too few", counts < columns), ("too many", counts > columns)):
            if bad.any():
                said = f"records with {kind} fields ({columns:,} {'is' if columns == 1 else 'are'} expected)"
                problems.add(said, int(bad.sum()), file, int(lines[bad][0]))
        keep = np.repeat(good, counts)
        starts, ends = starts[keep], ends[keep]
    shape = (int(good.sum()), columns)
    return Group(
        data,
        starts.reshape(shape),
        ends.reshape(shape),
        begins,
        split.rest,
        lines[good],
        dialect,
        good,
        lines,
    )
