"""`jivs init` writes a spec that plans and runs as it stands; `jivs plan --diff` tells what changed since."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import yaml

from jivs_pipeline_tests.fix_cli import Jivs

SCRIPT = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name VARCHAR(20), "odd # name" TEXT);
CREATE TABLE mixed (n INTEGER);
CREATE TABLE "yes" (a INTEGER);
INSERT INTO customer VALUES (1, 'a', 'x'), (2, 'b', NULL);
INSERT INTO mixed VALUES (1), ('text');
"""


def _execute(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as lite:
        lite.executescript(script)


def test_a_spec_to_begin_with(jivs: Jivs, target: str, tmp_path: Path, key: str) -> None:
    _execute(tmp_path / "a.db", SCRIPT)
    env = jivs.connections(legacy=f"sqlite:///{tmp_path / 'a.db'}", warehouse=target)
    out = tmp_path / "spec.yaml"
    told = jivs(
        "init", "legacy", "warehouse", "--key", key, "--out", str(out), "--json", code=0, env=env
    ).document
    assert told == {"key": key, "spec": str(out), "schema": str(tmp_path / "jivs.schema.json")}
    text = out.read_text()
    assert yaml.safe_load(text) == {
        "key": key,
        "source": "legacy",
        "target": "warehouse",
        "target_schema": "public",
    }
    assert "#   customer:  # 2 rows" in text
    assert '"odd # name"' in text
    assert '#   "yes":' in text
    assert "main.mixed.n: mixes" in text
    assert "$schema=jivs.schema.json" in text
    assert json.loads((tmp_path / "jivs.schema.json").read_text())["title"] == "Spec"
    # Every comment of the rules is one that YAML and the spec take.
    rules = text[text.index("# rules:") : text.index("# validation:")]
    parsed = yaml.safe_load("\n".join(line.removeprefix("# ") for line in rules.splitlines()))
    assert set(parsed["rules"]) == {"customer", "mixed", "yes"}
    assert set(parsed["rules"]["customer"]["columns"]) == {"id", "name", "odd # name"}
    with psycopg.connect(target) as db:
        row = db.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
        assert row == (0,)
    assert (
        "is there already" in jivs("init", "legacy", "warehouse", "--out", str(out), code=2, env=env).stderr
    )

    nothing = jivs("plan", str(out), "--diff", "--json", code=0, env=env).document
    assert nothing["changes"] is None
    jivs("run", str(out), "--json", code=1, env=env)
    assert jivs("plan", str(out), "--diff", "--json", code=0, env=env).document["changes"] == []
    _execute(
        tmp_path / "a.db",
        "ALTER TABLE customer ADD COLUMN more TEXT; DROP TABLE \"yes\"; DELETE FROM mixed WHERE n = 'text'; CREATE TABLE fresh (a)",
    )
    changes = jivs("plan", str(out), "--diff", "--json", code=0, env=env).document["changes"]
    found = {(c["table"], c["what"]) for c in changes}
    assert {
        ("main.customer", "column more"), ("main.yes", "table"), ("main.mixed", "refused"), ("main.fresh", "table"),
        ("main.mixed", "rows"),
    } <= found  # fmt: skip
    shown = jivs("plan", str(out), "--diff", code=0, env=env).stdout
    assert "+ main.customer: column more: more text" in shown
    assert "- main.yes: table: public.yes" in shown


def test_init_by_urls_keeps_them_out_of_the_spec(jivs: Jivs, target: str, tmp_path: Path) -> None:
    _execute(tmp_path / "legacy.db", SCRIPT)
    ended = jivs("init", f"sqlite:///{tmp_path / 'legacy.db'}", target, code=0)
    spec = yaml.safe_load(ended.stdout)
    assert spec["source"] == "legacy"
    assert "://" not in ended.stdout
