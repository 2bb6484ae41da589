"""The two independent ways through CSV files: pyarrow reads what is loaded, our scanner what is digested.

What belongs here: batches, digests, counts, and noticing that a file is not what it was. What does not: the
survey (`csv_census`), splitting and spelling (`csv_scan`, `csv_types`, `row_text`).

There is no lock to take on files. Instead every chunk has the hash of its bytes in the plan: whatever is read is
hashed on its way, and other bytes than those of the survey fail, at the end of the chunk at the latest.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from xxhash import xxh3_128

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.pace import NO_LIMIT, Portion
from jivs_pipeline.core.plan import Chunk, ColumnPlan, Sifted, TablePlan
from jivs_pipeline.core.ports import CopiedRows, HashedRow
from jivs_pipeline.core.quarantine import Again, BadRow, KeptRow
from jivs_pipeline.infra.sources.csv_again import read_again
from jivs_pipeline.infra.sources.csv_census import looked_at, scanned, take_census
from jivs_pipeline.infra.sources.csv_keys import KeyHashes, twins
from jivs_pipeline.infra.sources.csv_long import Cutter, fields_of, stretches
from jivs_pipeline.infra.sources.csv_open import (
    BadText,
    CsvFile,
    CsvTable,
    Layout,
    pieces,
    tolerant,
)
from jivs_pipeline.infra.sources.csv_scan import Group, Problems
from jivs_pipeline.infra.sources.csv_sieve import bad_rows, counted, sifted
from jivs_pipeline.infra.sources.csv_types import spelled, speller, written
from jivs_pipeline.infra.sources.files_open import changed
from jivs_pipeline.infra.sources.row_text import digest_of_texts, hashed_rows

__all__ = ["CsvSnapshot"]

_BATCH_BYTES = 4 * 1024 * 1024
_STRADDLING = "straddl"  # of pyarrow's message about a record that is longer than a block

Array = Any  # pyarrow has no stubs that a checker can follow


class _Pieces(io.RawIOBase):
    """Pieces as a file that pyarrow reads, from a thread of its own that may outlive its reader."""

    def __init__(self, source: Generator[bytes]) -> None:
        super().__init__()
        self._source = source
        self._left = memoryview(b"")
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        # As much as is asked for: pyarrow takes a short read for a whole block.
        done, wanted = 0, len(buffer)
        with self._lock:
            while done < wanted:
                if not self._left:
                    self._left = memoryview(next(self._source, b""))
                if not self._left:
                    break
                count = min(wanted - done, len(self._left))
                buffer[done : done + count] = self._left[:count]
                self._left = self._left[count:]
                done += count
        return done

    def read(self, size: int = -1, /) -> Any:
        """As `readinto`, without the two copies of what is read that the standard's one makes."""
        buffer: Any = np.empty(size, np.uint8)
        return memoryview(buffer)[: self.readinto(memoryview(buffer))]

    def stop(self) -> None:
        """Close the file beneath; whoever still reads finds its end."""
        with self._lock:
            self._source.close()
            self._left = memoryview(b"")


class CsvSnapshot:
    """The files as the plan's hashes say. Methods may be called from several threads; each opens the file anew."""

    def __init__(self, connection: Connection, layout: Layout, portion: Portion = NO_LIMIT) -> None:
        self._connection = connection
        self._layout = layout
        self._portion = portion
        self._lock = threading.Lock()
        self._found: dict[tuple[str, tuple[Chunk, ...]], dict[int, list[int]]] = {}

    @property
    def consistency(self) -> str:
        """Each chunk is what the survey saw, byte for byte."""
        return "the files as they were surveyed, by their hashes"

    def copy(self, table: TablePlan, chunk: Chunk) -> Iterator[CopiedRows]:
        """CSV has no copy lane."""
        raise NotImplementedError(f"{table.source} travels in the arrow lane")

    def next_values(self, table: TablePlan) -> Mapping[str, int]:
        """No column of a file numbers itself."""
        del table
        return {}

    def _place(self, table: TablePlan, chunk: Chunk) -> tuple[CsvTable, CsvFile, int, int, str]:
        """Table, file, range and hash of a chunk, after a look whether the files are still those of the plan."""
        if chunk.lower is None or chunk.upper is None:
            raise ValueError(f"chunk {chunk.index} of {table.source} has no bounds")
        name, start, expected = chunk.lower
        known = self._layout.tables.get(table.source_table)
        planned = {c.lower[0] for c in table.chunks if c.lower is not None}
        if known is None:
            raise changed(
                self._connection, table.source, table.source_table, "it can no longer be read as a table"
            )
        if lost := [c.source for c in table.columns if c.source not in known.columns]:
            raise changed(self._connection, table.source, name, f"it has no column {lost[0]!r} any more")
        if planned != (there := {f.name for f in known.files}):
            odd = min(planned ^ there)
            raise changed(self._connection, table.source, odd, "it came or went")
        file = known.file(name)
        if file is None:
            raise changed(self._connection, table.source, name, "it is gone")
        end = int(chunk.upper[1])
        last = max(int(c.upper[1]) for c in table.chunks if c.upper is not None and c.upper[0] == name)
        if not file.compressed and (size := os.stat(file.member.path).st_size) != last:  # noqa: PTH116
            problem = f"it had {last:,} bytes and has {size:,}"
            raise changed(self._connection, table.source, name, problem)
        return known, file, int(start), end, expected

    def _texts(self, table: TablePlan, chunk: Chunk) -> Generator[bytes]:
        """The chunk's bytes, without the rows that are sifted out."""
        if isinstance(chunk, Sifted):
            yield from sifted(self._all_texts(table, chunk, lenient=True), chunk)
        else:
            yield from self._all_texts(table, chunk)

    def _all_texts(self, table: TablePlan, chunk: Chunk, *, lenient: bool = False) -> Generator[bytes]:
        """The chunk's bytes; raises at the end when they are not those of the survey.

        Args:
            lenient: bytes that are not in the encoding are NUL, as in the survey of a table with bad rows.
        """
        known, file, start, end, expected = self._place(table, chunk)
        hashed = xxh3_128(known.seed)
        errors = tolerant(file) if lenient else "strict"
        try:
            until = None if file.compressed else end
            for piece in pieces(self._connection, file, start, until, errors=errors):
                hashed.update(piece)
                yield piece
        except BadText as error:
            raise changed(self._connection, table.source, file.name, str(error)) from None
        if hashed.hexdigest() != expected:
            raise changed(self._connection, table.source, file.name, "its bytes are others")

    # ── batches ─────────────────────────────────────────────────────────────────────────────────────────

    def batches(self, table: TablePlan, chunk: Chunk) -> Iterator[pa.RecordBatch]:
        """The chunk as record batches of strings, read by pyarrow.

        Raises:
            DataError: the file changed.
        """
        known, file, start, end, _ = self._place(table, chunk)
        if start == end:
            return
        done = 0
        try:
            texts = self._texts(table, chunk)
            for batch in self._read(table, known, file, texts):
                done += batch.num_rows
                yield from self._portions(table, batch)
        except pa.ArrowInvalid as error:
            # Its message quotes the row.
            if _STRADDLING not in str(error):
                raise self._unread(table, file) from None
        else:
            return
        # A record longer than a block: begin again behind the rows that were read.
        try:
            for batch in self._read_long(table, chunk, known, file):
                taken = min(done, batch.num_rows)
                done -= taken
                if taken < batch.num_rows:
                    yield from self._portions(table, batch.slice(taken))
        except (pa.ArrowInvalid, ValueError):
            raise self._unread(table, file) from None

    def _portions(self, table: TablePlan, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        most = self._portion.rows_of(table)
        for at in range(0, batch.num_rows, most or max(batch.num_rows, 1)):
            yield batch.slice(at, most or None)

    def _unread(self, table: TablePlan, file: CsvFile) -> DataError:
        return DataError(
            f"pyarrow cannot read {file.name} of connection {self._connection.name!r}",
            hint="Run `jivs plan`: it names the lines that are no CSV",
            table=table.source,
        )

    def _read_long(
        self, table: TablePlan, chunk: Chunk, known: CsvTable, file: CsvFile
    ) -> Iterator[pa.RecordBatch]:
        """The whole chunk; its long records one by one."""
        scan = scanned(self._texts(table, chunk), file, len(known.columns), Problems(), file.line)
        cut = list(stretches(scan, _BATCH_BYTES // 2))
        schema = pa.schema([pa.field(c.target, pa.string()) for c in table.columns])
        places = [known.columns.index(c.source) for c in table.columns]
        cutter = Cutter(self._texts(table, chunk))
        try:
            for stretch in cut:
                if not stretch.long:
                    yield from self._read(table, known, file, cutter.pieces(stretch.length))
                    continue
                fields = fields_of(cutter.whole(stretch.length), file.dialect)
                if len(fields) != len(known.columns):
                    raise ValueError(f"a record of {len(fields)} fields")
                arrays = [written(fields[n], c.carrier) for n, c in zip(places, table.columns, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
                del fields, arrays
            cutter.end()
        finally:
            cutter.close()

    def _read(
        self, table: TablePlan, known: CsvTable, file: CsvFile, texts: Generator[bytes]
    ) -> Iterator[pa.RecordBatch]:
        """Records of a text, by pyarrow."""
        names = [f"c{n}" for n in range(len(known.columns))]
        wanted = [names[known.columns.index(c.source)] for c in table.columns]
        dialect = file.dialect
        schema = pa.schema([pa.field(c.target, pa.string()) for c in table.columns])
        pieces_read = _Pieces(texts)
        try:
            source: Any = pa.PythonFile(pieces_read, mode="r")
            reader = pacsv.open_csv(
                source,
                # One thread: chunks are read side by side, and memory is bounded by a block.
                read_options=pacsv.ReadOptions(
                    use_threads=False, block_size=_BATCH_BYTES, column_names=names
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=dialect.delimiter,
                    quote_char=dialect.quote or False,
                    newlines_in_values=dialect.quote is not None,
                    # An empty line is the NULL of a table of one column; in others the survey refuses it.
                    ignore_empty_lines=False,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=wanted,
                    null_values=list(dialect.nulls),
                    strings_can_be_null=True,
                    # By default "" would be NULL, like an empty field.
                    quoted_strings_can_be_null=False,
                ),
            )
            for batch in cast("Any", reader):
                arrays = [
                    written(array, column.carrier)
                    for array, column in zip(batch.columns, table.columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        finally:
            pieces_read.stop()

    # ── bad rows ───────────────────────────────────────────────────────────────────────────────────────

    def relate(self, tables: Sequence[TablePlan]) -> None:
        """Keys are of one table here."""

    def bad_rows(self, table: TablePlan, chunk: Chunk) -> Iterator[BadRow]:
        """The chunk's records that are no row of the table, or hold a field that is no value of its column."""
        known, file, start, *_ = self._place(table, chunk)
        problems = Problems()
        texts = self._all_texts(table, chunk, lenient=True)
        yield from bad_rows(
            self._connection,
            known,
            file,
            table,
            scanned(texts, file, len(known.columns), problems, file.line),
            start,
            self._doubles(table, known).get(chunk.index, ()),
        )
        if problems.fatal:
            raise changed(self._connection, table.source, file.name, problems.reasons()[-1])

    def _doubles(self, table: TablePlan, known: CsvTable) -> Mapping[int, Collection[int]]:
        """Where records begin in the text of each chunk whose key a record before them has."""
        if not known.schema.key or not (table.definition and table.definition.primary_key):
            return {}
        with self._lock:
            # Of other files than before they are others.
            place = table.source_table, table.chunks
            if (found := self._found.get(place)) is None:
                hashes, seen = KeyHashes(known), set[str]()
                for chunk in table.chunks:
                    for group in self._groups(table, chunk, known):
                        hashes.take(group)
                looked = looked_at(known, [c.source for c in table.columns])
                doubled = hashes.doubled()
                found = self._found[place] = {
                    chunk.index: list(twins(known, looked, self._groups(table, chunk, known), doubled, seen))
                    for chunk in (table.chunks if doubled else ())
                }
            return found

    def _groups(self, table: TablePlan, chunk: Chunk, known: CsvTable) -> Iterator[Group]:
        """The chunk with its bad records."""
        _, file, *_ = self._place(table, chunk)
        texts = self._all_texts(table, chunk, lenient=True)
        return scanned(texts, file, len(known.columns), Problems(), file.line)

    def as_now(self, table: TablePlan) -> TablePlan:
        """The table with chunks of the files as they are now."""
        known = self._known(table)
        size = max(table.bytes // max(len(table.chunks), 1), 1)
        census = take_census(
            self._connection, known, [c.source for c in table.columns], size, partial(counted, known)
        )
        return table.model_copy(update={"chunks": tuple(census.chunks)})

    def _known(self, table: TablePlan) -> CsvTable:
        known = self._layout.tables.get(table.source_table)
        if known is None or any(c.source not in known.columns for c in table.columns):
            raise changed(self._connection, table.source, table.source_table, "it is no longer that table")
        return known

    def again(self, table: TablePlan, rows: Sequence[KeptRow], rest: Digest, *, apart: bool = False) -> Again:
        """Read rows in quarantine anew from the files as they are now: see `csv_again`."""
        return read_again(self._connection, self._known(table), table, rows, rest, apart=apart)

    # ── digests ─────────────────────────────────────────────────────────────────────────────────────────

    def digest(self, table: TablePlan, chunk: Chunk) -> Digest:
        """Digest by our scanner, which shares no code with pyarrow's reader."""
        return sum((digest_of_texts(table, *texts) for texts in self._spelled(table, chunk)), Digest())

    def hashes(self, table: TablePlan, chunk: Chunk, key: Sequence[ColumnPlan]) -> Iterator[HashedRow]:
        """What `digest` sums up, row by row."""
        places = [table.columns.index(c) for c in key]
        for columns, rows in self._spelled(table, chunk):
            yield from hashed_rows(table, columns, places, rows)

    def _spelled(self, table: TablePlan, chunk: Chunk) -> Iterator[tuple[list[Any], int]]:
        """Canonical texts by column, and how many rows they are."""
        known, file, *_ = self._place(table, chunk)
        problems = Problems()
        numbers = [known.columns.index(c.source) for c in table.columns]
        spellers = [speller(known.types[n]) for n in numbers]
        for group in scanned(self._texts(table, chunk), file, len(known.columns), problems, file.line):
            yield [spelled(group.column(n), s) for n, s in zip(numbers, spellers, strict=True)], group.rows
        if problems.found:
            raise changed(self._connection, table.source, file.name, problems.reasons()[0])

    def count(self, table: TablePlan, chunk: Chunk) -> int:
        """Rows of the chunk."""
        if isinstance(chunk, Sifted) and chunk.only is not None:
            return len(chunk.only)  # also records that are no rows
        known, file, *_ = self._place(table, chunk)
        groups = scanned(self._texts(table, chunk), file, len(known.columns), Problems(), file.line)
        return sum(group.rows for group in groups)
