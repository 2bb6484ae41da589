"""Bad rows: what is kept of a row that the target's table cannot hold, and what a survey would do about them.

What belongs here: the values, and how a source's value becomes JSON. What does not: finding bad rows
(`infra/sources/`), deciding what becomes of them (`engine/sifting.py`) and keeping them (`infra/quarantine.py`).

JSON holds neither bytes, nor NUL, nor -0.0, so such values are objects with one field that says what they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from jivs_pipeline.core.digest import Digest

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Again",
    "BadRow",
    "KeptRow",
    "RawText",
    "Regained",
    "RejectedBy",
    "shown_value",
    "stored_row",
    "stored_value",
    "value_of",
]


RejectedBy = Literal["source", "rules", "target", "example"]
"""Who found a row bad; an `example` is one that a check does not pass and that is loaded all the same. Those of the
`target` are of chunks below 0."""


class RawText(bytes):
    """The bytes of a text, which may not be UTF-8."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that is taken out.

    Attributes:
        position: by which its source finds it again in its chunk; unique there, and stable under one snapshot.
        key: names and values that tell a person which row it is: the primary key, or where it is stored.
        column: the first bad column of the source, or None where the whole row is bad.
        reason: what is wrong; holds no value.
        value: the column's value in full, bytes as hex.
        row: all carried values by column of the source, in the form of `stored_value`.
    """

    position: str
    key: Mapping[str, Any]
    column: str | None
    reason: str
    value: str | None
    row: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """About how much memory its values take."""
        return len(self.value or "") + sum(
            len(v)
            if isinstance(v, str)
            else sum(map(len, map(str, v.values())))
            if isinstance(v, dict)
            else 8
            for v in self.row.values()
        )

    @classmethod
    def of(
        cls, position: str, key: Mapping[str, Any], column: str | None, reason: str, row: Mapping[str, object]
    ) -> Self:
        """From the values as the source's driver gives them."""
        value = shown_value(row[column]) if column is not None else None
        return cls(position, stored_row(key.items()), column, reason, value, stored_row(row.items()))


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row in quarantine: `id` there, and otherwise as in `BadRow`."""

    id: int
    chunk: int
    position: str
    key: Mapping[str, Any]
    column: str | None
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Regained:
    """Rows of one chunk that are good by now, as they are loaded and as the source digests them.

    `read` is the digest of the rows before rules, of those that were bad in their source.
    """

    ids: tuple[int, ...]
    chunk: int
    batches: Sequence[pa.RecordBatch]
    digest: Digest
    read: Digest | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Rows in quarantine as their source has them now; `stay` are column and reason of those that are still bad, by id."""

    good: Sequence[Regained]
    stay: Mapping[int, tuple[str | None, str]]


def stored_row(items: Iterable[tuple[str, object]]) -> dict[str, Any]:
    """Values by name, as JSON."""
    return {_stored_name(name): stored_value(value) for name, value in items}


def _stored_name(name: str) -> str:
    """A name without what PostgreSQL's JSON cannot hold."""
    return name.replace("\0", "\ufffd")


def stored_value(value: object) -> Any:
    """A value as JSON that PostgreSQL takes, without loss."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        plain = math.isfinite(value) and not (value == 0.0 and math.copysign(1, value) < 0)
        return value if plain else {"real": repr(value)}
    if isinstance(value, RawText):
        text = _decoded(value)
        return {"text": value.hex()} if text is None else text
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    text = str(value)
    return {"text": text.encode(errors="surrogateescape").hex()} if not _fits(text) else text


def value_of(stored: Any) -> object:
    """The value that `stored_value` wrote down."""
    if not isinstance(stored, dict):
        return stored
    kind, written = next(iter(stored.items()))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if kind == "real":
        return float(str(written))  # pyright: ignore[reportUnknownArgumentType]
    octets = bytes.fromhex(str(written))  # pyright: ignore[reportUnknownArgumentType]
    return RawText(octets) if kind == "text" else octets


def shown_value(value: object) -> str | None:
    """A value as text for people; bytes, and text that PostgreSQL cannot hold, as hex."""
    stored = stored_value(value)
    if isinstance(stored, dict):
        kind, written = next(iter(stored.items()))
        return written if kind == "real" else f"\\x{written}"
    return None if stored is None else stored if isinstance(stored, str) else repr(stored)


def _decoded(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if _fits(text) else None


def _fits(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
