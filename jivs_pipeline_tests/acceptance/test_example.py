"""docs/example.md, run as it is printed."""

from __future__ import annotations

import hashlib
import hmac
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import yaml

from jivs_pipeline_tests.fix_cli import Jivs
from jivs_pipeline_tests.legacy import make_legacy

PAGE = (Path(__file__).parents[2] / "docs" / "example.md").read_text(encoding="utf-8")
KEY = "the key of the example"


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_worked_example(jivs: Jivs, target: str, tmp_path: Path, key: str) -> None:
    expected = make_legacy(tmp_path / "legacy.db")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "crm_rules.py").write_text(_block("python"))
    env = {
        **jivs.connections(legacy=f"sqlite:///{tmp_path / 'legacy.db'}", warehouse=target),
        "JIVS_MASK_KEY": KEY,
        "JIVS_PYTHON_RULES": str(tmp_path / "rules"),
    }
    spec = jivs.spec(**{**yaml.safe_load(_block("yaml")), "key": key})
    planned = jivs("plan", spec, "--sample", "--json", code=0, env=env).document
    sample = planned["samples"]["main.cust"]
    assert [(row["id"], row["full_name"], row["notes"]) for row in sample[:1]] == [
        ("1", "Ann1 SMITH1", "[redacted]")
    ]
    assert "SSN-" not in str(planned)
    document = jivs("run", spec, "--json", code=0, env=env).document
    tables = {t["target_table"]: t for t in document["tables"]}
    bad = len(expected.no_birthday) + len(expected.no_address)
    assert tables["crm.customers"]["target_rows"] == len(expected.customers)
    assert tables["crm.customers"]["quarantined_rows"] == bad
    assert tables["crm.orders"]["target_rows"] == expected.orders - len(expected.negative)
    assert tables["crm.customers"]["rules"]["ssn: mask"] == len(expected.customers | expected.no_address)
    assert tables["crm.customers"]["rules"]["rows: dedupe"] > 0

    with closing(sqlite3.connect(tmp_path / "legacy.db")) as lite:
        legacy = {row[0]: row for row in lite.execute("SELECT * FROM cust")}
        countries = dict(lite.execute("SELECT code, name FROM country"))
    with psycopg.connect(target) as db:
        query = "SELECT id, email, full_name, born_on::text, country, segment, ssn, phone, notes, photo, zip FROM crm.customers"
        arrived = {row[0]: row[1:] for row in db.execute(query)}
        assert set(arrived) == expected.customers
        for n, row in arrived.items():
            _, first, last, mail, born, ssn, phone, zip_, country, segment, *_ = legacy[n]
            day, month, year = born.split(".")
            assert row == (
                mail.strip().lower(), f"{first.strip()} {last.strip().upper()}", f"{year}-{month}-{day}",
                countries.get(country), segment or "unknown", hmac.digest(KEY.encode(), ssn.encode(), "sha256").hex(),
                hashlib.sha256(phone.encode()).hexdigest(), "[redacted]", None, zip_.replace(" ", ""),
            )  # fmt: skip
        found = {id_ for (id_,) in db.execute("SELECT id FROM crm.orders")}
        assert found.isdisjoint(expected.negative)

    kinds = {c["kind"] for c in document["validation"]["checks"]}
    assert len(kinds) == 8
    failed = {c["kind"] for c in document["validation"]["checks"] if not c["passed"]}
    assert failed == {"referential"}, "orders of customers that are gone, which the spec takes as minor"
    listed = jivs("quarantine", "list", key, "--json", code=0, env=env).document["rows"]
    gone = {
        int(r["key"]["id"]) for r in listed if r["table"] == "crm.customers" and "example" not in r["reason"]
    }
    assert gone == expected.no_birthday | expected.no_address
    assert jivs("verify", key, "--json", code=0, env=env).document["equal"]
    # Nothing in clear is left of what is masked.
    for path in [*jivs.home.rglob("*"), *jivs.staged]:
        if path.is_file() and "data" not in path.parts:
            content = path.read_bytes()
            assert b"SSN-00" not in content, path
            assert b"secret of" not in content, path
