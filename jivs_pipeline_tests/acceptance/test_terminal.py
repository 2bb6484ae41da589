"""What a person sees while a migration runs: bars on a terminal, a line per phase elsewhere, log records who wants them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

from jivs_pipeline_tests.acceptance.contract import PHASES
from jivs_pipeline_tests.acceptance.test_commands import SOURCE
from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.sqlite_files import make_file

# Slow enough for every phase to be drawn, however fast the machine.
SLOW = {"JIVS_FAILPOINT": "before_staging_sync@1:sleep=1,after_ledger_before_copy@1:sleep=1"}


def test_a_terminal_shows_bars_with_tables_and_rates(jivs: Jivs, target: str, tmp_path: Path) -> None:
    source = make_file(tmp_path / "towns.sqlite", SOURCE)
    mine, theirs = pty.openpty()
    argv = (
        Path(sys.executable).with_name("jivs"),
        "run",
        "--source",
        f"sqlite:///{source}",
        "--target",
        target,
    )
    env = {**jivs.environment(SLOW), "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = bytearray()
    with closing(os.fdopen(mine, "rb", buffering=0)) as screen, suppress(OSError):
        # Linux answers EIO, not an end of file, when the last writer of a terminal is gone.
        while piece := screen.read(4096):
            seen += piece
    assert process.wait(60) == 0, seen.decode(errors="replace")
    text = seen.decode()
    assert "Traceback" not in text
    assert "extract" in text
    assert "load" in text
    assert "public.towns" in text.split("Verified")[0]
    assert "rows/s" in text
    assert "Verified" in text


def test_elsewhere_each_phase_is_a_line(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    source = make_file(tmp_path / "towns.sqlite", SOURCE)
    ended = jivs("run", "--source", f"sqlite:///{source}", "--target", target, "--key", key, env=SLOW, code=0)
    lines = [line.split()[-1] for line in ended.stderr.splitlines()]
    assert [line for line in lines if line in {"extract", "load"}] == ["extract", "load"]
    assert "\x1b" not in ended.stderr + ended.stdout


def test_log_records_as_json_tell_the_run_its_phases_and_chunks(
    jivs: Jivs, target: str, key: str, tmp_path: Path
) -> None:
    source = make_file(tmp_path / "towns.sqlite", SOURCE)
    env = {"JIVS_LOG_FORMAT": "json", "JIVS_LOG_LEVEL": "debug"}
    ended = jivs(
        "run", "--source", f"sqlite:///{source}", "--target", target, "--key", key, "--json", env=env, code=0
    )
    records = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    assert {(r["key"], r["run_id"]) for r in records if "key" in r} == {(key, ended.document["run_id"])}
    assert [r["phase"] for r in records if r["message"] == "Phase begins"] == PHASES
    for message in ("Chunk staged", "Chunk loaded"):
        (chunk,) = [r for r in records if r["message"] == message and r["table"] == "public.towns"]
        assert (chunk["chunk"], chunk["level"]) == (0, "debug")
        assert chunk["rows"] > 0
    assert records[-1]["message"] == "Ended as completed"


def test_a_log_level_that_is_none_is_refused_with_a_sentence(jivs: Jivs) -> None:
    ended = jivs("status", env={"JIVS_LOG_LEVEL": "loud"}, code=2)
    assert (
        "JIVS_LOG_LEVEL is not usable: input should be 'debug', 'info', 'warning' or 'error'" in ended.stderr
    )
