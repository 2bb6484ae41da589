"""Columns of batches as texts: as PostgreSQL reads them, and as digests spell them.

What belongs here: from Arrow types, and from such texts, to texts. What does not: rules (`refiner.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.file_types import CSV_TYPES, csv_type, target_type
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.infra.sources.csv_types import spelled, speller
from jivs_pipeline.infra.sources.parquet_types import input_text
from jivs_pipeline.infra.sources.parquet_types import spelled as spelled_natively
from jivs_pipeline.infra.trimming import without_minus_of_zero, without_zeros

__all__ = ["Texts", "from_source", "from_text"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow

_PLAIN_DECIMAL = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"
_WRITTEN = frozenset(m.carrier for m in CSV_TYPES) - {"text"}
"""Carriers of files' fields, which may be written in several ways."""
_AS_WRITTEN = frozenset({Canon.TEXT, Canon.INTEGER, Canon.DATE, Canon.TIME, Canon.TIMESTAMP})


@dataclass(frozen=True, slots=True)
class Texts:
    """One column: as PostgreSQL's input reads it, and as digests spell it."""

    input: Array
    canon: Array


def from_source(array: Array, column: ColumnPlan) -> Texts:
    """A column as its source has handed it over."""
    if pa.types.is_string(array.type):
        return from_text(array, column, checked=column.carrier in _WRITTEN)
    native = column.model_copy(update={"carrier": _carrier(array.type, column)})
    return Texts(input_text(array, native), spelled_natively(array, native))


def from_text(texts: Array, column: ColumnPlan, *, checked: bool) -> Texts:
    """A column of texts.

    Args:
        checked: whether a text may be written otherwise than its digest spells it, or be no value of the type at all;
            the digest's text is NULL then.
    """
    type_ = target_type(column.target_type)
    if checked and type_ is not None:
        if column.canon is Canon.NUMERIC and not type_.numbers and (plain := _decimals(texts)) is not None:
            return Texts(texts, plain)
        return Texts(texts, spelled(texts, speller(type_)))
    return Texts(texts, _canonical(texts, column.canon))


def _canonical(texts: Array, canon: Canon) -> Array:
    """The digest's text of a text that is a value of its type."""
    if canon in _AS_WRITTEN:
        return texts
    if canon is Canon.NUMERIC:
        plain = _decimals(texts)
        return spelled(texts, _numeric) if plain is None else plain
    if canon is Canon.BOOLEAN:
        return _pc.if_else(_pc.is_in(texts, pa.array(["true", "t", "1"])), _pc.if_else(_pc.is_valid(texts), "1", None),
                           _pc.if_else(_pc.is_valid(texts), "0", None))  # fmt: skip
    if canon is Canon.BYTES:
        return _pc.utf8_slice_codeunits(texts, 2)
    kind = csv_type("double precision")
    return spelled(texts, speller(kind) if kind else None)


def _numeric(text: str) -> str:
    from jivs_pipeline.infra.sources.sqlite_values import numeric_text

    return numeric_text(text)


def _decimals(texts: Array) -> Array | None:
    """Decimal digits without zeros at their end; None where one is written otherwise."""
    if not _pc.all(_pc.match_substring_regex(texts, _PLAIN_DECIMAL)).as_py() and texts.null_count < len(
        texts
    ):
        return None
    pointed = _pc.match_substring(texts, ".")
    found = without_zeros(texts)
    if not _pc.all(pointed).as_py():
        found = _pc.if_else(pointed, found, texts)
    return without_minus_of_zero(found)


def _carrier(type_: Any, column: ColumnPlan) -> str:
    kinds = pa.types
    if kinds.is_date(type_):
        return "date"
    if kinds.is_time(type_):
        return "time"
    if kinds.is_timestamp(type_):
        zoned = "with time zone" in column.target_type or column.target_type.startswith("timestamptz")
        return "timestamptz" if zoned else "timestamp"
    return "native"
