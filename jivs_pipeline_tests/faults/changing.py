"""A source that changes between runs: what its rows are, random changes of them, and what the target must have then.

What belongs here: the tables, the dice, applying and comparing, made without the product. What does not: runs.

The tables have what makes changing them in place hard: a reference to the table itself, two tables that refer to each
other, a reference that deletes with its parent, unique values that change places, a composite key, and no key at all.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from jivs_pipeline_tests.acceptance.rows import assert_same_rows
from jivs_pipeline_tests.fix_mysql import connected

COLUMNS = {
    "people": ("id", "boss_id", "code", "v"),
    "orders": ("id", "person_id", "best_item", "v"),
    "items": ("id", "order_id", "v"),
    "pairs": ("a", "b", "v"),
    "logs": ("n", "v"),
}
KEYS = {"people": ("id",), "orders": ("id",), "items": ("id",), "pairs": ("a", "b"), "logs": ("n",)}

_TABLES = """
CREATE TABLE people (id {number} PRIMARY KEY, boss_id bigint, code varchar(40) NOT NULL UNIQUE, v varchar(400),
    FOREIGN KEY (boss_id) REFERENCES people (id));
CREATE TABLE orders (id {number} PRIMARY KEY, person_id bigint NOT NULL, best_item bigint, v varchar(400),
    FOREIGN KEY (person_id) REFERENCES people (id) ON DELETE CASCADE{more});
CREATE TABLE items (id {number} PRIMARY KEY, order_id bigint NOT NULL, v varchar(400),
    FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE RESTRICT);
CREATE TABLE pairs (a bigint NOT NULL, b varchar(40) NOT NULL, v varchar(400), PRIMARY KEY (a, b));
CREATE TABLE logs (n bigint, v varchar(400));
"""
_CIRCLE = "ALTER TABLE orders ADD FOREIGN KEY (best_item) REFERENCES items (id) ON DELETE SET NULL;"
_INSIDE = ", FOREIGN KEY (best_item) REFERENCES items (id) ON DELETE SET NULL"
SCRIPTS = {
    "sqlite": _TABLES.format(number="INTEGER", more=_INSIDE),
    "postgresql": _TABLES.format(number="bigint GENERATED ALWAYS AS IDENTITY", more="") + _CIRCLE,
    "mysql": _TABLES.format(number="bigint AUTO_INCREMENT", more="") + _CIRCLE,
}
Rows = dict[Any, tuple[Any, ...]]


@dataclass
class Changing:
    """One source and the rows that it must have."""

    dialect: str
    url: str
    rng: random.Random
    size: int
    rows: dict[str, Rows] = field(default_factory=lambda: {t: {} for t in COLUMNS})
    _number: int = 0

    def fill(self) -> None:
        """As many rows in each table."""
        before = self._copy()
        for _ in range(self.size):
            for table in COLUMNS:
                self._insert(table)
        self._apply(before)

    def change(self, places: int) -> dict[str, int]:
        """So many random changes; returns the rows of each table that are others now."""
        before = self._copy()
        for _ in range(places):
            table = self.rng.choice(list(COLUMNS))
            self.rng.choice([self._insert, self._update, self._delete, self._swap])(table)
        return self._apply(before)

    def check(self, target: str) -> None:
        """The target has what the source has, each read by its own driver."""
        there = self.read()
        assert {t: sum(r.values()) for t, r in there.items()} == {
            t: sum(n for *_, n in ([*r, 2 if t == "logs" else 1] for r in rows.values()))
            for t, rows in self.rows.items()
        }, "the source has not what it was given"
        with psycopg.connect(target) as db:
            for table, columns in COLUMNS.items():
                found = Counter(db.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall())  # pyright: ignore[reportArgumentType]
                assert_same_rows(table, there[table], found)

    def read(self) -> dict[str, Counter[Any]]:
        queries = {t: f"SELECT {', '.join(c)} FROM {t}" for t, c in COLUMNS.items()}
        if self.dialect == "sqlite":
            with closing(sqlite3.connect(self.path)) as db:
                return {t: Counter(db.execute(q).fetchall()) for t, q in queries.items()}
        if self.dialect == "postgresql":
            with psycopg.connect(self.url) as db:
                return {t: Counter(db.execute(q).fetchall()) for t, q in queries.items()}  # pyright: ignore[reportArgumentType]
        found: dict[str, Counter[Any]] = {}
        with connected(self.url) as db, db.cursor() as cursor:
            for table, query in queries.items():
                cursor.execute(query)
                found[table] = Counter(cursor.fetchall())
        return found

    @property
    def path(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    # Inside

    def _copy(self) -> dict[str, Rows]:
        return {t: dict(rows) for t, rows in self.rows.items()}

    def _pick(self, table: str) -> Any:
        """A key of the table, near one of its ends as often as anywhere."""
        keys = list(self.rows[table])
        return self.rng.choice([keys[0], keys[-1], *self.rng.choices(keys, k=4)]) if keys else None

    def _text(self) -> str | None:
        self._number += 1
        return self.rng.choice([None, "", " ", "é", f"{self._number:0100d}", f"{self._number:0100d}"])

    def _insert(self, table: str) -> None:
        self._number += 1
        # Into the gaps, too: keys are in no order of time.
        n = (
            self._number * 10 + self.rng.randrange(10)
            if self.rng.random() < 0.8
            else self.rng.randrange(1, self._number * 10)
        )
        made: Mapping[str, Callable[[], tuple[Any, ...]]] = {
            "people": lambda: (n, self._pick("people"), f"c{self._number}", self._text()),
            "orders": lambda: (n, self._pick("people"), self._pick("items"), self._text()),
            "items": lambda: (n, self._pick("orders"), self._text()),
            "pairs": lambda: (n % 7, f"b{n}", self._text()),
            "logs": lambda: (n, self._text()),
        }
        if (table == "orders" and not self.rows["people"]) or (table == "items" and not self.rows["orders"]):
            return
        row = made[table]()
        key = row[: len(KEYS[table])]
        self.rows[table].setdefault(key if len(key) > 1 else key[0], row)

    def _update(self, table: str) -> None:
        if (key := self._pick(table)) is None:
            return
        row = list(self.rows[table][key])
        row[-1] = self._text()
        if table == "people":
            row[1] = self._pick("people")
        if table == "orders":
            row[1], row[2] = self._pick("people"), self._pick("items")
        if table == "items":
            row[1] = self._pick("orders")
        self.rows[table][key] = tuple(row)

    def _delete(self, table: str) -> None:
        """With all that refers to it, or what refers to it refers to others now."""
        if len(self.rows[table]) < 3 or (key := self._pick(table)) is None:
            return
        del self.rows[table][key]
        others = self.rows[table]
        for child, at, optional in {
            "people": [("people", 1, True), ("orders", 1, False)],
            "orders": [("items", 1, False)],
            "items": [("orders", 2, True)],
        }.get(table, []):
            for name, row in list(self.rows[child].items()):
                if row[at] == key:
                    new = None if optional and self.rng.random() < 0.5 else self.rng.choice(list(others))
                    self.rows[child][name] = (*row[:at], new, *row[at + 1 :])

    def _swap(self, table: str) -> None:
        """Two rows change all but their keys: unique values among them."""
        one, two = self._pick(table), self._pick(table)
        if one is None or one == two:
            return
        rows, at = self.rows[table], len(KEYS[table])
        rows[one], rows[two] = rows[one][:at] + rows[two][at:], rows[two][:at] + rows[one][at:]

    def _apply(self, before: Mapping[str, Rows]) -> dict[str, int]:
        statements: list[tuple[str, list[tuple[Any, ...]]]] = []
        changed: dict[str, int] = {}
        for table, rows in self.rows.items():
            old, key = before[table], KEYS[table]
            touched = [k for k in {**old, **rows} if old.get(k) != rows.get(k)]
            gone = [k if len(key) > 1 else (k,) for k in touched if k in old]
            new = [rows[k] for k in touched if k in rows] * (2 if table == "logs" else 1)
            statements += [
                (f"DELETE FROM {table} WHERE {' AND '.join(f'{c} = ?' for c in key)}", gone),
                (f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES ({', '.join('?' * len(COLUMNS[table]))})", new),
            ]  # fmt: skip
            changed[table] = len(touched)
        deletes, inserts = statements[::2], statements[1::2]
        self._run([*deletes, *inserts])
        return changed

    def _run(self, statements: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
        """Without checks of references in between; the rows were made so that they hold at the end."""
        if self.dialect == "sqlite":
            with closing(sqlite3.connect(self.path)) as db:
                for statement, values in statements:
                    db.executemany(statement, values)
                db.commit()
        elif self.dialect == "postgresql":
            with psycopg.connect(self.url) as db, db.cursor() as cursor:
                cursor.execute("SET session_replication_role = replica")
                for statement, values in statements:
                    system = statement.replace(") VALUES", ") OVERRIDING SYSTEM VALUE VALUES").replace(
                        "?", "%s"
                    )
                    cursor.executemany(system, values)  # pyright: ignore[reportArgumentType]
        else:
            with connected(self.url) as db, db.cursor() as cursor:
                cursor.execute("SET foreign_key_checks = 0")
                for statement, values in statements:
                    if values:
                        cursor.executemany(statement.replace("?", "%s"), values)
