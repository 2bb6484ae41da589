"""Numbers and moments as digests spell them, made of texts that are longer, for a column at once.

What belongs here: what is cut off of texts. What does not: making texts of values, which each source does its own way.
"""

from __future__ import annotations

from typing import Any

from pyarrow import compute

__all__ = ["without_minus_of_zero", "without_zeros"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow


def without_zeros(texts: Array) -> Array:
    """Numbers or moments, all with a point, without the zeros at their ends."""
    return _pc.ascii_rtrim(_pc.ascii_rtrim(texts, "0"), ".")


def without_minus_of_zero(texts: Array) -> Array:
    """Numbers without zeros at their ends; numeric has one zero."""
    negative = _pc.equal(texts, "-0")
    return _pc.if_else(negative, "0", texts) if _pc.any(negative).as_py() else texts
