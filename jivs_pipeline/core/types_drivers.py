"""Type mappings of SQL Server, Oracle, Db2 and SAP HANA: what a column type becomes in PostgreSQL.

What belongs here: the frozen tables, reading a declared type, picking a row of a table. What does not: SQL
(`core/dialect_*.py`).

These databases type columns, and every value crosses as the text that the server makes of it. What no PostgreSQL type
holds in full is refused, never rounded: hundreds of nanoseconds, zones, decimal floats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.type_mapping import MAX_DECIMAL128, TypeChoice, TypeMapping

__all__ = [
    "DB2_TYPES",
    "HANA_TYPES",
    "MSSQL_TYPES",
    "ORACLE_TYPES",
    "DriverType",
    "choose_driver",
    "driver_type",
]

_PLAIN = "every value"
_NO_NUL = "no NUL character"
_NO_PADDING = (
    "PostgreSQL ignores spaces at the end of char when it compares; carried with its padding, as varchar"
)
_MICRO = "no digit beyond microseconds"


def _exact(declared: str, target: str, carrier: str, arrow: str, canon: Canon, note: str = "") -> TypeMapping:
    return TypeMapping(declared, _PLAIN, target, carrier, arrow, canon, note=note)


def _text(declared: str, target: str = "text", note: str = "") -> TypeMapping:
    return TypeMapping(declared, _PLAIN, target, "utf8", "string", Canon.TEXT, _NO_NUL, note)


def _refused(declared: str, why: str) -> TypeMapping:
    return TypeMapping(declared, "none", "", "refused", "", Canon.TEXT, note=why)


def _bytes(*names: str) -> tuple[TypeMapping, ...]:
    return tuple(_exact(name, "bytea", "bytes", "binary", Canon.BYTES) for name in names)


def _moment(declared: str, target: str) -> TypeMapping:
    return TypeMapping(declared, _PLAIN, target, "timestamp", "timestamp[us]", Canon.TIMESTAMP, _MICRO)


def _decimal(declared: str) -> TypeMapping:
    return _exact(declared, "numeric(p,s)", "number", "decimal128(p,s)", Canon.NUMERIC)


_INTEGERS = (
    _exact("smallint", "smallint", "integer", "int16", Canon.INTEGER),
    _exact("integer", "integer", "integer", "int32", Canon.INTEGER),
    _exact("bigint", "bigint", "integer", "int64", Canon.INTEGER),
)
_ZONED = (
    "a moment in a zone: PostgreSQL keeps the moment and not the zone; make it a datetime or a text in a view"
)
_OBJECTS = "its values are objects of the database's; make them text or bytes in a view"

MSSQL_TYPES: tuple[TypeMapping, ...] = (
    _exact("bit", "boolean", "boolean", "bool", Canon.BOOLEAN),
    _exact("tinyint", "smallint", "integer", "int16", Canon.INTEGER, "0 to 255: PostgreSQL would take others, too"),
    _INTEGERS[0],
    _exact("int", "integer", "integer", "int32", Canon.INTEGER),
    _INTEGERS[2],
    _decimal("decimal(p,s)"),
    _decimal("numeric(p,s)"),
    _exact("money", "numeric(19,4)", "number", "decimal128(19,4)", Canon.NUMERIC),
    _exact("smallmoney", "numeric(10,4)", "number", "decimal128(10,4)", Canon.NUMERIC),
    _exact("real", "real", "float", "float", Canon.FLOAT),
    _exact("float", "double precision", "float", "double", Canon.FLOAT),
    _exact("date", "date", "date", "date32", Canon.DATE),
    TypeMapping("time(n)", _PLAIN, "time(n)", "time", "time64[us]", Canon.TIME, _MICRO),
    _moment("datetime2(n)", "timestamp(n)"),
    _exact(
        "datetime", "timestamp(3)", "timestamp", "timestamp[us]", Canon.TIMESTAMP, "thousandths, as SQL Server prints them"
    ),
    _exact("smalldatetime", "timestamp(0)", "timestamp", "timestamp[us]", Canon.TIMESTAMP),
    _refused("datetimeoffset", _ZONED),
    _text("char(n)", "varchar(n)", _NO_PADDING),
    _text("varchar(n)", "varchar(n)"),
    _text("nchar(n)", "varchar(n)", _NO_PADDING),
    _text("nvarchar(n)", "varchar(n)"),
    _text("varchar(max)"),
    _text("nvarchar(max)"),
    _text("text"),
    _text("ntext"),
    _text("sysname", "varchar(128)"),
    _text("xml", note="as the server prints it: white space and declarations are already gone there"),
    *_bytes("binary", "varbinary", "varbinary(max)", "image", "timestamp", "rowversion"),
    _exact("uniqueidentifier", "uuid", "uuid", "string", Canon.TEXT),
    _text("hierarchyid", note="its path, /1/2/"),
    _refused("geometry", _OBJECTS),
    _refused("geography", _OBJECTS),
    _text("json"),
    _refused("sql_variant", "each value has a type of its own, which no PostgreSQL column holds"),
    _refused("vector", _OBJECTS),
)  # fmt: skip
"""SQL Server, as `sys.types` names them."""

ORACLE_TYPES: tuple[TypeMapping, ...] = (
    _decimal("number(p,s)"),
    _exact("number", "numeric", "number", "string", Canon.NUMERIC),
    _exact("float", "numeric", "number", "string", Canon.NUMERIC, "a NUMBER of so many binary digits"),
    _exact("binary_float", "real", "float", "float", Canon.FLOAT),
    _exact("binary_double", "double precision", "float", "double", Canon.FLOAT),
    _exact(
        "date", "timestamp(0)", "timestamp", "timestamp[us]", Canon.TIMESTAMP, "Oracle's dates have a time of day"
    ),
    _moment("timestamp(n)", "timestamp(n)"),
    _refused("timestamp with time zone", _ZONED),
    _exact(
        "timestamp with local time zone", "timestamptz", "timestamptz", "string", Canon.TIMESTAMP, "a moment, read in UTC"
    ),
    _text("interval year to month", note="as Oracle prints it"),
    _text("interval day to second", note="as Oracle prints it"),
    _text("char(n)", "varchar(n)", _NO_PADDING),
    _text("varchar2(n)", "varchar(n)", "Oracle's empty text is NULL already"),
    _text("nchar(n)", "varchar(n)", _NO_PADDING),
    _text("nvarchar2(n)", "varchar(n)", "Oracle's empty text is NULL already"),
    _text("clob"),
    _text("nclob"),
    _refused("long", "no function of Oracle's takes a LONG; turn it into a CLOB with ALTER TABLE … MODIFY"),
    *_bytes("raw", "blob"),
    _refused("long raw", "no function of Oracle's takes it; turn it into a BLOB with ALTER TABLE … MODIFY"),
    _refused("bfile", "its bytes are in a file of the server's"),
    _text("rowid", note="an address in the source, which means nothing elsewhere"),
    _text("urowid", note="an address in the source, which means nothing elsewhere"),
    _text("xmltype"),
    _text("json"),
    _exact("boolean", "boolean", "boolean", "bool", Canon.BOOLEAN),
    _refused("sdo_geometry", _OBJECTS),
    _refused("anydata", _OBJECTS),
    _refused("vector", _OBJECTS),
)  # fmt: skip
"""Oracle, as `ALL_TAB_COLUMNS` names them."""

DB2_TYPES: tuple[TypeMapping, ...] = (
    *_INTEGERS,
    _decimal("decimal(p,s)"),
    _decimal("numeric(p,s)"),
    _refused("decfloat", "it has NaN, infinities and trailing zeros that numeric does not keep; CAST it in a view"),
    _exact("real", "real", "float", "float", Canon.FLOAT),
    _exact("double", "double precision", "float", "double", Canon.FLOAT),
    _exact("date", "date", "date", "date32", Canon.DATE),
    TypeMapping("time", _PLAIN, "time", "time", "time64[us]", Canon.TIME, "before 24:00:00"),
    _moment("timestamp(n)", "timestamp(n)"),
    _text("character(n)", "varchar(n)", _NO_PADDING),
    _text("varchar(n)", "varchar(n)", "counted in bytes there, in characters here"),
    _text("long varchar"),
    _text("clob"),
    _text("graphic(n)", "varchar(n)", _NO_PADDING),
    _text("vargraphic(n)", "varchar(n)"),
    _text("long vargraphic"),
    _text("dbclob"),
    *_bytes("binary", "varbinary", "blob", "character for bit data", "varchar for bit data"),
    _exact("boolean", "boolean", "boolean", "bool", Canon.BOOLEAN),
    _text("xml", note="as the server serializes it"),
    _refused("distinct", _OBJECTS),
    _refused("structured", _OBJECTS),
    _refused("reference", _OBJECTS),
)  # fmt: skip
"""Db2 for Linux, UNIX and Windows, as `SYSCAT.COLUMNS` names them."""

HANA_TYPES: tuple[TypeMapping, ...] = (
    _exact("tinyint", "smallint", "integer", "int16", Canon.INTEGER, "0 to 255: PostgreSQL would take others, too"),
    *_INTEGERS,
    _decimal("decimal(p,s)"),
    _exact(
        "decimal", "numeric", "number", "string", Canon.NUMERIC, "a decimal float: trailing zeros are not kept"
    ),
    _exact(
        "smalldecimal", "numeric", "number", "string", Canon.NUMERIC, "a decimal float: trailing zeros are not kept"
    ),
    _exact("real", "real", "float", "float", Canon.FLOAT),
    _exact("double", "double precision", "float", "double", Canon.FLOAT),
    _exact("boolean", "boolean", "boolean", "bool", Canon.BOOLEAN),
    _exact("date", "date", "date", "date32", Canon.DATE),
    _exact("time", "time", "time", "time64[us]", Canon.TIME),
    _exact("seconddate", "timestamp(0)", "timestamp", "timestamp[us]", Canon.TIMESTAMP),
    _moment("timestamp(n)", "timestamp(n)"),
    _text("varchar(n)", "varchar(n)"),
    _text("nvarchar(n)", "varchar(n)"),
    _text("char(n)", "varchar(n)", _NO_PADDING),
    _text("nchar(n)", "varchar(n)", _NO_PADDING),
    _text("alphanum(n)", "varchar(n)", "as it is stored, with its leading zeros"),
    _text("shorttext(n)", "varchar(n)"),
    _text("clob"),
    _text("nclob"),
    _text("text"),
    _text("bintext"),
    *_bytes("varbinary", "binary", "blob"),
    _exact("st_point", "bytea", "ewkb", "binary", Canon.BYTES, "as EWKB"),
    _exact("st_geometry", "bytea", "ewkb", "binary", Canon.BYTES, "as EWKB"),
    _refused("array", _OBJECTS),
    _refused("real_vector", _OBJECTS),
)  # fmt: skip
"""SAP HANA, as `SYS.TABLE_COLUMNS` names them."""

_TABLES = {"mssql": MSSQL_TYPES, "oracle": ORACLE_TYPES, "db2": DB2_TYPES, "hana": HANA_TYPES}
_BY_NAME = {dialect: {m.declared: m for m in table} for dialect, table in _TABLES.items()}
_MOST_VARCHAR = 10_485_760
_DECLARED = re.compile(
    r"([a-z_0-9 ]+?)\s*(?:\(\s*(max|-?\d+)\s*(?:,\s*(-?\d+)\s*)?\))?\s*(with .*|to .*)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class DriverType:
    """A declared type, read: `name` in lower case, and its numbers where given. `wide`: (max)."""

    name: str
    first: int | None = None
    second: int | None = None
    wide: bool = False


def driver_type(declared: str) -> DriverType:
    """Read a type as the dialects' catalog queries spell it: `decimal(10,2)`, `timestamp(6) with time zone`."""
    text = " ".join(declared.split()).lower()
    if text.startswith("interval "):
        # INTERVAL YEAR(2) TO MONTH
        return DriverType(re.sub(r"\(\d+\)", "", text))
    found = _DECLARED.fullmatch(text)
    if found is None:
        return DriverType(text)
    name = f"{found[1]} {found[4]}" if found[4] else found[1]
    wide = found[2] == "max"
    return DriverType(
        name,
        None if wide or found[2] is None else int(found[2]),
        None if found[3] is None else int(found[3]),
        wide,
    )


def choose_driver(dialect: str, declared: str, counts: Mapping[str, int]) -> TypeChoice:
    """What becomes of a column, by its declared type and what was counted in it.

    Args:
        counts: `nul`: texts with a NUL character; `finer`: times with digits beyond microseconds;
            `ancient`: times before year 1; `rounded`: floats that the server's own text does not give back.
    """
    read = driver_type(declared)
    mapping = _found(_BY_NAME[dialect], read)
    if mapping is None:
        return _no(f"its type {declared} is not known to this version; drop the column with a rule")
    if not mapping.target:
        return _no(mapping.note)
    if counts.get("nul"):
        return _no(
            f"{counted(counts['nul'], 'text holds', 'texts hold')} a NUL character, which PostgreSQL text cannot"
        )
    if counts.get("finer"):
        return _no(
            f"{counted(counts['finer'], 'value has', 'values have')} digits beyond microseconds,"
            " which PostgreSQL does not keep"
        )
    if counts.get("ancient"):
        return _no(
            f"{counted(counts['ancient'], 'value is', 'values are')} before year 1,"
            " which Oracle counts otherwise than PostgreSQL"
        )
    if counts.get("rounded"):
        return _no(
            f"{counted(counts['rounded'], 'float is', 'floats are')} not what the text says that the server makes of them"
        )
    return _sized(mapping, read)


def _found(names: Mapping[str, TypeMapping], read: DriverType) -> TypeMapping | None:
    if read.wide:
        return names.get(f"{read.name}(max)")
    sized = [f"{read.name}(p,s)", f"{read.name}(n)"]
    tried = [*sized, read.name] if read.first is not None else [read.name, *sized]
    return next((names[name] for name in tried if name in names), None)


def _no(reason: str) -> TypeChoice:
    return TypeChoice("", "", "", Canon.TEXT, refused=reason)


def _sized(mapping: TypeMapping, read: DriverType) -> TypeChoice:
    target, arrow = mapping.target, mapping.arrow
    if "(p,s)" in target:
        if read.first is None:
            # Oracle's NUMBER has no scale of its own.
            return TypeChoice("numeric", mapping.carrier, "string", mapping.canon, mapping.note)
        precision, scale = read.first, read.second or 0
        # Oracle rounds to tens with a negative scale, and lets the scale be larger than the precision.
        precision, scale = (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)
        digits = f"({precision},{scale})"
        target, arrow = target.replace("(p,s)", digits), arrow.replace("(p,s)", digits)
        if precision > MAX_DECIMAL128:
            arrow = "string"
    if "(n)" in target:
        length = read.first
        if mapping.canon is Canon.TEXT:
            fits = length is not None and 0 < length <= _MOST_VARCHAR
            target = target.replace("(n)", f"({length})") if fits else "text"
        else:
            # Six digits of a second are what the type has by itself.
            fits = length is not None and 0 <= length < 6
            target = target.replace("(n)", f"({length})" if fits else "")
    return TypeChoice(target, mapping.carrier, arrow, mapping.canon, mapping.note)
