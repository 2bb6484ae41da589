"""The report's file: signed, whole or not there, and one changed byte is found.

What belongs here: files and what is said of them. What does not: the page (`test_report.py`).
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.errors import ConfigError, ExitCode, MismatchError, ResourceError
from jivs_pipeline.core.signature import HTML, JSON, Form, Judgement, ReportKey
from jivs_pipeline.engine.report import render_report
from jivs_pipeline.engine.report_file import check_report, pending_report, write_report
from jivs_pipeline_tests.unit.test_report import document

KEY = ReportKey(b"the key of these tests")
OTHER = ReportKey(b"another key")
DOCUMENT = document()


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_file_is_the_signed_page_and_private(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    mask = os.umask(0)
    try:
        write_report(DOCUMENT, path, KEY)
    finally:
        os.umask(mask)
    assert path.read_bytes() == KEY.sign(render_report(DOCUMENT).encode(), HTML)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert leftovers(tmp_path) == ["report.html"]


def test_a_second_report_replaces_the_first_for_new_readers_only(tmp_path: Path) -> None:
    """A reader who has the old page open keeps all of it: the file is replaced, never rewritten."""
    path = tmp_path / "report.html"
    path.write_text("old")
    path.chmod(0o644)
    with path.open(encoding="utf-8") as reader:
        write_report(DOCUMENT, path, KEY)
        assert reader.read() == "old"
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


WRITER = """
import resource, os, sys
from pathlib import Path
from jivs_pipeline.core.errors import ResourceError
from jivs_pipeline.core.signature import ReportKey
from jivs_pipeline.engine.report_file import write_report
{fault}
try:
    write_report({{"key": "new"}}, Path(sys.argv[1]), ReportKey(b"k"))
except ResourceError as error:
    print(error.message, "|", type(error.__cause__).__name__)
"""
FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
KILLED = "os.fsync = lambda handle: os.kill(os.getpid(), 9)"


def faulty_writer(path: Path, fault: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITER.format(fault=fault), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_full_disk_leaves_the_old_report_and_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    done = faulty_writer(path, FULL)
    assert done.stdout == f"The report cannot be written to {path}: File too large | OSError\n", done.stderr
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == ["report.html"]


def test_a_kill_before_the_bytes_are_on_disk_leaves_the_old_report(tmp_path: Path) -> None:
    """The rename comes after the fsync, or a power cut could leave an empty page under the right name."""
    path = tmp_path / "report.html"
    path.write_text("old")
    assert faulty_writer(path, KILLED).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert [name for name in leftovers(tmp_path) if name.endswith(".html")] == ["report.html"]


def test_a_missing_directory_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file or directory") as caught:
        write_report(DOCUMENT, tmp_path / "absent" / "report.html", KEY)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """As root a rename would put a page where /dev/stdout was."""
    path = tmp_path / "odd"
    make(path)
    before = path.stat()
    with pytest.raises(ResourceError, match="not an ordinary file"):
        write_report(DOCUMENT, path, KEY)
    assert path.stat().st_ino == before.st_ino
    assert leftovers(tmp_path) == ["odd"]


# --- the signature ----------------------------------------------------------------------------------------

PAGE = KEY.sign(render_report(DOCUMENT).encode(), HTML)


def intact(signed: bytes, key: ReportKey = KEY) -> bool:
    return key.judge(signed).judgement is Judgement.INTACT


@pytest.fixture(params=["report.html", "report.json"])
def report(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    write_report(DOCUMENT, path, KEY)
    return path


def test_every_byte_of_a_report_counts(report: Path) -> None:
    """Each one flipped by one bit, left out, and doubled: also those of the signature's own line."""
    signed = report.read_bytes()
    assert intact(signed)
    for at in range(len(signed)):
        flipped = bytearray(signed)
        flipped[at] ^= 1
        assert not intact(bytes(flipped)), f"byte {at} flipped"
    # What is left of the last line is judged as the rest is; one HMAC each is enough for the others.
    for at in {*range(0, len(signed), 97), *range(len(signed) - 300, len(signed))}:
        assert not intact(signed[:at] + signed[at + 1 :]), f"byte {at} left out"
        assert not intact(signed[: at + 1] + signed[at:]), f"byte {at} doubled"


@given(st.integers(0, len(PAGE)), st.integers(0, len(PAGE)), st.binary(max_size=300))
def test_no_other_bytes_are_taken_for_the_page(start: int, end: int, put: bytes) -> None:
    """Any piece of it replaced by anything: only the page itself is intact."""
    changed = PAGE[: min(start, end)] + put + PAGE[max(start, end) :]
    assert intact(changed) == (changed == PAGE)


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from([HTML, JSON]), st.binary(min_size=1))
def test_whatever_was_signed_is_known_and_nothing_else(
    one: bytes, two: bytes, form: Form, secret: bytes
) -> None:
    key = ReportKey(secret)
    signed = key.sign(one, form)
    assert key.judge(signed).content == one
    assert intact(two + signed[len(one) :], key) == (one == two)
    assert not intact(signed + two, key) or not two
    assert not intact(two + signed, key) or not two


@pytest.mark.parametrize(
    "change", [lambda s: s + b"\n", lambda s: s + s, lambda s: s[:-1], lambda s: s.replace(b"\n", b"\r\n")]
)
def test_the_end_counts(change: Callable[[bytes], bytes], report: Path) -> None:
    """Also a line break more or less, and the report twice."""
    report.write_bytes(change(report.read_bytes()))
    with pytest.raises(MismatchError, match="was changed after it was signed") as caught:
        check_report(report, KEY)
    assert caught.value.exit_code is ExitCode.MISMATCH


def test_the_line_of_a_page_is_none_of_a_document() -> None:
    """The same content and the same number in the other form's clothes."""
    content = b"{\n"
    page, document = KEY.sign(content, HTML), KEY.sign(content, JSON)
    number = page[-len(HTML.tail) - 64 : -len(HTML.tail)]
    forged = document[: -len(JSON.tail) - 64] + number + JSON.tail
    assert KEY.judge(forged).judgement is Judgement.CHANGED


def test_a_signed_page_is_a_page_and_a_signed_document_a_document(tmp_path: Path) -> None:
    write_report(DOCUMENT, page := tmp_path / "a.HTML", KEY)
    write_report(DOCUMENT, file := tmp_path / "a.JSON", KEY)
    root = ET.fromstring(page.read_text().removeprefix("<!DOCTYPE html>\n"))
    assert root.tag == "html"
    assert page.read_text().endswith(" -->\n")
    read = json.loads(file.read_text())
    assert read.pop("jivs_signature").startswith(f"hmac-sha256 {KEY.id} ")
    assert read == json.loads(json.dumps(DOCUMENT))


def test_an_unchanged_report_says_whose_it_is(report: Path) -> None:
    assert check_report(report, KEY) == {
        "report": str(report), "key": "sakila-2026", "status": "completed", "algorithm": "hmac-sha256",
        "signed_with": KEY.id,
    }  # fmt: skip


def test_hostile_facts_are_read_as_they_are(tmp_path: Path) -> None:
    hostile = {"key": '"/><meta name="jivs-key" content="forged"/>', "status": "<&'"}
    write_report(document(**hostile), path := tmp_path / "r.html", KEY)
    found = check_report(path, KEY)
    assert (found["key"], found["status"]) == (hostile["key"], hostile["status"])


def test_two_keys_do_not_know_each_other(report: Path) -> None:
    """Which one it was is said; neither tells anything of the secret."""
    with pytest.raises(ConfigError) as caught:
        check_report(report, OTHER)
    assert (
        caught.value.message == f"{report} was signed with the key {KEY.id}, and the key here is {OTHER.id}"
    )
    assert "JIVS_REPORT_KEY" in caught.value.hint
    assert "the key of these tests" not in repr(KEY)
    # Whoever writes the other's name into the line has not signed it.
    report.write_bytes(report.read_bytes().replace(KEY.id.encode(), OTHER.id.encode()))
    with pytest.raises(MismatchError):
        check_report(report, OTHER)


def test_what_cannot_be_checked_is_one_sentence(tmp_path: Path) -> None:
    plain = tmp_path / "plain.html"
    plain.write_text(render_report(DOCUMENT))
    for path, message in (
        (plain, "has no signature of a report"),
        (tmp_path / "absent.html", "cannot be read: No such file or directory"),
        (tmp_path, "is not an ordinary file"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            check_report(path, KEY)
        assert caught.value.message.startswith(str(path))
        assert caught.value.hint
    plain.write_bytes(b"")
    with pytest.raises(ConfigError, match="no signature"):
        check_report(plain, KEY)


def test_a_run_ends_also_without_a_key(tmp_path: Path) -> None:
    """As one ends whose disk is full: without a report."""

    def no_key() -> ReportKey:
        raise ResourceError("no key")

    with pending_report(DOCUMENT, tmp_path / "r.html", no_key) as path:
        assert path is None
    assert leftovers(tmp_path) == []
