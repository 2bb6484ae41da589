"""Texts of a PostgreSQL source in which the names of the migrated schema stand bare, so that they mean the target's.

What belongs here: asking for them. What does not: what they are put into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session

__all__ = ["OBJECTS", "Texts", "quoted", "spell"]

OBJECTS = load_blocks("jivs_pipeline.infra.sources", "postgresql_objects.sql")

Texts = Mapping[tuple[str, int, int], str]
"""(what, oid, number) -> text; see `-- name: spelled`."""

_ALONE = (
    "view", "function", "arguments", "procedure", "constraint", "trigger", "rule", "statistics", "index",
    "default", "check", "predicate", "domain default", "partition key", "bound", "policy using", "policy check",
)  # fmt: skip


def quoted(name: str) -> str:
    """As an identifier."""
    return '"' + name.replace('"', '""') + '"'


def spell(
    session: Session,
    schema: str,
    *,
    types: Sequence[tuple[int, int]] = (),
    parts: Sequence[tuple[int, int]] = (),
    **oids: Sequence[int],
) -> Texts:
    """The texts of what is named by its oid.

    Args:
        types: oid and modifier.
        parts: oid of an index and number of its column.
        oids: by the words of `-- name: spelled`, with `_` for a space.
    """
    parameters: dict[str, Any] = {
        "type_oids": [t for t, _ in types], "type_mods": [m for _, m in types],
        "schema": schema,
        "part_oids": [i for i, _ in parts], "part_nums": [n for _, n in parts],
    }  # fmt: skip
    parameters |= {word.replace(" ", "_"): list(oids.get(word.replace(" ", "_"), ())) for word in _ALONE}
    session.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))
    found = session.execute(OBJECTS["spelled"], parameters).fetchall()
    session.execute("SET LOCAL search_path TO ''")
    return {(what, oid, number): text for what, oid, number, text in found if text is not None}
