"""Types and values of Parquet as PostgreSQL's: what a type becomes, which values fit, how they are spelled.

What belongs here: pure functions of Arrow types and arrays. What does not: reading files (`parquet_snapshot`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.file_types import PARQUET_TYPES
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.types import MAX_DECIMAL128, TypeChoice, arrow_type
from jivs_pipeline.infra.sources.parquet_lists import array_texts, element_type, rows_of
from jivs_pipeline.infra.sources.parquet_nested import is_nested, json_texts, leaves, nested_misfits
from jivs_pipeline.infra.sources.row_text import are_large
from jivs_pipeline.infra.sources.sqlite_values import numeric_text
from jivs_pipeline.infra.trimming import without_zeros

__all__ = ["LOOKED_AT", "choose", "input_text", "misfits", "native", "plain", "spelled"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow

_BY_NAME = {m.declared: m for m in PARQUET_TYPES}
_INTEGERS = {
    "int8": "int8, uint8, int16", "uint8": "int8, uint8, int16", "int16": "int8, uint8, int16",
    "uint16": "uint16, int32", "int32": "uint16, int32", "uint32": "uint32, int64", "int64": "uint32, int64",
    "uint64": "uint64", "bool": "bool", "halffloat": "float16, float", "float": "float16, float",
    "double": "double", "null": "null",
}  # fmt: skip
_FIRST_DAY, _LAST_DAY = -2_440_588, 2_145_042_905  # of PostgreSQL's date, from 1970
_DAY = 86_400_000_000
_FIRST_MOMENT = _FIRST_DAY * _DAY
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_FRACTION = re.compile(r"\.?0+$")


LOOKED_AT = frozenset({"text", "date", "time", "timestamp", "timestamptz", "list", "nested"})
"""Carriers of values that may not fit."""


@dataclass(frozen=True, slots=True)
class _Moments:
    """A column of dates or times as whole numbers since 1970 or midnight."""

    values: Array
    valid: Array


def plain(array: Array) -> Array:
    """The array without dictionary, extension type and view."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    # Views are strings that few functions take.
    if pa.types.is_string_view(array.type) or pa.types.is_large_string(array.type):
        return array.cast(pa.string())
    return array.cast(pa.binary()) if pa.types.is_binary_view(array.type) else array


def _name(type_: Any) -> str | None:
    """The line of the table for an Arrow type; None where there is none."""
    kinds = pa.types
    if kinds.is_dictionary(type_):
        return _name(type_.value_type)
    if (found := _INTEGERS.get(str(type_))) is not None:
        return found
    if kinds.is_decimal(type_):
        return "decimal(p,s)" if type_.precision <= MAX_DECIMAL128 and type_.scale >= 0 else "decimal(p>38,s)"
    if kinds.is_timestamp(type_):
        return "timestamp, UTC" if type_.tz else "timestamp"
    if kinds.is_date(type_):
        return "date"
    if kinds.is_time(type_):
        return "time"
    if kinds.is_string(type_) or kinds.is_large_string(type_) or kinds.is_string_view(type_):
        return "string"
    if kinds.is_binary(type_) or kinds.is_large_binary(type_) or kinds.is_binary_view(type_):
        return "binary"
    if kinds.is_fixed_size_binary(type_):
        return "binary"
    return {"arrow.uuid": "uuid", "arrow.json": "json"}.get(getattr(type_, "extension_name", ""))


def choose(type_: Any) -> TypeChoice:
    """What becomes of a column of this Arrow type."""
    if (inner := element_type(type_)) is not None and element_type(inner) is None:
        element = choose(inner)
        if element.refused is None:
            canon = Canon.FLOATS if element.canon is Canon.FLOAT else Canon.TEXT
            return TypeChoice(f"{element.target}[]", "list", "string", canon, element.note)
    if is_nested(type_):
        return _nested(type_)
    name = _name(type_)
    if name is None:
        reason = f"its type {str(type_)[:80]} is not one that this version carries"
        return TypeChoice("text", "text", "string", Canon.TEXT, refused=reason)
    mapping = _BY_NAME[name]
    target, arrow = mapping.target, mapping.arrow
    if pa.types.is_decimal(type_):
        # A negative scale means zeros before the point.
        precision, scale = type_.precision + max(-type_.scale, 0), max(type_.scale, 0)
        target = target.replace("(p,s)", f"({max(precision, scale)},{scale})")
        arrow = arrow.replace("(p,s)", f"({precision},{scale})")
    return TypeChoice(target, mapping.carrier, arrow, mapping.canon, mapping.note)


def _nested(type_: Any) -> TypeChoice:
    """jsonb, if it can hold all that is inside."""
    for leaf in leaves(type_):
        reason = (
            "a struct in it has a name twice, or one with a NUL" if leaf is None else choose(leaf).refused
        )
        if reason is not None:
            return TypeChoice("text", "text", "string", Canon.TEXT, refused=reason)
    mapping = _BY_NAME["struct, map, list in a list"]
    return TypeChoice(mapping.target, mapping.carrier, mapping.arrow, mapping.canon, mapping.note)


# ── dates and times ─────────────────────────────────────────────────────────────────────────────────────


def _numbers(array: Array) -> _Moments:
    valid = ~_pc.is_null(array).to_numpy(zero_copy_only=False)
    wide = pa.int32() if array.type.bit_width == 32 else pa.int64()
    numbers = array.view(wide).cast(pa.int64())
    return _Moments(_pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False), valid)


def _microseconds(array: Array) -> _Moments:
    found = _numbers(array)
    unit = _PER_SECOND[array.type.unit]
    if unit > _PER_SECOND["us"]:
        return _Moments(found.values // 1_000, found.valid)
    return _Moments(found.values * (_PER_SECOND["us"] // unit), found.valid)


def _days(array: Array) -> _Moments:
    found = _numbers(array)
    return _Moments(found.values // 86_400_000, found.valid) if pa.types.is_date64(array.type) else found


def misfits(array: Array, carrier: str) -> dict[str, Array]:
    """Values that PostgreSQL's type does not hold: reason -> mask of them, where there are any. The array is plain."""
    if carrier == "list":
        elements = plain(array.flatten())
        found = {
            f"lists with {reason}": rows_of(array, mask)
            for reason, mask in misfits(elements, choose(elements.type).carrier).items()
        }
    elif carrier == "nested":
        found = nested_misfits(array, _leaf_misfits)
    elif carrier == "text":
        found = _text_misfits(array)
    elif carrier in ("date", "time", "timestamp", "timestamptz"):
        numbers = _numbers(array)
        masks = (
            _day_misfits(array, numbers) if carrier == "date" else _moment_misfits(array, numbers, carrier)
        )
        found = {reason: mask & numbers.valid for reason, mask in masks.items()}
    else:
        return {}
    return {reason: mask for reason, mask in found.items() if mask.any()}


def _leaf_misfits(array: Array) -> dict[str, Array]:
    array = plain(array)
    return misfits(array, choose(array.type).carrier)


def _day_misfits(array: Array, found: _Moments) -> dict[str, Array]:
    bad: dict[str, Array] = {}
    values = found.values
    if pa.types.is_date64(array.type):
        bad["dates not at midnight"] = values % 86_400_000 != 0
        values = values // 86_400_000
    bad["dates that PostgreSQL's date does not reach"] = (values < _FIRST_DAY) | (values > _LAST_DAY)
    return bad


def _moment_misfits(array: Array, found: _Moments, carrier: str) -> dict[str, Array]:
    bad: dict[str, Array] = {}
    values, unit = found.values, _PER_SECOND[array.type.unit]
    if unit == _PER_SECOND["ns"]:
        bad["values with nanoseconds, which PostgreSQL would cut to microseconds"] = values % 1_000 != 0
    if carrier == "time":
        bad["times outside 00:00:00 to 23:59:59.999999"] = (values < 0) | (values >= 86_400 * unit)
        return bad
    first = _FIRST_MOMENT // _PER_SECOND["us"] * unit
    last = ((1 << 63) - 1) // _PER_SECOND["us"] * unit if unit < _PER_SECOND["us"] else (1 << 63) - 1
    # Nanoseconds of 64 bits do not get so far back.
    early = values < first if first >= -(1 << 63) else np.zeros(len(values), bool)
    bad["moments that PostgreSQL's timestamp does not reach"] = early | (values > last)
    return bad


def _text_misfits(array: Array) -> dict[str, Array]:
    bad: dict[str, Array] = {}
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        octets = array.cast(pa.large_binary()).to_pylist()
        bad["texts of invalid UTF-8"] = np.array([v is not None and not _is_utf8(v) for v in octets], bool)
    # As bytes: Arrow looks for nothing in a text that is not UTF-8.
    nuls = _pc.fill_null(_pc.match_substring(array.cast(pa.binary()), b"\0"), False)
    bad["texts with a NUL character, which PostgreSQL's text cannot hold"] = nuls.to_numpy(
        zero_copy_only=False
    )
    return bad


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


# ── loading ─────────────────────────────────────────────────────────────────────────────────────────────


def native(array: Array, column: ColumnPlan) -> Array:
    """A plain array in the column's Arrow type, for binary COPY."""
    wanted = arrow_type(column.arrow)
    if column.carrier in ("timestamp", "timestamptz", "time"):
        found = _microseconds(array)
        return pa.array(found.values, pa.int64(), mask=~found.valid).view(wanted)
    if pa.types.is_floating(array.type):
        # PostgreSQL has one NaN; files may have many.
        array = array.cast(wanted)
        return _pc.if_else(_pc.is_nan(array), pa.scalar(float("nan"), wanted), array)
    return array if array.type == wanted else array.cast(wanted)


def input_text(array: Array, column: ColumnPlan) -> Array:
    """A plain array as PostgreSQL's input reads it, for COPY as CSV."""
    if column.carrier == "list":
        return array_texts(array, _printed)
    if column.carrier == "nested":
        return spelled(array, column)
    if column.canon is Canon.FLOAT:
        single = pa.types.is_float16(array.type)
        return (array.cast(pa.float32()) if single else array).cast(pa.string())
    texts = spelled(array, column)
    return _pc.binary_join_element_wise("\\x", texts, "") if column.canon is Canon.BYTES else texts


# ── spelling ────────────────────────────────────────────────────────────────────────────────────────────


def spelled(array: Array, column: ColumnPlan) -> Array:
    """Canonical texts of a plain array, from whichever reader it is."""
    if column.carrier == "list":
        return array_texts(array, _elements)
    if column.carrier == "nested":
        return pa.array(json_texts(array, _printed), pa.string())
    if column.carrier in ("date", "time", "timestamp", "timestamptz"):
        return _moments(array, column.carrier)
    if column.carrier == "uuid" and not pa.types.is_string(array.type):
        return _uuids(array)
    if column.canon is Canon.FLOAT:
        return _floats(array)
    if column.canon is Canon.BOOLEAN:
        return array.cast(pa.int8()).cast(pa.string())
    if column.canon is Canon.BYTES:
        return pa.array([None if v is None else v.hex() for v in array.to_pylist()], pa.string())
    if column.canon is Canon.NUMERIC and pa.types.is_decimal(array.type):
        if 0 <= array.type.scale <= _PLAIN_SCALE:
            digits = array.cast(pa.string())
            return without_zeros(digits) if array.type.scale else digits
        texts = [None if v is None else numeric_text(f"{v:f}") for v in array.to_pylist()]
        return pa.array(texts, pa.string())
    return array.cast(pa.string())


def digestible(array: Array, column: ColumnPlan) -> Array:
    """As `spelled`, but for large values of bytes, whose digits would take twice their size (see `row_text`)."""
    as_bytes = column.canon is Canon.BYTES and pa.types.is_binary(array.type)
    return array if as_bytes and are_large(array) else spelled(array, column)


def _elements(array: Array) -> list[str | None]:
    """Elements of lists as PostgreSQL prints them in an array; floats as their bytes, because digits may differ."""
    array = plain(array)
    if pa.types.is_floating(array.type):
        return _floats(array).to_pylist()
    return _printed(array)


def _printed(array: Array) -> list[str | None]:
    """Elements of lists as PostgreSQL's input reads them."""
    array = plain(array)
    kinds, type_ = pa.types, array.type
    if kinds.is_floating(type_):
        single = kinds.is_float16(type_)
        return (array.cast(pa.float32()) if single else array).cast(pa.string()).to_pylist()
    if kinds.is_boolean(type_):
        return [None if v is None else "t" if v else "f" for v in array.to_pylist()]
    if kinds.is_decimal(type_):
        return [None if v is None else f"{v:f}" for v in array.to_pylist()]
    choice = choose(type_)
    column = ColumnPlan(
        source="",
        target="",
        source_type="",
        target_type=choice.target,
        carrier=choice.carrier,
        canon=choice.canon,
    )
    texts = spelled(array, column).to_pylist()
    return [f"\\x{t}" if t is not None and choice.canon is Canon.BYTES else t for t in texts]


def _uuids(array: Array) -> Array:
    hexes = [None if v is None else v.hex() for v in array.cast(pa.binary()).to_pylist()]
    shown = [h and f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}" for h in hexes]
    return pa.array(shown, pa.string())


def _floats(array: Array) -> Array:
    valid = ~_pc.is_null(array).to_numpy(zero_copy_only=False)
    single = array.cast(pa.float32()) if pa.types.is_float16(array.type) else array
    doubles = _pc.fill_null(single.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False).copy()
    doubles[np.isnan(doubles)] = np.nan
    digits = doubles.astype(">f8").tobytes().hex().encode()
    offsets = np.arange(0, len(digits) + 1, 16, dtype=np.int32)
    texts = pa.StringArray.from_buffers(len(valid), pa.py_buffer(offsets), pa.py_buffer(digits))
    return _pc.if_else(pa.array(valid), texts, pa.scalar(None, pa.string()))


def _year_text(days: int) -> tuple[str, str]:
    """A day outside 0001 to 9999 and the era behind it, as PostgreSQL prints them."""
    year, rest = str(np.datetime64(days, "D")).rsplit("-", 2)[0], str(np.datetime64(days, "D"))[-5:]
    number = int(year)
    return (f"{number:04d}-{rest}", "") if number > 0 else (f"{1 - number:04d}-{rest}", " BC")


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:06d}"
    return _FRACTION.sub("", text) if not fraction or fraction % 10 == 0 else text


def _moments(array: Array, carrier: str) -> Array:
    if carrier == "date":
        found = _days(array)
        if _are_plain(found.values):
            days = pa.array(found.values.astype(np.int32), pa.date32(), mask=~found.valid)
            return days.cast(pa.string())
        texts = [f"{day}{era}" for day, era in map(_day, found.values.tolist())]
        return pa.array(texts, pa.string(), mask=~found.valid)
    found = _microseconds(array)
    if carrier == "time":
        return pa.array([_clock(v) for v in found.values.tolist()], pa.string(), mask=~found.valid)
    zone = "+00" if carrier == "timestamptz" else ""
    if _are_plain(found.values // _DAY):
        moments = pa.array(found.values, pa.timestamp("us"), mask=~found.valid).cast(pa.string())
        shown = without_zeros(moments)
        return _pc.binary_join_element_wise(shown, zone, "") if zone else shown
    days, clocks = np.divmod(found.values, _DAY)
    shown = {day: _day(day) for day in np.unique(days).tolist()}
    texts = [
        f"{shown[day][0]} {_clock(clock)}{zone}{shown[day][1]}"
        for day, clock in zip(days.tolist(), clocks.tolist(), strict=True)
    ]
    return pa.array(texts, pa.string(), mask=~found.valid)


_YEAR_1, _YEAR_10000 = -719_162, 2_932_897
_PLAIN_SCALE = 6
"""From there on Arrow may write decimals with an exponent."""


def _are_plain(days: Any) -> bool:
    """Whether all days have four-digit years, which Arrow writes as PostgreSQL does, without a step of ours for each."""
    return not len(days) or bool(days.min() >= _YEAR_1 and days.max() < _YEAR_10000)


def _day(days: int) -> tuple[str, str]:
    if _YEAR_1 <= days < _YEAR_10000:
        return str(np.datetime64(days, "D")), ""
    return _year_text(days)
