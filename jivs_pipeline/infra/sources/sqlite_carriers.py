"""How single values cross from SQLite into Arrow.

What belongs here: SQL per column, and what is done with its result. What does not: choosing carriers
(`core/types.py`), running queries (`sqlite_snapshot`), spelling values for digests (`sqlite_digests`).

Carriers, each with the Arrow type that the plan names or with `string` (then as PostgreSQL's input reads it):

- integer, real, utf8, bytes: the storage class of that name (utf8 is text); anything else is an error.
- boolean: the integers 0 and 1.
- number: integers and reals by their decimal digits, neither through the other.
- date, time, timestamp: texts of that form.
- text: anything but blobs, as text: what a rule `type: text` asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.types import Affinity, Family, arrow_type, sqlite_type
from jivs_pipeline.infra.sources.sqlite_open import column_name
from jivs_pipeline.infra.sources.sqlite_values import real_text

__all__ = ["Reading", "any_of", "parts_of", "reading", "unbounded_size"]

_SHORT = 255  # characters of a VARCHAR(n) that needs no look at its longest value

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow


@dataclass(frozen=True, slots=True)
class Reading:
    """How one column is read.

    Attributes:
        parts: SQL expressions, each with a typed value for the row that goes before all others.
        join: makes one array of the parts' arrays; raises ValueError (or Arrow's) for a value out of place.
        alien: condition of a value that the carrier cannot hold and that ADBC would convert silently.
    """

    parts: tuple[tuple[str, str], ...]
    join: Callable[[Sequence[Array]], Array]
    alien: str | None = None

    @property
    def types(self) -> list[Any]:
        """Arrow types in which the parts must arrive."""
        return [_FIRST_TYPES[value] for _, value in self.parts]


_FIRST_TYPES: dict[str, Any] = {"0": pa.int64(), "0.0": pa.float64(), "''": pa.string(), "x''": pa.binary()}


def any_of(conditions: Sequence[str], joiner: str = " OR ") -> str:
    """The conditions joined as a balanced tree: SQLite limits the depth of an expression to 1,000."""
    if len(conditions) <= 2:
        return joiner.join(conditions)
    middle = len(conditions) // 2
    return f"({any_of(conditions[:middle], joiner)}){joiner}({any_of(conditions[middle:], joiner)})"


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────


def _cast(arrow: str) -> Callable[[Sequence[Array]], Array]:
    wanted = arrow_type(arrow)
    return lambda parts: parts[0] if parts[0].type == wanted else parts[0].cast(wanted)


def _booleans(arrow: str) -> Callable[[Sequence[Array]], Array]:
    def join(parts: Sequence[Array]) -> Array:
        span = _pc.min_max(parts[0]).as_py()
        # Arrow's cast makes true of every other number.
        if span["min"] is not None and (span["min"] < 0 or span["max"] > 1):
            raise ValueError("an integer that is neither 0 nor 1")
        return parts[0].cast(arrow_type(arrow))

    return join


def _times(parts: Sequence[Array]) -> Array:
    # Arrow parses timestamps and no times: put them on the first day and take its microseconds.
    joined = _pc.binary_join_element_wise(pa.scalar("1970-01-01"), parts[0], " ")
    return joined.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.time64("us"))


def _real_digits(reals: Array) -> Array:
    if reals.null_count == len(reals):
        return reals.cast(pa.string())
    return pa.array([None if v is None else real_text(v) for v in reals.to_pylist()], pa.string())


def _numbers(arrow: str) -> Callable[[Sequence[Array]], Array]:
    wanted = arrow_type(arrow)

    def join(parts: Sequence[Array]) -> Array:
        # Arrow prints the shortest digits that give the double back, as 1e+20 or inf; numeric reads both.
        digits = _pc.coalesce(parts[0].cast(pa.string()), parts[1].cast(pa.string()))
        # The cast to decimal raises for digits beyond the scale, and wraps for more than 38: the census has
        # counted them, and a 64-bit integer or a double that passed it has fewer.
        return digits if digits.type == wanted else digits.cast(wanted)

    return join


def _any_text(parts: Sequence[Array]) -> Array:
    return _pc.coalesce(parts[0], parts[1].cast(pa.string()), _real_digits(parts[2]))


def reading(table: str, column: ColumnPlan) -> Reading:
    """How `column` of `table` is read.

    Raises:
        ValueError: there is no such carrier.
    """
    make = _READINGS.get(column.carrier)
    if make is None:
        raise ValueError(f"there is no carrier {column.carrier!r} for SQLite")
    return make(column_name(table, column.source), column.arrow, sqlite_type(column.source_type).affinity)


def _only(c: str, stored: str) -> str:
    return f"CASE WHEN typeof({c}) = '{stored}' THEN {c} END"


def _other_than(c: str, stored: str) -> str:
    return f"typeof({c}) NOT IN ('{stored}', 'null')"


def _integer(c: str, arrow: str, _: Affinity) -> Reading:
    return Reading(((c, "0"),), _cast(arrow))


def _boolean(c: str, arrow: str, _: Affinity) -> Reading:
    return Reading(((c, "0"),), _booleans(arrow))


def _real(c: str, arrow: str, affinity: Affinity) -> Reading:
    # REAL affinity leaves no integers, and ADBC refuses everything else.
    alien = None if affinity is Affinity.REAL else _other_than(c, "real")
    return Reading(((c, "0.0"),), _cast(arrow) if arrow != "string" else lambda p: _real_digits(p[0]), alien)


def _number(c: str, arrow: str, _: Affinity) -> Reading:
    parts = ((_only(c, "integer"), "0"), (_only(c, "real"), "0.0"))
    return Reading(parts, _numbers(arrow), f"typeof({c}) IN ('text', 'blob')")


def _utf8(c: str, _: str, affinity: Affinity) -> Reading:
    # TEXT affinity leaves no numbers, and this comparison is cheaper than typeof().
    alien = f"{c} >= x''" if affinity is Affinity.TEXT else _other_than(c, "text")
    return Reading(((c, "''"),), _cast("string"), alien)


def _temporal(c: str, arrow: str, _: Affinity) -> Reading:
    join = _times if arrow.startswith("time64") else _cast(arrow)
    return Reading(((c, "''"),), join, _other_than(c, "text"))


def _bytes(c: str, arrow: str, _: Affinity) -> Reading:
    if arrow == "string":
        written = f"CASE WHEN {c} NOT NULL THEN '\\x' || lower(hex({c})) END"
        return Reading(((written, "''"),), _cast(arrow), _other_than(c, "blob"))
    return Reading(((c, "x''"),), _cast(arrow), _other_than(c, "blob"))


def _text(c: str, _: str, __: Affinity) -> Reading:
    parts = ((_only(c, "text"), "''"), (_only(c, "integer"), "0"), (_only(c, "real"), "0.0"))
    return Reading(parts, _any_text, f"typeof({c}) = 'blob'")


_READINGS: dict[str, Callable[[str, str, Affinity], Reading]] = {
    "integer": _integer,
    "boolean": _boolean,
    "real": _real,
    "number": _number,
    "utf8": _utf8,
    "date": _temporal,
    "time": _temporal,
    "timestamp": _temporal,
    "bytes": _bytes,
    "text": _text,
}


def parts_of(column: ColumnPlan) -> int:
    """How many values of a query's row the column takes."""
    return len(reading("", column).parts)


def unbounded_size(table: str, column: ColumnPlan) -> str | None:
    """SQL of a value's bytes, where neither its type nor the census bounds them."""
    declared = sqlite_type(column.source_type)
    short = declared.family is Family.VARCHAR and (declared.length or 0) <= _SHORT
    kept = column.target_type == f"varchar({declared.length})"
    if column.carrier not in ("utf8", "text", "bytes") or (short and kept):
        return None
    c = column_name(table, column.source)
    # The length of a blob is in the row's header; of a text it needs reading.
    return f"coalesce(length(CAST({c} AS BLOB)), 0)"
