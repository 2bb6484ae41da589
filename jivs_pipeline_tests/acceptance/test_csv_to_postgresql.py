"""`jivs run` from a directory of CSV files to PostgreSQL, as a user types it: what arrives is compared without the product."""

from __future__ import annotations

import csv
import io
import os
import random
import signal
from pathlib import Path

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import columns, constraints, ledger
from jivs_pipeline_tests.file_sources import write
from jivs_pipeline_tests.fix_cli import Jivs

SCHEMA = """
options: {nulls: ["", "\\\\N"]}
tables:
  typed:
    key: id
    columns:
      id: bigint
      big: numeric(20)
      price: {type: "numeric(10,2)", nullable: false}
      f: double precision
      r: real
      ok: boolean
      born: date
      at: timestamp
      seen: timestamptz
      t: time
      u: uuid
      j: json
      raw: bytea
      short: varchar(3)
      small: smallint
"""
HEADER = "id,big,price,f,r,ok,born,at,seen,t,u,j,raw,short,small"


def _all(target: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(target) as db:
        return db.execute(query.encode()).fetchall()


def test_text_stays_what_it_is(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """Zeros in front, NA, large numbers, quotes and lines in quotes; NULL and '' are two things."""
    values = ["00123", "", None, "NA", "NaN", "9007199254740993", "18446744073709551615", 'say "hi"', "a\nb\r\nc", " x ",
              "\\.", "\\N", "\\", "NULL", ",", "naïve 🦆", "1,2", "\t", "'", "x" * 100_000, "null", "-0", "1e5"]  # fmt: skip
    rows = [(str(n), v) for n, v in enumerate([*values, *values])]
    text = "".join(f"{n},{'' if v is None else _quoted(v)}\r\n" for n, v in rows)
    write(
        tmp_path,
        {
            "odd.csv": "﻿n,Mixed Case\r\n" + text.removesuffix("\r\n"),
            "single.csv": 'v\n\n""\n\\.\n"\\."\na\n\n',
            "none.csv": "a,b\n",
            "wide.csv": ",".join(f"c{n}" for n in range(1600))
            + "\n"
            + ",".join("1" * 1600)
            + "\n"
            + "," * 1599
            + "\n",
            "twice.tsv": "a\tb\n" + "1\t2\n" * 3,
            "parts/b.csv": "x\n3\n",
            "parts/a.csv": "x\n1\n2\n",
        },
    )
    urls = ("--source", f"csv:///{tmp_path}", "--target", target, "--key", key)
    document = jivs("run", *urls, "--json", code=0).document
    check_run(document)
    assert _all(target, 'SELECT n, "Mixed Case" FROM odd ORDER BY n::int') == [tuple(r) for r in rows]
    found = sorted(_all(target, "SELECT v FROM single"), key=str)
    assert found == sorted([(None,), ("",), ("\\.",), ("\\.",), ("a",), (None,)], key=str)
    assert _all(target, "SELECT * FROM none") == []
    assert sorted(_all(target, "SELECT * FROM wide"), key=str) == sorted(
        [("1",) * 1600, (None,) * 1600], key=str
    )
    assert _all(target, "SELECT * FROM twice") == [("1", "2")] * 3
    assert sorted(_all(target, "SELECT * FROM parts")) == [("1",), ("2",), ("3",)]
    assert {t["source_table"]: t["source_rows"] for t in document["tables"]}["files.single"] == 6
    again = jivs("run", *urls, code=0)
    assert "already completed" in again.stdout + again.stderr


def _quoted(value: str) -> str:
    doubled = value.replace('"', '""')
    return f'"{doubled}"'


def test_types_of_a_schema_file(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """Every type, with the values at its edges; PostgreSQL reads them and the digests agree."""
    rows = [
        (
            "1,18446744073709551615,0.10,0.1,0.1,t,2024-02-29,2024-02-29T23:59:59.100000,2024-02-29 23:59:59+05:30,"
            '23:59:59,A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11,"{""b"":1, ""a"": 1.0}",\\xDEADbeef,äöü,-32768'
        ),
        (
            "-9223372036854775808,-0,-99999999.99,-0,-0.0,FALSE,0001-01-01,9999-12-31 00:00:00,0999-01-01T00:00:00.5Z,"
            "00:00:00.000001,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,[],00ff,,32767"
        ),
        "+007,1e19,1,1.7976931348623157e308,3.4028235e38,1,\\N,,,,,,,\\N,",
        '8,,.5,NaN,-inf,No,,,2024-01-01 00:00:00-0800,,,1e400,"",a,',
        "9,,7.,5e-324,1e-45,on,,,,,,,,,",
    ]
    write(tmp_path, {"schema.yaml": SCHEMA, "typed.csv": "\n".join([HEADER, *rows])})
    document = jivs(
        "run", "--source", f"csv:///{tmp_path}", "--target", target, "--key", key, "--json", code=0
    ).document
    check_run(document)
    with psycopg.connect(target) as db:
        types = columns(db, "public", "typed")
        assert [c[0] for c in constraints(db, "p")] == ["typed"]
    assert types["price"] == "numeric(10,2)"
    assert types["seen"] == "timestamp with time zone"
    with psycopg.connect(target) as db:
        db.execute("SET TimeZone = 'UTC'")
        shown = [
            r[0]
            for r in db.execute(
                """SELECT array_to_string(ARRAY[id::text, big::text, price::text, f::text, r::text, ok::text, born::text,
                   at::text, seen::text, t::text, u::text, j::text, raw::text, short, small::text], '|', '∅')
                   FROM typed ORDER BY id"""
            )
        ]
    assert shown == [
        (
            "-9223372036854775808|0|-99999999.99|-0|-0|false|0001-01-01|9999-12-31 00:00:00|0999-01-01 00:00:00.5+00|"
            "00:00:00.000001|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|[]|\\x00ff|∅|32767"
        ),
        (
            "1|18446744073709551615|0.10|0.1|0.1|true|2024-02-29|2024-02-29 23:59:59.1|2024-02-29 18:29:59+00|23:59:59|"
            'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{"b":1, "a": 1.0}|\\xdeadbeef|äöü|-32768'
        ),
        "7|10000000000000000000|1.00|1.7976931348623157e+308|3.4028235e+38|true|∅|∅|∅|∅|∅|∅|∅|∅|∅",
        "8|∅|0.50|NaN|-Infinity|false|∅|∅|2024-01-01 08:00:00+00|∅|∅|1e400|\\x|a|∅",
        "9|∅|7.00|5e-324|1e-45|true|∅|∅|∅|∅|∅|∅|∅|∅|∅",
    ]


def test_what_is_no_csv_fails_its_table_only(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """The plan names file, line and count before a byte moves; the next run loads what was repaired."""
    write(tmp_path, {"good.csv": "a\n1\n", "bad.csv": "a,b\n1,2\n1\n2\n", "double.csv": "a,a\n1,2\n"})
    urls = ("--source", f"csv:///{tmp_path}", "--target", target)
    plan = jivs("plan", *urls, "--json", code=0).document
    reasons = {w["table"]: w["reason"] for w in plan["warnings"] if w["kind"] == "refused"}
    assert (
        reasons["files.bad"]
        == "records with too few fields (2 are expected): 2 in all, first in line 3 of bad.csv"
    )
    assert "double.csv: its header has column 'a' twice" in reasons["files.double"]
    document = jivs("run", *urls, "--key", key, "--json", code=1).document
    failed = {t["source_table"] for t in document["tables"] if t["error"]}
    assert failed == {"files.bad", "files.double"}
    assert _all(target, "SELECT * FROM good") == [("1",)]
    write(tmp_path, {"bad.csv": "a,b\n1,2\n1,3\n2,4\n", "double.csv": "a,b\n1,2\n"})
    jivs("run", *urls, "--key", key, "--json", code=0)
    assert sorted(_all(target, "SELECT * FROM bad")) == [("1", "2"), ("1", "3"), ("2", "4")]


@pytest.mark.parametrize("files", [None, {}, {"readme.txt": "x"}], ids=["missing", "empty", "other"])
def test_a_directory_without_tables_is_bad_usage(
    jivs: Jivs, target: str, tmp_path: Path, files: dict[str, str] | None
) -> None:
    """One sentence, exit code 2, nothing touched."""
    directory = tmp_path / "files"
    if files is not None:
        directory.mkdir()
        write(directory, files)
    ended = jivs("run", "--source", f"csv:///{directory}", "--target", target, "--json", code=2)
    message = ended.document["error"]["message"]
    assert str(directory) in message
    assert "Traceback" not in ended.stderr


def test_a_killed_run_goes_on(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """Killed between two chunks of the load; nothing is lost or doubled, and what is loaded stays."""
    rng = random.Random(7)
    rows = [[str(n), rng.choice(["", "a\nb", 'q"', "z" * 50]), str(rng.random())] for n in range(20_000)]
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["n", "v", "r"], *rows])
    write(tmp_path, {"t.csv": out.getvalue()})
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=65536)
    env = jivs.connections(legacy=f"csv:///{tmp_path}", warehouse=target)
    killed = jivs("run", spec, env={**env, "JIVS_FAILPOINT": "after_commit:kill"})
    assert killed.code in {-signal.SIGKILL, 137}, killed
    document = jivs("run", spec, "--json", code=0, env=env, seconds=180).document
    check_run(document)
    assert document["resumed"] is True
    assert sorted(_all(target, "SELECT n, v, r FROM t")) == sorted(map(tuple, rows))
    assert len(ledger(target, key)["public.t"]) > 10


def test_files_that_changed_are_not_compared(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """`jivs verify` reads the files again: other bytes are said, also where size and time are as before."""
    write(tmp_path, {"t.csv": "a\n1\n2\n"})
    spec = jivs.spec(key=key, source="legacy", target="warehouse")
    env = jivs.connections(legacy=f"csv:///{tmp_path}", warehouse=target)
    jivs("run", spec, "--json", code=0, env=env)
    assert jivs("verify", key, "--json", code=0, env=env).document["equal"] is True
    before = (tmp_path / "t.csv").stat()
    write(tmp_path, {"t.csv": "a\n1\n3\n"})
    os.utime(tmp_path / "t.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    ended = jivs("verify", key, "--json", env=env)
    assert ended.code == 1
    assert (
        "t.csv of connection 'legacy' changed after the plan was made" in ended.document["error"]["message"]
    )
