"""Pausing and resuming, also in place of a run that is gone."""

from __future__ import annotations

import signal
from pathlib import Path

from jivs_pipeline_tests.acceptance.rows import assert_same_database
from jivs_pipeline_tests.acceptance.test_commands import SOURCE
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.sqlite_files import make_file

HELD = {"JIVS_FAILPOINT": "after_ledger_before_copy@2:sleep=4"}


def _spec(jivs: Jivs, source: Path, target: str, key: str) -> tuple[Path, dict[str, str]]:
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=65536, parallelism=1)
    return spec, env


def test_a_paused_run_stops_after_its_chunk_and_is_resumed(
    jivs: Jivs, target: str, key: str, tmp_path: Path
) -> None:
    source = make_file(tmp_path / "towns.sqlite", SOURCE)
    spec, env = _spec(jivs, source, target, key)
    started = jivs.start("run", spec, "--json", env={**env, **HELD})
    started.wait_for("load")
    document = jivs("pause", key, "--json", code=0, env=env).document
    assert document["status"] == "paused"
    ended = started.wait()
    assert ended.code == 130, ended
    assert ended.document["status"] == "paused"
    jivs("pause", key, code=3, env=env)
    resumed = jivs("resume", key, "--json", code=0, env=env).document
    assert (resumed["status"], resumed["resumed"]) == ("completed", True)
    assert_same_database(source, target)
    types = [e["type"] for e in jivs("events", key, "--json", code=0).document["events"]]
    assert (
        types.index("migration.paused")
        < types.index("migration.resumed")
        < types.index("migration.completed")
    )
    assert "completed" in jivs("pause", key, code=3, env=env).stderr


def test_pausing_takes_over_from_a_dead_run(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """Nobody is there to obey: the state is set in its place, and the migration can be resumed."""
    source = make_file(tmp_path / "towns.sqlite", SOURCE)
    spec, env = _spec(jivs, source, target, key)
    killed = jivs("run", spec, env={**env, "JIVS_FAILPOINT": "after_copy_before_commit@2:kill"})
    assert killed.code == -signal.SIGKILL
    assert jivs("status", key, "--json", code=0).document["status"] == "running"
    assert jivs("pause", key, "--json", code=0, env=env).document["status"] == "paused"
    assert jivs("resume", key, "--json", code=0, env=env).document["status"] == "completed"
    assert_same_database(source, target)


def test_there_is_nothing_to_pause_or_resume(jivs: Jivs, key: str) -> None:
    for command in ("pause", "resume"):
        assert key in jivs(command, key, code=2).stderr
