"""Migrations in this process: the engine without Dagster and the command, ten times as fast to start.

What belongs here: one migration, its run in a thread, and the independent judgement of its end. What does not:
what goes wrong with it, and kills, which need a process of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.core.errors import JivsError
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.runtime import Runtime
from jivs_pipeline_tests.acceptance.rows import (
    assert_same_database,
    constraints,
    fingerprints,
    indexes,
    ledger,
    next_value,
)
from jivs_pipeline_tests.faults.cases import POSTGRESQL, ROWS, SQLITE
from jivs_pipeline_tests.faults.worker import migrate
from jivs_pipeline_tests.sqlite_files import make_file


class Going:
    """A run in a thread."""

    def __init__(self, run: Callable[[], dict[str, Any]]) -> None:
        self.began = time.monotonic()
        self.ended: float | None = None
        self.document: dict[str, Any] | None = None
        self.error: BaseException | None = None
        self._run = run
        self._thread = threading.Thread(target=self._go, name="migration", daemon=True)
        self._thread.start()

    def _go(self) -> None:
        try:
            self.document = self._run()
        except BaseException as error:  # noqa: BLE001 - whoever waits judges it
            self.error = error
        self.ended = time.monotonic()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Fails when the run is not over by then."""
        self._thread.join(seconds)
        assert not self.running, f"the run was not over after {seconds:g} s"

    def sleep(self, seconds: float) -> bool:
        """Wait so long; False when the run is over before."""
        self._thread.join(seconds)
        return self.running

    def succeeded(self, seconds: float) -> None:
        """Fails when the run did not end well by then."""
        self.wait(seconds)
        if self.error is not None:
            raise AssertionError(f"the run failed: {self.error!r}") from self.error

    def settled(self, seconds: float) -> bool:
        """Whether the run ended well; the only other end that it may have is an error of ours."""
        self.wait(seconds)
        if self.error is not None and not isinstance(self.error, JivsError):
            raise AssertionError(f"not an error of ours: {self.error!r}") from self.error
        return self.error is None


@dataclass
class Here:
    """One migration.

    `source` and `target` are where the tests look; what a run is told may differ (`urls`: a proxy's, say).
    """

    environment: dict[str, str]
    source: Path | str
    target: str
    key: str = field(default_factory=lambda: f"k-{uuid4().hex[:12]}")
    urls: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        wanted = {"key": self.key, "source": "legacy", "target": "warehouse", "chunk_bytes": 65536}
        return Spec.model_validate({**wanted, **self.options})

    @property
    def told(self) -> dict[str, str]:
        """The environment of a run."""
        source = f"sqlite:///{self.source}" if isinstance(self.source, Path) else self.source
        return {
            **self.environment,
            "JIVS_CONNECTION_LEGACY": self.urls.get("source", source),
            "JIVS_CONNECTION_WAREHOUSE": self.urls.get("target", self.target),
        }

    @property
    def staging(self) -> Path:
        return Path(self.environment["JIVS_STAGING_URL"])

    @property
    def staged(self) -> list[Path]:
        return [path for path in self.staging.rglob("*") if path.is_file()]

    def start(self, **environment: str) -> Going:
        told = {**self.told, **environment}
        return Going(lambda: migrate(told, self.spec))

    def complete(self, seconds: float = 60) -> None:
        """Run once more, undisturbed, and compare everything."""
        # What the fault has taught the breakers is over.
        with Runtime.from_environment(environment=self.told) as runtime:
            runtime.shared_breakers.reset()
        self.start().succeeded(seconds)
        self.check()

    def check(self) -> None:
        """The target has exactly the source's rows, keys, indexes and numbers, and the ledger knows each row once."""
        if isinstance(self.source, Path):
            assert_same_database(self.source, self.target)
        else:
            assert fingerprints(self.target) == fingerprints(self.source)
        with psycopg.connect(self.target) as db:
            assert {t for t, *_ in constraints(db, "p")} == {"parents", "children", "blank"}
            assert {(t, valid) for t, _, valid, *_ in constraints(db, "f")} == {("children", True)}
            assert {t for t, *_ in constraints(db, "u")} == {"parents"}
            assert any("children_parent" in definition for definition in indexes(db))
            assert next_value(db, "parents", "id") == 2701
            db.rollback()
            assert db.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)
        chunks = ledger(self.target, self.key)
        assert {t: sum(c[1] for c in found) for t, found in chunks.items()} == {
            f"public.{table}": rows for table, rows in ROWS.items()
        }
        assert all(len({c[3] for c in found}) == 1 for found in chunks.values()), "a table of two extractions"
        assert not self.staged, "staging kept rows"


MakeHere = Callable[..., Here]


@pytest.fixture
def make_here(
    jivs_home: tuple[Path, str], make_target: Callable[[], str], tmp_path: Path
) -> Iterator[MakeHere]:
    """Makes migrations of a small database; `target` and `source` may be databases of other servers."""
    numbers = itertools.count()
    control = make_target()
    sqlite = tmp_path / "source.sqlite"
    postgresql: list[str] = []

    def make(dialect: str, *, target: str | None = None, source: str | None = None, **more: str) -> Here:
        if dialect == "sqlite":
            if not sqlite.exists():
                make_file(sqlite, SQLITE)
            where: Path | str = sqlite
        elif source is not None:
            fill(source)
            where = source
        else:
            if not postgresql:
                postgresql.append(make_target())
                fill(postgresql[0])
            where = postgresql[0]
        directory = tmp_path / f"staging-{next(numbers)}"
        environment = {
            "JIVS_HOME": str(jivs_home[0]),
            "JIVS_CONTROL_URL": control,
            "JIVS_STAGING_URL": str(directory),
            **more,
        }
        return Here(environment, where, target or make_target())

    yield make
    with contextlib.suppress(FileNotFoundError):
        sqlite.unlink()


def fill(url: str) -> None:
    """The tables of the migration, in a PostgreSQL database."""
    with psycopg.connect(url) as db:
        db.execute(POSTGRESQL)
