"""The builders of test databases: their shape is what other tests rely on."""

from __future__ import annotations

import csv
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jivs_pipeline_tests.databases import CHINOOK_ROWS, TPCH_TABLES, build_chinook_like, write_tpch_csv


@pytest.fixture(scope="module")
def chinook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chinook") / "chinook.sqlite"
    build_chinook_like(path)
    return path


def test_chinook_has_its_tables_rows_and_keys(chinook: Path) -> None:
    with closing(sqlite3.connect(chinook)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        counts = {t: db.execute(f"SELECT COUNT(*) FROM [{t}]").fetchone()[0] for t in tables}
        keys = sum(len(db.execute(f"PRAGMA foreign_key_list([{t}])").fetchall()) for t in tables)
        [(indexes,)] = db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name GLOB 'IFK_*'")
        broken = db.execute("PRAGMA foreign_key_check").fetchall()
        integrity = db.execute("PRAGMA integrity_check").fetchall()
    assert counts == CHINOOK_ROWS
    assert sum(counts.values()) == 15_607
    assert (keys, indexes, broken, integrity) == (11, 11, [], [("ok",)])


def test_chinook_values_fit_their_columns(chinook: Path) -> None:
    with closing(sqlite3.connect(chinook)) as db:
        for table in CHINOOK_ROWS:
            for _, column, declared, *_ in db.execute(f"PRAGMA table_info([{table}])").fetchall():
                if found := re.fullmatch(r"NVARCHAR\((\d+)\)", declared):
                    [(longest,)] = db.execute(f"SELECT MAX(LENGTH([{column}])) FROM [{table}]")
                    assert (longest or 0) <= int(found[1]), f"{table}.{column}"


def test_chinook_invoices_equal_the_sum_of_their_lines(chinook: Path) -> None:
    with closing(sqlite3.connect(chinook)) as db:
        wrong = db.execute(
            """
            SELECT InvoiceId, Total, SUM(UnitPrice * Quantity)
            FROM Invoice JOIN InvoiceLine USING (InvoiceId)
            GROUP BY InvoiceId HAVING ROUND(SUM(UnitPrice * Quantity), 2) <> Total
            """
        ).fetchall()
    assert wrong == []


def test_chinook_depends_on_its_seed_only(chinook: Path, tmp_path: Path) -> None:
    same, other = tmp_path / "same.sqlite", tmp_path / "other.sqlite"
    build_chinook_like(same)
    build_chinook_like(other, seed=2)
    assert same.read_bytes() == chinook.read_bytes()
    assert other.read_bytes() != chinook.read_bytes()


def test_tpch_files_have_the_columns_of_the_tables(tmp_path: Path) -> None:
    rows = dict.fromkeys(TPCH_TABLES, 0)
    for table, file in write_tpch_csv(tmp_path, 0.001).items():
        with file.open(encoding="utf-8", newline="") as text:
            header, *lines = csv.reader(text)
        rows[table] = len(lines)
        assert header == re.findall(r"\b[a-z]+_[a-z]+(?= )", TPCH_TABLES[table])
    assert (rows["region"], rows["nation"], rows["orders"]) == (5, 25, 1500)
