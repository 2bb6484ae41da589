"""Lists of Parquet as PostgreSQL's arrays: their text, and which rows hold an element that does not fit.

What belongs here: joining elements. What does not: single elements (`parquet_types`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

__all__ = ["array_texts", "element_type", "rows_of"]

_QUOTED = re.compile(r'[{}",\\ \t\n\v\f\r]')
"""What PostgreSQL puts into quotes, besides nothing and NULL."""

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow


def element_type(type_: Any) -> Any:
    """The type of a list's elements; None for what is no list."""
    kinds = pa.types
    is_list = kinds.is_list(type_) or kinds.is_large_list(type_) or kinds.is_fixed_size_list(type_)
    return type_.value_type if is_list else None


def rows_of(array: Array, elements: Array) -> Array:
    """A mask of the lists' elements as a mask of the lists."""
    rows = np.zeros(len(array), bool)
    rows[_pc.list_parent_indices(array).to_numpy(zero_copy_only=False)[elements]] = True
    return rows


def array_texts(array: Array, spelled: Callable[[Array], Sequence[str | None]]) -> Array:
    """Lists as PostgreSQL prints arrays; `spelled` gives the texts of all their elements, one after the other."""
    texts = iter(spelled(array.flatten()))
    lengths = _pc.list_value_length(array).to_pylist()
    return pa.array(
        [
            # A fixed size is that of NULLs, too.
            "{" + ",".join(_quoted(next(texts)) for _ in range(length)) + "}" if valid else None
            for length, valid in zip(lengths, array.is_valid().to_pylist(), strict=True)
        ],
        pa.string(),
    )


def _quoted(text: str | None) -> str:
    if text is None:
        return "NULL"
    if text and text.upper() != "NULL" and not _QUOTED.search(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
