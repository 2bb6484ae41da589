"""Every command of docs/operations.md, in its order, as somebody does who has a new machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jivs_pipeline_tests.fix_cli import PROGRAM, Jivs, new_home
from jivs_pipeline_tests.fix_stack import free_port

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CURL = f"""#!{sys.executable}
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[-1], timeout=10).read().decode())
except OSError:
    sys.exit(22)
"""
"""For a machine that has none."""


@pytest.mark.timeout(1500)
def test_every_command_of_the_operations_page_runs(tmp_path: Path) -> None:
    (programs := tmp_path / "bin").mkdir()
    (programs / "jivs").symlink_to(PROGRAM)
    if shutil.which("curl") is None:
        (programs / "curl").write_text(CURL)
        (programs / "curl").chmod(0o755)
    blocks = BLOCK.findall(PAGE.read_text())
    commands = [line for block in blocks for line in block.splitlines()]
    script = "\n".join(
        # A stack that a failure leaves behind would outlive the test.
        [
            "set -euo pipefail",
            "trap 'kill -TERM ${JIVS_UP:-} 2>/dev/null && wait || true' EXIT",
            "set -x",
            *commands,
        ]
    )
    (work := tmp_path / "work").mkdir()
    with new_home(tmp_path) as (home, server):
        env = {
            **Jivs(home, work, server).environment(),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "JIVS_UI_PORT": str(free_port()),
            "JIVS_METRICS_PORT": str(free_port()),
        }
        ended = subprocess.run(
            ["bash", "-c", script], cwd=work, env=env, capture_output=True, text=True, timeout=1400, check=False
        )  # fmt: skip
    said = f"{ended.stdout[-6000:]}\n{ended.stderr[-6000:]}"
    assert ended.returncode == 0, said
    assert len(blocks) >= 8, "the page has lost its commands"
    assert "Traceback" not in ended.stderr
    for told in ("migration.completed", "rolled_back", "migrations_completed_total"):
        assert told in ended.stdout, said


def test_the_service_starts_what_there_is() -> None:
    unit = (PAGE.parents[1] / "examples" / "jivs.service").read_text()
    (start,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    assert start.split("/")[-1] == "jivs up"
