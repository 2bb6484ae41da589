"""Fields of CSV as values of PostgreSQL types: whether they convert exactly, and how digests spell them.

What belongs here: one pure function per type of `core.file_types.CSV_TYPES`, and applying it to columns. What
does not: reading fields. PostgreSQL converts what is loaded; these functions are the second opinion.
"""

from __future__ import annotations

import json
import re
import struct
from binascii import unhexlify
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any, NoReturn

import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.file_types import CsvType
from jivs_pipeline.infra.chains import octets_of
from jivs_pipeline.infra.sources.sqlite_values import fits_numeric, numeric_text

__all__ = ["spelled", "speller", "written"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow
Speller = Callable[[str], str | None]
"""The canonical text of a field; None where it is no value of the type."""

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_INFINITE = re.compile(r"(?i)-?inf(?:inity)?|nan")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?")
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?)")
_ZONE = re.compile(r"(Z|z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile("[0-9A-Fa-f]*")
_TRUE, _FALSE = {"true", "t", "yes", "y", "on", "1"}, {"false", "f", "no", "n", "off", "0"}
_BITS = {"smallint": 15, "integer": 31, "bigint": 63}
_LONGEST_INTEGER = 64
_LARGE = 1 << 23
# PostgreSQL's numeric without a precision: digits before and after the point.
_BEFORE, _AFTER = 131_072, 16_383


def _integer(bits: int, field: str) -> str | None:
    if not _INTEGER.fullmatch(field) or len(field) > _LONGEST_INTEGER:
        return None
    number = int(field)
    return str(number) if -(1 << bits) <= number < 1 << bits else None


def _numeric(numbers: tuple[int, ...], field: str) -> str | None:
    if not _DECIMAL.fullmatch(field) or len(field) > _BEFORE + _AFTER:
        return None
    number = Decimal(field)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -_AFTER or number.adjusted() >= _BEFORE:
        return None
    if numbers and not fits_numeric(field, *numbers):
        return None
    return numeric_text(f"{number:f}")


def _double(field: str) -> str | None:
    if _INFINITE.fullmatch(field):
        return struct.pack(">d", float(field)).hex()
    if not _DECIMAL.fullmatch(field):
        return None
    number = float(field)
    # 0.1 is no double, but it is what the nearest double is written as; 0.1000000000000000001 is not.
    if number in (float("inf"), float("-inf")) or Decimal(repr(number)) != Decimal(field):
        return None
    return struct.pack(">d", number).hex()


def _real(field: str) -> str | None:
    import numpy as np

    if _INFINITE.fullmatch(field):
        return struct.pack(">d", float(field)).hex()
    if not _DECIMAL.fullmatch(field):
        return None
    with np.errstate(over="ignore", under="ignore"):
        number = np.float32(field)
    if not np.isfinite(number) or Decimal(str(number)) != Decimal(field):
        return None
    return struct.pack(">d", float(number)).hex()


def _boolean(field: str) -> str | None:
    lower = field.lower()
    return "1" if lower in _TRUE else "0" if lower in _FALSE else None


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _date(field: str) -> str | None:
    return date.fromisoformat(field).isoformat() if _DATE.fullmatch(field) else None


def _time(field: str) -> str | None:
    if not _TIME.fullmatch(field):
        return None
    time.fromisoformat(field[:8])
    return _without_zeros(field)


def _timestamp(field: str) -> str | None:
    if (found := _MOMENT.fullmatch(field)) is None:
        return None
    datetime.fromisoformat(f"{found[1]} {found[2][:8]}")
    return f"{found[1]} {_without_zeros(found[2])}"


def _timestamptz(field: str) -> str | None:
    moment = _MOMENT.match(field)
    if moment is None or (zone := _ZONE.fullmatch(field[moment.end() :])) is None:
        return None
    clock, _, fraction = moment[2].partition(".")
    offset = "+00:00" if zone[0] in "Zz" else zone[0]
    there = datetime.fromisoformat(f"{moment[1]} {clock}{offset}").astimezone(UTC)
    # strftime pads no years before 1000.
    shown = there.replace(tzinfo=None).isoformat(sep=" ")
    return f"{_without_zeros(f'{shown}.{fraction}' if fraction else shown)}+00"


def _uuid(field: str) -> str | None:
    return field.lower() if _UUID.fullmatch(field) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _json(field: str) -> str | None:
    # Numbers of any length: they are kept as text.
    json.loads(field, parse_int=str, parse_float=str, parse_constant=_no_constant)
    return field


def _bytea(field: str) -> str | None:
    # Not by a pattern of pairs, which remembers each of them: 14 GB for 100 MB.
    digits = field.removeprefix("\\x")
    return digits.lower() if len(digits) % 2 == 0 and _HEX.fullmatch(digits) else None


def _varchar(length: int, field: str) -> str | None:
    return field if len(field) <= length else None


_SPELLERS: Mapping[str, Speller] = {
    "double": _double, "real": _real, "boolean": _boolean, "date": _date, "time": _time, "timestamp": _timestamp,
    "timestamptz": _timestamptz, "uuid": _uuid, "json": _json, "bytea": _bytea,
}  # fmt: skip


def speller(type_: CsvType) -> Speller | None:
    """The function of a type; None for text, which is itself."""
    carrier = type_.mapping.carrier
    if carrier == "text":
        return None
    if carrier == "integer":
        return partial(_integer, _BITS[type_.mapping.declared])
    if carrier == "numeric":
        return partial(_numeric, type_.numbers)
    if carrier == "varchar":
        return partial(_varchar, *type_.numbers)
    return _SPELLERS[carrier]


def _tried(spell: Speller, field: str) -> str | None:
    try:
        return spell(field)
    except (ValueError, OverflowError, RecursionError):
        # Of the calendar, of JSON, or a year that another zone moves out of the calendar.
        return None


def spelled(values: Array, spell: Speller | None) -> Array:
    """Canonical texts of a column; NULL also where a field is no value of the type. Large bytes are given as bytes."""
    if spell is None:
        return values
    if spell is _bytea and values.nbytes > _LARGE:
        return _octets(values)
    coded = values.dictionary_encode()
    texts = [_tried(spell, field) for field in coded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(coded.indices)


def _octets(values: Array) -> Array:
    """The bytes that hex digits say: of 100 MB the digits would be 200 MB, several times."""
    field, there = octets_of(values), values.is_valid().to_pylist()
    found = [_unhexed(field(number)) if valid else None for number, valid in enumerate(there)]
    if len(found) == 1 and found[0] is not None:
        offsets = struct.pack("=ii", 0, len(found[0]))
        made: Any = pa.Array
        return made.from_buffers(pa.binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(found[0])])
    return pa.array(found, pa.binary())


def _unhexed(digits: memoryview) -> bytes | None:
    try:
        return unhexlify(digits[2:] if bytes(digits[:2]) == b"\\x" else digits)
    except ValueError:
        return None


def written(values: Array, carrier: str) -> Array:
    """The fields as PostgreSQL's input reads them."""
    if carrier != "bytea":
        return values
    prefixed = _pc.starts_with(values, "\\x")
    if _pc.all(prefixed).as_py() is not False:
        return values
    return _pc.if_else(prefixed, values, _pc.binary_join_element_wise("\\x", values, ""))
