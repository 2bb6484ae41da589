"""Applies the numbered SQL revisions of `sql/` to a database.

What belongs here: finding, ordering, checking and applying them. What does not: their content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from jivs_pipeline.core.errors import TerminalError
from jivs_pipeline.infra.failpoints import failpoint

__all__ = ["Revision", "RevisionState", "pending", "state", "upgrade"]

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_LOCK = 0x6A697673  # "jivs": one upgrade at a time per database, whoever starts it

_SCHEMAS = {"control": "jivs", "ledger": "jivs_ledger"}


@dataclass(frozen=True, slots=True)
class Revision:
    """One file of `sql/<area>/`."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RevisionState:
    """One revision and whether this database has it."""

    number: int
    name: str
    applied: bool
    changed: bool
    """The file differs from what was applied."""


def _directory(area: str) -> Path:
    # In a wheel the revisions are inside the package; in a checkout they are beside it.
    package = Path(__file__).resolve().parent.parent
    inside = package / "sql" / area
    return inside if inside.is_dir() else package.parent / "sql" / area


def revisions(area: str) -> tuple[Revision, ...]:
    """The revisions of `control` or `ledger`, in order."""
    found = [
        Revision(int(match[1]), match[2], path.read_text(encoding="utf-8"))
        for path in sorted(_directory(area).glob("*.sql"))
        if (match := _FILE.fullmatch(path.name))
    ]
    if [r.number for r in found] != list(range(1, len(found) + 1)):
        raise TerminalError(
            f"The {area} revisions in sql/ are not numbered 1, 2, 3 …", hint="Reinstall jivs_pipeline"
        )
    return tuple(found)


def _applied(connection: psycopg.Connection[Any], schema: str) -> dict[int, str]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        # Not to_regclass: a session that asked before others made the table may remember that there is none.
        made = "SELECT FROM pg_tables WHERE schemaname = %s AND tablename = 'revisions'"
        if cursor.execute(made, (schema,)).fetchone() is None:
            return {}
        query = sql.SQL("SELECT number, checksum FROM {}.revisions").format(sql.Identifier(schema))
        return dict(cursor.execute(query).fetchall())


def state(connection: psycopg.Connection[Any], area: str) -> tuple[RevisionState, ...]:
    """Which revisions of the area the database has."""
    applied = _applied(connection, _SCHEMAS[area])
    return tuple(
        RevisionState(r.number, r.name, r.number in applied, applied.get(r.number, r.checksum) != r.checksum)
        for r in revisions(area)
    )


def pending(connection: psycopg.Connection[Any], area: str) -> bool:
    """Whether `upgrade` would do anything, refusing included. Cheap: one query."""
    return _applied(connection, _SCHEMAS[area]) != {r.number: r.checksum for r in revisions(area)}


@contextmanager
def _locked(connection: psycopg.Connection[Any]) -> Iterator[None]:
    with connection.transaction():
        # Whoever stands still in here, holding the lock, would stop everybody else.
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = '5s'")
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        yield


def upgrade(connection: psycopg.Connection[Any], area: str) -> tuple[Revision, ...]:
    """Apply what is missing; safe to call from many processes at once, and again.

    Returns:
        The revisions applied now.

    Raises:
        TerminalError: an applied revision's file has changed, or the database is newer than this program.
    """
    schema = _SCHEMAS[area]
    known = revisions(area)
    done: list[Revision] = []
    with _locked(connection):
        applied = _applied(connection, schema)
        if newer := sorted(set(applied) - {r.number for r in known}):
            raise TerminalError(
                f"Schema {schema} has revision {newer[-1]}, which this version does not know",
                hint="Upgrade jivs_pipeline",
            )
        for revision in known:
            if (checksum := applied.get(revision.number)) is None:
                connection.execute(cast("LiteralString", revision.text))
                _record(connection, schema, revision)
                done.append(revision)
            elif checksum != revision.checksum:
                raise TerminalError(
                    f"Revision {revision.number:04d}_{revision.name} of schema {schema} was changed after it was applied",
                    hint="Reinstall jivs_pipeline; revisions are never edited",
                )
        failpoint("inside_upgrade")
    return tuple(done)


def _record(connection: psycopg.Connection[Any], schema: str, revision: Revision) -> None:
    name = sql.Identifier(schema)
    connection.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {}.revisions (number integer PRIMARY KEY, name text NOT NULL,"
            " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        ).format(name)
    )
    connection.execute(
        sql.SQL("INSERT INTO {}.revisions (number, name, checksum) VALUES (%s, %s, %s)").format(name),
        (revision.number, revision.name, revision.checksum),
    )
