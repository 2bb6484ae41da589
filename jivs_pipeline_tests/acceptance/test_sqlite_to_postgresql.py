"""`jivs run` from SQLite to PostgreSQL, as a user types it: what arrives is compared without the product."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from jivs_pipeline.infra.sample import build_sample
from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import (
    assert_same_database,
    assert_same_table,
    columns,
    constraints,
    indexes,
    ledger,
    next_value,
    sqlite_tables,
    tables_of,
)
from jivs_pipeline_tests.databases import CHINOOK_ROWS, build_chinook_like
from jivs_pipeline_tests.fix_cli import Ended, Jivs, new_database
from jivs_pipeline_tests.sqlite_files import make_file


@dataclass(frozen=True)
class Migrated:
    """The Chinook-like database after one run without a spec."""

    source: Path
    target: str
    key: str
    ended: Ended


@pytest.fixture(scope="module")
def chinook(jivs_home: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migrated]:
    home, server = jivs_home
    directory = tmp_path_factory.mktemp("chinook")
    source = directory / "chinook.sqlite"
    build_chinook_like(source)
    with new_database(server) as target:
        key = f"k-{uuid4().hex[:12]}"
        jivs = Jivs(home, directory, server)
        ended = jivs("run", "--source", f"sqlite:///{source}", "--target", target, "--key", key, "--json")
        yield Migrated(source, target, key, ended)


def test_every_row_arrives_with_its_type(chinook: Migrated) -> None:
    """All 15,607 rows are equal in value and type; the tables are exactly the source's, names in mixed case."""
    assert chinook.ended.code == 0, chinook.ended
    assert_same_database(chinook.source, chinook.target)
    with psycopg.connect(chinook.target) as db:
        types = columns(db, "public", "Track")
    assert types["TrackId"] == "bigint"
    assert types["Name"] == "character varying(200)"
    assert types["UnitPrice"] == "numeric(10,2)"


def test_the_document_is_the_contracts(chinook: Migrated) -> None:
    document = chinook.ended.document
    check_run(document)
    assert document["key"] == chinook.key
    assert document["resumed"] is False
    assert document["rows"] == 15_607
    assert {t["source_table"]: t["source_rows"] for t in document["tables"]} == {
        f"main.{t}": n for t, n in CHINOOK_ROWS.items()
    }
    assert {t["target_table"] for t in document["tables"]} == {f"public.{t}" for t in CHINOOK_ROWS}
    assert {t["lane"] for t in document["tables"]} == {"arrow"}
    chunks = ledger(chinook.target, chinook.key)
    assert {t["target_table"]: t["chunks"] for t in document["tables"]} == {
        t: len(c) for t, c in chunks.items()
    }
    assert {t["target_table"]: t["target_rows"] for t in document["tables"]} == {
        t: sum(rows for _, rows, *_ in c) for t, c in chunks.items()
    }
    assert Path(document["report"]).is_file()


def test_keys_references_and_indexes_are_the_sources(chinook: Migrated) -> None:
    with closing(sqlite3.connect(chinook.source)) as lite, psycopg.connect(chinook.target) as db:
        primary, foreign, made, required = set(), set(), set(), set()
        for table in sqlite_tables(chinook.source):
            info = lite.execute(f"PRAGMA table_info([{table}])").fetchall()
            in_key = sorted((r for r in info if r[5]), key=lambda r: r[5])
            primary.add(
                (table, f"PRIMARY KEY ({', '.join(_named(r[1]) for r in in_key)})", True, False, False)
            )
            required |= {(table, r[1]) for r in info if r[3] or r[5]}
            for _, _, parent, column, theirs, *_ in lite.execute(f"PRAGMA foreign_key_list([{table}])"):
                definition = (
                    f"FOREIGN KEY ({_named(column)}) REFERENCES public.{_named(parent)}({_named(theirs)})"
                )
                foreign.add((table, definition, True, False, False))
            for _, index, unique, origin, _ in lite.execute(f"PRAGMA index_list([{table}])"):
                if origin == "c":
                    named = ", ".join(_named(r[2]) for r in lite.execute(f"PRAGMA index_info([{index}])"))
                    kind = "UNIQUE INDEX" if unique else "INDEX"
                    made.add(f"CREATE {kind} {_named(index)} ON public.{_named(table)} USING btree ({named})")
        assert constraints(db, "p") == primary
        assert constraints(db, "f") == foreign
        assert len(foreign) == 11
        found = {i for i in indexes(db) if '"IFK_' in i}
        assert found == made
        nullable = db.execute(
            """SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND a.attnotnull"""
        ).fetchall()
        assert set(nullable) == required


def _named(name: str) -> str:
    return f'"{name}"' if name != name.lower() else name


def test_numbers_go_on_after_the_largest(chinook: Migrated) -> None:
    """The next row gets the number that the source would have given."""
    with closing(sqlite3.connect(chinook.source)) as lite, psycopg.connect(chinook.target) as db:
        for table, column in (("Artist", "ArtistId"), ("Track", "TrackId"), ("InvoiceLine", "InvoiceLineId")):
            (largest,) = lite.execute(f"SELECT max([{column}]) FROM [{table}]").fetchone()
            assert next_value(db, table, column) == largest + 1, table


def test_a_second_run_does_nothing_and_says_so(chinook: Migrated, jivs: Jivs) -> None:
    before = ledger(chinook.target, chinook.key)
    urls = ("--source", f"sqlite:///{chinook.source}", "--target", chinook.target, "--key", chinook.key)
    document = jivs("run", *urls, "--json", code=0).document
    check_run(document)
    assert document["tables"] == chinook.ended.document["tables"]
    said = jivs("run", *urls, code=0)
    assert "already completed" in said.stdout + said.stderr
    assert ledger(chinook.target, chinook.key) == before
    assert_same_database(chinook.source, chinook.target)


def test_a_derived_key_is_not_taken_for_another_database_of_that_name(
    jivs: Jivs, target: str, tmp_path: Path
) -> None:
    """It would say that nothing is to do, and move nothing."""
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        make_file(tmp_path / place / "same.sqlite", f"CREATE TABLE {place} (n INTEGER)")
    urls = [
        ("--source", f"sqlite:///{tmp_path / place}/same.sqlite", "--target", target) for place in ("a", "b")
    ]
    jivs("run", *urls[0], "--json", code=0)
    refused = jivs("run", *urls[1], "--json", code=3).document["error"]
    assert "was begun with another source than" in refused["message"]
    assert refused["hint"] == "Use another --key"
    assert jivs("run", *urls[0], "--json", code=0).document["status"] == "completed"


def test_the_sample_in_many_chunks(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """The demo's sample cut small: chunks add up to the rows, and the ledger has one row per chunk."""
    source = tmp_path / "flights.sqlite"
    build_sample(source)
    with closing(sqlite3.connect(source, isolation_level=None)) as lite:
        # An eighth is enough here, and leaves gaps in the row numbers.
        lite.executescript("PRAGMA synchronous = OFF; DELETE FROM Flights WHERE rowid % 8;")
        (count,) = lite.execute("SELECT count(*) FROM Flights").fetchone()
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=1 << 17)
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    chunks = ledger(target, key)
    assert sum(t["chunks"] for t in document["tables"]) == sum(map(len, chunks.values()))
    flights = chunks["public.Flights"]
    assert len(flights) >= 20
    assert [c[0] for c in flights] == list(range(len(flights)))
    assert sum(c[1] for c in flights) == count == 336_776 // 8
    assert_same_database(source, target)


def test_rules_of_a_spec(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """Renames, drops, filters, a schema and patterns; what hangs on what is left out is a warning."""
    source = tmp_path / "chinook.sqlite"
    build_chinook_like(source)
    spec = jivs.spec(
        key=key, source="legacy", target="warehouse", target_schema="Music Store",
        tables={"include": ["[A-M]*", "Track"], "exclude": ["Employee", "Inv*Line"]},
        rules={
            "Artist": {"rename": "performers", "columns": {"Name": {"rename": "stage name"}}},
            "Track": {"where": "Milliseconds % 2 = 0", "columns": {"Composer": {"drop": True}, "Bytes": {"drop": True}}},
        },
    )  # fmt: skip
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    schema = "Music Store"
    with psycopg.connect(target) as db:
        assert tables_of(db) == []
        assert sorted(tables_of(db, schema)) == [
            "Album",
            "Customer",
            "Genre",
            "Invoice",
            "MediaType",
            "Track",
            "performers",
        ]
        foreign = {
            (table, definition.split(" REFERENCES ")[0])
            for table, definition, *_ in constraints(db, "f", schema)
        }
        assert ("Album", 'FOREIGN KEY ("ArtistId")') in foreign
        assert ("Customer", 'FOREIGN KEY ("SupportRepId")') not in foreign
    assert_same_table(
        source, target, "Artist", schema=schema, target_table="performers", renamed={"Name": "stage name"}
    )
    rows = assert_same_table(
        source, target, "Track", schema=schema, where="Milliseconds % 2 = 0", dropped=["Composer", "Bytes"]
    )
    assert 0 < rows < CHINOOK_ROWS["Track"]
    for table in ("Album", "Customer", "Genre", "Invoice", "MediaType"):
        assert_same_table(source, target, table, schema=schema)
    assert any("Customer" in w["table"] and "foreign key" in w["reason"] for w in document["warnings"])


def test_a_refused_table_fails_alone(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """The others are loaded; once the spec says what to do, only what is missing is loaded."""
    source = make_file(
        tmp_path / "mixed.sqlite",
        """
        CREATE TABLE good (id INTEGER PRIMARY KEY, v TEXT);
        CREATE TABLE mixed (id INTEGER PRIMARY KEY, amount INTEGER, v TEXT);
        CREATE TABLE child (id INTEGER PRIMARY KEY, mixed_id INTEGER REFERENCES mixed (id));
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
        INSERT INTO good SELECT i, 'row ' || i FROM n;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
        INSERT INTO mixed SELECT i, iif(i = 77, 'seventy-seven', i), 'v' FROM n;
        INSERT INTO child SELECT id, id FROM mixed;
        """,
    )
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    names = {"key": key, "source": "legacy", "target": "warehouse"}
    document = jivs("run", jivs.spec(**names), "--json", code=1, env=env).document
    check_run(document, "failed")
    assert "mixed" in document["error"]["message"]
    by_table = {t["source_table"]: t for t in document["tables"]}
    assert by_table["main.mixed"]["error"]["column"] == "amount"
    assert by_table["main.good"]["verified"] is True
    assert by_table["main.good"]["error"] is None
    with psycopg.connect(target) as db:
        assert sorted(tables_of(db)) == ["child", "good"]
    assert_same_table(source, target, "good")
    assert_same_table(source, target, "child")
    before = ledger(target, key)
    assert sorted(before) == ["public.child", "public.good"]

    repaired = jivs.spec(**names, rules={"mixed": {"columns": {"amount": {"drop": True}}}})
    document = jivs("run", repaired, "--json", code=0, env=env).document
    check_run(document)
    assert document["resumed"] is True
    assert_same_table(source, target, "mixed", dropped=["amount"])
    assert_same_table(source, target, "good")
    assert_same_table(source, target, "child")
    after = ledger(target, key)
    assert after["public.good"] == before["public.good"]
    assert sorted(after) == ["public.child", "public.good", "public.mixed"]
    with psycopg.connect(target) as db:
        # The key that had to wait for its parent is there.
        assert {(t, valid) for t, _, valid, *_ in constraints(db, "f")} == {("child", True)}


LONGEST = "ä" * 31 + "x"
HOSTILE = (
    "quote \" and '",
    "two  words ",
    "Ünïcode 名前 ☃",
    "MiXeD",
    "select",
    "a.b",
    "100%s %(x)s",
    "back\\slash",
    LONGEST,
)


def test_tables_that_break_tools(jivs: Jivs, target: str, key: str, tmp_path: Path) -> None:
    """No rows, no key and doubled rows, WITHOUT ROWID, hostile names; a name that is too long refuses its table only."""
    source = tmp_path / "hostile.sqlite"
    too_long = "ä" * 32
    with closing(sqlite3.connect(source)) as lite:
        lite.executescript("""
            CREATE TABLE empty (id INTEGER PRIMARY KEY, v TEXT NOT NULL);
            CREATE TABLE doubled (a INTEGER, b TEXT, c REAL);
            INSERT INTO doubled VALUES (1, 'x', 0.1), (1, 'x', 0.1), (1, 'x', 0.1), (NULL, NULL, NULL), (NULL, NULL, NULL), (1, '', -0.5);
            CREATE TABLE without_rowid (k TEXT, n INTEGER, v BLOB, PRIMARY KEY (k, n)) WITHOUT ROWID;
            INSERT INTO without_rowid VALUES ('a', 2, x'00ff'), ('a', 1, x''), ('B', 1, NULL), ('', 0, x'61');
        """)
        for name in (*HOSTILE, too_long):
            q = '"' + name.replace('"', '""') + '"'
            lite.execute(f"CREATE TABLE {q} (id INTEGER PRIMARY KEY, {q} TEXT)")
            lite.executemany(
                f"INSERT INTO {q} VALUES (?, ?)", [(1, name), (2, None), (9, "tab\tnew\nline\\N \\. \r")]
            )
            if name != too_long:
                lite.execute('CREATE INDEX "ix {}" ON {} ({})'.format(name.replace('"', '""')[:20], q, q))
        lite.commit()
    env = jivs.connections(legacy=f"sqlite:///{source}", warehouse=target)
    names = {"key": key, "source": "legacy", "target": "warehouse"}
    document = jivs("run", jivs.spec(**names), "--json", code=1, env=env).document
    check_run(document, "failed")
    failed = [t for t in document["tables"] if t["error"]]
    assert [t["source_table"] for t in failed] == [f"main.{too_long}"]
    assert "63 bytes" in failed[0]["error"]["message"]
    sound = ["empty", "doubled", "without_rowid", *HOSTILE]
    with psycopg.connect(target) as db:
        assert sorted(tables_of(db)) == sorted(sound)
    for table in sound:
        assert_same_table(source, target, table)
    by_table = {t["target_table"]: t for t in document["tables"]}
    assert (by_table["public.empty"]["chunks"], by_table["public.empty"]["verified"]) == (1, True)
    assert [c[1] for c in ledger(target, key)["public.empty"]] == [0]

    repaired = jivs.spec(
        **names, rules={too_long: {"rename": "short", "columns": {too_long: {"rename": "v"}}}}
    )
    check_run(jivs("run", repaired, "--json", code=0, env=env).document)
    assert_same_table(source, target, too_long, target_table="short", renamed={too_long: "v"})
