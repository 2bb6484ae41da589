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

    data: bytes
    starts: Array
    ends: Array
    begins: Array
    end: int
    lines: Array
    dialect: Dialect
    good: Array
    record_lines: Array

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
        values = _gathered(self.data, octets, starts, ends)
        if quoted.any():
            quote = self.dialect.quote or ""
            # An unquoted field has no quotes: those were refused.
            values = _pc.replace_substring(values, quote * 2, quote)
        nulls = ~quoted & _pc.is_in(values, pa.array(self.dialect.nulls, pa.string())).to_numpy(
            zero_copy_only=False
        )
        return _pc.if_else(pa.array(nulls), pa.scalar(None, pa.string()), values) if nulls.any() else values


def _gathered(data: bytes, octets: Array, starts: Array, ends: Array) -> Array:
    lengths = ends - starts
    offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    total = int(offsets[-1])
    if total > _SHORT * max(len(starts), 1):
        gathered = b"".join([data[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)])
    else:
        gathered = octets[np.repeat(starts - offsets[:-1], lengths) + np.arange(total)].tobytes()
    return pa.StringArray.from_buffers(len(starts), pa.py_buffer(offsets), pa.py_buffer(gathered))


def _special(octets: Array, dialect: Dialect) -> Array:
    wanted = np.zeros(256, bool)
    wanted[[_NUL, _LF, _CR, ord(dialect.delimiter)]] = True
    if dialect.quote is not None:
        wanted[ord(dialect.quote)] = True
    # In blocks: a mask over a value of 100 MB would be as large as the value.
    blocks = range(0, len(octets), _BLOCK)
    # A text may be full of them: in 32 bits, as long as these are enough.
    places = np.int32 if len(octets) < _WIDE else np.int64
    found = [(np.flatnonzero(wanted[octets[b : b + _BLOCK]]) + b).astype(places) for b in blocks]
    return np.concatenate(found) if found else np.zeros(0, places)


def _stray(at: Array, kind: Array, quotes: Array, parity: Array, size: int, dialect: Dialect) -> int | None:
    """The first quote that neither begins nor ends a field, as an index of `at`."""
    around = [_LF, _CR, ord(dialect.delimiter), ord(dialect.quote or "\0")]
    numbers = np.flatnonzero(quotes)
    opening = numbers[parity[numbers] == 1]
    closing = numbers[parity[numbers] == 0]
    before = np.maximum(opening - 1, 0)
    begins = (at[opening] == 0) | (
        (opening > 0) & (at[before] == at[opening] - 1) & np.isin(kind[before], around)
    )
    after = np.minimum(closing + 1, len(at) - 1)
    ends = (at[after] == at[closing] + 1) & np.isin(kind[after], around) & (after != closing)
    # What follows the last byte is not known yet, or nothing.
    ends |= at[closing] == size - 1
    bad = np.concatenate([opening[~begins], closing[~ends]])
    return int(bad.min()) if len(bad) else None


def _split(data: bytes, dialect: Dialect, *, last: bool) -> _Split:
    octets = np.frombuffer(data, np.uint8)
    at = _special(octets, dialect)
    kind = octets[at]
    lines = np.cumsum(kind == _LF, dtype=np.int32)
    outside = np.ones(len(at), bool)
    open_line: int | None = None
    if dialect.quote is not None and (quotes := kind == ord(dialect.quote)).any():
        parity = (np.cumsum(quotes, dtype=np.int32) & 1).astype(np.uint8)
        stray = _stray(at, kind, quotes, parity, len(data), dialect)
        if stray is not None:
            fault = (
                "a quote inside a field that is not quoted, or text after a closing quote",
                int(lines[stray]),
            )
            return _Split(at[:0], quotes[:0], lines[:0], 0, fault)
        outside = (parity == 0) & ~quotes
        if parity[-1]:
            open_line = int(lines[np.flatnonzero(quotes)[-1]])
    returns = np.flatnonzero(outside & (kind == _CR))
    after = np.minimum(returns + 1, len(at) - 1)
    bare = returns[
        ~((kind[after] == _LF) & (at[after] == at[returns] + 1)) & (last | (at[returns] < len(data) - 1))
    ]
    if len(bare):
        return _Split(
            at[:0], outside[:0], lines[:0], 0, ("a carriage return without a newline", int(lines[bare[0]]))
        )
    if last and open_line is not None:
        return _Split(at[:0], outside[:0], lines[:0], 0, ("a quote that is never closed", open_line))
    newline = outside & (kind == _LF)
    separators = np.flatnonzero(newline | (outside & (kind == ord(dialect.delimiter))))
    places, ends_record, passed = at[separators], newline[separators], lines[separators]
    ended = np.flatnonzero(ends_record)
    rest = int(places[ended[-1]]) + 1 if len(ended) else 0
    nuls = np.flatnonzero((kind == _NUL) & ((at < rest) | last))
    nul = (len(nuls), int(lines[nuls[0]])) if len(nuls) else None
    if not last:
        keep = int(ended[-1]) + 1 if len(ended) else 0
        return _Split(places[:keep], ends_record[:keep], passed[:keep], rest, None, nul)
    if rest < len(data):
        # The last line has no newline.
        places = np.append(places, len(data))
        ends_record = np.append(ends_record, True)
        passed = np.append(passed, lines[-1] if len(lines) else 0)
    return _Split(places, ends_record, passed, len(data), None, nul)


def _fields(data: bytes, split: _Split) -> tuple[Array, Array]:
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
    waiting: list[bytes] = []
    held = enough = 0
    for piece, last in _with_last(pieces):
        waiting.append(piece)
        held += len(piece)
        # A record that did not end is looked at again when twice as much is there, so that it is not squared work.
        if held < enough and not last:
            continue
        data = b"".join(waiting)
        waiting.clear()
        split = _split(data, dialect, last=last)
        if split.nul is not None:
            said = "NUL characters, which PostgreSQL's text cannot hold"
            problems.add(said, split.nul[0], file, line + split.nul[1])
        if split.fault is not None:
            problems.stop(split.fault[0], file, line + split.fault[1])
            return
        if len(split.at):
            yield _group(data, split, dialect, columns, problems, file, line)
            line += data.count(b"\n", 0, split.rest)
        waiting.append(data[split.rest :])
        held = len(waiting[0])
        if held > _MAX_RECORD:
            problems.stop("a record of more than 1 GiB", file, line)
            return
        enough = 2 * held


def _with_last(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    before: bytes | None = None
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    if before is not None:
        yield before, True


def _group(
    data: bytes, split: _Split, dialect: Dialect, columns: int, problems: Problems, file: str, line: int
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
                said = f"records with {kind} fields ({columns:,} are expected)"
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
