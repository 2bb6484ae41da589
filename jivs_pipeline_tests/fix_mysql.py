"""MariaDB or MySQL for tests: a server that is there, or one that is installed, and a database per test.

What belongs here: the server, its databases and users. What does not: what tests put into them.

JIVS_TEST_MYSQL_URL names another server (as a superuser), for instance MySQL 8. Else it is the one on the standard
port; where none answers and we are root on a system with apt, MariaDB is installed and started. Where that cannot be,
tests are skipped with the reason; with JIVS_TEST_MYSQL=required, which CI sets, they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

import pymysql
import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.infra.sources.mysql import MysqlSource

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


def _installed() -> None:
    """Install MariaDB where it is missing, and start it where it does not run."""
    if shutil.which("mariadbd") is None:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (
            ["update", "-q"],
            ["install", "-q", "-y", "--no-install-recommends", "mariadb-server"],
        ):
            subprocess.run(
                ["apt-get", *arguments], check=True, capture_output=True, env=environment, timeout=240
            )
    subprocess.run(["mkdir", "-p", "/run/mysqld"], check=True)
    shutil.chown("/run/mysqld", "mysql", "mysql")
    start = [
        "start-stop-daemon",
        "--start",
        "--oknodo",
        "--background",
        "--exec",
        shutil.which("mariadbd") or "",
    ]
    subprocess.run([*start, "--", "--user=mysql"], check=True, capture_output=True, timeout=30)
    # Root of a fresh server is let in by the socket only.
    allow = "CREATE USER IF NOT EXISTS root@127.0.0.1; GRANT ALL ON *.* TO root@127.0.0.1 WITH GRANT OPTION"
    deadline = time.monotonic() + 60
    while subprocess.run(["mariadb", "-e", allow], check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, "the MariaDB server that was started lets nobody in"
        time.sleep(0.5)


@pytest.fixture(scope="session")
def mysql_server() -> str:
    """URL of a superuser."""
    if url := os.environ.get("JIVS_TEST_MYSQL_URL"):
        return url
    problem = _reached(STANDARD)
    if problem is not None and os.geteuid() == 0 and shutil.which("apt-get"):
        try:
            _installed()
        except (OSError, LookupError, subprocess.SubprocessError) as error:
            problem = f"{problem}; installing one failed: {error}"
        else:
            problem = _reached(STANDARD)
    if problem is not None:
        reason = f"no MySQL or MariaDB server: {problem}"
        (pytest.fail if os.environ.get("JIVS_TEST_MYSQL") == "required" else pytest.skip)(reason)
    return STANDARD


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
