"""Validations: what does not pass is found before the target is touched, counted, shown by example, or quarantined."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.fix_cli import Jivs

SCHEMA = """
CREATE TABLE customer (id integer PRIMARY KEY, email text NOT NULL, country text, total numeric(10,2));
CREATE TABLE orders (id integer PRIMARY KEY, customer integer, code text, amount integer);
"""
# 1,000 customers: 7 with an address that is none, 50 without a country, 3 with a negative total, 2 addresses twice.
CUSTOMERS = [
    (n, "no address" if n % 150 == 0 else f"p{n if n not in {8, 9} else 7}@x.org", None if n % 20 == 0 else "DE", -1 if n in {11, 12, 13} else n)
    for n in range(1, 1001)
]  # fmt: skip
# 500 orders: 4 of customers that are not there, and 5 without one, which is no error.
ORDERS = [(n, 5000 + n if n in {3, 33, 333, 444} else None if n % 100 == 0 else n, f"A-{n:04d}" if n != 77 else "B77", n) for n in range(1, 501)]  # fmt: skip
CHECKS: dict[str, tuple[dict[str, Any], int]] = {
    "schema": ({"table": "clients", "columns": ["id", "email"]}, 0),
    "data_type": ({"table": "orders", "column": "code", "type": "varchar(5)"}, 499),
    "constraints": ({"table": "clients"}, 0),
    "referential": ({"table": "orders", "column": "customer", "references": {"table": "clients", "columns": ["id"]}}, 4),
    "business": ({"table": "clients", "expression": "total >= 0"}, 3),
    "completeness": ({"table": "clients", "column": "country"}, 50),
    "uniqueness": ({"table": "clients", "column": "email"}, 2 + 5),
    "format": ({"table": "orders", "column": "code", "pattern": "A-[0-9]{4}"}, 1),
}  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path, make_target: Callable[[], str]) -> str:
    if request.param == "sqlite":
        with closing(sqlite3.connect(tmp_path / "a.db")) as lite:
            lite.executescript(SCHEMA)
            lite.executemany("INSERT INTO customer VALUES (?, ?, ?, ?)", CUSTOMERS)
            lite.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", ORDERS)
            lite.commit()
        return f"sqlite:///{tmp_path / 'a.db'}"
    url = make_target()
    with psycopg.connect(url) as db, db.cursor() as cursor:
        db.execute(SCHEMA.encode())
        cursor.executemany("INSERT INTO customer VALUES (%s, %s, %s, %s)", CUSTOMERS)
        cursor.executemany("INSERT INTO orders VALUES (%s, %s, %s, %s)", ORDERS)
    return url


def _spec(jivs: Jivs, key: str, checks: list[dict[str, Any]], **more: Any) -> str:
    usual = {"rules": {"customer": {"rename": "clients"}}}
    return jivs.spec(
        key=key, source="a", target="b", chunk_bytes=65536, validation=checks, **{**usual, **more}
    )


def test_all_kinds_count_what_does_not_pass(jivs: Jivs, source: str, target: str, key: str) -> None:
    env = jivs.connections(a=source, b=target)
    checks = [{"kind": kind, **check} for kind, (check, _) in CHECKS.items()]
    document = jivs("run", _spec(jivs, key, checks), "--json", code=0, env=env).document
    found: dict[str, int] = {}
    for check in document["validation"]["checks"]:
        found[check["kind"]] = found.get(check["kind"], 0) + check["failed"]
    assert found == {kind: count for kind, (_, count) in CHECKS.items()}
    assert not document["validation"]["passed"]
    assert 80 < document["validation"]["score"] < 100
    assert [t["target_rows"] for t in document["tables"]] in ([1000, 500], [500, 1000])
    assert [t["quarantined_rows"] for t in document["tables"]] == [0, 0]
    examples = jivs("quarantine", "list", key, "--json", code=0, env=env).document["rows"]
    business = [e for e in examples if "total >= 0" in e["reason"]]
    assert [e["key"] for e in business] == [{"id": "11"}, {"id": "12"}, {"id": "13"}]
    assert len([e for e in examples if e["reason"].startswith("example: does not pass data_type")]) == 10
    assert jivs("verify", key, "--json", code=0, env=env).document["equal"]


@pytest.mark.parametrize("how", ["critical", "strict"])
def test_what_must_hold_stops_before_the_target_is_touched(
    jivs: Jivs, source: str, target: str, key: str, how: str
) -> None:
    env = jivs.connections(a=source, b=target)
    check = {"kind": "business", "table": "clients", "expression": "total >= 0", "name": "no debts"}
    more: dict[str, Any] = {"strict": True}
    if how == "critical":
        check, more = {**check, "severity": "critical"}, {}
    ended = jivs("run", _spec(jivs, key, [check], **more), "--json", code=4, env=env)
    assert ended.document["status"] == "mismatch"
    assert "no debts (public.clients): 3 of 1,000 rows do not pass" in ended.document["error"]["message"]
    with psycopg.connect(target) as db:
        row = db.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
        assert row == (0,)
        assert db.execute("SELECT to_regnamespace('jivs_ledger')").fetchone() == (None,)
    assert not jivs.staged
    # The source is corrected, and the same command goes on.
    statement = "UPDATE customer SET total = 0 WHERE total < 0"
    if source.startswith("sqlite"):
        with closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as lite:
            lite.execute(statement)
            lite.commit()
    else:
        with psycopg.connect(source) as db:
            db.execute(statement)  # pyright: ignore[reportArgumentType]
    document = jivs("run", _spec(jivs, key, [check], **more), "--json", code=0, env=env).document
    assert document["validation"] == {
        "score": 100.0,
        "passed": True,
        "checks": [{**document["validation"]["checks"][0], "failed": 0, "passed": True}],
    }


def test_rows_that_do_not_pass_can_be_quarantined(jivs: Jivs, source: str, target: str, key: str) -> None:
    env = jivs.connections(a=source, b=target)
    checks = [
        {"kind": "format", "table": "clients", "column": "email", "pattern": ".+@.+", "quarantine": True},
        {"kind": "business", "table": "clients", "expression": "total >= 0", "severity": "critical", "quarantine": True},
        {"kind": "completeness", "table": "clients", "column": "country", "at_least": 0.9, "severity": "critical"},
    ]  # fmt: skip
    few = jivs(
        "run", _spec(jivs, key, checks, quarantine={"max_rows": 8}), "--json", code=1, env=env
    ).document
    told = {t["target_table"]: t["error"] for t in few["tables"]}
    assert "more bad rows than quarantine.max_rows allows" in told["public.clients"]["message"]
    assert told["public.orders"] is None
    document = jivs(
        "run", _spec(jivs, key, checks, quarantine={"max_rows": 9}), "--json", code=0, env=env
    ).document
    clients = next(t for t in document["tables"] if t["target_table"] == "public.clients")
    assert (clients["source_rows"], clients["target_rows"], clients["quarantined_rows"]) == (1000, 991, 9)
    assert document["validation"]["passed"]
    rows = jivs("quarantine", "list", key, "--json", code=0, env=env).document["rows"]
    gone = sorted(int(r["key"]["id"]) for r in rows if not r["reason"].startswith("example"))
    assert gone == sorted([11, 12, 13, *range(150, 1001, 150)])
    with psycopg.connect(target) as db:
        row = db.execute(
            "SELECT count(*), count(*) FILTER (WHERE total < 0 OR email NOT LIKE '%@%') FROM clients"
        ).fetchone()
        assert row == (991, 0)
    again = jivs("verify", key, "--json", code=0, env=env).document
    assert next(t for t in again["tables"] if t["target_table"] == "public.clients")["quarantined_rows"] == 9
    # Some are corrected, and go in; the others stay with their reason.
    fixes = [
        "UPDATE customer SET email = 'new' || id || '@x.org' WHERE email = 'no address' AND id <> 300",
        "UPDATE customer SET total = 1 WHERE total < 0",
    ]
    if source.startswith("sqlite"):
        with closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as lite:
            lite.executescript(";".join(fixes))
    else:
        with psycopg.connect(source) as db:
            for fix in fixes:
                db.execute(fix)  # pyright: ignore[reportArgumentType]
    replayed = jivs("quarantine", "replay", key, "--json", code=4, env=env).document
    assert (replayed["replayed"], replayed["stayed"]) == (8, 1)
    # The last by another validation; every row that is in already stays what it is.
    checks[0]["pattern"] = "no address|.+@.+"
    spec = _spec(jivs, key, checks, quarantine={"max_rows": 9})
    replayed = jivs("quarantine", "replay", key, "--spec", spec, "--json", code=0, env=env).document
    assert (replayed["replayed"], replayed["stayed"]) == (1, 0)
    with psycopg.connect(target) as db:
        assert db.execute("SELECT count(*), count(DISTINCT id) FROM clients").fetchone() == (1000, 1000)
    again = jivs("verify", key, "--json", code=0, env=env).document
    clients = next(t for t in again["tables"] if t["target_table"] == "public.clients")
    assert (clients["equal"], clients["source_rows"], clients["quarantined_rows"]) == (True, 1000, 0)


@pytest.mark.parametrize("source", ["sqlite"], indirect=True)
def test_a_check_that_fits_no_table_is_a_mistake_in_the_spec(
    jivs: Jivs, source: str, target: str, key: str
) -> None:
    env = jivs.connections(a=source, b=target)
    for command, check, said in (
        ("plan", {"kind": "business", "table": "client", "expression": "true"}, "validates table 'client'"),
        ("run", {"kind": "completeness", "table": "clients", "column": "mail"}, "has no column 'mail'"),
        ("run", {"kind": "business", "table": "clients", "expression": "totl > 0"}, "there is no column 'totl'"),
        ("plan", {"kind": "business", "table": "clients", "expression": "random() > 0"}, "does not depend on the row alone"),
        ("submit", {"kind": "format", "table": "clients", "column": "email", "pattern": "("}, "pattern is not accepted"),
        ("submit", {"kind": "referential", "table": "orders", "column": "customer", "references": {"table": "x", "columns": ["id"]}}, "there is no table 'x'"),
    ):  # fmt: skip
        ended = jivs(command, _spec(jivs, key, [check]), "--json", code=2, env=env)
        assert said in ended.document["error"]["message"], ended
    # It is found before any state is written, in rules as in validations.
    rules = {"customer": {"columns": {"email": {"expression": "lower(mail)"}}}}
    ended = jivs("run", _spec(jivs, key, [], rules=rules), "--json", code=2, env=env)
    assert "there is no column 'mail'" in ended.document["error"]["message"]
    assert "no migration" in jivs("status", key, code=2, env=env).stderr
