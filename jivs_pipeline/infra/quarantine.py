"""Rejected rows in the control database: the only place where a value of a user's row is kept.

What belongs here: the verbs on `jivs.migration_quarantine`. What does not: deciding what goes there
(`engine/sifting.py`, `engine/replay.py`).

Every change is fenced by the epoch and sets the migration's count with the same stroke.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from psycopg.types.json import Json, Jsonb

from jivs_pipeline.core.claims import Claim
from jivs_pipeline.core.plan import Plan
from jivs_pipeline.core.quarantine import BadRow, KeptRow, RejectedBy
from jivs_pipeline.core.states import Phase
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
        self,
        claim: Claim,
        table: str,
        generation: str,
        chunk: int,
        rows: Sequence[BadRow],
        *,
        first: bool,
        by: RejectedBy = "source",
    ) -> None:
        """Keep rows of a chunk; the `first` of them take the place of what an earlier attempt has kept.

        Args:
            by: who found them bad; only its source can find a row again by its position, and those of the target are
                told apart by it.

        Raises:
            FencedError: another run has the migration.
        """
        place = {"key": claim.key, "table": table, "chunk": chunk, "generation": generation, "by": by}
        placed = by in {"source", "target"}

        def work(db: Db) -> None:
            if first:
                db.execute(_SQL["drop_chunk"], place)
            stored = [
                {
                    **place, "position": r.position if placed else None, "row_key": Jsonb(r.key), "column": r.column,
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

    def ruled(self, key: str) -> dict[str, list[Mapping[str, Any]]]:
        """Keys of the rows that are bad to the rules, by target table."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for row in self._link.do(lambda db: db.execute(_SQL["ruled"], {"key": key}).fetchall()):
            found.setdefault(row["table"], []).append(row["row_key"] or {})
        return found

    def amend(self, claim: Claim, plan: Plan) -> None:
        """Keep the plan with the rules of a replay, before any row is made by them.

        Raises:
            FencedError: somebody else has the migration.
        """
        stored = {"plan": Jsonb(plan.model_dump(mode="json")), "plan_hash": plan.hash}

        def work(db: Db) -> None:
            if db.execute(_SQL["amend"], {"key": claim.key, "epoch": claim.epoch, **stored}).rowcount != 1:
                raise overtaken(claim)

        self._link.do(work)

    def positions(self, key: str) -> dict[str, list[tuple[int, str, Mapping[str, Any]]]]:
        """Where the rejected rows are in their sources, by table: chunk, position and key."""
        rows = self._link.do(lambda db: db.execute(_SQL["positions"], {"key": key}).fetchall())
        found: dict[str, list[tuple[int, str, Mapping[str, Any]]]] = {}
        for row in rows:
            found.setdefault(row["table"], []).append((row["chunk"], row["position"], row["row_key"]))
        return found

    def tables(self, key: str) -> dict[str, int]:
        """Target tables with rejected rows, and how many."""
        rows = self._link.do(lambda db: db.execute(_SQL["tables"], {"key": key}).fetchall())
        return {row["table"]: row["rows"] for row in rows}

    def page(self, key: str, table: str, after: int, by: RejectedBy) -> list[KeptRow]:
        """Some rows of a table, in the order of their ids, from the one after `after`.

        Args:
            by: who found them bad.
        """
        asked = {"key": key, "table": table, "after": after, "by": by}
        rows = self._link.do(lambda db: db.execute(_SQL["page"], asked).fetchall())
        return [
            KeptRow(
                r["id"],
                r["chunk"],
                r["position"] or "",
                r["row_key"] or {},
                r["column_name"],
                r["row_values"] or {},
            )
            for r in rows
        ]

    def has(self, key: str, ids: Sequence[int]) -> bool:
        """Whether one of these rows is still in quarantine; they leave it together."""
        asked = {"key": key, "ids": list(ids)}
        return self._link.do(lambda db: db.execute(_SQL["waiting"], asked).fetchone() is not None)

    def replayed(
        self,
        claim: Claim,
        table: str,
        ids: Sequence[int],
        manifest: Mapping[str, Any] | None,
        read: Mapping[str, Any] | None = None,
    ) -> None:
        """Rows are in the target now: they leave the quarantine, and what is told of their table grows by them.

        Args:
            manifest: of the table's extraction, with these rows; None where it had them, as those that the target refused.
            read: of the extraction as it was before the rules, with these rows, where they were not in it.

        Raises:
            FencedError: somebody else has the migration.
        """

        def work(db: Db) -> None:
            # Before the row of the migration is locked nobody counts.
            result = db.execute(_SQL["result"], {"key": claim.key}).fetchone()
            place = {"key": claim.key, "table": table}
            rows = db.execute(_SQL["drop_rows"], {**place, "ids": list(ids)}).rowcount
            _count(db, claim)
            if rows == 0:
                return  # an earlier attempt was committed
            if manifest is not None:
                phase = Phase.EXTRACT if manifest.get("refined") is None else Phase.TRANSFORM
                stored = {"phase": phase, "data": Jsonb(dict(manifest)), "rows": rows}
                db.execute(_SQL["set_manifest"], {**place, **stored})
            if read is not None:
                before = {"phase": Phase.EXTRACT, "data": Jsonb(dict(read)), "rows": rows}
                db.execute(_SQL["set_manifest"], {**place, **before})
            told = [Phase.VERIFY] if manifest is None else [Phase.LOAD, Phase.VERIFY]
            db.execute(_SQL["set_loaded"], {**place, "rows": rows, "phases": told})
            if result and (document := result["result"]):
                changed = {"result": Json(_grown(document, table, rows)), "epoch": claim.epoch}
                db.execute(_SQL["set_result"], {"key": claim.key, **changed})
            failpoint("replayed_before_commit")

        self._link.do(work)
        failpoint("replayed_after_commit")

    def stay(self, claim: Claim, reasons: Mapping[int, tuple[str | None, str]]) -> None:
        """Note why rows are still bad."""

        def work(db: Db) -> None:
            for id_, (column, reason) in reasons.items():
                db.execute(_SQL["stays"], {"key": claim.key, "id": id_, "column": column, "reason": reason})
            _count(db, claim)

        self._link.do(work)

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


def _grown(document: dict[str, Any], table: str, rows: int) -> dict[str, Any]:
    """The migration's stored document when rows of a table have left the quarantine."""
    for told in document.get("tables", ()):
        if told.get("target_table") == table:
            told["target_rows"] += rows
            told["quarantined_rows"] -= rows
            document["rows"] += rows
    kept: dict[str, Any] = document.get("quarantine") or {"tables": [], "total": 0}
    for told in kept["tables"]:
        if told.get("table") == table:
            told["rows"] -= rows
            kept["total"] -= rows
    kept["tables"] = [told for told in kept["tables"] if told["rows"] > 0]
    return document


def _count(db: Db, claim: Claim) -> None:
    if db.execute(_SQL["count_rows"], {"key": claim.key, "epoch": claim.epoch}).rowcount != 1:
        raise overtaken(claim)
