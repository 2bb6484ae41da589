"""SQLite as a source: opening, the catalog, the census and the chunks. Real files, some of them damaged."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from jivs_pipeline.core.errors import ConfigError, ConnectionFailed, SpecError
from jivs_pipeline.core.model import Index, IndexPart, Key
from jivs_pipeline.core.plan import Chunk, ChunkBy, Wire
from jivs_pipeline.core.ports import Survey
from jivs_pipeline.infra.sources.sqlite import SqliteSource
from jivs_pipeline_tests.sqlite_files import change, column, make_file, plan_of, read, rows_of, source_of


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., SqliteSource]:
    """A source from a script and rows."""

    def make(script: str, rows: dict[str, list[tuple[object, ...]]] | None = None) -> SqliteSource:
        return source_of(make_file(tmp_path / "source.db", script, rows))

    return make


Make = Callable[..., SqliteSource]

# ── opening ─────────────────────────────────────────────────────────────────────────────────────────────


def _failure(path: Path, **settings: float) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        source_of(path, **settings).catalog(None)
    error = caught.value
    # One sentence that names the connection and the place, and what to do.
    assert "'legacy'" in error.message
    assert str(path) in error.message
    assert error.hint
    return error


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    """A typing mistake in a path must not make an empty database."""
    assert "does not exist" in _failure(tmp_path / "no.db").message
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    """Said as it is."""
    assert "is a directory" in _failure(tmp_path).message


@pytest.mark.parametrize("content", [b"name,price\n" * 100, os.urandom(8192)], ids=["csv", "encrypted"])
def test_something_else_is_no_database(tmp_path: Path, content: bytes) -> None:
    """An encrypted database looks like noise."""
    path = tmp_path / "source.db"
    path.write_bytes(content)
    assert "is not an SQLite database, or it is encrypted" in _failure(path).message


def test_a_damaged_schema_is_said(tmp_path: Path) -> None:
    """The header is right, the first page is not."""
    path = make_file(tmp_path / "source.db", "CREATE TABLE t (a); CREATE INDEX i ON t (a)")
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * 3996
    path.write_bytes(data)
    assert "is damaged" in _failure(path).message


def test_a_file_that_may_not_be_read_is_said() -> None:
    """Permissions are the user's to give. Root may read everything, and so is somebody else here for a moment."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = make_file(Path(directory) / "source.db", "CREATE TABLE t (a)")
        path.chmod(0)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            assert "cannot be opened" in _failure(path).message
        finally:
            os.seteuid(me)


def test_a_locked_file_is_waited_for_and_no_longer(tmp_path: Path) -> None:
    """Another program may hold the file for ever."""
    path = make_file(tmp_path / "source.db", "CREATE TABLE t (a)")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert "stayed locked for 0.3 seconds" in _failure(path, timeout_seconds=0.3).message
        assert time.monotonic() - began < 2
        other.execute("COMMIT")
        assert source_of(path, timeout_seconds=0.3).info().name == "legacy"


def test_a_write_that_was_killed_is_not_rolled_back_by_us(tmp_path: Path) -> None:
    """A hot journal needs somebody who may write."""
    path = make_file(tmp_path / "source.db", "CREATE TABLE t (a)")
    copy = tmp_path / "killed.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA cache_size = 1")
        other.execute("BEGIN")
        other.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,) for _ in range(200)])
        shutil.copy(path, copy)
        shutil.copy(f"{path}-journal", f"{copy}-journal")
        other.execute("ROLLBACK")
    assert "needs recovery" in _failure(copy).message


@pytest.mark.parametrize(
    "name", ["a?mode=rwc.db", "a#b.db", "100%25.db", "two words.db", "naïve 'quoted'.db"]
)
def test_every_file_name_is_a_path_and_nothing_else(tmp_path: Path, name: str) -> None:
    """SQLite reads names as URIs; ? and # would end the path in one."""
    path = make_file(tmp_path / name, "CREATE TABLE t (a INT)", {"t": [(1,)]})
    source = source_of(path)
    assert read(source, plan_of(source, "t")).to_pydict() == {"a": [1]}
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others insist on UTF-8")
def test_file_names_need_not_be_utf8(tmp_path: Path) -> None:
    """Paths are bytes."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db"))
    make_file(tmp_path / "source.db", "CREATE TABLE t (a INT)", {"t": [(1,)]}).rename(path)
    source = source_of(path)
    assert read(source, plan_of(source, "t")).to_pydict() == {"a": [1]}


def test_the_file_stays_as_it_is(make: Make, tmp_path: Path) -> None:
    """Not a byte of it, nor a file beside it."""
    source = make("CREATE TABLE t (a INT)", {"t": [(1,)]})
    before = (tmp_path / "source.db").read_bytes()
    plan = plan_of(source, "t")
    with source.snapshot(2) as snapshot:
        rows_of(snapshot, plan)
        snapshot.digest(plan, plan.chunks[0])
    assert (tmp_path / "source.db").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["source.db"]


def test_a_source_tells_who_it_is(make: Make) -> None:
    """Name, dialect, version, encoding."""
    info = make("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (a)").info()
    assert (info.name, info.dialect, info.version) == ("legacy", "sqlite", sqlite3.sqlite_version)
    assert info.encoding.startswith("UTF-16")


# ── catalog ─────────────────────────────────────────────────────────────────────────────────────────────


def test_main_is_the_only_schema(make: Make) -> None:
    """And the default."""
    source = make("CREATE TABLE t (a)")
    assert source.catalog("main") == source.catalog(None)
    with pytest.raises(ConfigError, match="no schema 'public'"):
        source.catalog("public")


def test_an_empty_file_has_no_tables(tmp_path: Path) -> None:
    """Zero bytes are an empty database to SQLite."""
    path = tmp_path / "source.db"
    path.touch()
    assert source_of(path).catalog(None).tables == ()


def test_keys_are_carried_with_their_names(make: Make) -> None:
    """Composite keys in key order, names in the case they were given."""
    catalog = make("""
        CREATE TABLE Parent ([Id] INTEGER PRIMARY KEY, Code TEXT UNIQUE);
        CREATE TABLE Child (
            A INT, B INT NOT NULL, ref INT CONSTRAINT "to Parent" REFERENCES parent ON DELETE CASCADE ON UPDATE SET NULL,
            code TEXT REFERENCES PARENT (CODE) DEFERRABLE INITIALLY DEFERRED,
            CONSTRAINT "PK odd" PRIMARY KEY (b, a), CONSTRAINT uq UNIQUE (A,
            ref), UNIQUE (B)
        );
    """).catalog(None)
    child = catalog.table("Child")
    assert child is not None
    assert child.primary_key == Key("PK odd", ("B", "A"))
    assert child.unique_keys == (Key("uq", ("A", "ref")), Key(None, ("B",)))
    assert [c.nullable for c in child.columns] == [False, False, True, True]
    first, second = child.foreign_keys
    assert (first.name, first.columns, first.target_table, first.target_columns) == (
        "to Parent", ("ref",), "Parent", ("Id",),
    )  # fmt: skip
    assert (first.on_delete, first.on_update, first.deferrable) == ("CASCADE", "SET NULL", False)
    assert (second.name, second.columns, second.target_columns) == (None, ("code",), ("Code",))
    assert (second.on_delete, second.deferrable, second.initially_deferred) == ("NO ACTION", True, True)
    assert catalog.left_out == ()


@pytest.mark.parametrize(
    ("columns", "numbered"),
    [
        ("id INTEGER PRIMARY KEY", True),
        ("id INTEGER PRIMARY KEY AUTOINCREMENT", True),
        ("id INTEGER, PRIMARY KEY (id)", True),
        ("id INT PRIMARY KEY", False),
        ("id INTEGER PRIMARY KEY DESC", False),
        ("id INTEGER, b INTEGER, PRIMARY KEY (id, b)", False),
    ],
)
def test_only_an_alias_of_the_rowid_numbers_itself(make: Make, columns: str, *, numbered: bool) -> None:
    """INTEGER PRIMARY KEY DESC is an old bug that SQLite keeps."""
    table = make(f"CREATE TABLE t ({columns})").catalog(None).tables[0]
    assert (table.columns[0].identity is not None) is numbered
    assert table.columns[0].nullable is False


def test_without_rowid_nothing_numbers_itself(make: Make) -> None:
    """Even an INTEGER PRIMARY KEY; the word in a comment or a name counts for nothing."""
    tables = (
        make("""
        CREATE TABLE a (id INTEGER PRIMARY KEY, t TEXT) WITHOUT ROWID;
        CREATE TABLE b (id INTEGER PRIMARY KEY, "WITHOUT ROWID" TEXT CHECK ("WITHOUT ROWID" <> ') WITHOUT ROWID'));
        CREATE TABLE c (id INTEGER PRIMARY KEY) STRICT, WITHOUT ROWID /* ) */;
    """)
        .catalog(None)
        .tables
    )
    assert [(t.without_rowid, t.columns[0].identity is None) for t in tables] == [
        (True, True),
        (False, False),
        (True, True),
    ]


def test_indexes_keep_order_and_predicate(make: Make) -> None:
    """What PostgreSQL would not read alike is named instead."""
    catalog = make("""
        CREATE TABLE t (a INT, b TEXT, c TEXT COLLATE NOCASE);
        CREATE INDEX plain ON t (a DESC, b);
        CREATE UNIQUE INDEX part ON t (b) WHERE a > 5;
        CREATE INDEX len ON t (length(b) DESC);
        CREATE INDEX low ON t (lower(b));
        CREATE INDEX part2 ON t (a) WHERE b LIKE 'x%';
        CREATE INDEX coll ON t (b COLLATE NOCASE);
    """).catalog(None)
    indexes = {i.name: i for i in catalog.tables[0].indexes}
    assert indexes["plain"] == Index("plain", (IndexPart("a", descending=True), IndexPart("b")))
    assert indexes["part"] == Index("part", (IndexPart("b"),), unique=True, predicate='("a" > 5)')
    assert indexes["len"] == Index("len", (IndexPart(None, 'length("b")', descending=True),))
    assert set(indexes) == {"plain", "part", "len", "coll"}
    left = {(o.name, o.kind, o.severity, o.table) for o in catalog.left_out}
    assert left == {
        ("low", "index", "refused", "t"),
        ("part2", "index", "refused", "t"),
        ("coll", "collation", "lossy", "t"),
        ("t.c", "collation", "lossy", "t"),
    }
    # PostgreSQL has no NOCASE.
    assert catalog.tables[0].column("c").collation is None


def test_what_is_not_carried_is_named(make: Make) -> None:
    """Views, triggers, virtual tables; their shadow tables are not the user's."""
    catalog = make("""
        CREATE TABLE t (a INT CHECK (a % 2 = 0), b INT AS (a * 2) STORED, c INT AS (a + 1), d INT DEFAULT (random()),
            CONSTRAINT named CHECK (typeof(a) = 'integer'), CHECK (a > 0));
        CREATE VIEW v AS SELECT 1;
        CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END;
        CREATE VIRTUAL TABLE f USING fts5(body);
        CREATE TABLE auto (id INTEGER PRIMARY KEY AUTOINCREMENT);
    """).catalog(None)
    assert [t.name for t in catalog.tables] == ["t", "auto"]
    left = {(o.name, o.kind, o.severity) for o in catalog.left_out}
    assert left == {
        ("t: a % 2 = 0", "check constraint", "refused"),
        ("named", "check constraint", "refused"),
        ("t.b", "generated column", "lossy"),
        ("t.c", "generated column", "lossy"),
        ("t.d", "default", "lossy"),
        ("v", "view", "refused"),
        ("tr", "trigger", "refused"),
        ("f", "virtual table", "refused"),
    }
    assert all(o.reason for o in catalog.left_out)
    assert [c.expression for c in catalog.tables[0].checks] == ['("a" > 0)']
    assert [c.name for c in catalog.tables[0].columns] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("child", "says"),
    [
        ("REFERENCES nowhere", "not carried"),
        ("REFERENCES parent (zzz)", "do not exist"),
        ("REFERENCES parent (b)", "not unique"),
        ("REFERENCES parent (c)", "not unique"),
        ("REFERENCES parent (d)", "different types"),
        ("REFERENCES keyless", "do not exist"),
    ],
)
def test_a_reference_that_postgresql_cannot_take_is_left_out(make: Make, child: str, says: str) -> None:
    """SQLite takes nearly every REFERENCES until a row is written."""
    catalog = make(f"""
        CREATE TABLE parent (a INTEGER PRIMARY KEY, b INT, c INT, d TEXT UNIQUE);
        CREATE UNIQUE INDEX part ON parent (c) WHERE c > 0;
        CREATE TABLE keyless (a INT);
        CREATE TABLE t (x INT {child});
    """).catalog(None)
    (left,) = catalog.left_out
    assert (left.kind, left.table, left.severity) == ("foreign key", "t", "refused")
    assert says in left.reason
    assert catalog.table("t").foreign_keys == ()  # type: ignore[union-attr]


def test_expressions_suit_the_types_that_the_values_will_get(make: Make) -> None:
    """A clock is no default of a bigint, and a text is not compared with a number."""
    catalog = make("""
        CREATE TABLE t (a DATETIME DEFAULT CURRENT_TIMESTAMP, b DATETIME DEFAULT CURRENT_TIMESTAMP, c INT CHECK (c > 0),
            d DEFAULT 'x', e DEFAULT 'x', f DATE DEFAULT '2000-01-01', g INT DEFAULT 5);
        CREATE INDEX i ON t (a) WHERE c > 5;
        CREATE TABLE p (id INTEGER PRIMARY KEY); CREATE TABLE q (id INTEGER REFERENCES p, n NUMERIC REFERENCES p);
        INSERT INTO t VALUES (NULL, NULL, NULL, NULL, NULL, NULL, NULL),
            (1700000000, '2000-01-01 00:00:00', 'many', 5, 'y', 730000, 'five');
        INSERT INTO q VALUES ('x', 1);
    """).catalog(None)
    table = catalog.table("t")
    assert table is not None
    assert [c.default is not None for c in table.columns] == [False, True, False, False, True, False, True]
    assert (table.checks, table.indexes) == ((), ())
    left = {(o.name, o.kind) for o in catalog.left_out}
    assert left == {
        ("t.a", "default"), ("t.d", "default"), ("t.f", "default"), ("t: c > 0", "check constraint"), ("i", "index"),
        ("q (id)", "foreign key"), ("q (n)", "foreign key"),
    }  # fmt: skip


def test_names_that_postgresql_would_not_take_twice_are_dropped(make: Make) -> None:
    """A key is an index there, and its name is one of the schema's."""
    first, second = (
        make("""
        CREATE TABLE a (x INT CONSTRAINT c CHECK (x > 0), y INT, CONSTRAINT pk PRIMARY KEY (x), CONSTRAINT c CHECK (y > 0));
        CREATE TABLE b (x INT CONSTRAINT c CHECK (x > 0), y INT CONSTRAINT i UNIQUE, z INT CONSTRAINT a UNIQUE,
            CONSTRAINT pk PRIMARY KEY (x));
        CREATE INDEX i ON a (y);
    """)
        .catalog(None)
        .tables
    )
    assert [c.name for c in (first.primary_key, *first.checks) if c] == ["pk", "c", None]
    assert [c.name for c in (second.primary_key, *second.unique_keys, *second.checks) if c] == [
        None,
        None,
        None,
        "c",
    ]


def test_a_reference_to_a_unique_index_is_kept(make: Make) -> None:
    """PostgreSQL takes a unique index for a key."""
    catalog = make("""
        CREATE TABLE parent (a INT, b INT); CREATE UNIQUE INDEX u ON parent (b, a);
        CREATE TABLE t (x INT, y INT, FOREIGN KEY (x, y) REFERENCES parent (a, b));
    """).catalog(None)
    assert catalog.table("t").foreign_keys[0].target_columns == ("a", "b")  # type: ignore[union-attr]


# ── census ──────────────────────────────────────────────────────────────────────────────────────────────


def _survey(
    source: SqliteSource, table: str = "t", where: str | None = None, chunk_bytes: int = 1 << 30
) -> Survey:
    found = source.catalog(None).table(table)
    assert found is not None
    return source.survey(found, found.columns, where, chunk_bytes)


@pytest.mark.parametrize(
    ("declared", "values", "target"),
    [
        (
            "DATETIME",
            ["2000-02-29 00:00:00", "2000-01-01T23:59:59.123456", "0001-01-01 00:00:00.5", None],
            "timestamp",
        ),
        ("DATETIME", ["2001-02-29 00:00:00"], "text"),
        ("DATETIME", ["2000-01-01 24:00:00"], "text"),
        ("DATETIME", ["2000-01-01 23:59:60"], "text"),
        ("DATETIME", ["0000-01-01 00:00:00"], "text"),
        ("DATETIME", ["2000-01-01"], "text"),
        ("DATETIME", ["2000-01-01 10:00"], "text"),
        ("DATETIME", ["2000-01-01 10:00:00Z"], "text"),
        ("DATETIME", ["2000-01-01 10:00:00+02:00"], "text"),
        ("DATETIME", ["2000-01-01 10:00:00.1234567"], "text"),
        ("DATETIME", ["2000-01-01 10:00:00."], "text"),
        ("DATETIME", ["2000-01-01 10:00:00.1a"], "text"),
        ("DATETIME", ["2000-01-01  10:00:00"], "text"),
        ("DATETIME", [" 2000-01-01 10:00:00"], "text"),
        ("DATETIME", ["-001-01-01 10:00:00"], "text"),
        ("DATETIME", ["now"], "text"),
        ("DATETIME", ["bad", "2000-01-01 10:00:00"], "text"),
        ("DATETIME", [0, 1700000000], "bigint"),
        ("DATETIME", [2451544.5], "double precision"),
        ("DATETIME", [1700000000, 2451544.5], "numeric"),
        ("DATE", ["2000-02-29", "9999-12-31", "0001-01-01"], "date"),
        ("DATE", ["2001-02-29"], "text"),
        ("DATE", ["2000-1-1"], "text"),
        ("DATE", ["0000-12-31"], "text"),
        ("DATE", ["2000-01-01 "], "text"),
        ("DATE", [""], "text"),
        ("DATE COLLATE RTRIM", ["2000-01-01 "], "text"),
        ("TIME", ["00:00:00", "23:59:59.999999"], "time"),
        ("TIME", ["24:00:00"], "text"),
        ("TIME", ["12:30"], "text"),
        ("TIME", ["12:30:00.1234567"], "text"),
        ("BOOLEAN", [0, 1, None], "boolean"),
        ("BOOLEAN", [0, 2], "bigint"),
        ("BOOLEAN", ["true"], "text"),
        ("DECIMAL(5,2)", [999.99, -999.99, 0, 1, 0.1], "numeric(5,2)"),
        ("DECIMAL(5,2)", [1000], "numeric"),
        ("DECIMAL(5,2)", [0.001], "numeric"),
        ("DECIMAL(5,2)", [0.1 + 0.2], "numeric"),
        ("DECIMAL(5,2)", [0.29, 0.57, 1.15, 4.35, 8.41], "numeric(5,2)"),
        ("DECIMAL(5,2)", [float("inf")], "numeric"),
        ("DECIMAL(19,0)", [2**63 - 1, -(2**63)], "numeric(19,0)"),
        ("DECIMAL(18,0)", [2**63 - 1], "numeric"),
        ("DECIMAL(30,10)", [2**63 - 1, 1e-10, 12345678.0123456], "numeric(30,10)"),
        ("DECIMAL(5,2)", [""], "text"),
        ("NUMERIC", [2**53 + 1, 0.5], "numeric"),
        ("INTEGER", [2**63 - 1, -(2**63)], "bigint"),
        ("INTEGER", [0.5], "double precision"),
        ("INTEGER", [2**53 + 1, 0.5], "numeric"),
        ("REAL", [1, 0.5, float("inf"), None], "double precision"),
        ("VARCHAR(3)", ["äöü", "日本語", ""], "varchar(3)"),
        ("VARCHAR(3)", ["äöüß"], "text"),
        ("CHAR(3)", ["a", "a  "], "varchar(3)"),
        ("BLOB", [b"", b"\0"], "bytea"),
        ("", [1, 2], "bigint"),
        ("", [1, 0.5], "numeric"),
        ("", [-0.0, 0.5], "double precision"),
        ("", ["a"], "text"),
        ("", [b"a"], "bytea"),
        ("", [], "text"),
    ],
)
def test_the_census_decides(make: Make, declared: str, values: list[object], target: str) -> None:
    """Declared type and what is really stored."""
    source = make(f"CREATE TABLE t (c {declared})", {"t": [(v,) for v in values]})
    survey = _survey(source)
    assert survey.columns[0].target_type == target
    assert survey.refused == ()
    assert survey.rows == len(values)


@pytest.mark.parametrize(
    ("declared", "values", "says"),
    [
        ("INTEGER", [1, 2, "N/A"], "mixes 2 integers and 1 text"),
        ("DATE", ["2000-01-01", 5], "mixes 1 integer and 1 text"),
        ("BOOLEAN", [0, "false"], "mixes 1 integer and 1 text"),
        ("TEXT", ["a", b"a"], "mixes 1 text and 1 blob"),
        ("BLOB", [b"a", 1], "mixes 1 integer and 1 blob"),
        ("", [1, 0.5, "a", b"a"], "mixes 1 integer and 1 real and 1 text and 1 blob"),
        ("TEXT", ["a\0b", "c"], "1 text holds a NUL"),
        ("DATE", ["2000-01-01\0"], "1 text holds a NUL"),
        ("", [1, -0.0], "1 real is -0.0"),
    ],
)
def test_what_no_type_holds_is_refused_before_a_byte_moves(
    make: Make, declared: str, values: list[object], says: str
) -> None:
    """With counts, so that the user finds the rows."""
    (refusal,) = _survey(make(f"CREATE TABLE t (c {declared})", {"t": [(v,) for v in values]})).refused
    assert refusal.column == "c"
    assert says in refusal.reason


def test_a_condition_limits_what_is_looked_at(make: Make) -> None:
    """Rows that are not carried cannot refuse a column."""
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, c INT)", {"t": [(1, 5), (2, "bad"), (3, 7)]})
    survey = _survey(source, where="typeof(c) = 'integer' -- only these")
    assert (survey.rows, survey.refused) == (2, ())


def test_a_condition_that_sqlite_does_not_take_is_the_specs_fault(make: Make) -> None:
    """Before anything is touched."""
    source = make("CREATE TABLE t (c INT)")
    for where in ("no_such_column > 1", "c >", "c = 1; DROP TABLE t", "c = 1 /*"):
        with pytest.raises(SpecError, match=re.escape("rules.t.where")):
            _survey(source, where=where)


def test_nulls_in_a_primary_key_are_refused(make: Make) -> None:
    """SQLite lets them in, except in rowid aliases and WITHOUT ROWID."""
    source = make(
        "CREATE TABLE t (a TEXT, b INT, PRIMARY KEY (a, b))", {"t": [("x", None), (None, None), ("y", 1)]}
    )
    refused = {r.column: r.reason for r in _survey(source).refused}
    assert set(refused) == {"a", "b"}
    assert "2 rows have NULL" in refused["b"]


def test_rows_that_break_their_foreign_keys_are_counted(make: Make) -> None:
    """SQLite does not check by default; PostgreSQL compares bytes where SQLite may fold case."""
    source = make(
        """
        CREATE TABLE p (a INT, b TEXT COLLATE NOCASE, PRIMARY KEY (a, b)); CREATE TABLE q (id INTEGER PRIMARY KEY);
        CREATE TABLE t (x INT, y TEXT, z INT REFERENCES q, w INT REFERENCES q, FOREIGN KEY (x, y) REFERENCES p);
        """,
        {
            "p": [(1, "a"), (2, "b")],
            "q": [(1,)],
            "t": [(1, "a", 1, 9), (1, "A", 1, 9), (9, "z", None, 1), (9, None, 1, None), (None, None, 1, 9)],
        },
    )
    assert _survey(source).broken_keys == {("x", "y"): 2, ("w",): 3}
    assert _survey(source, where="x = 1").broken_keys == {("x", "y"): 1, ("w",): 2}
    assert _survey(source, where="w = 1 AND x IS NULL").broken_keys is None


def test_one_unscaled_numeric_sends_the_whole_table_as_text(make: Make) -> None:
    """The binary encoder has no numeric without a scale."""
    source = make(
        "CREATE TABLE t (i INT, n NUMERIC, b BLOB, f REAL, ok BOOLEAN, d DATETIME)",
        {"t": [(1, 0.5, b"\xff\0", 0.1, 1, "2000-01-01T00:00:00"), (None,) * 6]},
    )
    plan = plan_of(source, "t")
    assert plan.wire is Wire.CSV
    assert {c.arrow for c in plan.columns} == {"string"}
    assert column(plan, "b").target_type == "bytea"
    first, second = read(source, plan).to_pylist()
    assert list(first.values()) == ["1", "0.5", "\\xff00", "0.1", "1", "2000-01-01T00:00:00"]
    assert list(second.values()) == [None] * 6


def test_tables_wider_than_sqlites_limits_are_surveyed(make: Make) -> None:
    """2,000 columns, 1,000 levels of an expression, 100 arguments of a function."""
    names = [f"c{i}" for i in range(1600)]
    kinds = ["TEXT", "INT", "REAL", "BLOB"]
    definition = ", ".join(f"{n} {kinds[i % 4]}" for i, n in enumerate(names))
    source = make(f"CREATE TABLE t ({definition})", {"t": [tuple(["ä", 1, 0.5, b"\0"] * 400)]})
    plan = plan_of(source, "t")
    assert len(plan.columns) == 1600
    with source.snapshot(1) as snapshot:
        (row,) = rows_of(snapshot, plan)
        assert row[0] == "ä"
        assert row[1597] == 1
        assert snapshot.digest(plan, plan.chunks[0]).rows == 1


def test_more_values_than_a_query_gives_are_refused(make: Make) -> None:
    """1,001 numerics take two values each."""
    source = make(f"CREATE TABLE t ({', '.join(f'c{i} NUMERIC(9,2)' for i in range(1001))})")
    (refusal,) = _survey(source).refused
    assert refusal.column == ""
    assert "too many columns" in refusal.reason


# ── chunks ──────────────────────────────────────────────────────────────────────────────────────────────


def _covers(
    source: SqliteSource, plan_where: str | None = None, chunk_bytes: int = 2000, table: str = "t"
) -> list[int]:
    """Rows per chunk, after checking that the chunks join."""
    plan = plan_of(source, table, plan_where, chunk_bytes)
    assert [c.index for c in plan.chunks] == list(range(len(plan.chunks)))
    assert plan.chunks[0].lower is None
    assert plan.chunks[-1].upper is None
    for left, right in zip(plan.chunks, plan.chunks[1:], strict=False):
        assert left.upper is not None
        assert left.upper == right.lower
    with source.snapshot(1) as snapshot:
        counts = [snapshot.count(plan, c) for c in plan.chunks]
        assert len(rows_of(snapshot, plan)) == sum(counts) == plan.rows
    return counts


@pytest.mark.parametrize(
    "keys",
    [
        list(range(1, 1001)),
        [i * i * i for i in range(1000)],
        [*range(10), *range(10**12, 10**12 + 990)],
        [-(2**63), *range(-500, 498), 2**63 - 1],
    ],
    ids=["dense", "cubes", "one large gap", "extremes"],
)
def test_chunks_are_even_whatever_gaps_the_rowids_have(make: Make, keys: list[int]) -> None:
    """A chunk is an amount of work."""
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)", {"t": [(k, 1) for k in keys]})
    counts = _covers(source)
    assert sum(counts) == len(keys)
    assert len(counts) == 8
    assert max(counts) - min(counts) <= 8


def test_chunks_of_tables_without_a_key_use_the_rowid(make: Make) -> None:
    """Exact duplicates too; a column that is called rowid does not confuse it."""
    source = make("CREATE TABLE t (rowid TEXT, _ROWID_ TEXT)", {"t": [("same", "row")] * 1000})
    plan = plan_of(source, "t", None, 2000)
    assert (plan.chunk_by, plan.chunk_columns) == (ChunkBy.ROWID, ("oid",))
    assert sum(_covers(source)) == 1000


def test_a_table_whose_rowid_has_no_name_left_is_one_chunk(make: Make) -> None:
    """There is nothing to order it by."""
    source = make("CREATE TABLE t (rowid TEXT, _rowid_ TEXT, oid TEXT)", {"t": [("same", "row", "x")] * 1000})
    assert plan_of(source, "t", None, 2000).chunk_by is ChunkBy.WHOLE
    assert _covers(source) == [1000]


@pytest.mark.parametrize("collation", ["BINARY", "NOCASE"])
def test_tables_without_rowid_are_cut_by_their_key(make: Make, collation: str) -> None:
    """Text bounds are compared by SQLite alone, with the key's collation."""
    keys = sorted({f"{'aAbBzZäÄ'[i % 8]}{i // 3:03d}'\"" for i in range(500)}, key=str.lower)
    rows = [(k, i % 2, float(i)) for i, k in enumerate(keys)]
    source = make(
        f"CREATE TABLE t (a TEXT COLLATE {collation}, b INT, c REAL, PRIMARY KEY (a, b DESC, c)) WITHOUT ROWID",
        {"t": rows},
    )
    plan = plan_of(source, "t", None, 1000)
    assert (plan.chunk_by, plan.chunk_columns) == (ChunkBy.KEY, ("a", "b", "c"))
    counts = _covers(source, chunk_bytes=1000)
    assert len(counts) > 5
    assert max(counts) - min(counts) <= len(counts)


@pytest.mark.parametrize("declared", ["REAL", "BLOB", "NUMERIC", ""])
def test_bounds_of_every_storage_class_are_exact(make: Make, declared: str) -> None:
    """Reals with all their digits, blobs as bytes; a mixture in the order of SQLite."""
    values: dict[str, list[object]] = {
        "REAL": [i / 7 for i in range(300)],
        "BLOB": [i.to_bytes(8, "big") for i in range(300)],
        "NUMERIC": [v for i in range(150) for v in (i, i + 1 / 3)],
        "": [v for i in range(75) for v in (i, i + 1 / 3, f"t{i}", i.to_bytes(2, "big"))],
    }
    source = make(
        f"CREATE TABLE t (k {declared} PRIMARY KEY) WITHOUT ROWID", {"t": [(v,) for v in values[declared]]}
    )
    table = source.catalog(None).tables[0]
    survey = source.survey(table, table.columns, None, 200)
    assert len(survey.chunks) > 4
    plan = plan_of(source, "t", None, 200)
    with source.snapshot(1) as snapshot:
        assert sum(snapshot.count(plan, c) for c in plan.chunks) == 300


def test_chunks_are_even_within_a_condition(make: Make) -> None:
    """The condition may leave rows of one end only."""
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)", {"t": [(i, i) for i in range(5000)]})
    counts = _covers(source, "v >= 4000 OR v = 3")
    assert sum(counts) == 1001
    assert max(counts) - min(counts) <= len(counts)


def test_rows_that_come_after_the_plan_are_covered(make: Make, tmp_path: Path) -> None:
    """The first chunk has no lower bound and the last no upper one."""
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)", {"t": [(i, i) for i in range(1000)]})
    plan = plan_of(source, "t", None, 2000)
    change(tmp_path / "source.db", "INSERT INTO t VALUES (-5, 1), (99999, 1)")
    with source.snapshot(1) as snapshot:
        assert len(rows_of(snapshot, plan)) == 1002


def test_small_and_empty_tables_are_one_chunk(make: Make) -> None:
    """Nothing to cut."""
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    plan = plan_of(source, "t", None, 1)
    assert (plan.chunk_by, plan.chunks) == (ChunkBy.WHOLE, (Chunk(index=0),))
    assert _covers(source, chunk_bytes=1) == [0]


def test_the_survey_is_the_same_each_time(make: Make) -> None:
    """Same rows, same plan, same hash."""
    rows = [(i * 7919 % 10007, "x" * (i % 50)) for i in range(2000)]
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", {"t": rows})
    assert plan_of(source, "t", None, 5000).hash == plan_of(source, "t", None, 5000).hash


def test_surveys_may_run_at_the_same_time(make: Make) -> None:
    """From several threads on one source."""
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)", {"t": [(i, i) for i in range(20000)]})
    hashes: list[str] = []
    threads = [
        threading.Thread(target=lambda: hashes.append(plan_of(source, "t", None, 9000).hash))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hashes) == 6
    assert len(set(hashes)) == 1
