"""The schema file of a CSV directory, `schema.yaml`: how files are written and what their columns are.

What belongs here: its format (docs/files.md) and what is wrong with one. What does not: the files.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.file_types import CSV_TYPES, CsvType, csv_type
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.infra.sources.csv_scan import Dialect

__all__ = ["SCHEMA_FILE", "ColumnSchema", "Options", "TableSchema", "read_schema"]

SCHEMA_FILE = "schema.yaml"

_OPTIONS = ("delimiter", "quote", "escape", "encoding", "nulls", "header")
# Single bytes that agree with ASCII, and UTF-16: what a scanner for commas and newlines can be trusted with.
_ENCODING = re.compile(
    r"utf-8|ascii|iso8859-\d+|cp125\d|cp437|cp850|cp866|mac-roman|koi8-[ru]|utf-16(-[lb]e)?"
)
_MAX_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Options:
    """How files are written. `delimiter` None: a comma, in .tsv a tab; `encoding` None: UTF-8 or what a BOM says."""

    dialect: Dialect = field(default_factory=Dialect)
    delimiter: str | None = None
    encoding: str | None = None
    header: bool = True


@dataclass(frozen=True, slots=True)
class ColumnSchema:
    """A column that the schema file names."""

    type: CsvType
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class TableSchema:
    """A table that the schema file names; without a word about it, text columns and no key."""

    options: Options = field(default_factory=Options)
    columns: Mapping[str, ColumnSchema] = field(default_factory=dict[str, ColumnSchema])
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """The whole file."""

    options: Options = field(default_factory=Options)
    tables: Mapping[str, TableSchema] = field(default_factory=dict[str, TableSchema])

    def table(self, name: str) -> TableSchema:
        """What is said of a table."""
        return self.tables.get(name) or TableSchema(self.options)


def _wrong(where: str, problem: str, hint: str = "See docs/files.md for its format") -> ConfigError:
    return ConfigError(f"{SCHEMA_FILE}: {where} {problem}", hint=hint)


def _mapping(value: Any, where: str, known: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        # YAML takes no, null or 2024 for other things than names.
        raise _wrong(where, "is not a mapping of names", "Put names such as 'no', 'null' or '2024' in quotes")
    for key in value if known else ():
        if key not in known:
            raise _wrong(where, f"has the unknown key {key!r}", did_you_mean(str(key), known, "keys"))
    return value  # pyright: ignore[reportUnknownVariableType]


def _character(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in "\r\n\0":
        raise _wrong(where, "is not one ASCII character")
    return value


def _encoding(value: Any, where: str) -> str:
    try:
        name = codecs.lookup(value).name
    except (LookupError, TypeError):
        name = ""
    # Python calls UTF-8 with a BOM utf-8-sig; a BOM is skipped anyhow.
    name = "utf-8" if name == "utf-8-sig" else name
    if not _ENCODING.fullmatch(name):
        raise _wrong(
            where, "is not an encoding that can be read", "Use utf-8, utf-16, latin1, cp1252 or the like"
        )
    return name


def _options(value: Any, where: str, base: Options) -> Options:
    given = _mapping(value, where, _OPTIONS)
    dialect = base.dialect
    if "quote" in given:
        quote = given["quote"]
        dialect = replace(dialect, quote=None if quote is None else _character(quote, f"{where}.quote"))
    if "nulls" in given:
        listed = given["nulls"] if isinstance(given["nulls"], list) else [given["nulls"]]
        if not all(isinstance(text, str) for text in listed):
            raise _wrong(
                f"{where}.nulls", "is not a text or a list of texts", 'Write nulls: "NA" or nulls: ["", "NA"]'
            )
        dialect = replace(dialect, nulls=tuple(map(str, listed)))
    if given.get("escape") is not None and given["escape"] != dialect.quote:
        raise _wrong(
            f"{where}.escape", "asks for an escape character, which this version cannot read",
            "Write the files with doubled quotes, as RFC 4180 has it",
        )  # fmt: skip
    if "header" in given and not isinstance(given["header"], bool):
        raise _wrong(f"{where}.header", "is neither true nor false")
    made = Options(
        dialect,
        _character(given["delimiter"], f"{where}.delimiter") if "delimiter" in given else base.delimiter,
        _encoding(given["encoding"], f"{where}.encoding") if "encoding" in given else base.encoding,
        given.get("header", base.header),
    )
    if made.delimiter is not None and made.delimiter == made.dialect.quote:
        raise _wrong(where, "has the same delimiter and quote")
    return made


def _column(value: Any, where: str) -> ColumnSchema:
    given = {"type": value} if isinstance(value, str) else _mapping(value, where, ("type", "nullable"))
    written = given.get("type", "text")
    type_ = csv_type(written) if isinstance(written, str) else None
    if type_ is None:
        names = [m.declared for m in CSV_TYPES]
        raise _wrong(where, f"has the unknown type {written!r}", did_you_mean(str(written), names, "types"))
    nullable = given.get("nullable", True)
    if not isinstance(nullable, bool):
        raise _wrong(f"{where}.nullable", "is neither true nor false")
    return ColumnSchema(type_, nullable)


def _table(value: Any, where: str, base: Options) -> TableSchema:
    given = _mapping(value, where, ("options", "columns", "key"))
    options = _options(given.get("options") or {}, f"{where}.options", base)
    columns = {
        name: _column(column, f"{where}.columns.{name}")
        for name, column in _mapping(given.get("columns") or {}, f"{where}.columns").items()
    }
    key = given.get("key") or []
    key = [key] if isinstance(key, str) else key
    if (
        not isinstance(key, list)
        or not all(isinstance(name, str) for name in key)
        or len(set(key)) < len(key)
    ):
        raise _wrong(f"{where}.key", "is not a list of different column names")
    if not options.header and not columns:
        raise _wrong(where, "has header: false and no columns", "List all columns in their order")
    return TableSchema(options, columns, tuple(map(str, key)))


def read_schema(directory: Path) -> Schema:
    """The directory's schema file, or what holds without one.

    Raises:
        ConfigError: it cannot be read or is wrong.
    """
    path = directory / SCHEMA_FILE
    try:
        if not path.exists():
            return Schema()
        if not path.resolve().is_relative_to(directory.resolve()) or not path.is_file():
            raise _wrong("it", "is no regular file of the directory")
        with path.open("rb") as file:
            content: Any = yaml.safe_load(file.read(_MAX_BYTES))
    except OSError as error:
        raise _wrong(
            "it", f"cannot be read: {error.strerror}", "Grant this user read access to it"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _wrong("it", "is not YAML") from error
    given = _mapping({} if content is None else content, "it", ("options", "tables"))
    options = _options(given.get("options") or {}, "options", Options())
    tables = _mapping(given.get("tables") or {}, "tables")
    return Schema(options, {n: _table(t or {}, f"tables.{n}", options) for n, t in tables.items()})
