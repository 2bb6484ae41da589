"""Opening connections of an odbc:// URL, and finding out which database is behind a driver.

What belongs here: the connection string, probes. What does not: what is done with a connection.

arrow-odbc does not ask drivers for SQL_DBMS_NAME, so the database is asked for its version in each one's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConnectionFailed
from jivs_pipeline.infra.sources.odbc_errors import connect_error
from jivs_pipeline.infra.sources.odbc_link import Link, OdbcError

__all__ = ["Behind", "attributes_of", "look_behind", "open_link"]

# (dialect, query, what its answer holds in lower case). In this order: only the first is asked of most databases.
_PROBES = (
    ("postgresql", "SELECT version()", "postgresql"),
    ("mysql", "SELECT version()", ""),
    ("mssql", "SELECT CAST(@@VERSION AS varchar(300))", "sql server"),
    ("sqlite", "SELECT sqlite_version()", ""),
    ("oracle", "SELECT banner FROM v$version", "oracle"),
    ("db2", "SELECT service_level FROM sysibmadm.env_inst_info", "db2"),
    ("hana", "SELECT version FROM sys.m_database", ""),
)
_MICROSOFTS = "ODBC Driver 18 for SQL Server"


@dataclass(frozen=True, slots=True)
class Behind:
    """What database is behind a driver, and what it says of its version."""

    dialect: str
    version: str


def attributes_of(connection: Connection) -> dict[str, str]:
    """Keywords of the connection string. They hold the password."""
    parts = urlsplit(connection.url)
    given = {key.lower(): value for key, value in parse_qsl(parts.query, keep_blank_values=True)}
    if connection.dialect == "mssql":
        # Microsoft's driver writes a port after a comma.
        given |= {
            "driver": given.get("driver", _MICROSOFTS),
            "server": f"{connection.host}{f',{connection.port}' if connection.port else ''}",
            "database": connection.database,
        }
    found = {"DSN": given.pop("dsn", ""), "Driver": given.pop("driver", "")}
    found |= {key.capitalize(): value for key, value in given.items()}
    found["UID"], found["PWD"] = unquote(parts.username or ""), unquote(parts.password or "")
    return found


def open_link(
    connection: Connection,
    settings: Mapping[str, str],
    *,
    io_timeout_seconds: float = 30,
    reconnect: bool = False,
    autocommit: bool = True,
) -> Link:
    """Open a connection.

    Args:
        connection: where; its URL stays in this process.
        settings: further keywords, of the driver of a database that is known.
        io_timeout_seconds: longest silence.
        reconnect: this endpoint has answered before, so one that cannot be reached is waited for.
        autocommit: see `Link`.

    Raises:
        ConnectionFailed: no such driver, wrong password, no such database, unreachable.
        TransientError: full or restarting server; with `reconnect`, an unreachable one too.
    """
    try:
        return Link(
            {**attributes_of(connection), **settings}, patience=io_timeout_seconds, autocommit=autocommit
        )
    except OdbcError as error:
        raise connect_error(error, connection, reconnect=reconnect) from error


def look_behind(link: Link, connection: Connection) -> Behind:
    """Which database it is.

    Raises:
        ConnectionFailed: one that this version cannot read.
    """
    found: Behind | None = None
    for dialect, query, word in _PROBES:
        try:
            rows = link.rows(query)
        except OdbcError as error:
            if link.lost:
                raise connect_error(error, connection, reconnect=False) from error
            continue
        text = str(rows[0][0] if rows else "")
        if word in text.lower():
            found = Behind(dialect, text)
            break
    if found is not None and found.dialect != "oracle":
        return found
    name = repr(connection.name)
    if found is not None:
        raise ConnectionFailed(
            f"The database behind the driver of {name} is Oracle, which is read without ODBC",
            hint="Write oracle://user:password@host:1521/service",
        )
    raise ConnectionFailed(
        f"The database behind the driver of {name} is of no kind that is known",
        hint="Through ODBC it reads PostgreSQL, MySQL, MariaDB, SQLite, SQL Server, Db2 and SAP HANA",
    )
