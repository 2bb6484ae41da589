"""Structs, maps and lists in lists of Parquet as jsonb: their text as PostgreSQL prints it, and what does not fit.

What belongs here: the shape. What does not: single values (`parquet_types`).

A struct is an object, a list an array, a map an object whose keys are the texts of its own. Numbers stay numbers, and true
and false what they are; everything else is the text that PostgreSQL prints of it (bytes: hex digits behind a backslash and
an x), and so are the numbers that JSON lacks: "NaN", "Infinity", "-Infinity", "-0". The whole is spelled as PostgreSQL
prints a jsonb, so that digests can compare it: keys in its order (shorter ones first), one blank behind colons and
commas, no exponents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from jivs_pipeline.infra.sources.parquet_lists import element_type, rows_of

__all__ = ["is_nested", "json_texts", "leaves", "nested_misfits"]

Array = Any  # pyarrow has no stubs that a checker can follow
Texts = list[str | None]
Print = Callable[[Array], Texts]
"""Texts of an array of single values, as PostgreSQL prints them."""
Misfits = Callable[[Array], dict[str, Array]]

_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ODD = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}
_TWICE = "maps with a key twice"


def is_nested(type_: Any) -> bool:
    """Whether it holds other types, and is no plain list."""
    inner = element_type(type_)
    return pa.types.is_struct(type_) or pa.types.is_map(type_) or (inner is not None and _holds(inner))


def _holds(type_: Any) -> bool:
    return element_type(type_) is not None or pa.types.is_struct(type_) or pa.types.is_map(type_)


def leaves(type_: Any) -> Iterator[Any]:
    """The types of the single values inside; None for names that no object can have."""
    if pa.types.is_struct(type_):
        names = [field.name for field in type_]
        if len(set(names)) < len(names) or any("\0" in name for name in names):
            yield None
        for field in type_:
            yield from leaves(field.type)
    elif pa.types.is_map(type_):
        yield from (type_.key_type, *leaves(type_.item_type))
    elif (inner := element_type(type_)) is not None:
        yield from leaves(inner)
    else:
        yield type_


def json_texts(array: Array, printed: Print) -> Texts:
    """The text of each value."""
    valid = array.is_valid().to_pylist()
    if pa.types.is_struct(array.type):
        fields = [(_string(f.name), _within(a, printed)) for f, a in _fields(array)]
        rows = range(len(array))
        texts = ["{" + ", ".join(f"{name}: {values[n]}" for name, values in fields) + "}" for n in rows]
        return [text if there else None for text, there in zip(texts, valid, strict=True)]
    if pa.types.is_map(array.type):
        keys, items, lengths = _entries(array, valid)
        pairs = iter(zip(printed(keys), _within(items, printed), strict=True))
        return [None if n is None else _object([next(pairs) for _ in range(n)]) for n in lengths]
    if element_type(array.type) is not None:
        elements = iter(_within(array.flatten(), printed))
        lengths = array.value_lengths().to_pylist()
        return [
            # A fixed size is that of NULLs, too.
            "[" + ", ".join(next(elements) for _ in range(length)) + "]" if there else None
            for length, there in zip(lengths, valid, strict=True)
        ]
    return _scalars(array, printed)


def _within(array: Array, printed: Print) -> list[str]:
    return ["null" if text is None else text for text in json_texts(array, printed)]


def _fields(array: Array) -> list[tuple[Any, Array]]:
    """A struct's fields in jsonb's order."""
    # By `flatten`, which a NULL above makes NULL.
    both = zip(array.type, array.flatten(), strict=True)
    return sorted(both, key=lambda pair: _order(pair[0].name))


def _order(key: str) -> tuple[int, bytes]:
    octets = key.encode()
    return len(octets), octets


def _entries(array: Array, valid: Sequence[bool]) -> tuple[Array, Array, list[int | None]]:
    """Keys and values of all maps, one after the other, and how many each has."""
    offsets = array.offsets.to_pylist()
    lengths = [b - a if there else None for a, b, there in zip(offsets, offsets[1:], valid, strict=False)]
    places = [
        n for a, b, there in zip(offsets, offsets[1:], valid, strict=False) if there for n in range(a, b)
    ]
    taken = pa.array(places, pa.int64())
    return array.keys.take(taken), array.items.take(taken), lengths


def _object(pairs: list[tuple[str | None, str]]) -> str:
    ordered = sorted(((key or "", value) for key, value in pairs), key=lambda pair: _order(pair[0]))
    return "{" + ", ".join(f"{_string(key)}: {value}" for key, value in ordered) + "}"


def _scalars(array: Array, printed: Print) -> Texts:
    kinds, type_ = pa.types, array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    texts = printed(array)
    if kinds.is_boolean(type_):
        return [None if t is None else "true" if t == "t" else "false" for t in texts]
    if kinds.is_integer(type_) or kinds.is_decimal(type_):
        return texts
    if kinds.is_floating(type_):
        return [None if t is None else _float(t) for t in texts]
    return [None if t is None else _string(t) for t in texts]


def _float(text: str) -> str:
    if (odd := _ODD.get(text)) is not None:
        return odd
    number = Decimal(text)
    return '"-0"' if text.startswith("-") and not number else f"{number:f}"


def _string(text: str) -> str:
    def escape(found: re.Match[str]) -> str:
        return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04x}"

    return f'"{_ESCAPED.sub(escape, text)}"'


def nested_misfits(array: Array, misfits: Misfits) -> dict[str, Array]:
    """Values that do not fit: reason -> mask of the rows that hold one; `misfits` tells it of single values."""
    found: dict[str, Array] = {}

    def add(inner: Array, rows: Callable[[Array], Array]) -> None:
        for reason, mask in nested_misfits(inner, misfits).items():
            found[reason] = found.get(reason, np.zeros(len(array), bool)) | rows(mask)

    if pa.types.is_struct(array.type):
        for part in array.flatten():
            add(part, lambda mask: mask)
    elif pa.types.is_map(array.type):
        keys, items, lengths = _entries(array, array.is_valid().to_pylist())
        parents = np.repeat(np.arange(len(array)), [n or 0 for n in lengths])

        def above(mask: Array) -> Array:
            rows = np.zeros(len(array), bool)
            rows[parents[mask]] = True
            return rows

        add(keys, above)
        add(items, above)
        if (twice := _twice(keys.to_pylist(), lengths)).any():
            found[_TWICE] = twice
    elif element_type(array.type) is not None:
        add(array.flatten(), lambda mask: rows_of(array, mask))
    else:
        return misfits(array)
    return found


def _twice(keys: list[Any], lengths: Sequence[int | None]) -> Array:
    rest = iter(keys)
    sets = [[next(rest) for _ in range(n or 0)] for n in lengths]
    return np.array([len(set(one)) < len(one) for one in sets], bool)
