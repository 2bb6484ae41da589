"""MariaDB or MySQL for tests: a server that is there, or one that is installed, and a database per test.

What belongs here: the server, its databases and users. What does not: what tests put into them.

JIVS_TEST_MYSQL_URL names another server (as a superuser), for instance MySQL 8. Else it is the one on the standard
port; where none answers, one of our own is started, and dies with the tests. MariaDB is installed for that where it is missing and
we are root on a system with apt. Where that cannot be, tests are skipped with the reason; with JIVS_TEST_MYSQL=required,
which CI sets, they fail.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

import pymysql
import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.infra.embedded.process import server_user, spawn
from jivs_pipeline.infra.sources.mysql import MysqlSource
from jivs_pipeline_tests.fix_stack import free_port
from jivs_pipeline_tests.fix_zygote import ROOT

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
"""Servers are where not every user looks."""
STANDARD = "mysql://root@127.0.0.1:3306/mysql"


def at_database(url: str, database: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def connected(url: str) -> pymysql.Connection[Any]:
    """A connection that has nothing of the product's."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1", port=parts.port or 3306, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), database=parts.path.lstrip("/") or None, charset="utf8mb4",
        autocommit=True, connect_timeout=5,
    )  # fmt: skip


def _reached(url: str) -> str | None:
    """Why the server cannot be used, or None."""
    try:
        connected(url).close()
    except pymysql.Error as error:
        return str(error)
    return None


def _install() -> None:
    """Install MariaDB where it is missing; of the workers of one run the first does it. Nothing of it is started."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with (ROOT / ".venv" / "mariadb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shutil.which("mariadbd", path=_PATH) is not None:
            return
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "mariadb-server"]):
            subprocess.run(
                ["apt-get", "-q", *arguments], check=True, capture_output=True, env=environment, timeout=240
            )


def _program(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise LookupError(f"{name} is not installed")
    return found


@contextmanager
def _started() -> Iterator[str]:
    """A server of our own on a free port of loopback; it dies with this process."""
    user = server_user()
    # Not among pytest's directories, which nobody but their owner comes to.
    with tempfile.TemporaryDirectory(prefix="jivs-mariadb-") as name:
        directory = Path(name)
        if user is not None:
            os.chown(directory, user.uid, user.gid)

        def run(*argv: str) -> subprocess.Popen[bytes]:
            return spawn(
                argv, directory=directory, environment={"PATH": _PATH}, user=user, stdin=subprocess.DEVNULL,
                log=directory / "log", death_signal=signal.SIGKILL,
            )  # fmt: skip

        data = f"--datadir={directory}/data"
        made = run(
            _program("mariadb-install-db"), "--no-defaults", data, "--auth-root-authentication-method=normal"
        )
        if made.wait(120):
            raise OSError((directory / "log").read_text(errors="replace")[-2000:])
        port = free_port()
        server = run(
            _program("mariadbd"), "--no-defaults", data, f"--port={port}", "--bind-address=127.0.0.1",
            f"--socket={directory}/socket", "--character-set-server=utf8mb4", "--skip-name-resolve",
        )  # fmt: skip
        url = f"mysql://root@127.0.0.1:{port}/mysql"
        try:
            deadline = time.monotonic() + 60
            while (problem := _reached(url)) is not None:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise OSError(f"{problem}; {(directory / 'log').read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            with connected(url) as db, db.cursor() as cursor:
                # Else whoever gives a wrong password is let in as nobody.
                cursor.execute("DELETE FROM mysql.global_priv WHERE user = ''")
                cursor.execute("FLUSH PRIVILEGES")
            yield url
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[str]:
    """URL of a superuser."""
    if url := os.environ.get("JIVS_TEST_MYSQL_URL"):
        yield url
        return
    problem = _reached(STANDARD)
    if problem is None:
        yield STANDARD
        return
    with ExitStack() as opened:
        try:
            if os.geteuid() == 0 and shutil.which("apt-get"):
                _install()
            url = opened.enter_context(_started())
        except (OSError, LookupError, subprocess.SubprocessError) as error:
            reason = f"no MySQL or MariaDB server: {problem}; starting one failed: {error}"
            (pytest.fail if os.environ.get("JIVS_TEST_MYSQL") == "required" else pytest.skip)(reason)
        yield url


@pytest.fixture
def make_mysql(mysql_server: str) -> Iterator[Callable[..., str]]:
    """Makes databases from a script of statements that end with `;` at a line's end; gone after the test."""
    made: list[str] = []

    def make(script: str = "", options: str = "CHARACTER SET utf8mb4") -> str:
        name = f"jv_{uuid4().hex[:12]}"
        with connected(mysql_server) as server, server.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} {options}")
            made.append(name)
            cursor.execute(f"USE {name}")
            cursor.execute("SET sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
            for statement in script.split(";\n"):
                if statement.strip():
                    cursor.execute(statement)
        return at_database(mysql_server, name)

    yield make
    with connected(mysql_server) as server, server.cursor() as cursor:
        for name in made:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
def make_mysql_user(mysql_server: str) -> Iterator[Callable[..., str]]:
    """Makes users with some rights on a database, and gives the database's URL as that user."""
    made: list[str] = []

    def make(url: str, rights: str = "SELECT", password: str = "pw") -> str:
        name, parts = f"u_{uuid4().hex[:10]}", urlsplit(url)
        with connected(mysql_server) as server, server.cursor() as cursor:
            cursor.execute(f"CREATE USER {name}@'%' IDENTIFIED BY '{password}'")
            made.append(name)
            cursor.execute(f"GRANT {rights} ON {parts.path.lstrip('/')}.* TO {name}@'%'")
        address = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{name}:{password}@{address}"))

    yield make
    with connected(mysql_server) as server, server.cursor() as cursor:
        for name in made:
            cursor.execute(f"DROP USER {name}@'%'")


@pytest.fixture
def open_mysql() -> Iterator[Callable[..., MysqlSource]]:
    """Opens sources that are closed after the test."""
    opened: list[MysqlSource] = []

    def make(url: str, **settings: Any) -> MysqlSource:
        opened.append(MysqlSource(parse_url(url, "shop"), **settings))
        return opened[-1]

    yield make
    for source in opened:
        source.close()
