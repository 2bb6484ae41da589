"""One line of a dialect's table of types. What does not belong here: the tables (`core/types.py`, `core/file_types.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from jivs_pipeline.core.digest import Canon

__all__ = ["TypeMapping"]


@dataclass(frozen=True, slots=True)
class TypeMapping:
    """One line of a dialect's table.

    Attributes:
        declared: family of the declared type; `*` is any other.
        stored: what the values are (SQLite: storage classes; elsewhere the type itself).
        target: PostgreSQL type, with the letters of the declared type (`n`, `p`, `s`).
        carrier: how the source hands the value over, see the dialect's snapshot module.
        arrow: Arrow type in staging.
        canon: canonical spelling in digests.
        condition: what every value must satisfy, or empty.
        note: what a user should know, or empty: then the mapping is exact and what was declared.
    """

    declared: str
    stored: str
    target: str
    carrier: str
    arrow: str
    canon: Canon
    condition: str = ""
    note: str = ""
