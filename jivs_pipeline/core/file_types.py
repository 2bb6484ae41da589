"""Type tables of files: what a type in a schema file, or a type of Parquet, becomes in PostgreSQL.

What belongs here: the tables that `jivs types` prints, and finding a line of them. What does not: reading and
converting values (`infra/sources/csv_types.py`, `infra/sources/parquet_types.py`).

A CSV column is text unless the schema file gives it a type; its fields then travel as they are written and
PostgreSQL reads them, after every one was checked. `carrier` names that check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.type_mapping import TypeMapping

__all__ = ["CSV_TYPES", "PARQUET_TYPES", "CsvType", "csv_type", "target_type"]

_DIGITS = "the number that PostgreSQL gives back must be the number that is written"

CSV_TYPES: tuple[TypeMapping, ...] = (
    TypeMapping("text", "field", "text", "text", "string", Canon.TEXT),
    TypeMapping("varchar(n)", "field", "varchar(n)", "varchar", "string", Canon.TEXT, "at most n characters"),
    TypeMapping("smallint", "field", "smallint", "integer", "string", Canon.INTEGER, "-32768 to 32767"),
    TypeMapping("integer", "field", "integer", "integer", "string", Canon.INTEGER, "-2147483648 to 2147483647"),
    TypeMapping(
        "bigint", "field", "bigint", "integer", "string", Canon.INTEGER,
        "-9223372036854775808 to 9223372036854775807",
    ),
    TypeMapping("numeric", "field", "numeric", "numeric", "string", Canon.NUMERIC, "a finite decimal number"),
    TypeMapping(
        "numeric(p,s)", "field", "numeric(p,s)", "numeric", "string", Canon.NUMERIC,
        "at most s digits after the point and p-s before it, trailing zeros aside",
    ),
    TypeMapping("real", "field", "real", "real", "string", Canon.FLOAT, _DIGITS),
    TypeMapping("double precision", "field", "double precision", "double", "string", Canon.FLOAT, _DIGITS),
    TypeMapping(
        "boolean", "field", "boolean", "boolean", "string", Canon.BOOLEAN,
        "true, t, yes, y, on, 1 or false, f, no, n, off, 0",
    ),
    TypeMapping("date", "field", "date", "date", "string", Canon.DATE, "YYYY-MM-DD, a day of the calendar"),
    TypeMapping("time", "field", "time", "time", "string", Canon.TIME, "HH:MM:SS[.ffffff]"),
    TypeMapping(
        "timestamp", "field", "timestamp", "timestamp", "string", Canon.TIMESTAMP,
        "YYYY-MM-DD HH:MM:SS[.ffffff], also with T",
    ),
    TypeMapping(
        "timestamptz", "field", "timestamptz", "timestamptz", "string", Canon.TEXT,
        "as timestamp, with Z, +HH, +HHMM or +HH:MM after it",
    ),
    TypeMapping("uuid", "field", "uuid", "uuid", "string", Canon.TEXT, "8-4-4-4-12 hex digits"),
    TypeMapping("json", "field", "json", "json", "string", Canon.TEXT, "JSON; kept as it is written"),
    TypeMapping("bytea", "field", "bytea", "bytea", "string", Canon.BYTES, "pairs of hex digits, with or without \\x"),
)  # fmt: skip
"""CSV: type in the schema file."""

_ALIASES = {
    "int": "integer", "int2": "smallint", "int4": "integer", "int8": "bigint", "bool": "boolean",
    "float4": "real", "float8": "double precision", "double": "double precision", "decimal": "numeric",
    "character varying": "varchar", "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz", "time without time zone": "time",
}  # fmt: skip
_WRITTEN = re.compile(r"([a-z0-9 ]+?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?")
_SECONDS = re.compile(r"^(time(?:stamp)?(?:tz)?)\s*\(\d\)")
_MAX_PRECISION = 1000
_MAX_VARCHAR = 10_485_760


@dataclass(frozen=True, slots=True)
class CsvType:
    """A type of the schema file: its line of the table, with its numbers."""

    mapping: TypeMapping
    numbers: tuple[int, ...] = ()

    @property
    def target(self) -> str:
        """The PostgreSQL type."""
        bare = self.mapping.target.partition("(")[0]
        return f"{bare}({','.join(map(str, self.numbers))})" if self.numbers else bare


_BY_NAME = {m.declared: m for m in CSV_TYPES}


def csv_type(written: str) -> CsvType | None:
    """The type that a schema file names, or None when there is no such type."""
    found = _WRITTEN.fullmatch(" ".join(written.lower().split()))
    if found is None:
        return None
    name = _ALIASES.get(found[1], found[1])
    numbers = tuple(int(n) for n in found.groups()[1:] if n is not None)
    if name == "varchar" and not numbers:
        name = "text"
    if not numbers:
        mapping = _BY_NAME.get(name)
        return CsvType(mapping) if mapping else None
    if name == "varchar" and len(numbers) == 1 and 0 < numbers[0] <= _MAX_VARCHAR:
        return CsvType(_BY_NAME["varchar(n)"], numbers)
    if name == "numeric" and 0 < numbers[0] <= _MAX_PRECISION:
        precision, scale = (*numbers, 0)[:2]
        return CsvType(_BY_NAME["numeric(p,s)"], (precision, scale)) if scale <= precision else None
    return None


def target_type(written: str) -> CsvType | None:
    """The same for a type of PostgreSQL as catalogs and plans spell it; digits of seconds aside."""
    return csv_type(_SECONDS.sub(r"\1", written))


# ── Parquet ─────────────────────────────────────────────────────────────────────────────────────────────

_DAYS = "4713-11-24 BC to 5874897-12-31"
_MOMENTS = "4713-11-24 BC to 294247-01-10, no more than microseconds"

PARQUET_TYPES: tuple[TypeMapping, ...] = (
    TypeMapping("bool", "bool", "boolean", "native", "bool", Canon.BOOLEAN),
    TypeMapping("int8, uint8, int16", "int", "smallint", "native", "int16", Canon.INTEGER),
    TypeMapping("uint16, int32", "int", "integer", "native", "int32", Canon.INTEGER),
    TypeMapping("uint32, int64", "int", "bigint", "native", "int64", Canon.INTEGER),
    TypeMapping("uint64", "int", "numeric(20)", "native", "string", Canon.NUMERIC),
    TypeMapping("float16, float", "float", "real", "native", "float", Canon.FLOAT, note="NaN is one value"),
    TypeMapping("double", "float", "double precision", "native", "double", Canon.FLOAT, note="NaN is one value"),
    TypeMapping("decimal(p,s)", "decimal", "numeric(p,s)", "native", "decimal128(p,s)", Canon.NUMERIC),
    TypeMapping("decimal(p>38,s)", "decimal", "numeric(p,s)", "native", "string", Canon.NUMERIC),
    TypeMapping("date", "int", "date", "date", "date32", Canon.DATE, _DAYS),
    TypeMapping("time", "int", "time", "time", "time64[us]", Canon.TIME, "below 24:00, no more than microseconds"),
    TypeMapping("timestamp", "int", "timestamp", "timestamp", "timestamp[us]", Canon.TIMESTAMP, _MOMENTS),
    TypeMapping("timestamp, UTC", "int", "timestamptz", "timestamptz", "timestamp[us]", Canon.TEXT, _MOMENTS),
    TypeMapping("string", "text", "text", "text", "string", Canon.TEXT, "UTF-8 without NUL characters"),
    TypeMapping("json", "text", "json", "text", "string", Canon.TEXT, "UTF-8 without NUL characters"),
    TypeMapping("uuid", "bytes", "uuid", "uuid", "string", Canon.TEXT),
    TypeMapping("binary", "bytes", "bytea", "native", "binary", Canon.BYTES),
    TypeMapping("list of one of these", "list", "…[]", "list", "string", Canon.TEXT, "no lists in lists"),
    TypeMapping("struct, map, list in a list", "nested", "jsonb", "nested", "string", Canon.TEXT, "no key twice"),
    TypeMapping("null", "null", "text", "null", "string", Canon.TEXT, note="the column has no type and no values"),
)  # fmt: skip
"""Parquet: the type that Arrow reads, dictionaries aside. Duration and others are refused."""
