"""Type mappings: what a source's declared type and its stored values become in PostgreSQL.

What belongs here: one frozen table of `TypeMapping` per dialect (`jivs types` prints it), the pure rules that
pick a row of it, and Arrow types by name. What does not: MySQL's (`types_mysql.py`), reading values
(`infra/sources/`), overriding a type (`engine/planning.py`).

SQLite types values, not columns: a declared type is a hope. The rules therefore take the declared type *and*
the census of what is stored, and they never coerce: integers in a DATE column become bigint, with a note.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.file_types import CSV_TYPES, PARQUET_TYPES
from jivs_pipeline.core.type_mapping import MAX_DECIMAL128, TypeChoice, TypeMapping
from jivs_pipeline.core.types_drivers import DB2_TYPES, HANA_TYPES, MSSQL_TYPES, ORACLE_TYPES
from jivs_pipeline.core.types_mysql import MYSQL_TYPES

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
    "candidates_sqlite",
    "choose_sqlite",
    "likely_sqlite",
    "sqlite_type",
]

_MAX_PRECISION = 1000  # of PostgreSQL's numeric(p,s)
_MAX_VARCHAR = 10_485_760  # PostgreSQL's limit of varchar(n)


SQLITE_TYPES: tuple[TypeMapping, ...] = (
    TypeMapping("BOOLEAN", "integer", "boolean", "boolean", "bool", Canon.BOOLEAN, "0 or 1"),
    TypeMapping("INTEGER", "integer", "bigint", "integer", "int64", Canon.INTEGER),
    TypeMapping("REAL", "real", "double precision", "real", "double", Canon.FLOAT),
    TypeMapping(
        "NUMERIC(p,s)", "integer, real", "numeric(p,s)", "number", "decimal128(p,s)", Canon.NUMERIC,
        "shortest digits that fit p and s",
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
    TypeMapping(
        "*", "integer", "bigint", "integer", "int64", Canon.INTEGER,
        note="declared {declared}, holds integers",
    ),
    TypeMapping(
        "*", "real", "double precision", "real", "double", Canon.FLOAT,
        note="declared {declared}, holds reals",
    ),
    TypeMapping(
        "*", "integer, real", "numeric", "number", "string", Canon.NUMERIC,
        note="declared {declared}, holds integers and reals; numeric keeps both",
    ),
    TypeMapping("*", "text", "text", "utf8", "string", Canon.TEXT, note="declared {declared}, holds text"),
    TypeMapping(
        "*", "blob", "bytea", "bytes", "binary", Canon.BYTES, note="declared {declared}, holds blobs"
    ),
)  # fmt: skip
"""SQLite: declared type family and storage classes."""

TABLES: dict[str, tuple[TypeMapping, ...]] = {
    "mysql": MYSQL_TYPES,
    "sqlite": SQLITE_TYPES,
    "csv": CSV_TYPES,
    "parquet": PARQUET_TYPES,
    "mssql": MSSQL_TYPES,
    "oracle": ORACLE_TYPES,
    "db2": DB2_TYPES,
    "hana": HANA_TYPES,
}
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
        minus_zeros: reals that are -0.0; only columns without affinity keep them.
        conforming: whether every value has the form that the declared family asks for (0/1, calendar
            dates, digits within precision and scale).
    """

    integers: int = 0
    reals: int = 0
    texts: int = 0
    blobs: int = 0
    longest: int = 0
    nul: int = 0
    minus_zeros: int = 0
    conforming: bool = True

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Integers, reals, texts, blobs."""
        return self.integers, self.reals, self.texts, self.blobs

    @property
    def classes(self) -> str:
        """The classes that occur, as `TypeMapping.stored` spells them."""
        names = zip(("integer", "real", "text", "blob"), self.counts, strict=True)
        return ", ".join(name for name, count in names if count)


_ARGUMENTS = re.compile(r"\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
# Names of NUMERIC affinity, in the order in which they are tried.
_NUMERIC_NAMES = (
    ("BOOL", Family.BOOLEAN), ("DATETIME", Family.TIMESTAMP), ("TIMESTAMP", Family.TIMESTAMP),
    ("DATE", Family.DATE), ("TIME", Family.TIME), ("NUMERIC", Family.NUMERIC), ("DEC", Family.NUMERIC),
    ("NUMBER", Family.NUMERIC), ("MONEY", Family.NUMERIC), ("CURRENCY", Family.NUMERIC),
    ("FIXED", Family.NUMERIC),
)  # fmt: skip


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
    # In a STRICT table ANY converts nothing; elsewhere it is NUMERIC, and BLOB promises less.
    affinity = Affinity.BLOB if upper == "ANY" else _affinity(upper)
    found = _ARGUMENTS.search(upper)
    first = int(found[1]) if found else 0
    if affinity is Affinity.TEXT and "CHAR" in upper and 0 < first <= _MAX_VARCHAR:
        return SqliteType(declared, affinity, Family.VARCHAR, length=first)
    if affinity is Affinity.BLOB:
        return SqliteType(declared, affinity, Family.BLOB if "BLOB" in upper else Family.NONE)
    if affinity is not Affinity.NUMERIC:
        return SqliteType(declared, affinity, Family(affinity.value))
    family = next((family for prefix, family in _NUMERIC_NAMES if upper.startswith(prefix)), Family.NONE)
    scale = int(found[2] or 0) if found else 0
    if family is Family.NUMERIC and 0 < first <= _MAX_PRECISION and scale <= first:
        return SqliteType(declared, affinity, family, precision=first, scale=scale)
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


def _promised(declared: SqliteType) -> TypeMapping:
    """The mapping that the declared family asks for."""
    name = "NUMERIC(p,s)" if declared.precision is not None else declared.family.value
    return next(m for m in SQLITE_TYPES if m.declared == name)


def _refusal(values: StoredValues) -> str:
    counts = zip(("integer", "real", "text", "blob"), values.counts, strict=True)
    seen = " and ".join(f"{count:,} {name}{'s' * (count > 1)}" for name, count in counts if count)
    way_out = "a rule `type: text` carries them as text"
    if values.blobs:
        way_out = "leave rows out with `where` or drop the column"
    return f"mixes {seen}, which no PostgreSQL type holds exactly; {way_out}"


def _refused(declared: SqliteType, values: StoredValues) -> str | None:
    """Why no PostgreSQL type holds these values exactly, or None."""
    if values.nul:
        return (
            f"{counted(values.nul, 'text holds', 'texts hold')} a NUL character, which PostgreSQL text cannot"
        )
    if (values.texts or values.blobs) and "," in values.classes:
        return _refusal(values)
    becomes_numeric = values.integers or declared.family is Family.NUMERIC
    if values.minus_zeros and becomes_numeric:
        return (
            f"{counted(values.minus_zeros, 'real is', 'reals are')} -0.0, which numeric does not tell from 0"
        )
    return None


def choose_sqlite(declared: SqliteType, values: StoredValues) -> TypeChoice:
    """What a SQLite column becomes, by its declared type and the values found in it."""
    if reason := _refused(declared, values):
        return TypeChoice("", "", "", Canon.TEXT, refused=reason)
    classes, written = values.classes, declared.declared or "without a type"
    if declared.family is Family.NONE:
        fallback = _BY_KEY["*", classes or "text"]
        return _chosen(fallback, declared, "" if classes else f"declared {written}, no values")
    promised = _promised(declared)
    if not classes:
        return _chosen(promised, declared)
    fallback = _BY_KEY["*", classes]
    if declared.family is Family.NUMERIC and not values.texts and not values.blobs:
        if declared.precision is None or values.conforming:
            return _chosen(promised, declared)
        return _chosen(_BY_KEY["NUMERIC", "integer, real"], declared, f"some values do not fit {written}")
    if classes != promised.stored:
        return _chosen(fallback, declared)
    if not values.conforming:
        note = f"declared {written}, but not every value is {promised.condition}"
        return _chosen(fallback, declared, note)
    if declared.length is not None and values.longest > declared.length:
        note = f"declared {written}, but the longest value has {values.longest:,} characters"
        return _chosen(_BY_KEY["TEXT", "text"], declared, note)
    return _chosen(promised, declared)


def candidates_sqlite(declared: SqliteType, values: StoredValues) -> list[TypeChoice]:
    """What a refused column may become when the rows that do not fit are left out, the declared type first.

    The type that the most values have comes second: a declaration that hardly any value keeps is none.
    """
    counts = dict(zip(("integer", "real", "text", "blob"), values.counts, strict=True))
    classes = [max(counts, key=lambda name: counts[name])]
    if counts["integer"] and counts["real"]:
        classes.append("integer, real")
    promised = [] if declared.family is Family.NONE else [_chosen(_promised(declared), declared)]
    return [*promised, *(_chosen(_BY_KEY["*", c], declared) for c in classes)]


_HELD = {"integer": Family.INTEGER, "real": Family.REAL, "text": Family.TEXT, "blob": Family.BLOB}


def likely_sqlite(declared: SqliteType, held: str | None) -> SqliteType:
    """The type to expect when `held` is the storage class of a column's first value (None: it has none).

    Mixtures are refused, so that one value tells whether the declaration holds; expressions in defaults, checks
    and indexes are translated for this type.
    """
    if held is None:
        return declared if declared.family is not Family.NONE else replace(declared, family=Family.TEXT)
    if declared.family is not Family.NONE and held in _promised(declared).stored:
        return declared
    return SqliteType(declared.declared, declared.affinity, _HELD[held])


_DECIMAL = re.compile(r"decimal128\((\d+),\s*(\d+)\)")


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type that `ColumnPlan.arrow` names, such as int64, timestamp[us] or decimal128(10,2).

    Raises:
        ValueError: there is no such type.
    """
    # Imported where it is used: the command line imports this package and must start fast.
    import pyarrow as pa

    if found := _DECIMAL.fullmatch(text):
        return pa.decimal128(int(found[1]), int(found[2]))
    return pa.type_for_alias(text)
