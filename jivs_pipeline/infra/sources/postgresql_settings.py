"""What is switched on at a PostgreSQL relation: row-level security, its replica identity and so on.

What belongs here: settings that are made when the relation has its rows and indexes. What does not: those that have to be
there before (`postgresql_catalog.py`), and everything that bears a name (`postgresql_objects.py`).
"""

from __future__ import annotations

from jivs_pipeline.core.model import SchemaObject
from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.sources.postgresql_spelling import OBJECTS as SQL
from jivs_pipeline.infra.sources.postgresql_spelling import quoted

__all__ = ["read_settings"]

_SETTINGS = {
    "row-level security": ("ENABLE ROW LEVEL SECURITY", "DISABLE ROW LEVEL SECURITY"),
    "forced row-level security": ("FORCE ROW LEVEL SECURITY", "NO FORCE ROW LEVEL SECURITY"),
    "replica identity": ("REPLICA IDENTITY {}", "REPLICA IDENTITY DEFAULT"),
    "clustering": ("CLUSTER ON {}", "SET WITHOUT CLUSTER"),
    "typed table": ("OF {}", "NOT OF"),
}
"""Kind -> what ALTER TABLE makes it with, and what undoes it."""


def read_settings(session: Session, schema: str) -> tuple[SchemaObject, ...]:
    """Settings of a schema's relations, in a transaction that is open."""
    return tuple(_setting(*row) for row in session.execute(SQL["settings"], {"schema": schema}).fetchall())


def _setting(
    kind: str, relation: str, of: str, word: str | None, index: str | None, type_: str | None
) -> SchemaObject:
    """`of`: what the relation is; `word`, `index`, `type_`: what stands in the statement, if something does."""
    on, off = _SETTINGS[kind]
    needs: set[tuple[str, str]] = set()
    uses: set[tuple[str, str | None]] = set()
    if of == "table":
        uses.add((relation, None))
    else:
        needs.add((of, relation))
    if index is not None and of == "table":
        needs.add(("index", index))
    if type_ is not None:
        needs.add(("composite type", type_))
    if kind == "forced row-level security":
        # Its policies would hide rows from the one who has loaded and now verifies them.
        needs.add(("right", "BYPASSRLS"))
    named = " ".join(filter(None, (word, quoted(index or type_ or "") if index or type_ else None)))
    return SchemaObject(
        kind=kind,
        name=relation,
        statements=(f"ALTER TABLE {quoted(relation)} {on.format(named)}",),
        drop=f"ALTER TABLE IF EXISTS {quoted(relation)} {off}",
        needs=frozenset(needs),
        uses=frozenset(uses),
    )
