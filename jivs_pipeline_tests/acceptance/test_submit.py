"""`jivs submit` and `jivs resume --detach` as a user types them; nobody runs what they queue here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from jivs_pipeline_tests.fix_cli import Jivs


@pytest.fixture
def key() -> str:
    return f"shop-{uuid4().hex[:8]}"


@pytest.fixture
def spec(jivs: Jivs, key: str) -> Iterator[Path]:
    path = jivs.directory / "shop.yaml"
    path.write_text(f"key: {key}\nsource: legacy\ntarget: warehouse\n")
    yield path
    # The home is that of other tests, too, and a stack of theirs would run it.
    jivs("cancel", key)


def other(path: Path) -> Path:
    changed = path.with_name("other.yaml")
    changed.write_text(path.read_text() + "target_schema: elsewhere\n")
    return changed


def test_a_request_and_its_answers(jivs: Jivs, spec: Path, key: str) -> None:
    first = jivs("submit", spec, "--idempotency-key", "k", "--priority", "7", "--json")
    assert first.code == 0, first
    answer = json.loads(first.stdout)
    assert {k: answer[k] for k in ("key", "duplicate", "status", "attempt")} == {
        "key": key, "duplicate": False, "status": "queued", "attempt": 1,
    }  # fmt: skip
    again = json.loads(jivs("submit", spec, "--idempotency-key", "k", "--json").stdout)
    assert again == {**answer, "duplicate": True}
    status = json.loads(jivs("status", key, "--json").stdout)
    assert status["status"] == "queued"
    assert status["request"] == {
        "request_id": answer["request_id"], "status": "queued", "attempt": 1, "priority": 7,
    }  # fmt: skip
    refused = jivs("submit", other(spec), "--idempotency-key", "k", "--json")
    assert refused.code == 3
    assert json.loads(refused.stdout)["error"]["code"] == "conflict"
    assert json.loads(jivs("cancel", key, "--json").stdout)["request"]["status"] == "cancelled"
    anew = json.loads(jivs("submit", spec, "--idempotency-key", "k", "--json").stdout)
    assert (anew["request_id"], anew["attempt"], anew["duplicate"]) == (answer["request_id"], 2, False)


def test_what_a_person_reads(jivs: Jivs, spec: Path, key: str) -> None:
    said = jivs("submit", spec)
    assert said.code == 0
    assert f"Migration {key!r} is queued (request " in said.stdout
    assert f"jivs status {key} --watch" in said.stdout
    assert "was asked for before and is queued" in jivs("submit", spec).stdout
    refused = jivs("submit", other(spec))
    assert refused.code == 3
    assert "another spec" in refused.stderr
    assert f"jivs cancel {key}" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.yaml"], "cannot be read"),
        (["shop.yaml", "--priority", "99999999999"], "out of range"),
        (["shop.yaml", "--idempotency-key", ""], "0 characters"),
        (["shop.yaml", "--idempotency-key", "x" * 256], "256 characters"),
    ],
)
def test_bad_usage(jivs: Jivs, spec: Path, key: str, arguments: list[str], said: str) -> None:
    name, *rest = arguments
    result = jivs("submit", jivs.directory / name, *rest)
    assert result.code == 2
    assert said in result.stderr
    assert jivs("status", key).code == 2


def test_resume_detached(jivs: Jivs, spec: Path, key: str) -> None:
    assert jivs("resume", key, "--detach").code == 2
    jivs("submit", spec)
    jivs("cancel", key)
    answer = json.loads(jivs("resume", key, "--detach", "--json").stdout)
    assert (answer["status"], answer["duplicate"]) == ("queued", False)
    assert jivs("resume", key, "--detach", "--source", "sqlite:///a.db").code == 2


@pytest.mark.parametrize(("place", "there"), [("submit_before_commit", False), ("submit_after_commit", True)])
def test_killed_while_it_submits(jivs: Jivs, spec: Path, key: str, place: str, there: bool) -> None:
    """Sent again, it is asked for once."""
    submit = ("submit", spec, "--idempotency-key", f"client of {key}", "--json")
    jivs(*submit, env={"JIVS_FAILPOINT": f"{place}:kill"}, code=-9)
    assert json.loads(jivs(*submit, code=0).stdout)["duplicate"] is there
    told = json.loads(jivs("events", key, "--json").stdout)["events"]
    assert [event["type"] for event in told] == ["migration.queued"]
