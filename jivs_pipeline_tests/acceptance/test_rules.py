"""Rules of a spec on their way: what they make of rows is told by Python here, which shares nothing with DuckDB."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from jivs_pipeline_tests.fix_cli import Jivs

KEY = "a key that is long enough"
TABLES = """
CREATE TABLE customer (id integer PRIMARY KEY, email varchar(80) NOT NULL, ssn varchar(20), notes varchar(40),
                       born varchar(10), price decimal(10,2), rate double precision, seen timestamp, active integer);
CREATE TABLE visit (id integer PRIMARY KEY, ssn varchar(20), at date);
"""


def _customer(n: int) -> tuple[Any, ...]:
    return (
        n,
        f"Person {n}@Example.ORG",
        None if n % 7 == 0 else f"{n:09d}",
        f'note, "{n}"\nwith a line' if n % 3 else "",
        f"19{n % 90 + 10}-0{n % 9 + 1}-1{n % 9}",
        None if n % 5 == 0 else f"{n}.{n % 100:02d}",
        n / 7,
        f"2024-01-01 00:00:{n % 60:02d}" if n % 4 else None,
        n % 2,
    )


CUSTOMERS = [_customer(n) for n in range(1, 3001)]
VISITS = [(n, f"{n:09d}", "2024-02-29") for n in range(1, 501)]
RULES = {
    "customer": {
        "rename": "clients",
        "columns": {
            "email": {"expression": "lower(replace(email, ' ', '.'))"},
            "ssn": {"mask": "hmac"},
            "notes": {"drop": True},
            "born": {"type": "date", "rename": "born_on"},
            "price": {"default": 0, "expression": "price * 2"},
            "seen": {"expression": "seen + INTERVAL 1 DAY"},
            "label": {"expression": "notes || id"},
        },
    },
    "visit": {"columns": {"ssn": {"mask": "hmac"}}},
}


def _literal(value: Any) -> str:
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


def _script() -> str:
    return TABLES + ";\n".join(
        f"INSERT INTO {table} VALUES " + ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
        for table, rows in (("customer", CUSTOMERS), ("visit", VISITS))
    )


@pytest.fixture(params=["sqlite", "postgresql", "mysql", "csv", "parquet"])
def source(request: pytest.FixtureRequest, tmp_path: Path, make_target: Callable[[], str]) -> str:
    kind = request.param
    if kind == "mysql":
        return request.getfixturevalue("make_mysql")(_script().replace("seen timestamp", "seen datetime"))
    if kind == "postgresql":
        url = make_target()
        with psycopg.connect(url) as db:
            db.execute(_script().encode())
        return url
    file = tmp_path / "legacy.db"
    with closing(sqlite3.connect(file)) as lite:
        lite.executescript(TABLES)
        lite.executemany(f"INSERT INTO customer VALUES ({', '.join('?' * 9)})", CUSTOMERS)
        lite.executemany("INSERT INTO visit VALUES (?, ?, ?)", VISITS)
        lite.commit()
    if kind == "sqlite":
        return f"sqlite:///{file}"
    return _files(kind, tmp_path / "files")


def _files(kind: str, folder: Path) -> str:
    folder.mkdir()
    shape = [
        ("id", pa.int32()), ("email", pa.string()), ("ssn", pa.string()), ("notes", pa.string()), ("born", pa.string()),
        ("price", pa.decimal128(10, 2)), ("rate", pa.float64()), ("seen", pa.timestamp("us")), ("active", pa.int32()),
    ]  # fmt: skip
    rows = [
        (*r[:5], r[5] and Decimal(r[5]), r[6], r[7] and datetime.fromisoformat(r[7]), r[8]) for r in CUSTOMERS
    ]
    customer = pa.table([pa.array(c, t) for c, (_, t) in zip(zip(*rows, strict=True), shape, strict=True)], names=[n for n, _ in shape])  # fmt: skip
    visit = pa.table({"id": pa.array([r[0] for r in VISITS], pa.int32()), "ssn": [r[1] for r in VISITS], "at": pa.array([date(2024, 2, 29)] * len(VISITS))})  # fmt: skip
    for name, table in (("customer", customer), ("visit", visit)):
        if kind == "parquet":
            pq.write_table(table, folder / f"{name}.parquet", row_group_size=700)
        else:
            pacsv.write_csv(table, folder / f"{name}.csv")
    if kind == "csv":
        types = {
            "customer": {"id": "integer", "price": "numeric(10,2)", "rate": "double precision", "seen": "timestamp", "active": "integer"},
            "visit": {"id": "integer", "at": "date"},
        }  # fmt: skip
        text = {"tables": {t: {"columns": c} for t, c in types.items()}}
        (folder / "schema.yaml").write_text(json.dumps(text))
    return f"{kind}:///{folder}"


def _masked(value: str | None) -> str | None:
    return value and hmac.digest(KEY.encode(), value.encode(), "sha256").hex()


def _spec(jivs: Jivs, key: str, **changes: Any) -> str:
    return jivs.spec(
        **{"key": key, "source": "a", "target": "b", "chunk_bytes": 65536, "rules": RULES, **changes}
    )


def test_rules_change_what_arrives(jivs: Jivs, source: str, target: str, key: str) -> None:
    env = {**jivs.connections(a=source, b=target), "JIVS_MASK_KEY": KEY}
    spec = _spec(jivs, key)
    document = jivs("run", spec, "--json", code=0, env=env).document
    assert [t["verified"] for t in document["tables"]] == [True, True]
    expected = {
        n: (
            f"person.{n}@example.org",
            _masked(ssn),
            date.fromisoformat(born),
            Decimal(price or 0) * 2,
            rate,
            seen and datetime.fromisoformat(seen) + timedelta(days=1),
            active,
            f"{notes}{n}",
        )
        for n, _, ssn, notes, born, price, rate, seen, active in CUSTOMERS
    }
    with psycopg.connect(target) as db:
        query = "SELECT id, email, ssn, born_on, price, rate, seen, active, label FROM clients"
        found = {row[0]: row[1:] for row in db.execute(query)}
        columns = db.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'clients'"
        )
        assert "notes" not in {name for (name,) in columns}
        assert {k: v for k, v in found.items() if v != expected[k]} == {}
        assert len(found) == len(expected)
        # The same key makes the same of the same value, so that joins still hold.
        row = db.execute("SELECT count(*) FROM clients JOIN visit USING (ssn)").fetchone()
        assert row == (sum(1 for n in range(1, 501) if n % 7),)

    again = jivs("verify", key, "--json", code=0, env=env).document
    assert again["equal"]
    with psycopg.connect(target) as db:
        db.execute("UPDATE clients SET email = email || ' ' WHERE id = 17")
    different = jivs("verify", key, "--json", code=4, env=env).document
    changed = next(t for t in different["tables"] if not t["equal"])
    if source.split(":", maxsplit=1)[0] not in {"csv", "parquet"}:
        assert changed["differences"] == [{"key": {"id": "17"}, "kind": "changed", "columns": ["email"]}]
    # Nothing in clear is left anywhere of ours.
    for path in [*jivs.home.rglob("*"), *jivs.staged]:
        if path.is_file() and "data" not in path.parts:
            assert b"000000017" not in path.read_bytes(), path


@pytest.mark.parametrize("source", ["sqlite", "postgresql"], indirect=True)
def test_sha256_redact_and_null(jivs: Jivs, source: str, target: str, key: str) -> None:
    env = jivs.connections(a=source, b=target)
    masks = {"email": {"mask": "redact"}, "ssn": {"mask": "sha256"}, "born": {"mask": "null"}}
    jivs("run", _spec(jivs, key, rules={"customer": {"columns": masks}}), "--json", code=0, env=env)
    with psycopg.connect(target) as db:
        found = db.execute("SELECT id, email, ssn, born FROM customer ORDER BY id").fetchall()
    assert found == [
        (n, "[redacted]", ssn and hashlib.sha256(ssn.encode()).hexdigest(), None)
        for n, _, ssn, *_ in CUSTOMERS
    ]


def test_a_rule_saves_what_would_be_refused(
    jivs: Jivs, make_target: Callable[[], str], make_mysql: Callable[[str], str], tmp_path: Path, key: str
) -> None:
    """Zero dates of MySQL, and text among SQLite's integers: refused as they are, carried by a rule that says how."""
    with closing(sqlite3.connect(tmp_path / "mixed.db")) as lite:
        lite.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, x REAL)")
        rows = [(1, 12, 0.1), (2, "n/a", "?"), (3, 1.5, 2.5), (4, None, None)]
        lite.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        lite.commit()
    zero = make_mysql(
        "SET sql_mode = '';\nCREATE TABLE t (id int PRIMARY KEY, d date, m datetime(3));\n"
        "INSERT INTO t VALUES (1, '0000-00-00', '0000-00-00 00:00:00'), (2, '2024-02-29', '2024-01-01 10:00:00.5'), (3, NULL, NULL)"
    )
    cases: list[tuple[str, dict[str, Any], list[tuple[Any, ...]]]] = [
        (
            f"sqlite:///{tmp_path / 'mixed.db'}",
            {"n": {"type": "text"}, "x": {"expression": "TRY_CAST(x AS DOUBLE)"}},
            [(1, "12", 0.1), (2, "n/a", None), (3, "1.5", 2.5), (4, None, None)],
        ),
        (
            zero,
            {
                "d": {"expression": "nullif(d, '0000-00-00')", "type": "date"},
                "m": {"expression": "CASE WHEN m NOT LIKE '0000%' THEN m END", "type": "timestamp"},
            },
            [(1, None, None), (2, date(2024, 2, 29), datetime.fromisoformat("2024-01-01T10:00:00.500")), (3, None, None)],
        ),
    ]  # fmt: skip
    for number, (url, columns, expected) in enumerate(cases):
        target = make_target()
        env = jivs.connections(a=url, b=target)
        spec = {"key": f"{key}-{number}", "source": "a", "target": "b"}
        assert jivs("run", jivs.spec(**spec), "--json", code=1, env=env).document["tables"][0]["error"]
        ruled = jivs.spec(**spec, rules={"t": {"columns": columns}})
        jivs("run", ruled, "--json", code=0, env=env)
        with psycopg.connect(target) as db:
            found = db.execute("SELECT * FROM t ORDER BY id").fetchall()
        assert [tuple(map(repr, row)) for row in found] == [tuple(map(repr, row)) for row in expected]
        assert jivs("verify", spec["key"], "--json", code=0, env=env).document["equal"]
