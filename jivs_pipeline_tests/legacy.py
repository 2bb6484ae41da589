"""The messy legacy database of docs/example.md. What is wrong with it is counted here, for the test."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Legacy", "make_legacy"]

_SCHEMA = """
CREATE TABLE country (code TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE cust (id INTEGER PRIMARY KEY, first TEXT, last TEXT, mail TEXT NOT NULL, born TEXT, ssn TEXT, phone TEXT,
                   zip TEXT, country TEXT, segment TEXT, notes TEXT, photo BLOB, deleted INTEGER NOT NULL, changed TEXT);
CREATE TABLE ord (id INTEGER PRIMARY KEY, cust INTEGER, total TEXT, at TEXT);
CREATE TABLE tmp_import (x TEXT);
"""
_COUNTRIES = [("DE", "Germany"), ("FR", "France"), ("PL", "Poland")]


@dataclass(frozen=True)
class Legacy:
    """Ids of customers and orders by what is the matter with them."""

    customers: frozenset[int]
    """Those that should arrive."""
    no_birthday: frozenset[int]
    no_address: frozenset[int]
    negative: frozenset[int]
    orders: int


def _customer(n: int) -> tuple[object, ...]:
    twin = n - 1000 if 1000 < n <= 1040 else n
    mail = f"  User{twin}@Example.ORG " if n % 2 and twin == n else f"user{twin}@example.org"
    return (
        n, f" Ann{n}", f"Smith{n} ", "nowhere" if n in {77, 777} else (f"dup{twin}@x.org" if twin != n or n <= 40 else mail),
        f"{31 if n in {50, 150, 250} else n % 28 + 1:02d}.{2 if n in {50, 150, 250} else n % 12 + 1:02d}.{1950 + n % 50}",
        f"SSN-{n:06d}", f"+49 {n}", f"{n % 90 + 10:02d} 123", ("DE", "FR", "PL", "XX")[0 if n % 20 else 3] if n % 3 else "FR",
        None if n % 4 == 0 else "retail", f"secret of {n}", b"\x00photo", int(n % 50 == 49), f"2024-01-{n % 28 + 1:02d}",
    )  # fmt: skip


def make_legacy(path: Path) -> Legacy:
    """Make the file; returns what should become of its rows."""
    customers = [_customer(n) for n in range(1, 2001)]
    # 777 has the address of 77, so one of the two is a duplicate.
    orders = [
        (n, 9000 if n % 500 == 0 else n % 1900 + 1, "-1.00" if n % 700 == 0 else f"{n}.5", "2024-05-01")
        for n in range(1, 3001)
    ]
    with closing(sqlite3.connect(path)) as lite:
        lite.executescript(_SCHEMA)
        lite.executemany("INSERT INTO country VALUES (?, ?)", _COUNTRIES)
        lite.executemany(f"INSERT INTO cust VALUES ({', '.join('?' * 14)})", customers)
        lite.executemany("INSERT INTO ord VALUES (?, ?, ?, ?)", orders)
        lite.commit()
    alive = [c for c in customers if not c[12]]
    first: dict[object, tuple[object, ...]] = {}
    for row in alive:
        held = first.get(row[3])
        if held is None or str(row[13]) > str(held[13]):
            first[row[3]] = row
    kept = {int(str(row[0])) for row in first.values()}
    no_birthday = kept & {50, 150, 250}
    no_address = {int(str(row[0])) for row in first.values() if row[3] == "nowhere"}
    negative = frozenset(n for n in range(1, 3001) if n % 700 == 0)
    return Legacy(
        frozenset(kept - no_birthday - no_address),
        frozenset(no_birthday),
        frozenset(no_address),
        negative,
        3000,
    )
