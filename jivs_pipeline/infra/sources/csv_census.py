"""One pass over a CSV table before anything is planned: rows, chunks, and whether every field is what it should be.

What belongs here: counting and cutting. What does not: splitting records (`csv_scan`), checking a field
(`csv_types`).

Chunks are byte ranges of a file that begin with a record: bounds are (file, byte, hash of the chunk that begins
there). The hash is of the rows' bytes and of how they are understood, so that no reader can take others for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyarrow import compute
from xxhash import xxh3_128

from jivs_pipeline.core.chunking import chunk_bytes_for
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.plan import Chunk
from jivs_pipeline.core.ports import Refusal
from jivs_pipeline.infra.sources.csv_open import (
    BadText,
    CsvFile,
    CsvTable,
    pieces,
    size_on_disk,
    source_length,
    tolerant,
)
from jivs_pipeline.infra.sources.csv_scan import Group, Problems, scan
from jivs_pipeline.infra.sources.csv_types import Speller, spelled, speller

__all__ = ["BOUNDS", "Census", "Looked", "looked_at", "misfit", "scanned", "take_census"]

BOUNDS = ("file", "byte", "hash")
"""What the parts of a bound are. The upper bound of a file's last chunk is where the file ended."""

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them


@dataclass(slots=True)
class Census:
    """What the pass has found."""

    rows: int = 0
    bytes: int = 0
    chunks: list[Chunk] = field(default_factory=list[Chunk])
    problems: Problems = field(default_factory=Problems)
    fields: dict[str, Problems] = field(default_factory=dict[str, Problems])
    bad: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """Bad rows by column ("" for the whole row) and reason; each row once."""

    def refusals(self) -> list[Refusal]:
        """All reasons, those of single columns last."""
        whole = [Refusal("", reason) for reason in self.problems.reasons()]
        return whole + [Refusal(c, reason) for c, found in self.fields.items() for reason in found.reasons()]


def scanned(
    texts: Iterator[bytes], file: CsvFile, columns: int, problems: Problems, line: int
) -> Iterator[Group]:
    """Groups of records; bytes that are not in the encoding end them."""
    try:
        yield from scan(texts, file.dialect, columns, problems, file.name, line)
    except BadText as error:
        problems.stop(f"bytes that are not {file.encoding}", file.name, line + error.newlines, error.count)


Sieve = Callable[[Group, Sequence["Looked"]], Iterable[tuple[str, str]]]


@dataclass(slots=True)
class _Cutter:
    """Cuts one file into chunks while its groups pass."""

    table: CsvTable
    file: CsvFile
    chunk_bytes: int
    chunks: list[Chunk]
    start: int = 0
    at: int = 0
    hash: Any = None

    def __post_init__(self) -> None:
        self.start = self.at = self.file.begin
        self.hash = xxh3_128(self.table.seed)

    def take(self, group: Group) -> None:
        """Hash the group's bytes, and end chunks at records."""
        data = memoryview(group.data)
        encoding = self.file.encoding
        taken = group.first
        # Compressed files can be read from their beginning only.
        while not self.file.compressed:
            wanted = self.chunk_bytes - (self.at - self.start)
            # By the bytes of UTF-8, whatever the file's own encoding takes.
            number = int(np.searchsorted(group.begins, taken + max(wanted, 1)))
            if number >= len(group.begins):
                break
            cut = int(group.begins[number])
            self.hash.update(data[taken:cut])
            self.at += source_length(data[taken:cut], encoding)
            taken = cut
            self.end()
        self.hash.update(data[taken : group.end])
        self.at += source_length(data[taken : group.end], encoding)

    def end(self) -> None:
        """A chunk from `start` to here."""
        lower = (self.file.name, str(self.start), self.hash.hexdigest())
        upper = (self.file.name, str(self.at), "")
        self.chunks.append(Chunk(index=len(self.chunks), lower=lower, upper=upper))
        self.start = self.at
        self.hash = xxh3_128(self.table.seed)

    def finish(self) -> None:
        """The last chunk, also of a file without rows."""
        if self.at > self.start or self.start == self.file.begin:
            self.end()


Looked = tuple[int, str, Speller | None, bool]
"""A column: its number and name, how it is spelled, and whether it may not be NULL."""


def looked_at(table: CsvTable, columns: Sequence[str]) -> list[Looked]:
    """Columns whose fields need a look: typed ones, and those that may not be NULL."""
    looked: list[Looked] = []
    for number, (name, type_) in enumerate(zip(table.columns, table.types, strict=True)):
        said = table.schema.columns.get(name)
        required = name in table.schema.key or (said is not None and not said.nullable)
        spell = speller(type_)
        if name in columns and (spell is not None or required):
            looked.append((number, name, spell, required))
    return looked


def take_census(
    connection: Connection,
    table: CsvTable,
    columns: Sequence[str],
    chunk_bytes: int,
    sieve: Sieve | None = None,
    watch: Callable[[Group], None] | None = None,
) -> Census:
    """Look at every byte of a table's files.

    Args:
        columns: those that will be carried.
        chunk_bytes: about how large a chunk is to be.
        sieve: counts bad rows of a group by column and reason; bytes that are not in the encoding are then NUL.
        watch: is shown every group.
    """
    census = Census()
    looked = looked_at(table, columns)
    for file in table.files:
        size = chunk_bytes_for(size_on_disk(connection, file), chunk_bytes)
        cutter = _Cutter(table, file, size, census.chunks)
        texts = pieces(connection, file, file.begin, errors="strict" if sieve is None else tolerant(file))
        for group in scanned(texts, file, len(table.columns), census.problems, file.line):
            census.rows += group.rows
            cutter.take(group)
            if watch is not None:
                watch(group)
            if sieve is None:
                _look(census, group, looked, table, file)
                continue
            census.rows += int((~group.good).sum())
            for bad in sieve(group, looked):
                census.bad[bad] = census.bad.get(bad, 0) + 1
        cutter.finish()
        census.bytes += cutter.at - file.begin
    return census


def _look(
    census: Census,
    group: Group,
    looked: Sequence[Looked],
    table: CsvTable,
    file: CsvFile,
) -> None:
    if not group.rows:
        return
    for number, name, spell, required in looked:
        values = group.column(number)
        found = census.fields.setdefault(name, Problems())
        if required and values.null_count:
            _note(found, "NULLs, which this column may not hold", _pc.is_null(values), group, file)
        if spell is not None:
            bad = _pc.and_(_pc.is_valid(values), _pc.is_null(spelled(values, spell)))
            _note(found, misfit(table, number), bad, group, file)


def misfit(table: CsvTable, number: int) -> str:
    """What is wrong with a field that does not convert to the type of its column."""
    type_ = table.types[number]
    condition = type_.mapping.condition
    return f"fields that are no {type_.target}" + (f" ({condition})" if condition else "")


def _note(found: Problems, kind: str, bad: Any, group: Group, file: CsvFile) -> None:
    numbers = np.flatnonzero(bad.to_numpy(zero_copy_only=False))
    if len(numbers):
        found.add(kind, len(numbers), file.name, int(group.lines[numbers[0]]))
