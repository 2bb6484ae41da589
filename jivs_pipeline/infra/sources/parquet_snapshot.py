"""The two ways through Parquet files: pyarrow reads what is loaded, DuckDB what is digested.

What belongs here: opening files, row groups, batches, digests, and noticing that a file is not what it was. What
does not: types and spelling (`parquet_types`).

DuckDB has a reader of its own. It makes doubles of decimals with more than 38 digits and takes names without their
case; tables with such columns are digested from a second read by pyarrow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Sifted, TablePlan, Wire
from jivs_pipeline.core.ports import CopiedRows, HashedRow
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow
from jivs_pipeline.infra.sources.files_open import Member, changed, opened
from jivs_pipeline.infra.sources.parquet_again import read_again
from jivs_pipeline.infra.sources.parquet_sieve import Numbered, bad_rows, kept, numbers, unreadable
from jivs_pipeline.infra.sources.parquet_types import digestible, input_text, native, plain
from jivs_pipeline.infra.sources.row_text import digest_of_texts, hashed_rows

__all__ = ["BOUNDS", "ParquetSnapshot", "ParquetTable", "batch_rows", "damaged", "open_parquet", "version_of"]

BOUNDS = ("file", "row group", "version")
"""What the parts of a bound are: `version` is a hash of the footer and of what the file system says."""

_BATCH_BYTES = 8 * 1024 * 1024
_BATCH_ROWS = 24_576
_READ_BYTES = 1 << 20
_LARGE_ROW = 1 << 18
"""Where rows are as large as this on average, they are read one by one."""
_GLOB = re.compile(r"([*?\[])")
_OURS = "file_row_number"
_MAGIC_BYTES = 8

Array = Any  # pyarrow has no stubs that a checker can follow


@dataclass(frozen=True, slots=True)
class ParquetTable:
    """A table: its files in order, and their schema."""

    name: str
    files: tuple[Member, ...]
    schema: Any

    def file(self, name: str) -> Member | None:
        """The file of that name."""
        return next((f for f in self.files if f.name == name), None)


def version_of(file: BinaryIO) -> str:
    """A hash of the footer, the size, the inode and the time of the last change."""
    status = os.fstat(file.fileno())
    hashed = xxh3_128(f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}".encode())
    file.seek(max(status.st_size - _MAGIC_BYTES, 0))
    length = int.from_bytes(file.read(_MAGIC_BYTES)[:4], "little")
    file.seek(max(status.st_size - _MAGIC_BYTES - length, 0))
    hashed.update(file.read(length))
    file.seek(0)
    return hashed.hexdigest()


def damaged(connection: Connection, name: str, table: str | None = None) -> DataError:
    """The error of a file that cannot be decoded. Messages of readers may quote values."""
    return DataError(
        f"{name} of connection {connection.name!r} is damaged or no Parquet file",
        hint="Make the file anew, or leave its table out",
        table=table,
    )


@contextmanager
def open_parquet(connection: Connection, member: Member) -> Generator[tuple[pq.ParquetFile, BinaryIO]]:
    """A file with its footer read.

    Raises:
        DataError: it cannot be opened, or is no Parquet.
    """
    with opened(connection, member) as file:
        try:
            # Not buffered ahead, and page by page: memory is bounded by a batch, not by a row group.
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=_READ_BYTES)
        except (pa.ArrowException, ValueError) as error:
            raise damaged(connection, member.name) from error
        try:
            yield parquet, file
        finally:
            # What decoding has taken is not kept for whoever decodes next: DuckDB takes its own.
            pa.default_memory_pool().release_unused()


def batch_rows(parquet: pq.ParquetFile, groups: range) -> int:
    """How many rows make a batch of some megabytes."""
    rows = sum(parquet.metadata.row_group(n).num_rows for n in groups)
    size = sum(parquet.metadata.row_group(n).total_byte_size for n in groups)
    if size > _LARGE_ROW * rows:
        return 1  # what grows for many is, for a moment, there twice
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // size if size else _BATCH_ROWS))


class ParquetSnapshot:
    """The files as the plan's versions say. Methods may be called from several threads; each opens the file anew."""

    def __init__(
        self, connection: Connection, tables: Mapping[str, ParquetTable], portion: Portion = NO_LIMIT
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._portion = portion

    @property
    def consistency(self) -> str:
        """Before and after each chunk the file is that of the plan."""
        return "the files as they were surveyed, by their footers, sizes and times"

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[CopiedRows]:
        """Parquet has no copy lane."""
        raise NotImplementedError(f"{table.source} travels in the arrow lane")

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """No column of a file numbers itself."""
        del table
        return {}

    def _member(self, table: TablePlan, chunk: Chunk) -> tuple[Member, range, str]:
        if chunk.lower is None or chunk.upper is None:
            raise ValueError(f"chunk {chunk.index} of {table.source} has no bounds")
        name, first, version = chunk.lower
        known = self._tables.get(table.source_table)
        planned = {c.lower[0] for c in table.chunks if c.lower is not None}
        there = {f.name for f in known.files} if known else set[str]()
        if known is None or planned != there or (member := known.file(name)) is None:
            odd = min(planned ^ there, default=name)
            raise changed(self._connection, table.source, odd, "it came or went")
        return member, range(int(first), int(chunk.upper[1])), version

    @contextmanager
    def _open(self, table: TablePlan, chunk: Chunk) -> Generator[tuple[pq.ParquetFile, Member, range]]:
        """The chunk's file, which is that of the plan before and after the block."""
        member, groups, version = self._member(table, chunk)
        self._check(table, member, version)
        try:
            with open_parquet(self._connection, member) as (parquet, _):
                yield parquet, member, groups
        except (pa.ArrowException, OSError, IndexError) as error:
            self._check(table, member, version)
            raise damaged(self._connection, member.name, table.source) from error
        self._check(table, member, version)

    def _check(self, table: TablePlan, member: Member, version: str) -> None:
        with opened(self._connection, member) as file:
            if version_of(file) != version:
                raise changed(
                    self._connection, table.source, member.name, "it is another file, or was written to"
                )

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as record batches in the plan's types and target names, read by pyarrow."""
        convert = native if table.wire is Wire.BINARY else input_text
        with self._open(table, chunk) as (parquet, _, groups):
            most = min(batch_rows(parquet, groups), self._portion.rows_of(table) or _BATCH_ROWS)
            for batch in _sifted(_read(parquet, table, groups, most), chunk):
                arrays = [convert(plain(a), c) for a, c in zip(batch.columns, table.columns, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, names=[c.target for c in table.columns])

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest by DuckDB's reader, as far as it keeps values exactly."""
        return sum((digest_of_texts(table, *texts) for texts in self._spelled(table, chunk)), Digest())

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row."""
        places = [table.columns.index(c) for c in key]
        for columns, rows in self._spelled(table, chunk):
            yield from hashed_rows(table, columns, places, rows)

    def _spelled(self, table: TablePlan, chunk: Chunk) -> Iterator[tuple[list[Any], int]]:
        """Canonical texts by column, and how many rows they are."""
        with self._open(table, chunk) as (parquet, member, groups):
            known = parquet.schema_arrow
            most = batch_rows(parquet, groups)
            # DuckDB takes four times a value of 100 MB.
            odd = most == 1 or (isinstance(chunk, Sifted) and unreadable(_read(parquet, table, groups, most)))
            batches = (
                _duckdb(parquet, member, table, groups, most, chunk)
                if _is_duckdbs(known, table) and not odd
                else _sifted(_read(parquet, table, groups, most), chunk)
            )
            for batch in batches:
                texts = [digestible(plain(a), c) for a, c in zip(batch.columns, table.columns, strict=True)]
                yield texts, batch.num_rows

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows of the chunk, by the footer."""
        with self._open(table, chunk) as (parquet, _, groups):
            if isinstance(chunk, Sifted) and chunk.only is not None:
                return len(chunk.only)
            without = len(chunk.without) if isinstance(chunk, Sifted) else 0
            return sum(parquet.metadata.row_group(n).num_rows for n in groups) - without

    # ── bad rows ───────────────────────────────────────────────────────────────────────────────────────

    def relate(self, tables: Sequence[TablePlan]) -> None:
        """Files have no keys."""

    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]:
        """The chunk's rows that the plan's columns cannot hold."""
        with self._open(table, chunk) as (parquet, member, groups):
            most = batch_rows(parquet, groups)
            yield from bad_rows(_read(parquet, table, groups, most), table, member.name, _starts(parquet))

    def as_now(self, table: TablePlan) -> TablePlan:
        """The table with the files as they are now, each a chunk, should one be another than the plan's."""
        known = self._tables.get(table.source_table)
        if known is None or any(
            c.source not in known.schema.names or str(known.schema.field(c.source).type) != c.source_type
            for c in table.columns
        ):
            raise changed(self._connection, table.source, table.source_table, "it is no longer that table")
        chunks: list[Chunk] = []
        for member in known.files:
            with open_parquet(self._connection, member) as (parquet, file):
                first, end = (member.name, "0", version_of(file)), str(parquet.metadata.num_row_groups)
            chunks.append(Chunk(index=len(chunks), lower=first, upper=(member.name, end, "")))
        planned = {(c.lower[0], c.lower[2]) for c in table.chunks if c.lower is not None}
        if planned == {(c.lower[0], c.lower[2]) for c in chunks if c.lower is not None}:
            return table
        return table.model_copy(update={"chunks": tuple(chunks)})

    def again(self, table: TablePlan, rows: Sequence[KeptRow], rest: Digest, *, apart: bool = False) -> Again:
        """Read rows in quarantine anew, by file and number, as long as all other rows are those that were loaded."""
        return read_again(self, self.as_now(table), rows, rest, apart=apart)

    def place(self, table: TablePlan, chunk: Chunk) -> tuple[str, range]:
        """File of a chunk, and the numbers of its rows there."""
        with self._open(table, chunk) as (parquet, member, groups):
            starts = [*_starts(parquet), parquet.metadata.num_rows]
            return member.name, range(starts[groups.start], starts[groups.stop])


def _starts(parquet: pq.ParquetFile) -> list[int]:
    """Numbers of the first rows of all row groups."""
    sizes = (parquet.metadata.row_group(n).num_rows for n in range(parquet.metadata.num_row_groups))
    return list(accumulate(sizes, initial=0))[:-1]


def _read(parquet: pq.ParquetFile, table: TablePlan, groups: range, most: int) -> Iterator[Numbered]:
    names = [c.source for c in table.columns]
    if not groups:
        return
    first = _starts(parquet)[groups.start]
    for batch in parquet.iter_batches(most, row_groups=list(groups), columns=names, use_threads=False):
        # In the order of the plan: pyarrow gives that of the file.
        yield first, batch.select(names)
        first += batch.num_rows


def _sifted(batches: Iterator[Numbered], chunk: Chunk) -> Iterator[Any]:
    return kept(batches, chunk) if isinstance(chunk, Sifted) else (batch for _, batch in batches)


def _is_duckdbs(schema: Any, table: TablePlan) -> bool:
    lower = [name.lower() for name in schema.names]
    return (
        len(set(lower)) == len(lower)
        and _OURS not in lower
        and not any(pa.types.is_decimal256(schema.field(c.source).type) for c in table.columns)
    )


def _duckdb(
    parquet: pq.ParquetFile, member: Member, table: TablePlan, groups: range, most: int, chunk: Chunk
) -> Iterator[Any]:
    import duckdb

    sifting = ""
    params: dict[str, Any] = {}
    if isinstance(chunk, Sifted):
        if chunk.only is not None:
            sifting, params["only"] = f" AND {_OURS} IN (SELECT unnest($only))", numbers(chunk.only)
        if chunk.without:
            sifting += f" AND {_OURS} NOT IN (SELECT unnest($without))"
            params["without"] = numbers(chunk.without)
    before = sum(parquet.metadata.row_group(n).num_rows for n in range(groups.start))
    rows = sum(parquet.metadata.row_group(n).num_rows for n in groups)
    names = ", ".join('"' + c.source.replace('"', '""') + '"' for c in table.columns)
    # Nothing is downloaded, and a name is a name, not a pattern.
    config: dict[str, Any] = {
        "threads": 1,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    path = _GLOB.sub(r"[\1]", os.fspath(member.path))
    try:
        with duckdb.connect(config=config) as database:
            found: Any = database.sql(
                f"SELECT {names} FROM read_parquet($path, file_row_number=true, hive_partitioning=false)"  # noqa: S608
                f" WHERE {_OURS} >= $first AND {_OURS} < $last{sifting}",
                params={"path": [path], "first": before, "last": before + rows, **params},
            )
            yield from found.to_arrow_reader(most)
    except duckdb.Error as error:
        raise OSError("DuckDB cannot read it") from error
