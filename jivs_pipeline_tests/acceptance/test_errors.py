"""Mistakes of a user: one sentence, the right exit code, nothing touched, no secret told."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline_tests.acceptance.contract import check_error
from jivs_pipeline_tests.acceptance.rows import catalog
from jivs_pipeline_tests.fix_cli import Ended, Jivs, password_of, with_parts
from jivs_pipeline_tests.sqlite_files import make_file

RIGHT, WRONG = "S3cret-right", "S3cret-wrong"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    script = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'canary-in-a-row');"
    return make_file(tmp_path / "small.sqlite", script)


@pytest.fixture
def role(jivs_home: tuple[Path, str], target: str) -> Iterator[str]:
    """A user with a password who may do anything in the target; sessions over scram."""
    name = f"r_{uuid4().hex[:8]}"
    with psycopg.connect(target, autocommit=True) as db:
        db.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(RIGHT))
        )
        db.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(name)))
        stored = db.execute(
            "SELECT rolpassword LIKE 'SCRAM-SHA-256$%%' FROM pg_authid WHERE rolname = %s", (name,)
        ).fetchone()
        assert stored == (True,)
    yield name
    with psycopg.connect(target, autocommit=True) as db:
        db.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        db.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def refused(jivs: Jivs, target: str, *argv: Any, env: dict[str, str], for_program: bool = False) -> str:
    """Run it as a person or with `--json`; it must say one thing and touch nothing. Returns the sentence."""
    before = catalog(target)
    if for_program:
        ended = jivs(*argv, "--json", code=2, env=env)
        error = check_error(ended.document)
        said = f"{error['message']}. {error['hint']}"
        assert ended.stderr == "", ended
    else:
        ended = jivs(*argv, code=2, env=env)
        assert ended.stdout == "", ended
        lines = ended.stderr.strip().splitlines()
        assert len(lines) == 1, ended
        assert lines[0].startswith("jivs: "), ended
        said = lines[0]
    no_secret(ended, password_of(target), RIGHT, WRONG)
    assert "Traceback" not in ended.stderr + ended.stdout
    assert catalog(target) == before
    return said


def no_secret(ended: Ended, *secrets: str) -> None:
    for secret in filter(None, secrets):
        assert secret not in ended.stdout + ended.stderr, f"{secret!r} is in what it printed"


def test_wrong_password(jivs: Jivs, target: str, key: str, source: Path, role: str) -> None:
    """Refused with the wrong one and accepted with the right one, as target and as source."""
    wrong = with_parts(target, user=role, password=WRONG)
    said = refused(
        jivs, target, "run", "--source", f"sqlite:///{source}", "--target", wrong, "--key", key, env={}
    )
    assert "password" in said.lower()
    env = jivs.connections(legacy=wrong, warehouse=target)
    spec = jivs.spec(key=key, source="legacy", target="warehouse", source_schema="elsewhere")
    assert "legacy" in refused(jivs, target, "run", spec, env=env, for_program=True)
    with psycopg.connect(target, autocommit=True) as db:
        db.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                sql.Identifier(db.info.dbname), sql.Identifier(role)
            )
        )
    right = with_parts(target, user=role, password=RIGHT)
    ended = jivs("run", "--source", f"sqlite:///{source}", "--target", right, "--key", key, "--json", code=0)
    no_secret(ended, RIGHT, password_of(target))


def test_nobody_listens(jivs: Jivs, target: str, key: str, source: Path) -> None:
    """A target that is down, and a source that is down."""
    down = with_parts(target, user="someone", password=WRONG, port=free_port())
    refused(jivs, target, "run", "--source", f"sqlite:///{source}", "--target", down, "--key", key, env={})
    refused(jivs, target, "run", "--source", down, "--target", target, "--key", key, env={}, for_program=True)


def test_no_such_database(jivs: Jivs, target: str, key: str, source: Path) -> None:
    missing = with_parts(target, database="no_such_database")
    said = refused(
        jivs, target, "run", "--source", f"sqlite:///{source}", "--target", missing, "--key", key, env={}
    )
    assert "no_such_database" in said


@pytest.mark.parametrize(
    "content",
    [None, b"", b"this is no database, but a text of some length" * 100],
    ids=["missing", "empty", "text"],
)
def test_the_source_file_is_no_database(
    jivs: Jivs, target: str, key: str, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "source.sqlite"
    if content is not None:
        path.write_bytes(content)
    said = refused(
        jivs, target, "run", "--source", f"sqlite:///{path}", "--target", target, "--key", key, env={}
    )
    assert path.name in said or "source" in said
    assert path.exists() == (content is not None), "it made the file that was missing"
    assert content is None or path.read_bytes() == content


SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "typo in a key": ({"targte": "warehouse"}, "targte"),
    "typo in a value": ({"on_existing": "replce"}, "replace"),
    "typo in a rule": ({"rules": {"t": {"renam": "x"}}}, "rename"),
    "unknown table in rules": ({"rules": {"tt": {"rename": "x"}}}, "'tt'"),
    "unknown table in include": ({"tables": {"include": ["nope"]}}, "nope"),
    "unknown column": ({"rules": {"t": {"columns": {"w": {"drop": True}}}}}, "t.w"),
    "no table left": ({"tables": {"exclude": ["*"]}}, "no table"),
    "reserved schema": ({"target_schema": "jivs_ledger"}, "reserved"),
    "name too long": ({"rules": {"t": {"rename": "x" * 64}}}, "63"),
    "stacked statements": ({"rules": {"t": {"where": "1; DROP TABLE t"}}}, "where"),
    "unknown connection": ({"source": "legasy"}, "legacy"),
    "a URL as connection": ({"source": f"postgresql://u:{WRONG}@h/d"}, "URL"),
    "wrong key": ({"key": "Not A Key"}, "key"),
}


@pytest.mark.parametrize("name", SPECS)
def test_mistakes_in_a_spec(jivs: Jivs, target: str, key: str, source: Path, name: str) -> None:
    changes, expected = SPECS[name]
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    spec = jivs.spec(**{"key": key, "source": "legacy", "target": "warehouse", **changes})
    # Half of them are read by a program.
    for_program = list(SPECS).index(name) % 2 == 1
    assert expected in refused(jivs, target, "run", spec, env=env, for_program=for_program)


def test_a_where_that_is_no_sql(jivs: Jivs, target: str, key: str, source: Path) -> None:
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    spec = jivs.spec(key=key, source="legacy", target="warehouse", rules={"t": {"where": "nosuchcolumn = 1"}})
    assert "nosuchcolumn" in refused(jivs, target, "run", spec, env=env)
    assert jivs("status", key, env=env).code == 2, "nothing was touched, and yet there is a migration"


def test_specs_that_cannot_be_read(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    broken, tagged = tmp_path / "broken.yaml", tmp_path / "tagged.yaml"
    broken.write_text("key: [unclosed\nsource: x")
    tagged.write_text("key: !!python/object/apply:os.system ['true']\nsource: a\ntarget: b\n")
    assert "line" in refused(jivs, target, "run", broken, env={})
    assert "tag" in refused(jivs, target, "run", tagged, env={})
    assert "absent.yaml" in refused(jivs, target, "run", tmp_path / "absent.yaml", env={})


def test_bad_usage(jivs: Jivs, target: str, source: Path) -> None:
    """Unknown commands and options, missing and contradicting ones, URLs that are refused."""
    sqlite = f"sqlite:///{source}"
    spec = jivs.spec(key="k", source="a", target="b")
    cases: list[tuple[str, ...]] = [
        ("rnu",),
        ("run", "--no-such-option"),
        ("run",),
        ("run", "--source", sqlite),
        ("run", str(spec), "--source", sqlite, "--target", target),
        ("run", "--source", sqlite, "--target", f"{target}?service=x"),
        ("run", "--source", sqlite, "--target", f"{target}?nonsense=x"),
        ("run", "--source", "ftp://host/file", "--target", target),
        ("run", "--source", sqlite, "--target", "sqlite:///other.db"),
        ("verify",),
    ]
    before = catalog(target)
    for argv in cases:
        ended = jivs(*argv, code=2)
        assert len(ended.stderr.strip().splitlines()) == 1, ended
        assert ended.stdout == "", ended
        no_secret(ended, password_of(target))
    assert check_error(jivs("run", "--no-such-option", "--json", code=2).document)["code"] == "usage"
    assert catalog(target) == before


@pytest.mark.parametrize("command", [("status",), ("report",), ("verify",), ("events",)], ids=lambda c: c[0])
def test_unknown_key(jivs: Jivs, target: str, command: tuple[str, ...]) -> None:
    said = refused(jivs, target, *command, "no-such-migration", env={}, for_program=command[0] == "verify")
    assert "no-such-migration" in said


def test_failpoint_and_connections_file(
    jivs: Jivs, target: str, key: str, source: Path, tmp_path: Path
) -> None:
    """Broken settings are mistakes of a user, too; a connections file works like the environment."""
    file = tmp_path / "connections.yaml"
    file.write_text(
        json.dumps({"legacy": {"url": f"sqlite:///{source}"}, "warehouse": {"url": "${WAREHOUSE}"}})
    )
    spec = jivs.spec(key=key, source="legacy", target="warehouse")
    env = {"JIVS_CONNECTIONS": str(file)}
    assert "WAREHOUSE" in refused(jivs, target, "run", spec, env=env)
    file.write_text("legacy: [")
    assert "YAML" in refused(jivs, target, "run", spec, env=env)
    assert "JIVS_FAILPOINT" in refused(jivs, target, "status", env={"JIVS_FAILPOINT": "nonsense"})
