"""CSV files as tables: their encodings, headers and columns, and their bytes as UTF-8.

What belongs here: what is known of a file before its rows are read, and pieces of it. What does not: records
(`csv_scan`), the survey and the snapshot (`csv_census`, `csv_snapshot`).
"""

from __future__ import annotations

import codecs
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

import numpy as np

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConfigError, DataError
from jivs_pipeline.core.file_types import CSV_TYPES, CsvType
from jivs_pipeline.core.model import Catalog, Column, Key, LeftOut, Table
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.infra.sources.csv_scan import Dialect, first_record
from jivs_pipeline.infra.sources.csv_schema import SCHEMA_FILE, Options, Schema, TableSchema, read_schema
from jivs_pipeline.infra.sources.files_open import SCHEMA, Member, list_tables, opened, unusable

__all__ = [
    "BadText",
    "CsvFile",
    "CsvTable",
    "Layout",
    "pieces",
    "raw_bytes",
    "read_layout",
    "size_on_disk",
    "source_length",
    "tolerant",
]

_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_PIECE = 2 * 1024 * 1024
_HEADER_PIECE = 64 * 1024
_LONGEST_HEADER = 16 * 1024 * 1024
_MAX_COLUMNS = 1_600  # of a table of PostgreSQL
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_ESCAPED = re.compile("[\udc80-\udcff]")
_TEXT = CsvType(CSV_TYPES[0])


class BadText(ValueError):
    """Bytes that are not in the file's encoding: how many, and the newlines before the first."""

    def __init__(self, encoding: str, newlines: int, count: int) -> None:
        super().__init__(f"bytes that are not {encoding}")
        self.newlines = newlines
        self.count = count


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A file: how it is encoded, and where its rows begin: that byte, and the number of that line."""

    member: Member
    compressed: bool
    encoding: str
    dialect: Dialect
    begin: int = 0
    line: int = 1

    @property
    def name(self) -> str:
        """Its path inside the directory."""
        return self.member.name


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A table: its files in order, its columns as the files have them, their types."""

    name: str
    files: tuple[CsvFile, ...]
    columns: tuple[str, ...]
    types: tuple[CsvType, ...]
    schema: TableSchema

    @property
    def seed(self) -> bytes:
        """How its bytes are understood; a hash of rows begins with it."""
        return repr((self.columns, [(f.encoding, f.dialect) for f in self.files])).encode()

    def file(self, name: str) -> CsvFile | None:
        """The file of that name."""
        return next((f for f in self.files if f.name == name), None)


@dataclass(frozen=True, slots=True)
class Layout:
    """The directory: its tables, and what is not read."""

    tables: dict[str, CsvTable]
    left_out: tuple[LeftOut, ...]

    def catalog(self) -> Catalog:
        """The same in the words of all dialects."""
        return Catalog(SCHEMA, tuple(map(_table, self.tables.values())), self.left_out)


def _table(table: CsvTable) -> Table:
    said = table.schema
    columns = tuple(
        Column(name, type_.target, nullable=name not in said.key and (c.nullable if (c := said.columns.get(name)) else True))
        for name, type_ in zip(table.columns, table.types, strict=True)
    )  # fmt: skip
    return Table(SCHEMA, table.name, columns, primary_key=Key(None, said.key) if said.key else None)


def source_length(text: bytes | memoryview, encoding: str) -> int:
    """How many bytes UTF-8 took in the file's own encoding."""
    if encoding == "utf-8":
        return len(text)
    octets = np.frombuffer(text, np.uint8)
    characters = len(octets) - int(np.count_nonzero((octets & 0xC0) == 0x80))
    if encoding.startswith("utf-16"):
        # Characters beyond the first plane are pairs there, and the only ones of four bytes here.
        return 2 * (characters + int(np.count_nonzero(octets >= 0xF0)))
    return characters


def tolerant(file: CsvFile) -> str:
    """How bytes that are not in the encoding are decoded so that only their rows are bad: each as a NUL.

    A row with a NUL is bad anyhow. In UTF-16 one wrong byte puts all behind it out of step.
    """
    return "strict" if file.encoding.startswith("utf-16") else _AS_NUL


def _as_nul(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\0" * (error.end - error.start), error.end


_AS_NUL = "jivs-nul"
codecs.register_error(_AS_NUL, _as_nul)


def raw_bytes(connection: Connection, file: CsvFile, start: int, size: int) -> bytes:
    """Bytes of the file as they are, undecoded."""
    with _stream(connection, file) as stream:
        stream.seek(start)
        return stream.read(size)


def size_on_disk(connection: Connection, file: CsvFile) -> int:
    """Bytes of the file, also of one that is compressed."""
    with opened(connection, file.member) as stream:
        return os.fstat(stream.fileno()).st_size


@contextmanager
def _stream(connection: Connection, file: CsvFile) -> Iterator[BinaryIO]:
    with opened(connection, file.member) as raw:
        inner: AbstractContextManager[Any] = (
            closing(gzip.GzipFile(fileobj=raw)) if file.compressed else nullcontext(raw)
        )
        with inner as stream:
            try:
                yield cast("BinaryIO", stream)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(
                    f"{file.name} of connection {connection.name!r} is damaged: {error}",
                    hint="Make the file anew",
                ) from error


def pieces(
    connection: Connection,
    file: CsvFile,
    start: int,
    end: int | None = None,
    size: int = _PIECE,
    errors: str = "strict",
) -> Iterator[bytes]:
    """The file from byte `start` to `end` (None: to its end) as UTF-8, in pieces that never cut a character.

    Raises:
        BadText: bytes that are not in the encoding.
        DataError: the file cannot be opened, or its compression is damaged.
    """
    decoder = codecs.getincrementaldecoder(file.encoding)(errors)
    newlines = 0
    with _stream(connection, file) as stream:
        stream.seek(start)
        left = end - start if end is not None else None
        while True:
            data = stream.read(size if left is None else min(size, left))
            left = None if left is None else left - len(data)
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(file.encoding, errors="replace")
                count = _bad_bytes(file, error.object[error.start :], stream)
                raise BadText(file.encoding, newlines + before.count("\n"), count) from None
            if text:
                encoded = text.encode()
                newlines += encoded.count(b"\n")
                yield encoded
            if not data:
                return


def _bad_bytes(file: CsvFile, data: bytes, stream: BinaryIO) -> int:
    """How many bytes from here on are not in the encoding."""
    if file.encoding.startswith("utf-16"):
        return 1  # one wrong byte puts all behind it out of step
    # This handler makes a lone surrogate of each, which no text in these encodings has.
    decoder = codecs.getincrementaldecoder(file.encoding)("surrogateescape")
    count = 0
    while True:
        count += len(_ESCAPED.findall(decoder.decode(data, final=not data)))
        if not data:
            return count
        data = stream.read(_PIECE)


def _encoded(connection: Connection, file: CsvFile, options: Options) -> CsvFile:
    """The file with the encoding that its first bytes or the schema file say."""
    with _stream(connection, file) as stream:
        start = stream.read(4)
    if start == codecs.BOM_UTF32_LE:
        raise ValueError("it is UTF-32, which cannot be read")
    for bom, encoding in _BOMS:
        if start.startswith(bom):
            asked = options.encoding
            if asked is not None and asked not in {
                encoding,
                encoding.removesuffix("-le").removesuffix("-be"),
            }:
                raise ValueError(f"it begins with the mark of {encoding}, and {SCHEMA_FILE} says {asked}")
            return replace(file, encoding=encoding, begin=len(bom))
    if options.encoding == "utf-16":
        raise ValueError("it is to be UTF-16 and has no mark of its byte order; say utf-16-le or utf-16-be")
    return replace(file, encoding=options.encoding or "utf-8")


def _header(connection: Connection, file: CsvFile, options: Options) -> tuple[CsvFile, list[str] | None]:
    """The file past its header, and the names in there; None where it has none.

    Raises:
        ValueError: it cannot be understood.
    """
    file = _encoded(connection, file, options)
    if not options.header:
        return file, None
    read = b""
    found = None
    # Wrong bytes in the rows are told by the survey, with their lines.
    source = pieces(connection, file, file.begin, size=_HEADER_PIECE, errors="replace")
    with closing(cast("Any", source)):
        for piece in source:
            read += piece
            if len(read) > _LONGEST_HEADER:
                raise ValueError("its first line is longer than 16 MiB")
            if (found := first_record(read, file.dialect, last=False)) is not None:
                break
    if found is None and (found := first_record(read, file.dialect, last=True)) is None:
        raise ValueError("it is empty and has no header line")
    names, length, lines = found
    if any("\ufffd" in (name or "") for name in names):
        raise ValueError(f"its header is not {file.encoding}")
    begin = file.begin + source_length(read[:length], file.encoding)
    return replace(file, begin=begin, line=1 + lines), [name or "" for name in names]


def _check_names(names: list[str]) -> None:
    if any(not name.strip() for name in names):
        raise ValueError(
            f"column {[bool(n.strip()) for n in names].index(False) + 1} of its header has no name"
        )
    if double := next((n for n in names if names.count(n) > 1), None):
        raise ValueError(f"its header has column {double[:80]!r} twice")
    if any("\0" in name for name in names):
        raise ValueError("its header holds a NUL character")
    if len(names) > _MAX_COLUMNS:
        raise ValueError(f"its header has {len(names):,} columns, and PostgreSQL takes {_MAX_COLUMNS:,}")


def _read_table(
    connection: Connection, name: str, members: tuple[Member, ...], said: TableSchema
) -> CsvTable:
    files: list[CsvFile] = []
    first: list[str] | None = None
    for member in members:
        lower = member.name.lower()
        tab = lower.removesuffix(".gz").endswith(".tsv")
        dialect = replace(said.options.dialect, delimiter=said.options.delimiter or ("\t" if tab else ","))
        bare = CsvFile(member, lower.endswith(".gz"), "utf-8", dialect)
        try:
            file, names = _header(connection, bare, said.options)
            names = list(said.columns) if names is None else names
            _check_names(names)
        except ValueError as error:
            raise ValueError(f"{member.name}: {error}") from error
        first = first or names
        if names != first:
            raise ValueError(f"{member.name}: its header is not that of {members[0].name}")
        files.append(file)
    columns = tuple(first or ())
    for listed in (*said.columns, *said.key):
        if listed not in columns:
            raise ConfigError(
                f"{SCHEMA_FILE}: tables.{name} names column {listed!r}, which {members[0].name} lacks",
                hint=did_you_mean(listed, columns, "columns"),
            )
    types = tuple(c.type if (c := said.columns.get(n)) else _TEXT for n in columns)
    return CsvTable(name, tuple(files), columns, types, said)


def read_layout(connection: Connection) -> Layout:
    """All tables of the connection's directory, by their headers.

    Raises:
        ConnectionFailed: there is no such directory, or nothing in it.
        ConfigError: the schema file is wrong.
    """
    found = list_tables(connection, _ENDINGS, (SCHEMA_FILE,))
    schema = read_schema(connection.path) if connection.path is not None else Schema()
    known = {*found.tables, *(o.name.removeprefix(f"{SCHEMA}.") for o in found.left_out)}
    if missing := sorted(set(schema.tables) - known):
        raise ConfigError(
            f"{SCHEMA_FILE}: there is no file for table {missing[0]!r}",
            hint=did_you_mean(missing[0], known, "tables"),
        )
    tables: dict[str, CsvTable] = {}
    left_out = list(found.left_out)
    for name, members in found.tables.items():
        try:
            tables[name] = _read_table(connection, name, members, schema.table(name))
        except (ValueError, DataError) as error:
            said = error.message if isinstance(error, DataError) else str(error)
            left_out.append(unusable(name, "file", said))
    return Layout(tables, tuple(left_out))
