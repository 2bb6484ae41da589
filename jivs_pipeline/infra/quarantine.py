"""Rejected rows in the control database: the only place where a value of a user's row is kept.

What belongs here: the verbs on `jivs.migration_quarantine`. What does not: deciding what goes there
(`engine/sifting.py`, `engine/replay.py`).

Every change is fenced by the epoch and sets the migration's count with the same stroke.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from jivs_pipeline.core.claims import Claim
from jivs_pipeline.core.quarantine import BadRow
from jivs_pipeline.infra.control_claims import known_migration, overtaken
from jivs_pipeline.infra.control_link import ControlLink, Db
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.named_sql import load_blocks

__all__ = ["Quarantine", "forget_others"]

_SQL = load_blocks("jivs_pipeline.infra", "quarantine.sql")


class Quarantine:
    """Verbs on rejected rows. Thread-safe; each is one transaction and harmless when done twice."""

    def __init__(self, link: ControlLink) -> None:
        self._link = link

    def add(
        self, claim: Claim, table: str, generation: str, chunk: int, rows: Sequence[BadRow], *, first: bool
    ) -> None:
        """Keep rows of a chunk; the `first` of them take the place of what an earlier attempt has kept.

        Raises:
            FencedError: another run has the migration.
        """
        place = {"key": claim.key, "table": table, "chunk": chunk, "generation": generation}

        def work(db: Db) -> None:
            if first:
                db.execute(_SQL["drop_chunk"], place)
            stored = [
                {
                    **place, "position": r.position, "row_key": Jsonb(r.key), "column": r.column,
                    "reason": r.reason, "value": r.value, "row_values": Jsonb(r.row),
                }
                for r in rows
            ]  # fmt: skip
            if stored:
                db.cursor().executemany(_SQL["add_row"], stored)
            _count(db, claim)
            failpoint("quarantine_before_commit")

        self._link.do(work)
        failpoint("quarantine_after_commit")

    def positions(self, key: str) -> dict[tuple[str, int], frozenset[str]]:
        """Where the rejected rows are in their sources, by table and chunk."""
        rows = self._link.do(lambda db: db.execute(_SQL["positions"], {"key": key}).fetchall())
        found: dict[tuple[str, int], set[str]] = {}
        for row in rows:
            found.setdefault((row["table"], row["chunk"]), set()).add(row["position"])
        return {place: frozenset(positions) for place, positions in found.items()}

    def listed(self, key: str, table: str | None = None) -> Iterator[dict[str, Any]]:
        """Rows for people, by table: table, key, column, reason, value. A page of them is held at once.

        Args:
            table: only of this target table, with or without its schema.

        Raises:
            ConfigError: there is no such migration.
        """
        self._link.do(lambda db: known_migration(db, key))
        after: Mapping[str, Any] = {"after_table": "", "after_chunk": -1, "after": 0}
        while True:
            asked = {"key": key, "table": table, **after}
            page = self._link.do(lambda db, asked=asked: db.execute(_SQL["listed"], asked).fetchall())
            for row in page:
                yield {name: row[name] for name in ("table", "key", "column", "reason", "value")}
            if not page:
                return
            last = page[-1]
            after = {"after_table": last["table"], "after_chunk": last["chunk"], "after": last["id"]}


def forget_others(db: Db, claim: Claim, kept: Sequence[str]) -> None:
    """Rows of tables that are not `kept` go, in the transaction that makes their tables be read again."""
    db.execute(_SQL["drop_tables"], {"key": claim.key, "kept": list(kept)})
    _count(db, claim)


def _count(db: Db, claim: Claim) -> None:
    if db.execute(_SQL["count_rows"], {"key": claim.key, "epoch": claim.epoch}).rowcount != 1:
        raise overtaken(claim)
