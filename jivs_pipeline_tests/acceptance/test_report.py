"""The signed report of a migration, by the command: written, checked, and forged in vain."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jivs_pipeline_tests.acceptance.contract import check_error, check_keys, check_run
from jivs_pipeline_tests.fix_cli import Ended, Jivs

KEY = {"JIVS_REPORT_KEY": "the key of these tests"}
SOURCE = """
CREATE TABLE towns (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO towns VALUES (1, 'Reykjavík'), (2, 'canary-in-a-row');
CREATE TABLE mixed (id INTEGER PRIMARY KEY, v INTEGER);
INSERT INTO mixed VALUES (1, 1), (2, 'two');
"""


@pytest.fixture
def failed(jivs: Jivs, target: str, key: str, tmp_path: Path) -> Path:
    """A run of which one of two tables failed; its page."""
    with closing(sqlite3.connect(tmp_path / "towns.sqlite")) as lite:
        lite.executescript(SOURCE)
    env = {**jivs.connections(legacy=f"sqlite:///{tmp_path}/towns.sqlite", warehouse=target), **KEY}
    spec = jivs.spec(key=key, source="legacy", target="warehouse")
    document = jivs("run", spec, "--json", code=1, env=env).document
    check_run(document, "failed")
    return Path(document["report"])


def said(ended: Ended) -> str:
    """The one sentence on stderr."""
    (line,) = ended.stderr.splitlines()
    assert ended.stdout == ""
    assert line.startswith("jivs: ")
    return line


def test_a_failed_run_leaves_a_signed_page(jivs: Jivs, failed: Path, key: str) -> None:
    """It says what failed and shows no row."""
    html = failed.read_text()
    assert "main.mixed" in html
    assert "canary-in-a-row" not in html
    ended = jivs("report", "--check", failed, code=0, env=KEY)
    (line,) = ended.stdout.splitlines()
    assert line.startswith(
        f"{failed} is the unchanged report of migration {key!r} (failed), signed with the key "
    )
    assert ended.stderr == ""
    found = jivs("report", "--check", failed, "--json", code=0, env=KEY).document
    check_keys(
        found, {"report": str, "key": str, "status": str, "algorithm": str, "signed_with": str}, "check"
    )
    assert (found["key"], found["status"], found["algorithm"]) == (key, "failed", "hmac-sha256")


def test_one_changed_byte(jivs: Jivs, failed: Path) -> None:
    """A verdict that somebody has improved, and a line break at the end."""
    signed = failed.read_bytes()
    for change in (signed.replace(b">failed<", b">Failed<", 1), signed + b"\n"):
        assert change != signed
        failed.write_bytes(change)
        assert "was changed after it was signed" in said(jivs("report", "--check", failed, code=4, env=KEY))
    error = check_error(jivs("report", "--check", failed, "--json", code=4, env=KEY).document)
    assert error["code"] == "mismatch"


def test_what_cannot_be_checked(jivs: Jivs, failed: Path, tmp_path: Path) -> None:
    """No file, no signature, another key, no key at all."""
    assert "cannot be read: No such file" in said(jivs("report", "--check", tmp_path / "no", code=2, env=KEY))
    unsigned = tmp_path / "unsigned.html"
    unsigned.write_bytes(b"".join(failed.read_bytes().splitlines(keepends=True)[:-1]))
    assert "has no signature" in said(jivs("report", "--check", unsigned, code=2, env=KEY))
    other = {"JIVS_REPORT_KEY": "another key of these tests"}
    assert "was signed with the key" in said(jivs("report", "--check", failed, code=2, env=other))
    elsewhere = {"JIVS_HOME": str(tmp_path / "elsewhere")}
    assert "There is no key to check with" in said(jivs("report", "--check", failed, code=2, env=elsewhere))
    assert not (tmp_path / "elsewhere").exists()


def test_the_document_as_a_signed_file(jivs: Jivs, failed: Path, key: str, tmp_path: Path) -> None:
    """The file that is named gets it; the home's own key signs where none is set."""
    out = tmp_path / "deep" / "report.json"
    written = jivs("report", key, "--out", out, "--json", code=0).document
    assert written == {"key": key, "report": str(out)}
    document = json.loads(out.read_text())
    check_run(document, "failed")
    assert document["report"] == str(out)
    assert jivs("report", "--check", out, "--json", code=0).document["key"] == key
    assert "was signed with the key" in said(jivs("report", "--check", out, code=2, env=KEY))
    assert (jivs.home / "report.key").stat().st_mode & 0o777 == 0o600


def test_bad_usage(jivs: Jivs, tmp_path: Path) -> None:
    for argv in ([], ["k", "--check", "f"], ["--check", "f", "--out", "g"]):
        assert "or --check FILE" in said(jivs("report", *argv, code=2))
    assert list(tmp_path.glob("*.html")) == []
