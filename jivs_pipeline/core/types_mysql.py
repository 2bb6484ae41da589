"""Type mappings of MySQL and MariaDB: what a column type and its values become in PostgreSQL.

What belongs here: the frozen table, reading a type as `information_schema` spells it, and the pure rules that pick
a row by it. What does not: looking at values (`infra/sources/mysql_census.py`).

MySQL types columns, but some types hold what PostgreSQL has no value for: dates of zeros, NUL characters, the
empty value of an invalid ENUM. Those are counted and refused or named, never replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.type_mapping import MAX_DECIMAL128, TypeChoice, TypeMapping

__all__ = ["MYSQL_TYPES", "MysqlType", "MysqlValues", "choose_mysql", "enum_members", "mysql_type"]

_PLAIN = "every value"
_UNSIGNED = "unsigned: PostgreSQL would take negative numbers, too"

MYSQL_TYPES: tuple[TypeMapping, ...] = (
    TypeMapping(
        "tinyint(1)", "0 and 1", "boolean", "boolean", "bool", Canon.BOOLEAN, "0 or 1, and part of no key"
    ),
    TypeMapping("tinyint", _PLAIN, "smallint", "integer", "int16", Canon.INTEGER),
    TypeMapping("tinyint unsigned", _PLAIN, "smallint", "integer", "int16", Canon.INTEGER, note=_UNSIGNED),
    TypeMapping("smallint", _PLAIN, "smallint", "integer", "int16", Canon.INTEGER),
    TypeMapping("smallint unsigned", _PLAIN, "integer", "integer", "int32", Canon.INTEGER, note=_UNSIGNED),
    TypeMapping("mediumint", _PLAIN, "integer", "integer", "int32", Canon.INTEGER),
    TypeMapping("mediumint unsigned", _PLAIN, "integer", "integer", "int32", Canon.INTEGER, note=_UNSIGNED),
    TypeMapping("int", _PLAIN, "integer", "integer", "int32", Canon.INTEGER),
    TypeMapping("int unsigned", _PLAIN, "bigint", "integer", "int64", Canon.INTEGER, note=_UNSIGNED),
    TypeMapping("bigint", _PLAIN, "bigint", "integer", "int64", Canon.INTEGER),
    TypeMapping("bigint unsigned", _PLAIN, "numeric(20)", "integer", "decimal128(20,0)", Canon.NUMERIC, note=_UNSIGNED),
    TypeMapping(
        "bigint unsigned auto_increment", "up to 9223372036854775807", "bigint", "integer", "int64",
        Canon.INTEGER, "fits bigint, also where a foreign key points at it",
        note="numbers itself, and PostgreSQL numbers no type larger than bigint; all values fit",
    ),
    TypeMapping("year", _PLAIN, "smallint", "integer", "int16", Canon.INTEGER, note="0000 is 0"),
    TypeMapping("decimal(p,s)", _PLAIN, "numeric(p,s)", "number", "decimal128(p,s)", Canon.NUMERIC),
    TypeMapping("float", _PLAIN, "real", "float", "float", Canon.FLOAT),
    TypeMapping("double", _PLAIN, "double precision", "float", "double", Canon.FLOAT),
    TypeMapping("bit(n)", _PLAIN, "bit(n)", "bits", "string", Canon.TEXT),
    TypeMapping(
        "date", "days of the calendar", "date", "date", "date32", Canon.DATE, "a day, from year 1 on"
    ),
    TypeMapping(
        "datetime(n)", "days of the calendar", "timestamp(n)", "timestamp", "timestamp[us]", Canon.TIMESTAMP,
        "a day, from year 1 on",
    ),
    TypeMapping(
        "timestamp(n)", "moments", "timestamptz(n)", "timestamptz", "timestamp[us]", Canon.TIMESTAMP,
        "no zeros", note="a moment, kept in UTC by both",
    ),
    TypeMapping(
        "time(n)", _PLAIN, "interval", "interval", "string", Canon.TEXT, note="goes from -838:59:59 to 838:59:59"
    ),
    TypeMapping(
        "char(n)", _PLAIN, "varchar(n)", "utf8", "string", Canon.TEXT, "no NUL character",
        note="MySQL hands it out without its padding",
    ),
    TypeMapping("varchar(n)", _PLAIN, "varchar(n)", "utf8", "string", Canon.TEXT, "no NUL character"),
    TypeMapping("text", _PLAIN, "text", "utf8", "string", Canon.TEXT, "no NUL character"),
    TypeMapping("json", _PLAIN, "json", "utf8", "string", Canon.TEXT, "no NUL character"),
    TypeMapping(
        "enum", _PLAIN, "text", "utf8", "string", Canon.TEXT, note="an enumeration; a CHECK lists its values"
    ),
    TypeMapping(
        "set", _PLAIN, "text", "utf8", "string", Canon.TEXT, note="a set; its members are separated by commas"
    ),
    TypeMapping("binary", _PLAIN, "bytea", "bytes", "binary", Canon.BYTES),
    TypeMapping("varbinary", _PLAIN, "bytea", "bytes", "binary", Canon.BYTES),
    TypeMapping("blob", _PLAIN, "bytea", "bytes", "binary", Canon.BYTES),
    TypeMapping("uuid", _PLAIN, "uuid", "utf8", "string", Canon.TEXT),
    TypeMapping("inet", _PLAIN, "text", "utf8", "string", Canon.TEXT, note="an address, as the source spells it"),
    TypeMapping(
        "geometry", _PLAIN, "bytea", "ewkb", "binary", Canon.BYTES,
        note="a geometry as EWKB, which PostGIS casts to geometry",
    ),
)  # fmt: skip
"""MySQL and MariaDB: type and values. `text` and `blob` are those of any length, `geometry` all spatial types."""

_BY_NAME = {m.declared: m for m in MYSQL_TYPES}
_TEXTS = frozenset({"tinytext", "text", "mediumtext", "longtext"})
_BLOBS = frozenset({"tinyblob", "blob", "mediumblob", "longblob"})
_SPATIAL = frozenset(
    {
        "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
        "geometrycollection", "geomcollection",
    }
)  # fmt: skip
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_NAMES = {
    **dict.fromkeys(_TEXTS, "text"),
    **dict.fromkeys(_BLOBS, "blob"),
    **dict.fromkeys(_SPATIAL, "geometry"),
    "inet4": "inet",
    "inet6": "inet",
    "integer": "int",
    "numeric": "decimal",
}
_MEMBER = re.compile(r"'((?:[^']|'')*)'")


@dataclass(frozen=True, slots=True)
class MysqlType:
    """A column type, read. `family` is a name in `MYSQL_TYPES`, or empty for a type that is not known.

    Attributes:
        length: of char, varchar, bit; digits of a second of time types.
        members: of ENUM and SET.
        zerofill: printed with leading zeros, which are no part of the value.
    """

    declared: str
    family: str
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    zerofill: bool = False
    members: tuple[str, ...] = ()

    @property
    def integer(self) -> bool:
        """Whether it holds integers only."""
        return self.family.removesuffix("(1)").partition(" ")[0] in {*_INTEGERS, "year"}

    @property
    def text(self) -> bool:
        """Whether it holds characters, of some character set."""
        return self.family in {"char(n)", "varchar(n)", "text", "json", "enum", "set"}

    @property
    def dated(self) -> bool:
        """Whether it may hold a date of zeros."""
        return self.family in {"date", "datetime(n)", "timestamp(n)"}


@dataclass(frozen=True, slots=True)
class MysqlValues:
    """Census of one column.

    Attributes:
        in_key: part of a primary, unique or foreign key, so that its type is also another column's.
        numbered: numbers itself, or refers to a column that does.
        beyond: tinyint(1): neither 0 nor 1; bigint unsigned: larger than bigint.
        zero_dates: no day of the calendar: 0000-00-00, 2020-00-15, 2020-02-31, or in year 0.
        nul: texts with a NUL character.
        unreadable: texts that do not come back from utf8mb4 as they were.
        malformed: JSON to MariaDB that is none to PostgreSQL.
        invalid: ENUM values that are no member: the error value, which prints as ''.
        disguised: texts of a latin1 column whose bytes are UTF-8 beyond ASCII.
        blank: ENUM values that are the member ''.
    """

    in_key: bool = False
    numbered: bool = False
    beyond: int = 0
    zero_dates: int = 0
    nul: int = 0
    unreadable: int = 0
    invalid: int = 0
    blank: int = 0
    disguised: int = 0
    malformed: int = 0

    @property
    def sound(self) -> MysqlValues:
        """The census without the values that nothing of PostgreSQL's holds."""
        beyond = 0 if self.numbered else self.beyond
        return replace(self, beyond=beyond, zero_dates=0, nul=0, unreadable=0, malformed=0)


def enum_members(arguments: str) -> tuple[str, ...]:
    """Members of `'a','it''s'`."""
    return tuple(found[1].replace("''", "'") for found in _MEMBER.finditer(arguments))


def mysql_type(declared: str) -> MysqlType:
    """Read a type as `information_schema.columns.column_type` spells it."""
    head, _, behind = declared.partition("(")
    arguments, _, rest = behind.rpartition(")")
    words = f"{head} {rest}".lower().split()
    if not words:
        return MysqlType(declared, "")
    name, rest = _NAMES.get(words[0], words[0]), words[1:]
    unsigned, zerofill = "unsigned" in rest, "zerofill" in rest
    numbers = [int(n) for n in arguments.split(",")] if re.fullmatch(r"[\d, ]+", arguments) else []
    first = numbers[0] if numbers else None
    if name in _INTEGERS:
        family = f"{name} unsigned" if unsigned else name
        # The width of other integers is a hint for printing; this one is how BOOLEAN is spelled.
        if name == "tinyint" and first == 1 and not unsigned:
            family = "tinyint(1)"
        return MysqlType(declared, family, zerofill=zerofill)
    if name == "decimal":
        scale = numbers[1] if len(numbers) > 1 else 0
        return MysqlType(declared, "decimal(p,s)", precision=first or 10, scale=scale, zerofill=zerofill)
    if name in {"enum", "set"}:
        return MysqlType(declared, name, members=enum_members(arguments))
    if name in {"datetime", "timestamp", "time"}:
        return MysqlType(declared, f"{name}(n)", length=first or 0)
    if name in {"char", "varchar"}:
        return MysqlType(declared, f"{name}(n)" if first else "text", length=first)
    if name == "bit":
        return MysqlType(declared, "bit(n)", length=first or 1)
    return MysqlType(declared, name if name in _BY_NAME else "", length=first, zerofill=zerofill)


def _refused(declared: MysqlType, values: MysqlValues) -> str | None:
    """Why nothing of PostgreSQL's holds these values exactly, or None."""
    if not declared.family:
        return f"its type {declared.declared} is not known to this version; drop the column with a rule"
    if values.zero_dates:
        found = counted(values.zero_dates, "value is", "values are")
        return (
            f"{found} no day of the calendar (such as 0000-00-00 or 2020-02-31), which PostgreSQL cannot hold;"
            " correct them in the source, leave those rows out with `where`, or drop the column"
        )
    if values.numbered and values.beyond and declared.family == "bigint unsigned":
        found = counted(values.beyond, "value is", "values are")
        return f"{found} larger than any bigint, and PostgreSQL numbers no larger type; leave them out with `where`"
    if values.nul:
        found = counted(values.nul, "text holds", "texts hold")
        return f"{found} a NUL character, which PostgreSQL text cannot; correct them in the source, or drop the column"
    if values.malformed:
        found = counted(values.malformed, "value is", "values are")
        return (
            f'{found} JSON to MariaDB but not to PostgreSQL, such as 1. or "\\x"; correct them in the source'
        )
    if values.unreadable:
        found = counted(values.unreadable, "text holds", "texts hold")
        return (
            f"{found} bytes that are no characters of the column's character set; correct them in the source"
        )
    return None


def _base(declared: MysqlType, values: MysqlValues) -> TypeMapping:
    """The row of the table."""
    if declared.family == "tinyint(1)" and (values.beyond or values.in_key):
        why = (
            "is part of a key"
            if values.in_key
            else f"{counted(values.beyond, 'value is', 'values are')} neither 0 nor 1"
        )
        return replace(_BY_NAME["tinyint"], note=f"declared tinyint(1), but {why}")
    if declared.family == "bigint unsigned" and values.numbered and not values.beyond:
        return _BY_NAME["bigint unsigned auto_increment"]
    return _BY_NAME[declared.family]


def choose_mysql(declared: MysqlType, values: MysqlValues) -> TypeChoice:
    """What a column becomes, by its type and the values found in it."""
    if reason := _refused(declared, values):
        return TypeChoice("", "", "", Canon.TEXT, refused=reason)
    mapping = _base(declared, values)
    target, arrow, note = mapping.target, mapping.arrow, mapping.note
    if declared.length is not None:
        # Six digits of a second are what the type has by itself.
        digits = "" if declared.dated and declared.length == 6 else f"({declared.length})"
        target = target.replace("(n)", digits)
    if declared.precision is not None:
        digits = f"({declared.precision},{declared.scale})"
        target, arrow = target.replace("(p,s)", digits), arrow.replace("(p,s)", digits)
        if declared.precision > MAX_DECIMAL128:
            arrow = "string"
    if declared.zerofill:
        note = "; ".join(
            filter(None, (note, "leading zeros are how MySQL prints it, and no part of the value"))
        )
    return TypeChoice(target, mapping.carrier, arrow, mapping.canon, note)
