"""The exporter when parts of the system are well, dead or hanging, and who asks it over HTTP.

What belongs here: `infra/exporter` on real servers. What does not: what counters count (`test_exporter_counts.py`).
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from jivs_pipeline.core.errors import ConfigError, ConflictError
from jivs_pipeline.infra.exporter import Exporter, collect, serve
from jivs_pipeline.infra.exporter.surroundings import Disk
from jivs_pipeline_tests.fix_breakers import MakeBreakers, fail, nowhere
from jivs_pipeline_tests.fix_exporter import CONTRACT, NOWHERE, MakeExporter, names, numbers, numbers_of
from jivs_pipeline_tests.fix_postgresql import MakeDatabase, Proxy, as_user, at_port
from jivs_pipeline_tests.fix_redis import OwnRedis


class _Web(BaseHTTPRequestHandler):
    """Answers as Dagster's web server does about its code location."""

    kind = "RepositoryLocation"

    def do_POST(self) -> None:
        assert b"workspaceOrError" in self.rfile.read(int(self.headers["content-length"]))
        entries = [{"name": "jivs_pipeline", "locationOrLoadError": {"__typename": self.kind}}]
        body = json.dumps({"data": {"workspaceOrError": {"locationEntries": entries}}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def _listening(server: HTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _beat(url: str, seconds_ago: float = 0) -> None:
    with psycopg.connect(url) as db:
        db.execute("DELETE FROM daemon_heartbeats")
        for daemon in ("SENSOR", "QUEUED_RUN_COORDINATOR", "MONITORING"):
            db.execute(
                "INSERT INTO daemon_heartbeats (daemon_type, body) SELECT %s, jsonb_build_object('timestamp',"
                " extract(epoch FROM clock_timestamp()) - %s)::text",
                (daemon, seconds_ago),
            )
        # A part of the daemon that a later version no longer has.
        db.execute("INSERT INTO daemon_heartbeats (daemon_type, body) VALUES ('OLD', '{\"timestamp\": 0}')")


def _up(exporter: Exporter) -> dict[str, float]:
    found = numbers(exporter)
    parts = ("control_database", "dagster_storage", "redis", "code_location", "disk", "targets")
    return {p: found[f'jivs_component_up{{component="{p}"}}'] for p in parts}


@pytest.fixture
def well(make_exporter: MakeExporter, dagster_database: str) -> Iterator[Callable[..., Exporter]]:
    """Makes exporters of a system in which everything works, but for what is given."""
    _beat(dagster_database)
    with _listening(HTTPServer(("127.0.0.1", 0), _Web)) as port:
        yield lambda **more: make_exporter(**{"ui_port": port, "timeout_seconds": 10, **more})


# ── Everything works ─────────────────────────────────────────────────────────────────────────────────────


def test_every_name_of_the_contract_is_there(
    well: Callable[..., Exporter], control_database: str, make_breakers: MakeBreakers
) -> None:
    """Also those that need a migration that runs and an endpoint that was called."""
    fail(make_breakers().endpoint(nowhere()))
    with psycopg.connect(control_database) as db:
        db.execute(
            "INSERT INTO jivs.migrations (key, status, phase, source_name, target_name, spec, spec_hash)"
            " VALUES ('shop', 'running', 'load', 'a', 'b', '{}', 'h');"
            "INSERT INTO jivs.migration_locks (key, owner, epoch, run_id, host, boot_id, pid, process_start, lease_seconds)"
            " VALUES ('shop', gen_random_uuid(), 1, 'r', 'h', 'b', 1, '1', 300)"
        )
    exporter = well(target_url=lambda _: control_database)
    numbers(exporter)
    found = numbers(exporter)
    assert names(found) >= CONTRACT
    assert set(_up(exporter).values()) == {1}
    assert found["dagster_daemon_heartbeat_age_seconds"] < 60
    assert 1 in {v for k, v in found.items() if k.startswith("migration_circuit_breaker_state{")}
    assert found['migration_db_connections{pool="b",state="free"}'] > 0
    assert found['migration_db_connections{pool="control",state="active"}'] >= 1


def test_a_system_that_is_well_is_ready(well: Callable[..., Exporter]) -> None:
    found = well().health()
    assert found.ready
    assert set(found.document()["components"]) == {
        "control_database", "redis", "daemon", "code_location", "circuit_breakers", "disk"
    }  # fmt: skip
    assert {c["status"] for n, c in found.document()["components"].items() if n != "circuit_breakers"} == {
        "ok"
    }


# ── One part does not ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("broken", "part", "component"),
    [
        ({"control_url": NOWHERE}, "control_database", "control_database"),
        ({"dagster_url": NOWHERE}, "dagster_storage", "daemon"),
        ({"redis_url": "redis://:s3cret@127.0.0.1:1/0"}, "redis", "redis"),
        ({"ui_port": 1}, "code_location", "code_location"),
    ],
)
def test_a_dead_part_is_told_and_the_others_report(
    well: Callable[..., Exporter], broken: dict[str, Any], part: str, component: str
) -> None:
    """And nothing of its URL is told with it."""
    exporter = well(**broken)
    up = _up(exporter)
    assert [name for name, value in up.items() if not value] == [part]
    found = exporter.health()
    assert not found.ready
    document = found.document()
    assert document["status"] == "down"
    assert [n for n, c in document["components"].items() if c["status"] == "down"] == [component]
    text = json.dumps(document) + exporter.metrics("")[0].decode()
    assert not [secret for secret in ("s3cret", "127.0.0.1", "vanished") if secret in text]


def test_a_part_that_hangs_costs_its_time_and_no_more(
    well: Callable[..., Exporter],
    control_database: str,
    make_proxy: Callable[..., Proxy],
    own_redis: OwnRedis,
) -> None:
    """A look that has not come back is not begun again, and the part is there again once it answers."""
    proxy = make_proxy()
    exporter = well(
        control_url=at_port(control_database, proxy.port), redis_url=own_redis.url, timeout_seconds=1
    )
    assert _up(exporter)["control_database"] == _up(exporter)["redis"] == 1
    proxy.stall_open()
    own_redis.stand_still()
    before = threading.active_count()
    for _ in range(3):
        began = time.monotonic()
        up = _up(exporter)
        assert time.monotonic() - began < 10
        assert up["dagster_storage"] == up["disk"] == 1
    assert up["redis"] == 0
    assert threading.active_count() <= before + 6
    own_redis.go_on()
    deadline = time.monotonic() + 30
    while not (_up(exporter)["redis"] and _up(exporter)["control_database"]):
        assert time.monotonic() < deadline


def test_a_control_database_without_its_schema(
    well: Callable[..., Exporter], make_database: MakeDatabase
) -> None:
    document = well(control_url=make_database()).health().document()
    assert document["components"]["control_database"] == {
        "status": "down", "reason": "the schema is not up to date; run jivs db upgrade"
    }  # fmt: skip


def test_a_silent_daemon_and_one_that_never_was(well: Callable[..., Exporter], dagster_database: str) -> None:
    exporter = well()
    _beat(dagster_database, 500)
    assert 500 <= numbers(exporter)["dagster_daemon_heartbeat_age_seconds"] < 600
    found = exporter.health()
    assert not found.ready
    assert "not heard of for 5" in found.components["daemon"].reason
    with psycopg.connect(dagster_database) as db:
        db.execute("DELETE FROM daemon_heartbeats")
    assert "dagster_daemon_heartbeat_age_seconds" not in numbers(exporter)
    assert "no daemon has ever run" in exporter.health().components["daemon"].reason


def test_a_code_location_that_does_not_load(
    well: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Web, "kind", "PythonError")
    found = well().health()
    assert not found.ready
    assert "not loaded" in found.components["code_location"].reason


def test_an_open_breaker_is_worth_a_look_and_no_more(
    well: Callable[..., Exporter], make_breakers: MakeBreakers
) -> None:
    """Work for other endpoints goes on."""
    endpoint = make_breakers().endpoint(nowhere())
    fail(endpoint)
    found = well().health()
    assert found.ready
    assert found.document()["status"] == "degraded"
    assert endpoint.name in found.components["circuit_breakers"].reason


@pytest.mark.parametrize(
    ("free", "status"), [(50 << 30, "ok"), (5 << 30, "degraded"), (1 << 30, "down"), (1 << 20, "down")]
)
def test_a_full_disk(
    well: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch, free: int, status: str
) -> None:
    monkeypatch.setattr(collect, "look_at_disk", lambda _: Disk(free, 100 << 30))
    found = well().health()
    assert found.components["disk"].state == status
    assert found.ready == (status != "down")


def test_targets_are_asked_only_while_they_are_loaded_into(
    well: Callable[..., Exporter], control_database: str
) -> None:
    """One that is not known here, as one given by URL, or does not answer, is left out."""
    asked: list[str] = []

    def url(name: str) -> str:
        asked.append(name)
        if name == "by-url":
            raise ConfigError("There is no connection")
        return NOWHERE

    exporter = well(target_url=url)
    numbers(exporter)
    assert asked == []
    with psycopg.connect(control_database) as db:
        db.execute(
            "INSERT INTO jivs.migrations (key, status, phase, source_name, target_name, spec, spec_hash)"
            " SELECT n, 'running', 'load', 'a', n, '{}', 'h' FROM unnest('{by-url,dead}'::text[]) n"
        )
    for _ in range(3):
        found = numbers(exporter)
    assert sorted(asked) == ["by-url", "dead"]
    assert not [k for k in found if "by-url" in k and "connections" in k]
    assert found['jivs_component_up{component="targets"}'] == 1


# ── Dagster's own storage ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def instance(make_database: MakeDatabase, tmp_path: Path) -> Iterator[tuple[str, dg.DagsterInstance]]:
    url = make_database()
    overrides = {"storage": {"postgres": {"postgres_url": url}}, "telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=overrides) as instance:
        yield url, instance


def test_dagsters_storage_is_read_as_dagster_reads_it(
    instance: tuple[str, dg.DagsterInstance], well: Callable[..., Exporter]
) -> None:
    url, dagster = instance
    exporter = well(dagster_url=url)
    assert "dagster_daemon_heartbeat_age_seconds" not in numbers(exporter)
    now = time.time()
    for daemon, age in (
        ("SENSOR", 30.0),
        ("QUEUED_RUN_COORDINATOR", 70.0),
        ("MONITORING", 10.0),
        ("OTHER", 900.0),
    ):
        dagster.add_daemon_heartbeat(DaemonHeartbeat(now - age, daemon, "id", []))
    for status in ("STARTING", "STARTED", "STARTED", "SUCCESS", "FAILURE"):
        dagster.create_run_for_job(_nothing, status=dg.DagsterRunStatus[status])
    found = numbers(exporter)
    oldest = now - dagster.get_daemon_heartbeats()["QUEUED_RUN_COORDINATOR"].timestamp
    assert oldest == pytest.approx(70)
    assert oldest <= found["dagster_daemon_heartbeat_age_seconds"] < oldest + 60
    for status in ("QUEUED", "STARTED", "STARTING", "CANCELING"):
        runs = dagster.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus[status]]))
        assert found[f'jivs_dagster_runs{{status="{status}"}}'] == runs


@dg.job(name="nothing")
def _nothing() -> None: ...


# ── HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────


def _get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.headers["content-type"], answer.read().decode()
    connection.close()
    return found


def test_paths_and_status_codes(well: Callable[..., Exporter]) -> None:
    with _listening(serve(well(), "127.0.0.1", 0)) as port:
        status, kind, body = _get(port, "/metrics")
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert numbers_of(body)["migrations_active"] == 0
        status, kind, body = _get(port, "/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
        assert body.endswith("# EOF\n")
        assert _get(port, "/health/live") == (200, "application/json", '{"status": "ok"}\n')
        status, _, body = _get(port, "/health/ready?verbose")
        assert (status, json.loads(body)["components"]["daemon"]) == (200, {"status": "ok"})
        assert _get(port, "/metrics", "HEAD")[::2] == (200, "")
        assert _get(port, "/")[0] == 404
        assert _get(port, "/metrics", "POST")[0] == 501


def test_not_ready_is_503_and_alive(well: Callable[..., Exporter]) -> None:
    with _listening(serve(well(control_url=NOWHERE), "127.0.0.1", 0)) as port:
        assert _get(port, "/health/ready")[0] == 503
        assert _get(port, "/health/live")[0] == 200
        assert _get(port, "/metrics")[0] == 200


def test_who_asks_and_says_nothing_delays_nobody(well: Callable[..., Exporter]) -> None:
    with _listening(serve(well(), "127.0.0.1", 0)) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        for one in silent:
            one.sendall(b"GET /met")
        assert _get(port, "/health/live")[0] == 200
        assert _get(port, "/metrics")[0] == 200
        for one in silent:
            one.close()


def test_a_port_that_is_taken_is_said(make_exporter: MakeExporter) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConflictError, match="cannot be used"),
    ):
        serve(make_exporter(), "127.0.0.1", taken.getsockname()[1])


def test_the_least_rights_are_enough(
    well: Callable[..., Exporter], control_database: str, postgresql_server: str
) -> None:
    """The grants of sql/roles.sql: no values of rows, nothing to write."""
    text = (Path(__file__).parents[2] / "sql" / "roles.sql").read_text()
    grants = re.findall(r"^--   (.*jivs_metrics_reader;)$", text, re.MULTILINE)
    assert len(grants) == 5
    # Roles belong to the whole server, which others use as well.
    group, member = f"reader_{time.monotonic_ns()}", f"member_{time.monotonic_ns()}"
    with psycopg.connect(control_database, autocommit=True) as db:
        db.execute(f"CREATE ROLE {group}; CREATE ROLE {member} LOGIN PASSWORD 'pw' IN ROLE {group}".encode())
        try:
            for grant in grants:
                db.execute(grant.replace("jivs_metrics_reader", group).encode())
            url = as_user(control_database, member, "pw")
            assert _up(well(control_url=url))["control_database"] == 1
            with psycopg.connect(url) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("SELECT value FROM jivs.migration_quarantine")
        finally:
            db.execute(f"DROP OWNED BY {group}, {member}; DROP ROLE {group}, {member}".encode())


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_listens_on_loopback_and_ends_well(jivs: Any) -> None:
    started = jivs.start("metrics", "--port", "0")
    started.wait_for("Metrics: http://127.0.0.1:")
    port = int(started.out.read_text().split("127.0.0.1:")[1].split("/")[0])
    assert names(numbers_of(_get(port, "/metrics")[2])) >= {"migrations_active", "jivs_component_up"}
    shown = subprocess.run(
        ["cat", f"/proc/{started.process.pid}/net/tcp"], capture_output=True, text=True, check=True
    )
    listening = [line.split()[1] for line in shown.stdout.splitlines() if line.split()[3] == "0A"]
    assert {a.split(":")[0] for a in listening if a.endswith(f":{port:04X}")} == {"0100007F"}
    started.signal(15)
    ended = started.wait(30)
    assert (ended.code, ended.stderr) == (0, "")
