"""Opening sessions of MySQL and MariaDB: the URL, TLS, and the settings that decide how values are printed.

What belongs here: connecting and pinning. What does not: what a session does (`mysql_session.py`).

Every session says the same thing in the same words: UTC, utf8mb4, no SQL mode; and it only reads.
"""

from __future__ import annotations

import ssl
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql import err
from pymysql.constants import CR

from jivs_pipeline.core.breaker import Calling
from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConnectionFailed
from jivs_pipeline.infra.sources.mysql_errors import connect_error, mapped
from jivs_pipeline.infra.sources.mysql_session import Session, text_of

__all__ = ["IDLE_SECONDS", "Version", "open_session", "pin", "version_of"]

IDLE_SECONDS = 86_400
"""How long the server keeps a session that says nothing: a reader without work waits for the end of the extraction."""
_CONNECT_SECONDS = 10
_PINNED = (
    "SET SESSION sql_mode = '', time_zone = '+00:00', net_write_timeout = 3600, net_read_timeout = 600,"
    " wait_timeout = {idle}, sql_select_limit = DEFAULT, lock_wait_timeout = {lock}, innodb_lock_wait_timeout = {lock}"
)
# Each server knows only some of these.
_PINNED_WHERE_KNOWN = (
    "max_statement_time = 0",
    "max_execution_time = 0",
    "idle_transaction_timeout = 0",
    "idle_readonly_transaction_timeout = 0",
    "information_schema_stats_expiry = 0",
    "system_versioning_asof = DEFAULT",
    # MariaDB's cache of subqueries takes keys that differ in case for one, and gives one's answer for the other.
    "optimizer_switch = 'subquery_cache=off,exists_to_in=off'",
)
_OLDEST = {True: (10, 2), False: (5, 7)}
"""Of MariaDB and MySQL: older ones do not tell what generates a column."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a server says that it is."""

    text: str
    mariadb: bool
    number: tuple[int, int]


def _tls(connection: Connection, given: dict[str, str]) -> dict[str, Any]:
    """PyMySQL's words for `ssl-mode` and its files."""
    mode = given.get("ssl-mode", "verify_ca" if "ssl-ca" in given else "preferred").lower()
    if mode == "disabled":
        return {"ssl_disabled": True}
    if mode == "preferred" and "ssl-cert" not in given:
        return {}
    try:
        context = ssl.create_default_context(cafile=given.get("ssl-ca"))
        # What MySQL makes for itself is not up to X.509's letter.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = mode == "verify_identity"
        context.verify_mode = ssl.CERT_REQUIRED if mode.startswith("verify_") else ssl.CERT_NONE
        if "ssl-cert" in given:
            context.load_cert_chain(given["ssl-cert"], given.get("ssl-key"))
    except OSError as error:
        raise ConnectionFailed(
            f"The certificates of connection {connection.name!r} cannot be used: {error.strerror or 'not PEM'}",
            hint="Check ssl-ca, ssl-cert and ssl-key in its URL",
        ) from error
    return {"ssl": context}


def open_session(
    connection: Connection,
    *,
    io_timeout_seconds: float = 30,
    reconnect: bool = False,
    calling: Calling = nullcontext,
) -> Session:
    """Open a read-only session with pinned settings.

    Args:
        connection: where; its URL stays in this process.
        io_timeout_seconds: longest silence, also the longest wait for a lock.
        reconnect: this endpoint has answered before, so an unreachable server is waited for.
        calling: the endpoint's circuit breaker.

    Raises:
        ConnectionFailed: wrong password, no such database, unreachable, TLS trouble.
        TransientError: full or restarting server; with `reconnect`, an unreachable one too.
    """
    parts = urlsplit(connection.url)
    given = dict(parse_qsl(parts.query))
    seconds = given.get("connect_timeout", "")
    options: dict[str, Any] = {
        "host": connection.host or "localhost",
        "port": connection.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or "").encode(),
        "database": connection.database,
        "charset": "utf8mb4",
        "autocommit": True,
        "local_infile": False,
        "connect_timeout": max(
            1, int(seconds) if seconds.isdigit() else min(_CONNECT_SECONDS, round(io_timeout_seconds))
        ),
        "read_timeout": io_timeout_seconds,
        "write_timeout": io_timeout_seconds,
        "program_name": "jivs source",
        **_tls(connection, given),
    }
    with calling():
        try:
            session = Session(**options)
        except (pymysql.Error, OSError, RuntimeError, UnicodeError) as error:
            raise connect_error(error, connection, reconnect=reconnect) from error
        session.patience = io_timeout_seconds
        try:
            with mapped(connection.place):
                pin(session, io_timeout_seconds)
        except BaseException:
            session.drop()
            raise
    return session


def pin(session: Session, io_timeout_seconds: float) -> None:
    """Apply the settings that decide how values are printed, and how long the server waits."""
    session.command(_PINNED.format(lock=max(1, round(io_timeout_seconds)), idle=IDLE_SECONDS))
    for setting in _PINNED_WHERE_KNOWN:
        # Unknown here, or not for this user to set: then nobody else has set it for a read either.
        with suppress(err.OperationalError, err.ProgrammingError, err.InternalError):
            session.command(f"SET SESSION {setting}")
        if session.lost:
            raise err.OperationalError(CR.CR_SERVER_LOST, "lost the connection")
    session.command("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    session.command("SET SESSION TRANSACTION READ ONLY")


def version_of(session: Session, connection: Connection) -> Version:
    """Who is there.

    Raises:
        ConnectionFailed: it is too old.
    """
    text = text_of(session.table("SELECT version()")[0][0])
    mariadb = "mariadb" in text.lower()
    numbers = text.removeprefix("5.5.5-").split("-")[0].split(".")
    number = (int(numbers[0]), int(numbers[1]))
    if number < _OLDEST[mariadb]:
        oldest = ".".join(map(str, _OLDEST[mariadb]))
        raise ConnectionFailed(
            f"The server of {connection.name!r} is {'MariaDB' if mariadb else 'MySQL'} {text.split('-')[0]}",
            hint=f"Version {oldest} or newer is needed",
        )
    return Version(text, mariadb, number)
