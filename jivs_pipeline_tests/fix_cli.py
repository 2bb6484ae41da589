"""The command `jivs` as a user runs it: a process of its own, a home of its own, databases next to it.

What belongs here: starting the command and what it left on stdout, stderr and in its exit code; databases for
it. What does not: what the rows must be (`rows.py`), and anything that is imported from the product except the
servers, which stay warm for all tests of a worker.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline.infra.embedded import open_embedded, remove_embedded
from jivs_pipeline_tests.fix_zygote import Zygote, environment_of

PROGRAM = Path(sysconfig.get_path("scripts")) / "jivs"


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def document(self) -> Any:
        """The JSON document on stdout; fails where there is none, or anything next to it."""
        try:
            return json.loads(self.stdout)
        except ValueError:
            raise AssertionError(f"stdout is not one JSON document\n{self}") from None

    def __str__(self) -> str:
        shown = " ".join(a if "://" not in a else urlsplit(a).scheme + "://…" for a in self.argv)
        tail = self.stderr[-3000:]
        return f"jivs {shown} → {self.code} after {self.seconds:.1f} s\nstdout: {self.stdout[-3000:]}\nstderr: {tail}"


@dataclass
class Started:
    """A command that runs. Its output goes to files, so that nobody has to read it."""

    argv: tuple[str, ...]
    process: subprocess.Popen[bytes]
    out: Path
    err: Path
    began: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float = 120) -> Ended:
        """Until it ends by itself; fails after `seconds`."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            message = f"did not end within {seconds:g} s: {self.argv}\n{self.err.read_text()[-3000:]}"
            raise AssertionError(message) from None
        took = time.monotonic() - self.began
        return Ended(self.argv, code, self.out.read_text(), self.err.read_text(), took)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until `text` is in what it printed; fails when it ends or the time is over."""
        deadline = time.monotonic() + seconds
        while text not in (said := self.out.read_text() + self.err.read_text()):
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode} before {text!r}: {said}"
            )
            assert time.monotonic() < deadline, f"no {text!r} within {seconds:g} s: {said}"
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


class Jivs:
    """Runs the command in one home. Call it like the command: `jivs("run", spec, "--json", code=0)`.

    Args:
        warm: what forks the commands that are waited for; without it, they are new processes, as those are that are started.
    """

    def __init__(self, home: Path, directory: Path, server: str, warm: Zygote | None = None) -> None:
        self.home = home
        self.directory = directory
        self.server = server
        self._warm = warm
        self._numbers = count()
        self._started: list[Started] = []

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Ours without what a developer has set for jivs or PostgreSQL."""
        # Staging of its own, for what an earlier test left behind in the home is not this test's.
        return environment_of(self.home, {"JIVS_STAGING_URL": str(self._staging), **(more or {})})

    @property
    def _staging(self) -> Path:
        # Not among a test's files, which may be a source.
        return self.home.parent / "staging" / f"{self.directory.parent.name}-{self.directory.name}"

    @property
    def staged(self) -> list[Path]:
        """Files in the staging area of this test."""
        return [path for path in self._staging.rglob("*") if path.is_file()]

    def start(self, *argv: str | Path, env: Mapping[str, str] | None = None) -> Started:
        arguments = tuple(map(str, argv))
        out, err = self._files()
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                [PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                env=self.environment(env), cwd=self.directory,
            )  # fmt: skip
        self._started.append(started := Started(arguments, process, out, err))
        return started

    def __call__(
        self,
        *argv: str | Path,
        code: int | None = None,
        env: Mapping[str, str] | None = None,
        seconds: float = 120,
    ) -> Ended:
        """Run to the end. `code` is the exit code that must come out."""
        ended = self._warmly(argv, env, seconds) if self._warm else self.start(*argv, env=env).wait(seconds)
        if code is not None:
            assert ended.code == code, f"exit code {ended.code} instead of {code}\n{ended}"
        return ended

    def _warmly(self, argv: tuple[str | Path, ...], env: Mapping[str, str] | None, seconds: float) -> Ended:
        assert self._warm is not None
        arguments = tuple(map(str, argv))
        out, err = self._files()
        child = self._warm.fork(
            {
                "argv": arguments, "directory": str(self.directory), "environment": self.environment(env),
                "out": str(out), "err": str(err),
            }
        )  # fmt: skip
        if not child.ends_within(seconds):
            child.signal(signal.SIGKILL)
            raise AssertionError(f"did not end within {seconds:g} s: {arguments}\n{err.read_text()[-3000:]}")
        code, took = child.poll(), time.monotonic() - child.began
        assert code is not None
        return Ended(arguments, code, out.read_text(), err.read_text(), took)

    def _files(self) -> tuple[Path, Path]:
        number = next(self._numbers)
        return self.directory / f"{number}.out", self.directory / f"{number}.err"

    def spec(self, **values: Any) -> Path:
        """A spec file; JSON is YAML."""
        path = self.directory / f"spec-{next(self._numbers)}.yaml"
        path.write_text(json.dumps(values))
        return path

    def connections(self, **urls: str) -> dict[str, str]:
        """The environment that gives these connections their names."""
        return {f"JIVS_CONNECTION_{name.upper()}": url for name, url in urls.items()}

    def stop(self) -> None:
        """Kill what a failed test left running."""
        for started in self._started:
            if started.process.poll() is None:
                started.process.kill()
            started.process.wait()


def database_of(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def password_of(url: str) -> str:
    return urlsplit(url).password or ""


def with_parts(
    url: str,
    *,
    database: str | None = None,
    user: str | None = None,
    password: str = "",
    port: int | None = None,
) -> str:
    """The URL with another database, another user or another port."""
    parts = urlsplit(url)
    credentials, _, address = parts.netloc.rpartition("@")
    if user is not None:
        credentials = f"{user}:{password}" if password else user
    if port is not None:
        address = f"127.0.0.1:{port}"
    path = parts.path if database is None else f"/{database}"
    return urlunsplit(parts._replace(netloc=f"{credentials}@{address}", path=path))


@contextlib.contextmanager
def new_home(directory: Path) -> Iterator[tuple[Path, str]]:
    """A home whose servers run as long as the block, and the URL of its server at database `postgres`."""
    home = directory / "home"
    with open_embedded(home) as servers:
        yield home, with_parts(servers.urls.target, database="postgres")
    remove_embedded(home)


@pytest.fixture(scope="session")
def jivs_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A home for all tests of a worker. What one of them leaves in its queue, the next stack in there runs."""
    with new_home(tmp_path_factory.mktemp("jivs")) as home:
        yield home


@pytest.fixture(scope="session")
def warm(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """What forks the commands of this worker."""
    zygote = Zygote("jivs_pipeline_tests.warm", tmp_path_factory.mktemp("warm"), environment_of(jivs_home[0]))
    yield zygote
    zygote.stop()


@pytest.fixture
def jivs(jivs_home: tuple[Path, str], warm: Zygote, tmp_path: Path) -> Iterator[Jivs]:
    """The command, in the worker's home."""
    directory = tmp_path / "jivs"
    directory.mkdir()
    command = Jivs(jivs_home[0], directory, jivs_home[1], warm)
    yield command
    command.stop()


@contextlib.contextmanager
def new_database(server: str) -> Iterator[str]:
    """URL of an empty database that is gone after the block."""
    name = f"t_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield with_parts(server, database=name)
    finally:
        # Its last sessions may be ending.
        with psycopg.connect(server, autocommit=True) as db, contextlib.suppress(psycopg.errors.ObjectInUse):
            db.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def make_target(jivs_home: tuple[Path, str]) -> Iterator[Callable[[], str]]:
    """Makes empty databases that are gone after the test."""
    with contextlib.ExitStack() as made:
        yield lambda: made.enter_context(new_database(jivs_home[1]))


@pytest.fixture
def target(make_target: Callable[[], str]) -> str:
    """URL of an empty database."""
    return make_target()


@pytest.fixture
def key() -> str:
    """A migration key that no other test has."""
    return f"k-{uuid4().hex[:12]}"
