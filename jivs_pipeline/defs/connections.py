"""Connections of Dagster's storage, for processes that write many events in a short time.

What belongs here: keeping them open. What does not: where the storage is (`dagster.yaml`).

Dagster opens one per statement, so that processes which live long hold none. A run writes some fifty events, and each
would cost more in its connection than in itself.
"""

from typing import Any

import dagster as dg
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

__all__ = ["keep_connections"]


def keep_connections(instance: dg.DagsterInstance) -> None:
    """Let what this process still says to the storage go through one connection of each kind, seen to be alive before
    each use. It is closed with the process.
    """
    for storage in (instance.run_storage, instance.event_log_storage):
        engine: Any = getattr(storage, "_engine", None)
        if engine is None or engine.dialect.name != "postgresql" or not isinstance(engine.pool, NullPool):
            continue
        kept = create_engine(
            engine.url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=-1, pool_pre_ping=True
        )
        vars(storage)["_engine"] = kept
