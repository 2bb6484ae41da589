"""The real Prometheus: found on this machine, or unpacked from apt's package without installing anything.

What belongs here: its programs, a server that scrapes one exporter, and asking it. What does not: what must come out.

Where it is not to be had the tests are skipped with the reason. JIVS_TEST_PROMETHEUS=required, as in `.ci/run` where
apt is there, makes that a failure.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jivs_pipeline_tests.fix_engine import until
from jivs_pipeline_tests.fix_stack import free_port

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "monitoring"
_UNPACKED = ROOT / ".venv" / "prometheus"


@dataclass(frozen=True)
class Programs:
    """Paths of the two programs."""

    prometheus: str
    promtool: str


@pytest.fixture(scope="session")
def programs() -> Programs:
    """Prometheus and promtool; skips where there are none."""
    found = _on_path() or _unpacked()
    if isinstance(found, Programs):
        return found
    reason = f"no Prometheus: {found}"
    if os.environ.get("JIVS_TEST_PROMETHEUS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


def _on_path() -> Programs | None:
    prometheus, promtool = shutil.which("prometheus"), shutil.which("promtool")
    return Programs(prometheus, promtool) if prometheus and promtool else None


def _unpacked() -> Programs | str:
    """From apt's package: neither a service that is started nor a user that is made. A sentence where it fails."""
    programs = Programs(str(_UNPACKED / "usr/bin/prometheus"), str(_UNPACKED / "usr/bin/promtool"))
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return "not on PATH, and no apt to get it from"
    # Of the workers of one run the first does it.
    with (ROOT / ".venv" / "prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if Path(programs.promtool).exists():
            return programs
        with tempfile.TemporaryDirectory() as directory:
            # apt downloads as a user of its own.
            Path(directory).chmod(0o777)
            if not _apt("download", directory) and os.geteuid() == 0:
                _apt("update", directory)
                _apt("download", directory)
            packages = list(Path(directory).glob("prometheus_*.deb"))
            if not packages:
                return "apt-get download prometheus failed"
            unpack = ["dpkg-deb", "-x", str(packages[0]), str(_UNPACKED)]
            if subprocess.run(unpack, check=False, capture_output=True, timeout=120).returncode:
                return "apt's package cannot be unpacked"
    return programs


def _apt(verb: str, directory: str) -> bool:
    argv = ["apt-get", "-qq", verb, *(["prometheus"] if verb == "download" else [])]
    return not subprocess.run(argv, cwd=directory, check=False, capture_output=True, timeout=180).returncode


@dataclass
class Prometheus:
    """A server that scrapes one exporter every second or two."""

    port: int
    log: Path

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples of an instant query; fails with what Prometheus says about a bad one."""
        values = urllib.parse.urlencode({"query": expression})
        return self._get(f"query?{values}")["result"]

    def number(self, expression: str) -> float | None:
        """The value of the only sample."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        """Alerts that fire, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self._get("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()}") from None


def rules(*, quick: bool) -> dict[str, Any]:
    """The rules as they are written; `quick`: but for how long something has to last, which is a second then."""
    found = yaml.safe_load((MONITORING / "prometheus-alerts.yml").read_text())
    for group in found["groups"]:
        for rule in group["rules"]:
            rule["for"] = "1s" if quick else rule["for"]
    return found


@contextmanager
def scraping(
    programs: Programs, exporter_port: int, directory: Path, *, quick: bool = True
) -> Iterator[Prometheus]:
    """A Prometheus with our configuration and rules, at another pace; stopped at the end."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{exporter_port}"]
    del config["alerting"]
    directory.mkdir()
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    (directory / "prometheus-alerts.yml").write_text(yaml.safe_dump(rules(quick=quick)))
    port, log = free_port(), directory / "log"
    argv = [
        programs.prometheus, "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.path=data", "--log.level=warn",
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(argv, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        server = Prometheus(port, log)
        wait_for(lambda: _is_up(server, process), lambda: f"Prometheus is up: {log.read_text()[-3000:]}", 60)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_up(server: Prometheus, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, server.log.read_text()
    try:
        return server.number('up{job="jivs"}') == 1
    except OSError:
        return False


def wait_for(holds: Callable[[], object], what: Callable[[], object], seconds: float) -> None:
    """Ask twice a second; fails with `what` after `seconds`."""
    until(holds, what, seconds, 0.5)
