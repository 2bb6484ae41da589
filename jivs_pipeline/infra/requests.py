"""The queue of requests in the control database, with a cache in Redis before it.

What belongs here: submitting, and the verbs of the sensor that launches. What does not: deciding what becomes of a
request (`core/requests.py`), and the rules of the queue (`sql/control/0004_requests.sql`, which SQL clients use too).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from psycopg.types.json import Jsonb

from jivs_pipeline.core.requests import Asked, RequestRef, RequestStatus, Submission
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.infra.control_link import ControlLink, Db, Row
from jivs_pipeline.infra.failpoints import failpoint
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.request_cache import Answer, RequestCache

__all__ = ["Requests"]

_SQL = load_blocks("jivs_pipeline.infra", "requests.sql")
_ANSWERED = {RequestStatus.QUEUED, RequestStatus.LAUNCHED, RequestStatus.RUNNING, RequestStatus.COMPLETED}


class Requests:
    """Verbs on requests. Thread-safe; each is one transaction and harmless when done twice.

    Args:
        link: to the control database.
        told: is told the key of a migration that has a new event.
        cache: answers of the last day; None where nobody submits.
    """

    def __init__(
        self, link: ControlLink, told: Callable[[str], None], cache: RequestCache | None = None
    ) -> None:
        self._link = link
        self._told = told
        self._cache = cache

    def submit(self, spec: Spec, *, idempotency_key: str | None = None, priority: int = 0) -> Submission:
        """Queue a migration, or give the answer of the request that asked for the same before.

        Args:
            idempotency_key: chosen by the client; stands for this very spec from now on.
            priority: the higher, the earlier.

        Raises:
            ConflictError: the idempotency key or the migration's open request stands for another spec.
        """
        if (known := self._cached(idempotency_key, spec.hash)) is not None:
            return known
        asked = {
            "spec": Jsonb(spec.model_dump(mode="json")),
            "idempotency_key": idempotency_key,
            "priority": priority,
            "body_hash": spec.hash,
            "new_id": str(uuid.uuid4()),
        }

        def work(db: Db) -> Row | None:
            row = db.execute(_SQL["submit"], asked).fetchone()
            failpoint("submit_before_commit")
            return row

        row = self._link.do(work)
        assert row is not None  # noqa: S101 - the function returns a row or raises
        failpoint("submit_after_commit")
        answer = _submission(row, duplicate=row["duplicate"])
        if idempotency_key is not None and self._cache is not None:
            self._cache.keep(idempotency_key, Answer(spec.hash, answer.request_id))
        if not answer.duplicate:
            self._told(answer.key)
        return answer

    def _cached(self, idempotency_key: str | None, body_hash: str) -> Submission | None:
        """The answer of before, where the cache knows it and PostgreSQL still has it.

        Everything else takes the long way: a cache may be stale, and only spares the locks of a submission.
        """
        if idempotency_key is None or self._cache is None:
            return None
        found = self._cache.find(idempotency_key)
        if found is None or found.body_hash != body_hash:
            return None
        row = self._link.do(
            lambda db: db.execute(_SQL["request"], {"request_id": found.request_id}).fetchone()
        )
        if row is None or row["status"] not in _ANSWERED:
            return None
        return _submission(row, duplicate=True)

    # For who launches

    def unfinished(self) -> list[Asked]:
        """Requests that Dagster has, and those whose turn it is; the most urgent first."""
        rows = self._link.do(lambda db: db.execute(_SQL["unfinished"]).fetchall())
        return [
            Asked(
                RequestRef(r["request_id"], r["attempt"]), r["key"], r["spec"], RequestStatus(r["status"]),
                r["priority"], r["run_id"], Status(r["migration"]), r["error"],
            )
            for r in rows
        ]  # fmt: skip

    def launched(self, ref: RequestRef, run_id: str) -> None:
        """Note that Dagster has a run for a queued request."""
        self._change("launched", ref, {"run_id": run_id})

    def settle(
        self, ref: RequestRef, status: RequestStatus, run_id: str | None, error: Mapping[str, Any] | None
    ) -> bool:
        """End an attempt that has not ended; False where something else was first."""
        ended = {"status": status, "run_id": run_id, "error": Jsonb(error) if error else None}
        return self._change("settle_request", ref, ended)

    def again(self, ref: RequestRef) -> None:
        """Queue a request once more whose run was stopped before it had taken the migration."""
        self._change("again", ref, {})

    def _change(self, name: str, ref: RequestRef, values: Row) -> bool:
        parameters = {"request_id": ref.request_id, "attempt": ref.attempt, **values}
        return self._link.do(lambda db: db.execute(_SQL[name], parameters).rowcount == 1)


def _submission(row: Row, *, duplicate: bool) -> Submission:
    return Submission(row["request_id"], row["key"], duplicate, RequestStatus(row["status"]), row["attempt"])
