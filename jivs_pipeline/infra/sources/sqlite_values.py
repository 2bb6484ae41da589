"""SQLite's numbers as text, and the SQL functions that spell them.

What belongs here: pure functions of one value, and their registration. What does not: SQL that calls them
(`sqlite_carriers`, `sqlite_census`).

SQLite's own real-to-text conversion keeps 15 digits in older releases, so Python's shortest digits are used.
"""

from __future__ import annotations

import sqlite3
import struct
from decimal import MAX_PREC, Context, Decimal

__all__ = ["fits_numeric", "numeric_text", "real_text", "register"]

# Exponents that SQLite writes without one; Python's repr() writes these without one too.
_PLAIN_FROM, _PLAIN_TO = -4, 14
_ALL_DIGITS = Context(prec=MAX_PREC)


def real_text(value: float) -> str:
    """A real as SQLite prints it, with the shortest digits that give the same value back."""
    text = repr(value)
    if "inf" in text:
        return "Inf" if value > 0 else "-Inf"
    number = Decimal(text)
    exponent = number.adjusted() if value else 0
    if _PLAIN_FROM <= exponent <= _PLAIN_TO:
        return text
    sign, digits, _ = number.as_tuple()
    shown = "".join(map(str, digits)).rstrip("0")
    return f"{'-' * sign}{shown[0]}.{shown[1:] or '0'}e{exponent:+03d}"


def numeric_text(value: float | str) -> str:
    """A number as PostgreSQL's `trim_scale(x)::text` prints it."""
    text = repr(value) if isinstance(value, float | int) else value
    if text[-1] not in "0123456789." or "e" in text or "E" in text:
        number = Decimal(text)
        if number.is_infinite():
            return "Infinity" if number > 0 else "-Infinity"
        text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _float(value: float | None) -> str | None:
    return None if value is None else struct.pack(">d", value).hex()


def _numeric(value: float | str | None) -> str | None:
    return None if value is None else numeric_text(value)


def _real(value: float | None) -> str | None:
    return None if value is None else real_text(value)


def fits_numeric(digits: str, precision: int, scale: int) -> bool:
    """Whether a number, given by its digits, is exactly a numeric(precision, scale)."""
    number = Decimal(digits)
    last = number.normalize(_ALL_DIGITS).as_tuple().exponent
    return isinstance(last, int) and -last <= scale and (not number or number.adjusted() < precision - scale)


def _fits(value: float | None, precision: int, scale: int) -> bool | None:
    return None if value is None else fits_numeric(repr(value), precision, scale)


def _minus_zero(value: float | None) -> int:
    return int(value == 0 and str(value).startswith("-"))


def _not_utf8(*texts: bytes | None) -> int:
    try:
        for text in texts:
            if text is not None:
                text.decode()
    except UnicodeDecodeError:
        return 1
    return 0


def register(connection: sqlite3.Connection) -> None:
    """Make the functions known to a connection."""
    connection.create_function("jivs_float", 1, _float, deterministic=True)
    connection.create_function("jivs_numeric", 1, _numeric, deterministic=True)
    connection.create_function("jivs_real", 1, _real, deterministic=True)
    connection.create_function("jivs_fits", 3, _fits, deterministic=True)
    connection.create_function("jivs_minus_zero", 1, _minus_zero, deterministic=True)
    connection.create_function("jivs_not_utf8", -1, _not_utf8, deterministic=True)
