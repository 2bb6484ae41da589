"""How single values cross from MySQL into Arrow, and how MySQL spells them for digests.

What belongs here: SQL per column, and what is done with its result. What does not: choosing carriers
(`core/types_mysql.py`), running queries (`mysql_snapshot.py`).

The server prints each value and Arrow parses it; no value goes through an object of a driver's. Carriers, each
with the Arrow type that the plan names or with `string` (then as PostgreSQL's input reads it):

- integer, number: decimal digits. boolean: the integers 0 and 1.
- float: digits of the double that a FLOAT is exactly; a bare FLOAT column prints six digits only. Not by adding 0,
  which makes 0 of -0.
- bits: zeros and ones. bytes: as they are. ewkb: a geometry's bytes, with its SRID where EWKB has it.
- date, timestamp, timestamptz, interval, utf8: as the server prints them.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.types import arrow_type
from jivs_pipeline.core.types_mysql import mysql_type
from jivs_pipeline.infra.sources.mysql_session import quoted
from jivs_pipeline.infra.sources.parquet_types import digestible
from jivs_pipeline.infra.trimming import without_minus_of_zero, without_zeros

__all__ = ["array_of", "hashable", "printed", "readable", "spelled"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them


def readable(column: ColumnPlan) -> str:
    """SQL of the value as it crosses."""
    value = printed(column)
    if column.carrier == "timestamptz" and column.arrow == "string":
        return f"CONCAT({value}, '+00')"
    return value


def printed(column: ColumnPlan) -> str:
    """SQL of the value as the server prints it."""
    c, declared = quoted(column.source), mysql_type(column.source_type)
    match column.carrier:
        case "integer" if declared.zerofill or declared.family == "year":
            return f"({c} + 0)"
        case "number" if declared.zerofill:
            return f"CAST({c} AS DECIMAL({declared.precision},{declared.scale}))"
        case "float":
            return f"({c} * 1e0)"
        case "bits":
            return f"LPAD(BIN({c} + 0), {declared.length}, '0')"
        case "ewkb":
            return _ewkb(c)
        case _:
            return c


def _ewkb(c: str) -> str:
    """MySQL keeps a geometry as its SRID in four bytes, and little-endian WKB; EWKB has the SRID behind the type."""
    raw = f"CAST({c} AS BINARY)"
    with_srid = f"CONCAT(SUBSTR({raw}, 5, 4), CHAR(ORD(SUBSTR({raw}, 9, 1)) | 32), SUBSTR({raw}, 1, 4), SUBSTR({raw}, 10))"
    return f"IF(SUBSTR({raw}, 1, 4) = x'00000000', SUBSTR({raw}, 5), {with_srid})"


# ── digests ─────────────────────────────────────────────────────────────────────────────────────────────


def hashable(column: ColumnPlan) -> str:
    """SQL of the value as `spelled` takes it."""
    value = printed(column)
    if column.canon is Canon.FLOAT:
        return _float_bytes(value)
    return value


def spelled(column: ColumnPlan, binary: Any) -> Any:
    """The values of a column, given as they were printed, as `Canon` spells them; large bytes stay what they are.

    What is no UTF-8 is left as it is, for then it differs from the target's.
    """
    if column.canon is Canon.BYTES:
        return digestible(binary, column)
    declared, text = mysql_type(column.source_type), binary.view(pa.string())
    match column.canon:
        case Canon.NUMERIC if declared.scale:
            return without_minus_of_zero(without_zeros(text))
        case Canon.TIMESTAMP:
            text = without_zeros(text) if declared.length else text
            return _pc.binary_join_element_wise(text, "+00", "") if column.carrier == "timestamptz" else text
        case _ if column.carrier == "interval" and declared.length:
            return without_zeros(text)
        case _:
            return text


_SIGN = "IF({v} < 0 OR ({v} = 0 AND LEFT(CONVERT({v} USING utf8mb4), 1) = '-'), 1 << 63, 0)"
_EXPONENT = "GREATEST(LEAST(FLOOR(LOG2(ABS({v}))), 1023), -1022)"
# LOG2 may be one off next to a power of two; what it gives is put right by looking at the mantissa.
_EXACT_EXPONENT = (
    "GREATEST({e} + IF(ABS({v}) / POW(2, {e}) >= 2, 1, IF(ABS({v}) / POW(2, {e}) < 1, -1, 0)), -1022)"
)
_MANTISSA = "ABS({v}) / POW(2, {x})"  # below 1 for denormals, of which the exponent is -1022


def _float_bytes(value: str) -> str:
    """The eight bytes of an IEEE 754 double in hex; MySQL has no function for it. Powers of two divide exactly."""
    sign = _SIGN.format(v=value)
    exponent = _EXACT_EXPONENT.format(v=value, e=_EXPONENT.format(v=value))
    mantissa = _MANTISSA.format(v=value, x=exponent)
    bits = (
        f"IF({mantissa} < 1, 0, (CAST({exponent} AS SIGNED) + 1023) << 52)"
        f" | CAST(({mantissa} - IF({mantissa} < 1, 0, 1)) * 4503599627370496e0 AS UNSIGNED)"
    )
    return f"LOWER(LPAD(HEX({sign} | IF({value} = 0, 0, {bits})), 16, '0'))"


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────


def array_of(column: ColumnPlan, binary: Any) -> Any:
    """The values of a column, given as they were printed, as an array of the plan's Arrow type.

    Raises:
        ValueError: a value is not of the type, or not UTF-8. Arrow's message may quote it.
    """
    if column.carrier in {"bytes", "ewkb"}:
        if column.arrow != "string":
            return binary
        return pa.array([None if v is None else "\\x" + v.hex() for v in binary.to_pylist()], pa.string())
    text = binary.cast(pa.string())
    if column.arrow == "string":
        return text
    if column.carrier == "boolean":
        numbers = text.cast(pa.int8())
        span = _pc.min_max(numbers).as_py()
        # Arrow's cast makes true of every other number.
        if span["min"] is not None and (span["min"] < 0 or span["max"] > 1):
            raise ValueError("an integer that is neither 0 nor 1")
        return numbers.cast(pa.bool_())
    return text.cast(arrow_type(column.arrow))
