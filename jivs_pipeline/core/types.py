"""Type mappings: what a source's declared type and its stored values become in PostgreSQL.

What belongs here: one frozen table of `TypeMapping` per dialect (`jivs types` prints it), the pure rules that
pick a row of it, and Arrow types by name. What does not: reading values (`infra/sources/`), overriding a type
(`engine/planning.py`).

SQLite types values, not columns: a declared type is a hope. The rules therefore take the declared type *and*
the census of what is stored, and they never coerce: integers in a DATE column become bigint, with a note.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from jivs_pipeline.core.digest import Canon

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "MAX_DECIMAL128",
    "SQLITE_TYPES",
    "TABLES",
    "Affinity",
    "Family",
    "SqliteType",
    "StoredValues",
    "TypeChoice",
    "TypeMapping",
    "arrow_type",
    "choose_sqlite",
    "default_suits",
    "sqlite_type",
]

MAX_DECIMAL128 = 38
"""Digits that decimal128 holds; longer numerics travel as text."""

_MAX_PRECISION = 1000  # of PostgreSQL's numeric(p,s)
_MAX_VARCHAR = 10_485_760  # PostgreSQL's limit of varchar(n)


@dataclass(frozen=True, slots=True)
class TypeMapping:
    """One line of a dialect's table.

    Attributes:
        declared: family of the declared type; `*` is any other.
        stored: what the values are (SQLite: storage classes; elsewhere the type itself).
        target: PostgreSQL type, with the letters of the declared type (`n`, `p`, `s`).
        carrier: how the source hands the value over, see the dialect's snapshot module.
        arrow: Arrow type in staging.
        canon: canonical spelling in digests.
        condition: what every value must satisfy, or empty.
        note: what a user should know, or empty: then the mapping is exact and what was declared.
    """

    declared: str
    stored: str
    target: str
    carrier: str
    arrow: str
    canon: Canon
    condition: str = ""
    note: str = ""


SQLITE_TYPES: tuple[TypeMapping, ...] = (
    TypeMapping("BOOLEAN", "integer", "boolean", "boolean", "bool", Canon.BOOLEAN, "every value is 0 or 1"),
    TypeMapping("INTEGER", "integer", "bigint", "integer", "int64", Canon.INTEGER),
    TypeMapping("REAL", "real", "double precision", "real", "double", Canon.FLOAT),
    TypeMapping(
        "NUMERIC(p,s)", "integer, real", "numeric(p,s)", "number", "decimal128(p,s)", Canon.NUMERIC,
        "the shortest digits of every value fit p and s",
    ),
    TypeMapping("NUMERIC", "integer, real", "numeric", "number", "string", Canon.NUMERIC),
    TypeMapping("DATE", "text", "date", "date", "date32", Canon.DATE, "YYYY-MM-DD, a day of the calendar"),
    TypeMapping("TIME", "text", "time", "time", "time64[us]", Canon.TIME, "HH:MM:SS[.ffffff]"),
    TypeMapping(
        "TIMESTAMP", "text", "timestamp", "timestamp", "timestamp[us]", Canon.TIMESTAMP,
        "YYYY-MM-DD HH:MM:SS[.ffffff], also with T, a day of the calendar",
    ),
    TypeMapping("VARCHAR(n)", "text", "varchar(n)", "utf8", "string", Canon.TEXT, "at most n characters"),
    TypeMapping("TEXT", "text", "text", "utf8", "string", Canon.TEXT),
    TypeMapping("BLOB", "blob", "bytea", "bytes", "binary", Canon.BYTES),
    # What is stored is not what was declared: the values decide, and the note says so.
    TypeMapping("*", "integer", "bigint", "integer", "int64", Canon.INTEGER, note="declared {declared}, holds integers"),
    TypeMapping("*", "real", "double precision", "real", "double", Canon.FLOAT, note="declared {declared}, holds reals"),
    TypeMapping(
        "*", "integer, real", "numeric", "number", "string", Canon.NUMERIC,
        note="declared {declared}, holds integers and reals; numeric keeps both",
    ),
    TypeMapping("*", "text", "text", "utf8", "string", Canon.TEXT, note="declared {declared}, holds text"),
    TypeMapping("*", "blob", "bytea", "bytes", "binary", Canon.BYTES, note="declared {declared}, holds blobs"),
)  # fmt: skip
"""SQLite: declared type family and storage classes."""

TABLES: dict[str, tuple[TypeMapping, ...]] = {"sqlite": SQLITE_TYPES}
"""Table of each dialect, for `jivs types`."""

_BY_KEY = {(m.declared, m.stored): m for m in SQLITE_TYPES}


class Affinity(StrEnum):
    """What SQLite tries to convert values to when they are stored (https://www.sqlite.org/datatype3.html)."""

    INTEGER = "INTEGER"
    TEXT = "TEXT"
    BLOB = "BLOB"
    REAL = "REAL"
    NUMERIC = "NUMERIC"


class Family(StrEnum):
    """What a declared SQLite type promises; the values are names in `SQLITE_TYPES`."""

    BOOLEAN = "BOOLEAN"
    INTEGER = "INTEGER"
    REAL = "REAL"
    NUMERIC = "NUMERIC"
    DATE = "DATE"
    TIME = "TIME"
    TIMESTAMP = "TIMESTAMP"
    VARCHAR = "VARCHAR(n)"
    TEXT = "TEXT"
    BLOB = "BLOB"
    NONE = "none"
    """No type, or a name that SQLite does not know (JSON, UUID, STRING …): the values decide."""


@dataclass(frozen=True, slots=True)
class SqliteType:
    """A declared type, read: `length` of VARCHAR(n), `precision` and `scale` of NUMERIC(p,s), where given."""

    declared: str
    affinity: Affinity
    family: Family
    length: int | None = None
    precision: int | None = None
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class StoredValues:
    """Census of one column: how many values of each storage class, NULLs not counted.

    Attributes:
        longest: characters of the longest text.
        nul: texts with a NUL character.
        conforming: whether every value has the form that the declared family asks for (0/1, calendar
            dates, digits within precision and scale).
    """

    integers: int = 0
    reals: int = 0
    texts: int = 0
    blobs: int = 0
    longest: int = 0
    nul: int = 0
    conforming: bool = True

    @property
    def classes(self) -> str:
        """The classes that occur, as `TypeMapping.stored` spells them."""
        counts = {"integer": self.integers, "real": self.reals, "text": self.texts, "blob": self.blobs}
        return ", ".join(name for name, count in counts.items() if count)


@dataclass(frozen=True, slots=True)
class TypeChoice:
    """What becomes of a column. `refused` is the reason why nothing can, and then the rest is void."""

    target: str
    carrier: str
    arrow: str
    canon: Canon
    note: str = ""
    refused: str | None = None


_ARGUMENTS = re.compile(r"\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_NUMERIC_NAMES = ("NUMERIC", "DEC", "NUMBER", "MONEY", "CURRENCY", "FIXED")


def _affinity(upper: str) -> Affinity:
    # The order is SQLite's: POINT is an integer, CHARINT too.
    if "INT" in upper:
        return Affinity.INTEGER
    if any(part in upper for part in ("CHAR", "CLOB", "TEXT")):
        return Affinity.TEXT
    if not upper or "BLOB" in upper:
        return Affinity.BLOB
    if any(part in upper for part in ("REAL", "FLOA", "DOUB")):
        return Affinity.REAL
    return Affinity.NUMERIC


def sqlite_type(declared: str) -> SqliteType:
    """Read a declared type."""
    upper = " ".join(declared.upper().split())
    affinity = _affinity(upper)
    found = _ARGUMENTS.search(upper)
    first, second = (int(found[1]), int(found[2]) if found[2] else None) if found else (None, None)
    family = Family.NONE
    if affinity is Affinity.TEXT:
        if "CHAR" in upper and first is not None and 0 < first <= _MAX_VARCHAR:
            return SqliteType(declared, affinity, Family.VARCHAR, length=first)
        family = Family.TEXT
    elif affinity is Affinity.BLOB:
        family = Family.BLOB if upper else Family.NONE
    elif affinity is not Affinity.NUMERIC:
        family = Family(affinity.value)
    elif upper == "ANY":
        # In a STRICT table ANY converts nothing; elsewhere it is NUMERIC, and BLOB promises less.
        affinity = Affinity.BLOB
    elif upper.startswith("BOOL"):
        family = Family.BOOLEAN
    elif upper.startswith(("DATETIME", "TIMESTAMP")):
        family = Family.TIMESTAMP
    elif upper.startswith("DATE"):
        family = Family.DATE
    elif upper.startswith("TIME"):
        family = Family.TIME
    elif upper.startswith(_NUMERIC_NAMES):
        scale = second or 0
        if first is not None and 0 < first <= _MAX_PRECISION and scale <= first:
            return SqliteType(declared, affinity, Family.NUMERIC, precision=first, scale=scale)
        family = Family.NUMERIC
    return SqliteType(declared, affinity, family)


def _chosen(mapping: TypeMapping, declared: SqliteType, note: str = "") -> TypeChoice:
    target, arrow = mapping.target, mapping.arrow
    if declared.length is not None:
        target = target.replace("(n)", f"({declared.length})")
    if declared.precision is not None:
        digits = f"({declared.precision},{declared.scale})"
        target, arrow = target.replace("(p,s)", digits), arrow.replace("(p,s)", digits)
        if declared.precision > MAX_DECIMAL128:
            arrow = "string"
    note = note or mapping.note.format(declared=declared.declared or "without a type")
    return TypeChoice(target, mapping.carrier, arrow, mapping.canon, note)


def _stored_as_declared(declared: SqliteType) -> tuple[TypeMapping, str]:
    """The mapping that the family asks for, and the storage classes it takes."""
    name = "NUMERIC(p,s)" if declared.precision is not None else declared.family.value
    mapping = next(m for m in SQLITE_TYPES if m.declared == name)
    return mapping, mapping.stored


def _refusal(values: StoredValues) -> str:
    counts = (
        (values.integers, "integers"), (values.reals, "reals"), (values.texts, "texts"), (values.blobs, "blobs")
    )  # fmt: skip
    seen = " and ".join(f"{count:,} {name}" for count, name in counts if count)
    if values.blobs:
        return f"mixes {seen}, which no PostgreSQL type holds exactly; leave rows out with `where` or drop the column"
    return f"mixes {seen}, which no PostgreSQL type holds exactly; a rule `type: text` carries them as text"


def choose_sqlite(declared: SqliteType, values: StoredValues) -> TypeChoice:
    """What a SQLite column becomes, by its declared type and the values found in it."""
    classes = values.classes
    if values.nul:
        reason = f"{values.nul:,} texts hold a NUL character, which PostgreSQL text cannot"
        return TypeChoice("", "", "", Canon.TEXT, refused=reason)
    if not classes:
        if declared.family is Family.NONE:
            return _chosen(
                _BY_KEY["*", "text"], declared, f"declared {declared.declared or 'without a type'}, no values"
            )
        return _chosen(_stored_as_declared(declared)[0], declared)
    if (values.blobs or values.texts) and "," in classes:
        return TypeChoice("", "", "", Canon.TEXT, refused=_refusal(values))
    fallback = _BY_KEY["*", classes]
    if declared.family is Family.NONE:
        return _chosen(
            fallback, declared, "" if declared.declared else f"declared without a type, holds {classes}s"
        )
    mapping, takes = _stored_as_declared(declared)
    numeric = declared.family is Family.NUMERIC and not values.texts and not values.blobs
    if not numeric and classes != takes:
        return _chosen(fallback, declared)
    if numeric and declared.precision is not None and not values.conforming:
        return _chosen(
            _BY_KEY["NUMERIC", "integer, real"], declared, f"some values do not fit {declared.declared}"
        )
    if not values.conforming:
        return _chosen(
            fallback, declared, f"declared {declared.declared}, but not every value is {mapping.condition}"
        )
    if declared.length is not None and values.longest > declared.length:
        return _chosen(
            fallback, declared, f"declared {declared.declared}, longest value {values.longest:,} characters"
        )
    return _chosen(mapping, declared)


_DECIMAL = re.compile(r"decimal128\((\d+),\s*(\d+)\)")


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that `ColumnPlan.arrow` names: int64, string, timestamp[us], decimal128(10,2) …

    Raises:
        ValueError: there is no such type.
    """
    # Imported where it is used: the command line imports this package and must start fast.
    import pyarrow as pa

    if found := _DECIMAL.fullmatch(text):
        return pa.decimal128(int(found[1]), int(found[2]))
    return pa.type_for_alias(text)


_LITERAL = re.compile(r"'(?:[^']|'')*'")


def default_suits(expression: str, target_type: str) -> bool:
    """Whether a translated default can stand on a column of the final type.

    Literals come quoted and suit every type their family promised; a UTC clock needs a temporal or text column,
    and a census may have turned DATETIME into bigint.
    """
    if _LITERAL.fullmatch(expression) or expression == "NULL":
        return True
    return target_type.startswith(("timestamp", "date", "time", "text", "varchar"))
