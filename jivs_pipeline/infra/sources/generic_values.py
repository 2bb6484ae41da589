"""Texts of a driver's as values of a plan, and as digests spell them.

What belongs here: pure functions of arrays. What does not: SQL, and how a database prints (`core/dialect_*.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.types import arrow_type
from jivs_pipeline.infra.sources.sqlite_values import numeric_text

__all__ = ["canonical_array", "typed_array"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow


def typed_array(column: ColumnPlan, texts: Array, spell: Callable[[str], str]) -> Array:
    """Texts as an array of the plan's Arrow type; `spell` makes of one what PostgreSQL's input reads.

    Raises:
        ValueError: a text is no value of the type. Arrow's message may quote it.
    """
    if column.canon is Canon.BYTES:
        if not pa.types.is_string(texts.type):
            texts = pa.array([None if v is None else v.hex() for v in texts.to_pylist()], pa.string())
        if column.arrow == "string":
            return pa.array(
                [None if v is None else "\\x" + v.lower() for v in texts.to_pylist()], pa.string()
            )
        return pa.array([None if v is None else bytes.fromhex(v) for v in texts.to_pylist()], pa.binary())
    if column.arrow == "string":
        return pa.array([None if v is None else spell(v) for v in texts.to_pylist()], pa.string())
    if column.canon is Canon.BOOLEAN:
        numbers = texts.cast(pa.int8())
        span = _pc.min_max(numbers).as_py()
        # Arrow's cast makes true of every other number.
        if span["min"] is not None and (span["min"] < 0 or span["max"] > 1):
            raise ValueError("an integer that is neither 0 nor 1")
        return numbers.cast(pa.bool_())
    if column.canon is Canon.FLOAT:
        return pa.array(
            [None if v is None else float(spell(v)) for v in texts.to_pylist()], arrow_type(column.arrow)
        )
    if column.canon is Canon.TIME:
        # Arrow parses timestamps and no times: put them on the first day and take its microseconds.
        joined = _pc.binary_join_element_wise(pa.scalar("1970-01-01"), texts, " ")
        return joined.cast(pa.timestamp("us")).cast(pa.int64()).cast(pa.time64("us"))
    return texts.cast(arrow_type(column.arrow))


def canonical_array(column: ColumnPlan, texts: Array, spell: Callable[[str], str]) -> Array:
    """Texts as `Canon` spells their values."""
    make = _SPELLINGS.get(column.canon, str)
    if column.target_type == "real":
        make = _single
    return pa.array([None if v is None else make(spell(v)) for v in texts.to_pylist()], pa.string())


def _seconds(text: str) -> str:
    zone = "+00" if text.endswith("+00") else ""
    text = text.removesuffix("+00")
    return (text.rstrip("0").rstrip(".") if "." in text else text) + zone


def _numeric(text: str) -> str:
    """As `sqlite_values.numeric_text`, also of `.5` and `0012`, which some databases print."""
    return numeric_text(f"{Decimal(text):f}")


def _double(text: str) -> str:
    return struct.pack(">d", float(text)).hex()


def _single(text: str) -> str:
    # Nine digits give a float4 back, but as a double they are another number.
    return struct.pack(">d", struct.unpack(">f", struct.pack(">f", float(text)))[0]).hex()


_SPELLINGS: dict[Canon, Callable[[str], str]] = {
    Canon.NUMERIC: _numeric,
    Canon.FLOAT: _double,
    Canon.BYTES: str.lower,
    Canon.TIME: _seconds,
    Canon.TIMESTAMP: _seconds,
}
