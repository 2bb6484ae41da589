"""Whether one PostgreSQL type holds every value of another exactly, so that rows may be inserted into it.

What belongs here: pairs that PostgreSQL assigns without rounding, cutting or padding. What does not:
types of sources (`core/types.py`).
"""

from __future__ import annotations

import re

__all__ = ["widens"]

_ALIASES = {
    "int": "integer", "int2": "smallint", "int4": "integer", "int8": "bigint", "bool": "boolean",
    "float8": "double precision", "float4": "real", "varchar": "character varying", "decimal": "numeric",
    "timestamp": "timestamp without time zone", "time": "time without time zone",
    "timestamptz": "timestamp with time zone", "timetz": "time with time zone", "bpchar": "character", "char": "character",
}  # fmt: skip
_WIDER = {
    "smallint": {"integer", "bigint", "numeric"},
    "integer": {"bigint", "numeric"},
    "bigint": {"numeric"},
    "real": {"double precision"},
    "numeric": {"numeric"},
    "character varying": {"text", "character varying"},
    "text": {"character varying"},
    "date": {"timestamp without time zone"},
}
_DIGITS_OF_SECONDS = 6
"""Of time, timestamp and interval types that name none."""
_ARGUMENTS = re.compile(r"^(?P<name>[^()]+?)\s*(?:\((?P<arguments>[\d, ]+)\))?(?P<rest>[^()]*)$")


def _parsed(type_: str) -> tuple[str, tuple[int, ...]]:
    # A quoted name means what it says.
    type_ = type_.strip() if '"' in type_ else type_.strip().lower()
    match = _ARGUMENTS.match(type_)
    if match is None:
        return type_, ()
    name = (match["name"] + match["rest"]).strip()
    numbers = tuple(int(n) for n in (match["arguments"] or "").split(",") if n.strip())
    return _ALIASES.get(name, name), numbers


def widens(narrow: str, wide: str) -> bool:
    """Whether every value of type `narrow` is a value of type `wide`, unchanged."""
    (a, given), (b, room) = _parsed(narrow), _parsed(wide)
    if (a, given) == (b, room):
        return True
    if a != b and b not in _WIDER.get(a, set()):
        return False
    if a == b and a.startswith(("time ", "timestamp ", "interval")):
        return [*given, _DIGITS_OF_SECONDS][0] <= [*room, _DIGITS_OF_SECONDS][0]
    if len(room) == 0:
        return a in _WIDER or a == "bit varying" or len(given) == 0
    if len(given) == 0 or a != b:
        return False
    if a == "numeric":
        scale, wide_scale = ([*given, 0][1], [*room, 0][1])
        return scale <= wide_scale and given[0] - scale <= room[0] - wide_scale
    return a in {"character varying", "bit varying"} and given[0] <= room[0]
