"""Rows of a SQLite file: batches, digests, one state for all readers, and the way into PostgreSQL."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Canon, Digest
from jivs_pipeline.core.errors import DataError, JivsError, TransientError
from jivs_pipeline.core.plan import ChunkBy, TablePlan, Wire
from jivs_pipeline.engine.arrow_types import arrow_schema
from jivs_pipeline.engine.encode import encode
from jivs_pipeline.infra.digests import Hashed, row_digest
from jivs_pipeline.infra.postgresql import connect
from jivs_pipeline.infra.sources import sqlite_digests, sqlite_snapshot
from jivs_pipeline.infra.sources.sqlite import SqliteSource
from jivs_pipeline_tests.sqlite_files import (
    change,
    digest_of,
    expected_digest,
    make_file,
    plan_of,
    read,
    rows_of,
    source_of,
)

Make = Callable[..., SqliteSource]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's file is."""
    return tmp_path / "source.db"


@pytest.fixture
def make(path: Path) -> Make:
    """A source from a script and rows."""
    return lambda script, rows=None, **settings: source_of(make_file(path, script, rows), **settings)


def _with(plan: TablePlan, name: str, **changes: object) -> TablePlan:
    """The plan as a rule of the spec changes one of its columns."""
    columns = tuple(c.model_copy(update=changes) if c.source == name else c for c in plan.columns)
    return plan.model_copy(update={"columns": columns})


# ── batches ─────────────────────────────────────────────────────────────────────────────────────────────

_AWKWARD = """
CREATE TABLE t (
    id INTEGER PRIMARY KEY, i BIGINT, f REAL, n DECIMAL(15,4), s TEXT, v VARCHAR(20), b BLOB, ok BOOLEAN,
    d DATE, t TIME, ts DATETIME
)
"""
_ROWS: list[tuple[object, ...]] = [
    (1, None, None, None, None, None, None, None, None, None, None),
    (2, 2**53 + 1, 0.1 + 0.2, 0.1, "", "", b"", 0, "0001-01-01", "00:00:00", "0001-01-01 00:00:00"),
    (3, 2**63 - 1, float("inf"), -99999999999.9999, "it's \\N \"x\"\n\r\t", "日本語", bytes(range(256)), 1, "9999-12-31", "23:59:59.999999", "9999-12-31T23:59:59.999999"),
    (4, -(2**63), float("-inf"), 0.0001, "\ufeff\u200b\U0010ffff", " x ", b"\\x00", 1, "2000-02-29", "12:30:00.500000", "1969-12-31 23:59:59.10"),
    (5, 0, 5e-324, 12345678901, "a" * 10_000, "\\.", b"\0" * 10_000, 0, "1582-10-10", "12:30:00.0", "2013-03-10 02:30:00.000000"),
    (6, -1, 1.7976931348623157e308, -1, "00123", "NULL", b"\xff\xfe", None, None, None, None),
]  # fmt: skip


def test_every_value_arrives_exactly(make: Make) -> None:
    """Leading NULLs, extremes and awkward texts, in the types and under the names of the plan."""
    source = make(_AWKWARD, {"t": _ROWS})
    plan = _with(plan_of(source, "t"), "s", target="renamed")
    assert plan.wire is Wire.BINARY
    found = read(source, plan)
    assert found.schema == arrow_schema(plan.columns)
    assert found.column_names[4] == "renamed"
    rows = [tuple(row.values()) for row in found.to_pylist()]
    for row, raw in zip(rows, _ROWS, strict=True):
        assert row[:3] == raw[:3]
        assert row[3] == (None if raw[3] is None else Decimal(repr(raw[3])))
        assert row[4:7] == raw[4:7]
        assert row[7] == (None if raw[7] is None else bool(raw[7]))
        assert (None if row[8] is None else row[8].isoformat()) == raw[8]
        assert (None if row[9] is None else row[9].isoformat("microseconds")) == _padded(raw[9])
        assert (None if row[10] is None else row[10].isoformat(" ", "microseconds")) == _padded(raw[10])


def _padded(text: object) -> str | None:
    if text is None:
        return None
    whole, _, fraction = str(text).replace("T", " ").partition(".")
    return f"{whole}.{fraction:0<6}"


def test_no_digit_is_lost_between_integers_and_reals(make: Make) -> None:
    """2^53 + 1 is not a double, and 0.1 is no integer."""
    values = [2**53 + 1, 0.1, None, -(2**63), 1e300, 1e-300, float("inf")]
    source = make("CREATE TABLE t (n NUMERIC)", {"t": [(v,) for v in values]})
    found = read(source, plan_of(source, "t")).column("n").to_pylist()
    assert [None if v is None else Decimal(v) for v in found] == [
        None if v is None else Decimal(repr(v)) for v in values
    ]


def test_any_column_can_be_carried_as_text(make: Make) -> None:
    """What a rule `type: text` makes of a mixture: as SQLite prints it, but with all digits."""
    values: list[object] = [None, 1, 0.5, 1e20, 0.1 + 0.2, "", "x", 2**63 - 1, float("-inf"), -0.0]
    source = make("CREATE TABLE t (c)", {"t": [(v,) for v in values]})
    plan = plan_of(source, "t")
    assert plan.columns[0].carrier == "text"
    texts = [
        None,
        "1",
        "0.5",
        "1.0e+20",
        "0.30000000000000004",
        "",
        "x",
        "9223372036854775807",
        "-Inf",
        "-0.0",
    ]
    assert read(source, plan).column("c").to_pylist() == texts
    assert digest_of(source, plan) == expected_digest([(t,) for t in texts], [Canon.TEXT])
    # Also a column of one class, and one whose type is numeric in the target.
    source = make("CREATE TABLE u (c NUMERIC(9,2))", {"u": [(1,), (0.5,)]})
    plan = _with(
        plan_of(source, "u"), "c", carrier="text", arrow="string", canon=Canon.TEXT, target_type="text"
    )
    assert read(source, plan).column("c").to_pylist() == ["1", "0.5"]


def test_a_blob_is_never_taken_for_text(make: Make) -> None:
    """Not even by a rule."""
    source = make("CREATE TABLE t (c)", {"t": [("a",), (b"a",)]})
    with pytest.raises(DataError, match="another storage class"):
        read(source, plan_of(source, "t"))


@pytest.mark.parametrize(
    ("declared", "planned", "later"),
    [
        ("TEXT", "'abcde'", "x'61'"),
        ("VARCHAR(9)", "'a'", "x'61'"),
        ("INTEGER", "1", "1.5"),
        ("INTEGER", "1", "'x'"),
        ("BOOLEAN", "1", "2"),
        ("BOOLEAN", "1", "-1"),
        ("REAL", "1.5", "'x'"),
        ("", "1.5", "9007199254740993"),
        ("", "'a'", "1"),
        ("", "'a'", "1.5"),
        ("", "x'61'", "'a'"),
        ("", "x'61'", "1"),
        ("DECIMAL(5,2)", "1.5", "0.125"),
        ("DECIMAL(5,2)", "1.5", "1000"),
        ("DECIMAL(5,2)", "1.5", "1e300"),
        ("DECIMAL(38,0)", "1", "1e38"),
        ("DECIMAL(5,2)", "1.5", "'x'"),
        ("NUMERIC", "1.5", "'1.5x'"),
        ("DATE", "'2000-01-01'", "'2000-02-31'"),
        ("DATE", "'2000-01-01'", "20000101"),
        ("TIME", "'10:00:00'", "'25:00:00'"),
        ("DATETIME", "'2000-01-01 10:00:00'", "'2000-01-01 10:00:00Z'"),
        ("DATETIME", "'2000-01-01 10:00:00'", "2000"),
    ],
)
@pytest.mark.parametrize("position", ["first", "last"])
def test_a_value_that_came_after_the_census_is_an_error(
    make: Make, path: Path, declared: str, planned: str, later: str, position: str
) -> None:
    """ADBC would convert many of these without a word; the error names no value."""
    source = make(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, c {declared}); INSERT INTO t VALUES (5, {planned})"
    )
    plan = plan_of(source, "t")
    change(path, f"INSERT INTO t VALUES ({1 if position == 'first' else 9}, {later})")
    with pytest.raises(DataError, match="does not hold what the plan says") as caught:
        read(source, plan)
    assert caught.value.table == "main.t"
    assert caught.value.hint
    assert len(later) < 4 or later.strip("'") not in caught.value.message


def test_a_column_that_is_gone_is_an_error(make: Make, path: Path) -> None:
    """SQLite takes an unknown "name" for a string."""
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, gone TEXT); INSERT INTO t VALUES (1, 'x')")
    plan = plan_of(source, "t")
    change(path, "ALTER TABLE t DROP COLUMN gone")
    with pytest.raises(DataError, match="no such column"):
        read(source, plan)
    with pytest.raises(DataError, match="no such column"):
        digest_of(source, plan)


@pytest.mark.parametrize("text", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"])
@pytest.mark.parametrize("declared", ["TEXT", "VARCHAR(5)", "DATE", ""])
def test_text_that_is_not_utf8_is_an_error(make: Make, text: bytes, declared: str) -> None:
    """It names the table and the column, and no value."""
    source = make(f"CREATE TABLE t (c {declared})")
    with closing(sqlite3.connect(source._connection.path)) as database:  # pyright: ignore[reportPrivateUsage]
        database.execute("INSERT INTO t VALUES (CAST(? AS TEXT))", (text,))
        database.commit()
    with pytest.raises(DataError, match=r"Column c of main.t holds text that is not UTF-8"):
        read(source, plan_of(source, "t"))


def test_utf16_files_arrive_as_utf8(make: Make) -> None:
    """Surrogate pairs too."""
    source = make("PRAGMA encoding = 'UTF-16'; CREATE TABLE t (c TEXT)", {"t": [("ä日\U0001f600",), (None,)]})
    plan = plan_of(source, "t")
    assert read(source, plan).column("c").to_pylist() == ["ä日\U0001f600", None]
    assert digest_of(source, plan) == expected_digest([("ä日\U0001f600",), (None,)], [Canon.TEXT])


def test_names_need_quoting(make: Make) -> None:
    """Reserved words, quotes, dots, spaces; generated columns as values."""
    source = make("""
        CREATE TABLE "a ""b"".c" ("order" INT, "x""y" TEXT, "%s" INT, [g] AS ("order" * 2), "ü" TEXT);
        INSERT INTO "a ""b"".c" VALUES (1, 'q', 5, 'ü');
    """)
    plan = plan_of(source, 'a "b".c')
    assert read(source, plan).to_pylist() == [{"order": 1, 'x"y': "q", "%s": 5, "g": 2, "ü": "ü"}]
    assert digest_of(source, plan).rows == 1


def test_a_condition_is_applied_to_rows_and_digests(make: Make) -> None:
    """A comment at its end hides nothing."""
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT)", {"t": [(i, i % 3) for i in range(100)]})
    plan = plan_of(source, "t", "v = 1 OR v = 2 -- not 0", 300)
    assert len(plan.chunks) > 2
    with source.snapshot(1) as snapshot:
        rows = rows_of(snapshot, plan)
        assert rows == [(i, i % 3) for i in range(100) if i % 3]
        total = sum((snapshot.digest(plan, c) for c in plan.chunks), Digest())
    assert total == expected_digest(rows, [Canon.INTEGER, Canon.INTEGER])


# ── digests ─────────────────────────────────────────────────────────────────────────────────────────────


def test_digests_are_those_of_a_third_computation(make: Make) -> None:
    """Of the whole, and of the sum of chunks."""
    source = make(_AWKWARD, {"t": _ROWS})
    plan = plan_of(source, "t")
    expected = expected_digest(_ROWS, [c.canon for c in plan.columns])
    assert digest_of(source, plan) == expected
    assert digest_of(source, plan_of(source, "t", None, 2000)) == expected


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE t SET s = 'a' WHERE id = 2",
        "UPDATE t SET s = NULL WHERE id = 2",
        "UPDATE t SET v = ' x' WHERE id = 4",
        "UPDATE t SET i = i + 1 WHERE id = 2",
        "UPDATE t SET n = 0.1001 WHERE id = 2",
        "UPDATE t SET f = 0.3 WHERE id = 2",
        "UPDATE t SET b = x'00' WHERE id = 2",
        "UPDATE t SET ok = 1 WHERE id = 2",
        "UPDATE t SET ts = '0001-01-01 00:00:00.000001' WHERE id = 2",
        "UPDATE t SET s = v, v = s WHERE id = 6",
        "DELETE FROM t WHERE id = 6",
        "INSERT INTO t (id) VALUES (7)",
    ],
)
def test_a_single_change_changes_the_digest(make: Make, path: Path, statement: str) -> None:
    """Also '' for NULL, a space, the sixth decimal, and two values that change places."""
    source = make(_AWKWARD, {"t": _ROWS})
    plan = plan_of(source, "t")
    before = digest_of(source, plan)
    change(path, statement)
    assert digest_of(source, plan) != before


def test_values_cannot_run_into_each_other(make: Make) -> None:
    """Lengths come before values."""
    digests: set[Digest] = set()
    for a, b in [("a", "b"), ("ab", ""), ("", "ab"), ("a1:b", ""), ("-", "1:b"), (None, "1:b"), ("1:a", "b")]:
        source = make("DROP TABLE IF EXISTS t; CREATE TABLE t (a TEXT, b TEXT)", {"t": [(a, b)]})
        digests.add(digest_of(source, plan_of(source, "t")))
    assert len(digests) == 7


def test_equal_rows_do_not_cancel(make: Make) -> None:
    """A sum, not an exclusive or."""
    source = make("CREATE TABLE t (a INT)", {"t": [(1,), (1,)]})
    digest = digest_of(source, plan_of(source, "t"))
    assert digest.rows == 2
    assert (digest.high, digest.low) != (0, 0)


def test_blocks_of_rows_come_apart_as_they_were(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also empty texts at their ends, NULLs, and texts with the mark that stands between texts."""
    texts = ["", "\x1f", "a\x1fb", "x", None, "", "\x1f\x1f"]
    rows = [
        (n, texts[n % 7] if n > 4000 else texts[n % 2 * 3], "", texts[n % 6 // 5 * 4]) for n in range(6001)
    ]
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT NOT NULL, c TEXT)", {"t": rows})
    plan = plan_of(source, "t")
    expected = expected_digest(rows, [c.canon for c in plan.columns])
    for at_once in (16_384, 6_001, 6_000, 1_500, 1_000):
        monkeypatch.setattr(sqlite_digests, "_GROUP", at_once)
        assert digest_of(source, plan) == expected


def test_blocks_of_wide_rows_are_small(make: Make) -> None:
    """Also where each value is short, as its type says."""
    names = [f"c{n}" for n in range(60)]
    rows = [tuple(f"{number}-{name} ".ljust(200, "x") for name in names) for number in range(2_000)]
    source = make(f"CREATE TABLE t ({', '.join(f'{n} VARCHAR(200)' for n in names)})", {"t": rows})
    plan = plan_of(source, "t")
    with source.snapshot(1) as snapshot:
        groups = (group for chunk in plan.chunks for group in snapshot._texts(plan, chunk, 0))
        found = [(sum(c.nbytes for c in group), n) for group, n in groups]
    assert sum(n for _, n in found) == 2_000
    assert max(size for size, _ in found) < 20 << 20  # of 24 MB


_REALS = st.one_of(
    st.floats(allow_nan=False),
    st.decimals(-(10**13), 10**13, places=2).map(float),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, -0.0, 0.1 + 0.2, 1e13, 99999999999999.98, 1e15, 1e16, 5e-324, 2.0**53 + 2]),
)


@given(values=st.lists(_REALS, min_size=1, max_size=50))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("declared", ["NUMERIC(15,2)", "NUMERIC(20,9)", "NUMERIC", "REAL"])
def test_reals_are_spelled_by_their_shortest_digits(
    make: Make, path: Path, declared: str, values: list[float | int]
) -> None:
    """Whatever a column's type makes of a value."""
    source = make(
        f"DROP TABLE IF EXISTS t; CREATE TABLE t (v {declared})", {"t": [(None,), *((v,) for v in values)]}
    )
    plan = plan_of(source, "t")
    with closing(sqlite3.connect(path)) as database:
        stored = database.execute("SELECT v FROM t").fetchall()
    assert digest_of(source, plan) == expected_digest(stored, [c.canon for c in plan.columns])


def test_large_rows_have_the_same_digest_in_pieces(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a few MiB on no text of a row is built."""
    rows = [
        *_ROWS,
        (7, 1, 0.5, 0.5, "äx日" * 1_000_000, "v", bytes(range(256)) * 12_000, 1, None, None, None),
    ]
    source = make(_AWKWARD, {"t": rows})
    plan = plan_of(source, "t")
    expected = expected_digest(rows, [c.canon for c in plan.columns])
    assert digest_of(source, plan) == expected
    monkeypatch.setattr(sqlite_snapshot, "_LARGE_ROW", 10**12)
    assert digest_of(source, plan) == expected


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "table", ["(k INTEGER PRIMARY KEY, v TEXT, b BLOB)", "(k TEXT PRIMARY KEY, v TEXT, b BLOB) WITHOUT ROWID"]
)
@pytest.mark.parametrize("chunk_bytes", [1 << 30, 300_000], ids=["one chunk", "chunks"])
def test_batches_stay_small_however_unequal_rows_are(make: Make, table: str, chunk_bytes: int) -> None:
    """A batch is a little more than its bound, or a single row."""
    rows = [
        (i if "INTEGER" in table else f"{i:05d}", "x" * (100_000 if i % 500 == 7 else 3), bytes(i % 5))
        for i in range(4000)
    ]
    source = make(f"CREATE TABLE t {table}", {"t": rows}, batch_bytes=150_000)
    plan = plan_of(source, "t", None, chunk_bytes)
    with source.snapshot(1) as snapshot:
        batches = [b for c in plan.chunks for b in snapshot.batches(plan, c)]
    assert max(b.nbytes for b in batches) < 220_000
    assert len(batches) < 60
    assert [tuple(r.values()) for b in batches for r in b.to_pylist()] == rows


def test_a_batch_has_many_rows_where_rows_are_small(make: Make) -> None:
    """Small batches cost time."""
    source = make("CREATE TABLE t (a INT, s TEXT)", {"t": [(i, "short") for i in range(20_000)]})
    plan = plan_of(source, "t")
    with source.snapshot(1) as snapshot:
        sizes = [b.num_rows for b in snapshot.batches(plan, plan.chunks[0])]
    assert len(sizes) == 2


# ── one state for all readers ───────────────────────────────────────────────────────────────────────────


def test_nobody_writes_while_a_snapshot_is_open(make: Make, path: Path) -> None:
    """With a rollback journal our shared locks keep writers out, of both libraries and to the end."""
    source = make("CREATE TABLE t (a INT)", {"t": [(1,)]})
    plan = plan_of(source, "t")
    with source.snapshot(2) as snapshot:
        for _ in range(2):
            assert _write_elsewhere(path, "INSERT INTO t VALUES (2)") == "database is locked"
            assert rows_of(snapshot, plan) == [(1,)]
            snapshot.digest(plan, plan.chunks[0])
            # What else this process does with the file must not let go of the locks.
            source.catalog(None)
            plan_of(source, "t")
    assert _write_elsewhere(path, "INSERT INTO t VALUES (2)") == ""


def _write_elsewhere(path: Path, statement: str) -> str:
    """What another process gets: locks of one process do not stop itself."""
    script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=0.1)\ntry: c.execute(sys.argv[2]); c.commit()\nexcept sqlite3.Error as e: print(e, end='')\nc.close()"
    return subprocess.run(
        [sys.executable, "-c", script, str(path), statement], capture_output=True, text=True, check=True
    ).stdout


def test_in_wal_mode_others_write_and_we_do_not_see_it(make: Make, path: Path) -> None:
    """Rows, digests and counts of all readers are of one state, even across a checkpoint."""
    source = make("PRAGMA journal_mode = WAL; CREATE TABLE t (a INT)", {"t": [(i,) for i in range(1000)]})
    plan = plan_of(source, "t")
    with source.snapshot(3) as snapshot:
        before = snapshot.digest(plan, plan.chunks[0])
        assert _write_elsewhere(path, "UPDATE t SET a = a + 1") == ""
        assert _write_elsewhere(path, "PRAGMA wal_checkpoint(TRUNCATE)") == ""
        assert _write_elsewhere(path, "DELETE FROM t") == ""
        for _ in range(4):
            assert rows_of(snapshot, plan) == [(i,) for i in range(1000)]
            assert snapshot.digest(plan, plan.chunks[0]) == before
            assert snapshot.count(plan, plan.chunks[0]) == 1000
    with source.snapshot(1) as snapshot:
        assert rows_of(snapshot, plan) == []


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_readers_agree_while_somebody_writes(make: Make, path: Path, mode: str) -> None:
    """The writer is another process that commits without end."""
    source = make(f"PRAGMA journal_mode = {mode}; CREATE TABLE t (a INT)", {"t": [(0,)]}, timeout_seconds=20)
    plan = plan_of(source, "t")
    script = (
        "import sqlite3, sys, time\nc = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n"
        "c.execute('PRAGMA synchronous = OFF')\nprint(flush=True)\n"
        "while True: c.execute('UPDATE t SET a = a + 1'); time.sleep(0.002)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            seen: list[object] = []
            for _ in range(8):
                with source.snapshot(4) as snapshot:
                    rows = {rows_of(snapshot, plan)[0] for _ in range(4)}
                    digests = {snapshot.digest(plan, plan.chunks[0]) for _ in range(4)}
                assert len(rows) == len(digests) == 1
                assert digests == {expected_digest(rows, [Canon.INTEGER])}
                seen += rows
            assert len(set(seen)) > 1
        finally:
            writer.kill()


def test_a_snapshot_is_not_waited_for_without_end(make: Make, path: Path) -> None:
    """A lock that stays is an error after the timeout."""
    source = make("CREATE TABLE t (a INT)", timeout_seconds=0.3)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JivsError, match="locked"), source.snapshot(1):
            pass
        other.execute("ROLLBACK")


def test_a_snapshot_that_never_settles_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """Somebody commits between any two readers."""
    source = make("PRAGMA journal_mode = WAL; CREATE TABLE t (a INT)", timeout_seconds=0.5)
    run = sqlite_snapshot._run  # pyright: ignore[reportPrivateUsage]

    def disturbed(arrow: object, statement: str) -> None:
        run(arrow, statement)  # type: ignore[arg-type]
        if statement != "ROLLBACK":
            change(path, "INSERT INTO t VALUES (1)")

    monkeypatch.setattr(sqlite_snapshot, "_run", disturbed)
    with pytest.raises(TransientError, match="written to too often"), source.snapshot(2):
        pass


def test_threads_share_a_snapshot(make: Make) -> None:
    """As many as there are readers, and more."""
    source = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT)", {"t": [(i, f"v{i}") for i in range(5000)]}
    )
    plan = plan_of(source, "t", None, 10_000)
    rows: list[tuple[object, ...]] = []
    digests: list[Digest] = []
    with source.snapshot(2) as snapshot:

        def work(numbers: range) -> None:
            for chunk in (plan.chunks[i] for i in numbers):
                for batch in snapshot.batches(plan, chunk):
                    rows.extend(tuple(r.values()) for r in batch.to_pylist())
                digests.append(snapshot.digest(plan, chunk))

        threads = [threading.Thread(target=work, args=(range(i, len(plan.chunks), 4),)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(rows) == [(i, f"v{i}") for i in range(5000)]
    assert sum(digests, Digest()) == expected_digest(rows, [Canon.INTEGER, Canon.TEXT])


def test_a_reader_may_stop_in_the_middle(make: Make) -> None:
    """The connection goes back and serves the next."""
    source = make("CREATE TABLE t (a INT)", {"t": [(i,) for i in range(50_000)]})
    plan = plan_of(source, "t")
    with source.snapshot(1) as snapshot:
        for _ in range(3):
            batches = snapshot.batches(plan, plan.chunks[0])
            next(batches)
            batches.close()
        assert len(rows_of(snapshot, plan)) == 50_000


# ── numbers that come next ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("definition", "script", "expected"),
    [
        ("INTEGER PRIMARY KEY", "", 1),
        ("INTEGER PRIMARY KEY", "INSERT INTO t VALUES (7)", 8),
        ("INTEGER PRIMARY KEY", "INSERT INTO t VALUES (-7)", 1),
        ("INTEGER PRIMARY KEY", "INSERT INTO t VALUES (9), (5); DELETE FROM t WHERE id = 9", 6),
        ("INTEGER PRIMARY KEY AUTOINCREMENT", "", 1),
        ("INTEGER PRIMARY KEY AUTOINCREMENT", "INSERT INTO t VALUES (9), (5); DELETE FROM t", 10),
        (
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            "INSERT INTO t VALUES (9); UPDATE sqlite_sequence SET seq = 3",
            10,
        ),
        (
            "INTEGER PRIMARY KEY AUTOINCREMENT",
            "INSERT INTO t VALUES (9); UPDATE sqlite_sequence SET seq = 500",
            501,
        ),
        ("INTEGER PRIMARY KEY", f"INSERT INTO t VALUES ({2**63 - 1})", 2**63),
        ("INT PRIMARY KEY", "INSERT INTO t VALUES (9)", None),
    ],
)
def test_numbering_goes_on_where_sqlite_would(
    make: Make, definition: str, script: str, expected: int | None
) -> None:
    """By target name."""
    source = make(
        f"CREATE TABLE other (id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE t (id {definition}); {script}"
    )
    plan = plan_of(source, "t")
    assert plan.definition is not None
    renamed = dataclasses.replace(plan.definition.columns[0], name="number")
    plan = _with(plan, "id", target="number").model_copy(
        update={"definition": dataclasses.replace(plan.definition, columns=(renamed,))}
    )
    with source.snapshot(1) as snapshot:
        assert snapshot.next_values(plan) == ({} if expected is None else {"number": expected})


# ── into PostgreSQL ─────────────────────────────────────────────────────────────────────────────────────


def _load(
    source: SqliteSource, plan: TablePlan, url: str, directory: Path
) -> tuple[Digest, Digest, list[tuple[object, ...]]]:
    """Carry a table into PostgreSQL by the engine's encoder: the digests of both ends, and the rows there."""
    file = directory / "chunk.arrow"
    with connect(parse_url(url, "target"), application_name="test") as session:
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(c.target), sql.SQL(c.target_type))
            for c in plan.columns  # type: ignore[arg-type]
        )
        session.execute("DROP TABLE IF EXISTS public.t")
        session.execute(
            sql.SQL("CREATE TABLE public.t (ordinal int GENERATED ALWAYS AS IDENTITY, {})").format(columns)
        )
        names = sql.SQL(", ").join(sql.Identifier(c.target) for c in plan.columns)
        how = sql.SQL("FORMAT binary") if plan.wire is Wire.BINARY else sql.SQL("FORMAT csv")
        total = Digest()
        with source.snapshot(1) as snapshot:
            for chunk in plan.chunks:
                with (
                    pa.OSFile(str(file), "wb") as sink,
                    pa.ipc.new_file(sink, arrow_schema(plan.columns)) as writer,
                ):
                    for batch in snapshot.batches(plan, chunk):
                        writer.write_batch(batch)
                with (
                    session.cursor() as cursor,
                    cursor.copy(sql.SQL("COPY public.t ({}) FROM STDIN ({})").format(names, how)) as copy,
                ):
                    for piece in encode(file, plan.wire):
                        copy.write(piece)
                total += snapshot.digest(plan, chunk)
        statement = row_digest(
            plan.spelling, sql.SQL("public.t"), [Hashed.of_target(c) for c in plan.columns]
        )
        count, high, low = session.execute(statement).fetchone()  # type: ignore[misc]
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c.target)) for c in plan.columns)
        rows = session.execute(sql.SQL("SELECT {} FROM public.t ORDER BY ordinal").format(texts)).fetchall()
    return total, Digest(count, int(high), int(low)), rows


def test_awkward_values_are_the_same_in_postgresql(make: Make, database: str, tmp_path: Path) -> None:
    """Both digests are equal, and so is what PostgreSQL prints."""
    source = make(_AWKWARD, {"t": _ROWS})
    ours, theirs, rows = _load(source, plan_of(source, "t"), database, tmp_path)
    assert ours == theirs
    assert rows[1][:3] == ("2", "9007199254740993", "0.30000000000000004")
    assert rows[2][9:] == ("23:59:59.999999", "9999-12-31 23:59:59.999999")
    assert [r[3] for r in rows] == [
        None,
        "0.1000",
        "-99999999999.9999",
        "0.0001",
        "12345678901.0000",
        "-1.0000",
    ]
    assert [r[4] for r in rows] == [r[4] for r in _ROWS]


def test_awkward_values_are_the_same_as_csv(make: Make, database: str, tmp_path: Path) -> None:
    """One numeric without a scale, with an infinity, sends every column as text."""
    script = _AWKWARD.replace("n DECIMAL(15,4)", "n NUMERIC")
    rows = [
        (*r[:3], v, *r[4:])
        for r, v in zip(_ROWS, [None, 1e300, float("inf"), -(2**63), 5e-324, 0.1], strict=True)
    ]
    source = make(script, {"t": rows})
    plan = plan_of(source, "t")
    assert plan.wire is Wire.CSV
    ours, theirs, found = _load(source, plan, database, tmp_path)
    assert ours == theirs
    assert [r[4] for r in found] == [r[4] for r in rows]
    assert found[2][3] == "Infinity"


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
_REAL = st.floats(allow_nan=False)
_INTEGER = st.integers(-(2**63), 2**63 - 1)
_VALUES: dict[str, st.SearchStrategy[object]] = {
    "BIGINT": _INTEGER,
    "DOUBLE": _REAL,
    "NUMERIC": _INTEGER | _REAL,
    "DECIMAL(9,4)": st.decimals(-99999, 99999, places=4).map(float) | st.integers(-99999, 99999),
    "DECIMAL(38,10)": _INTEGER | st.decimals(-(10**9), 10**9, places=6).map(float),
    "TEXT": _TEXT,
    "VARCHAR(20)": _TEXT,
    "BLOB": st.binary(max_size=20),
    "BOOLEAN": st.integers(0, 1),
    "DATE": st.dates().map(str),
    "TIME": st.times().map(str),
    "DATETIME": st.datetimes().map(str) | st.datetimes().map(lambda d: d.isoformat("T")),
    "": _INTEGER | _REAL.filter(lambda v: v != 0),
}


@st.composite
def _tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[object, ...]], str]:
    types = draw(st.lists(st.sampled_from(sorted(_VALUES)), min_size=1, max_size=6))
    rows = draw(st.lists(st.tuples(*(st.none() | _VALUES[t] for t in types)), max_size=12))
    return (
        types,
        rows,
        draw(st.sampled_from([")", ", id INTEGER PRIMARY KEY)", ", id TEXT PRIMARY KEY) WITHOUT ROWID"])),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_tables())
def test_any_table_is_the_same_in_postgresql(
    database: str, tmp_path: Path, table: tuple[list[str], list[tuple[object, ...]], str]
) -> None:
    """Random types and rows, in chunks of a few rows: nothing lost, doubled or changed."""
    types, rows, key = table
    path = tmp_path / "source.db"
    path.unlink(missing_ok=True)
    columns = ", ".join(f"c{i} {t}" for i, t in enumerate(types))
    numbers = [f"{i:03d}" if "TEXT" in key else i for i in range(len(rows))]
    keyed = [(*row, n) if "id" in key else row for row, n in zip(rows, numbers, strict=True)]
    source = source_of(make_file(path, f"CREATE TABLE t ({columns}{key}", {"t": keyed}))
    plan = plan_of(source, "t", None, 64)
    if plan.bytes > 2 * 64:
        assert plan.chunk_by is not ChunkBy.WHOLE
    ours, theirs, found = _load(source, plan, database, tmp_path)
    assert ours == theirs
    assert ours.rows == len(rows) == len(found)
    # Raw values by a third way: what SQLite itself holds after its own conversions.
    with closing(sqlite3.connect(path)) as raw:
        names = ", ".join(f'"{c.source}"' for c in plan.columns)
        held = raw.execute(f"SELECT {names} FROM t").fetchall()
    assert ours == expected_digest(held, [c.canon for c in plan.columns])
    for column, type_ in enumerate(types):
        if type_ in {"TEXT", "VARCHAR(20)", "BIGINT"}:
            assert [r[column] for r in found] == [None if r[column] is None else str(r[column]) for r in held]
