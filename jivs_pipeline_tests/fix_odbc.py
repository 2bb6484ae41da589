"""ODBC drivers for tests: those that are there, or installed; and the URLs that use them.

What belongs here: drivers and URLs. What does not: the databases behind them (`fix_postgresql.py`, `fix_mysql.py`).

Where drivers are missing and we are root on a system with apt, they are installed. Where that cannot be, tests are
skipped with the reason; with JIVS_TEST_ODBC=required, which CI sets, they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.infra.sources.odbc import OdbcSource

DRIVERS = {
    "PostgreSQL Unicode": "odbc-postgresql",
    "MariaDB Unicode": "odbc-mariadb",
    "SQLite3": "libsqliteodbc",
}
"""Name in odbcinst.ini -> Debian's package."""


def odbc_url(driver: str, user: str = "", password: str = "", **parameters: object) -> str:
    """An odbc:// URL."""
    who = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    return f"odbc://{who}/?{urlencode({'driver': driver, **parameters}, quote_via=quote)}"


def through_odbc(url: str) -> str:
    """The odbc:// URL of what a postgresql:// or mysql:// URL means."""
    parts = urlsplit(url)
    driver = "PostgreSQL Unicode" if parts.scheme == "postgresql" else "MariaDB Unicode"
    return odbc_url(
        driver, unquote(parts.username or ""), unquote(parts.password or ""), server=parts.hostname,
        port=parts.port, database=parts.path.lstrip("/"),
    )  # fmt: skip


def _registered() -> set[str]:
    try:
        said = subprocess.run(
            ["odbcinst", "-q", "-d"], check=False, capture_output=True, text=True, timeout=30
        )
    except OSError:
        return set()
    return {line.strip("[] \n") for line in said.stdout.splitlines()}


@pytest.fixture(scope="session")
def odbc_drivers() -> set[str]:
    """Names of the drivers; all of `DRIVERS`."""
    missing = set(DRIVERS) - _registered()
    problem = f"no ODBC driver {', '.join(sorted(missing))}" if missing else None
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        packages = ["unixodbc", "odbcinst", *DRIVERS.values()]
        try:
            # The workers of one run may want them at the same time.
            for arguments in (
                ["update", "-q"],
                ["install", "-q", "-y", "--no-install-recommends", *packages],
            ):
                subprocess.run(
                    ["apt-get", "-o", "DPkg::Lock::Timeout=200", *arguments], check=arguments[0] == "install",
                    capture_output=True, env=environment, timeout=240,
                )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            problem = f"{problem}; installing them failed: {error}"
        else:
            missing = set(DRIVERS) - _registered()
            problem = f"no ODBC driver {', '.join(sorted(missing))}" if missing else None
    if problem is not None:
        (pytest.fail if os.environ.get("JIVS_TEST_ODBC") == "required" else pytest.skip)(problem)
    return set(DRIVERS)


@pytest.fixture
def open_odbc(odbc_drivers: set[str]) -> Iterator[Callable[..., OdbcSource]]:
    """Opens sources that are closed after the test."""
    opened: list[OdbcSource] = []

    def make(url: str, **settings: Any) -> OdbcSource:
        opened.append(OdbcSource(parse_url(url, "legacy"), **settings))
        return opened[-1]

    yield make
    for source in opened:
        source.close()
