"""What is cleaned up in the control database, and what is noted about completed migrations that are compared again.

What belongs here: the verbs of the two maintenance jobs. What does not: files (`staging.py`), Dagster's own storage
(`defs/old_runs.py`) and the comparison (`engine/reverification.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from jivs_pipeline.infra.control_link import ControlLink, Db
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.named_sql import load_blocks

__all__ = ["Housekeeping"]

_SQL = load_blocks("jivs_pipeline.infra", "housekeeping.sql")
_MOST = 5000
"""Rows of each table in one transaction: a year's backlog must not outlast the statement's time."""


class Housekeeping:
    """Verbs of maintenance. Each is harmless when it is done twice, also at once; nothing depends on an earlier one.

    Args:
        link: to the control database.
    """

    def __init__(self, link: ControlLink) -> None:
        self._link = link

    def apply_retention(self, days: int, *, most: int = _MOST) -> Mapping[str, int]:
        """Delete what is older than `days` and no longer needed; see `jivs.apply_retention`.

        Returns:
            Deleted rows per table.
        """
        deleted: Counter[str] = Counter()
        parameters = {"days": days, "most": most}
        while True:
            rows = self._link.do(lambda db: db.execute(_SQL["apply_retention"], parameters).fetchall())
            failpoint("retention_after_batch")
            deleted.update({r["table_name"]: r["deleted"] for r in rows})
            if all(r["deleted"] < most for r in rows):
                return dict(deleted)

    def unposted(self, days: int) -> int:
        """How many events are older than `days` and stay, because the webhook has not acknowledged them."""
        row = self._link.do(lambda db: db.execute(_SQL["unposted"], {"days": days}).fetchone())
        return row["waiting"] if row else 0

    def refresh_statistics(self) -> bool:
        """Bring `migration_statistics` up to date; its readers do not wait. False when somebody else is at it."""

        def work(db: Db) -> bool:
            row = db.execute(_SQL["only_refresh"]).fetchone()
            if row is None or not row["mine"]:
                return False
            db.execute(_SQL["refresh_statistics"])
            return True

        return self._link.do(work)

    def keys(self) -> list[str]:
        """All migration keys."""
        return [r["key"] for r in self._link.do(lambda db: db.execute(_SQL["all_keys"]).fetchall())]

    def while_ended(self, key: str, act: Callable[[int], None]) -> bool:
        """Do something quick while no run can take the migration, if it needs nothing of what it has staged.

        Args:
            act: is given the epoch of the migration; may be called again.

        Returns:
            False when the migration may still go on.
        """

        def work(db: Db) -> bool:
            row = db.execute(_SQL["lock_ended"], {"key": key}).fetchone()
            if row is not None:
                act(row["epoch"])
            return row is not None

        return self._link.do(work)

    def last_runs(self, run_ids: Sequence[str]) -> set[str]:
        """Those of the runs that were the last to work on their migration."""
        wanted = {"run_ids": list(run_ids)}
        rows = self._link.do(lambda db: db.execute(_SQL["runs_of_migrations"], wanted).fetchall())
        return {r["run_id"] for r in rows}

    def to_reverify(self, days: float) -> list[str]:
        """Completed migrations that were not compared in the last days; those first that were not for longest."""
        rows = self._link.do(lambda db: db.execute(_SQL["to_reverify"], {"days": days}).fetchall())
        return [r["key"] for r in rows]

    def reverified(self, key: str, outcome: str, detail: str) -> None:
        """Note what a comparison has found: `equal`, `different` or `skipped`, and the sentence about it."""
        found = {"key": key, "outcome": outcome, "detail": detail}
        self._link.do(lambda db: db.execute(_SQL["note_reverified"], found))
        failpoint("reverified_after_commit")
