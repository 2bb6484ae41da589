"""MySQL as a source: opening, the catalog, the survey, the snapshot. A real server, and a wire that misbehaves."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.errors import (
    ConfigError,
    ConnectionFailed,
    Crowded,
    SnapshotLost,
    SpecError,
    TransientError,
)
from jivs_pipeline.core.plan import Chunk, ChunkBy, TablePlan
from jivs_pipeline.core.ports import Snapshot, Survey
from jivs_pipeline.core.types_mysql import MYSQL_TYPES, MysqlValues, choose_mysql, mysql_type
from jivs_pipeline.infra.sources.mysql import MysqlSource
from jivs_pipeline_tests.fix_mysql import connected
from jivs_pipeline_tests.fix_postgresql import Proxy, at_port
from jivs_pipeline_tests.mysql_databases import EVERY_TYPE, SHOP
from jivs_pipeline_tests.row_hashes import reference

Make = Callable[..., str]
Open = Callable[..., MysqlSource]


def plan_of(
    source: MysqlSource, table: str, where: str | None = None, chunk_bytes: int = 1 << 30
) -> TablePlan:
    """A plan of one table as the planner would make it; refusals do not stop it."""
    catalog = source.catalog(None)
    found = catalog.table(table)
    assert found is not None
    survey = source.survey(found, found.columns, where, chunk_bytes)
    return TablePlan(
        source_schema=catalog.schema, source_table=table, target_schema="public", target_table="t",
        columns=survey.columns, lane=survey.lane, wire=survey.wire, spelling=survey.spelling, where=where,
        chunk_by=survey.chunk_by, chunk_columns=survey.chunk_columns, chunks=survey.chunks, rows=survey.rows,
        bytes=survey.bytes, definition=found,
    )  # fmt: skip


def rows_of(snapshot: Snapshot, plan: TablePlan) -> list[tuple[Any, ...]]:
    """All rows of all chunks."""
    return [
        row
        for chunk in plan.chunks
        for batch in snapshot.batches(plan, chunk)
        for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)
    ]


def digest_of(snapshot: Snapshot, plan: TablePlan) -> Digest:
    return sum((snapshot.digest(plan, chunk) for chunk in plan.chunks), Digest())


def _outcome(snapshot: Snapshot, plan: TablePlan) -> type[Exception] | None:
    """What reading all rows ends with."""
    try:
        rows_of(snapshot, plan)
    except TransientError as error:
        return type(error)
    return None


def change(url: str, *statements: str) -> None:
    """What another program does."""
    with connected(url) as db, db.cursor() as cursor:
        cursor.execute("SET sql_mode = '', lock_wait_timeout = 2")
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def make_wire(mysql_server: str) -> Iterator[Callable[..., Proxy]]:
    """Proxies in front of the server."""
    made: list[Proxy] = []

    def make(stall_after: int | None = None) -> Proxy:
        parts = urlsplit(mysql_server)
        made.append(Proxy((parts.hostname or "", parts.port or 3306), stall_after))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


# ── opening ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change_url", "problem"),
    [
        (lambda u: u.replace("pw@", "wrong@"), "does not accept the user or password"),
        (lambda u: u.rpartition("/")[0] + "/nowhere", "does not let the user into the database"),
        (lambda u: u.replace(":3306", ":1"), "cannot be reached"),
        (lambda u: u.replace("127.0.0.1", "no.such.host.invalid"), "has an unknown host name"),
    ],
)
def test_no_way_in(
    make_mysql: Make, make_mysql_user: Make, change_url: Callable[[str], str], problem: str
) -> None:
    """One sentence that names connection and place, without the password."""
    url = change_url(make_mysql_user(make_mysql()))
    with pytest.raises(ConnectionFailed) as caught:
        MysqlSource(parse_url(url, "shop"), io_timeout_seconds=5)
    assert problem in caught.value.message
    assert "'shop'" in caught.value.message
    assert caught.value.hint
    assert "wrong" not in str(caught.value)


def test_an_unknown_database(mysql_server: str, make_mysql: Make, open_mysql: Open) -> None:
    url = f"{mysql_server.rpartition('/')[0]}/nowhere"
    with pytest.raises(ConnectionFailed, match="has no such database"):
        open_mysql(url)
    with pytest.raises(ConfigError, match="has no database 'nowhere'"):
        open_mysql(make_mysql()).catalog("nowhere")


def test_tls_that_is_not_there_is_no_plain_connection(
    make_mysql: Make, make_wire: Callable[..., Proxy]
) -> None:
    """`required` means that nothing is said in the clear."""
    url = make_mysql()
    with connected(url) as db, db.cursor() as cursor:
        cursor.execute("SELECT @@have_ssl")
        has_tls = cursor.fetchone() == ("YES",)
    if not has_tls:
        with pytest.raises(ConnectionFailed, match="do not agree on TLS"):
            MysqlSource(parse_url(f"{url}?ssl-mode=required", "shop"))
    else:
        MysqlSource(parse_url(f"{url}?ssl-mode=required", "shop")).close()


def test_who_is_there(make_mysql: Make, open_mysql: Open) -> None:
    info = open_mysql(make_mysql()).info()
    assert info.dialect in {"mysql", "mariadb"}
    assert info.version[0].isdigit()


def test_sessions_only_read(make_mysql: Make, open_mysql: Open) -> None:
    """A `where` is the user's own SQL; what it runs in cannot write."""
    source = open_mysql(make_mysql("CREATE TABLE t (id int)"))
    with source._asking("t") as session, pytest.raises(pymysql.Error, match="READ ONLY"):
        session.command("INSERT INTO t VALUES (1)")


# ── catalog and survey ──────────────────────────────────────────────────────────────────────────────────


def test_the_table_of_types_is_what_the_server_says(make_mysql: Make, open_mysql: Open) -> None:
    """Every type in `jivs types mysql` is one that this server reports, and is read as that line."""
    only_mariadb = "CREATE TABLE more (u uuid, i inet6);\n"
    url = make_mysql(EVERY_TYPE)
    source = open_mysql(url)
    if source.info().dialect == "mariadb":
        change(url, only_mariadb.strip().removesuffix(";"))
    seen = {mysql_type(c.type).family for t in source.catalog(None).tables for c in t.columns}
    table = {m.declared for m in MYSQL_TYPES} - {"bigint unsigned auto_increment"}
    if source.info().dialect == "mysql":
        table -= {"uuid", "inet"}
    assert table - seen <= {"bigint", "text"} - seen
    assert seen <= table


def test_left_out(make_mysql: Make, open_mysql: Open) -> None:
    """Everything that does not come along is named once, with the reason."""
    left = {(o.name, o.kind) for o in open_mysql(make_mysql(SHOP)).catalog(None).left_out}
    assert {
        ("tr", "trigger"), ("pr", "routine"), ("orders.words", "index"), ("customers.note", "index"),
        ("customers.double_credit", "generated column"),
        ("customers.token", "default"), ("customers.no_joke", "check constraint"), ("customers", "collation"),
    } <= left  # fmt: skip


def test_zero_dates_are_counted(make_mysql: Make, open_mysql: Open) -> None:
    """0000-00-00, months and days of zero, days that no month has, and year 0; year 9 is a year."""
    source = open_mysql(
        make_mysql("""
        CREATE TABLE t (id int PRIMARY KEY, d date, t datetime(6), s timestamp NULL);
        INSERT INTO t VALUES (1, '0000-00-00', '2021-02-29 01:00:00', '0000-00-00 00:00:00'), (2, '2020-00-15', '2020-02-29', NULL),
            (3, '2020-05-00', NULL, NULL), (4, '2020-04-31', NULL, NULL), (5, '0000-01-01', NULL, NULL), (6, '0009-09-09', NULL, NULL),
            (7, NULL, '9999-12-31 23:59:59.999999', '2020-01-01');
        """)
    )
    table = source.catalog(None).tables[0]
    reasons = {r.column: r.reason for r in source.survey(table, table.columns, None, 1 << 20).refused}
    assert {c: r.split(" ")[0] for c, r in reasons.items()} == {"d": "5", "t": "1", "s": "1"}
    assert not source.survey(table, table.columns, "id = 6 OR id = 7", 1 << 20).refused


def test_texts_that_postgresql_cannot_hold(make_mysql: Make, open_mysql: Open) -> None:
    """NUL is counted in every character set, whatever the collation thinks of it; cp1252 is no trouble."""
    source = open_mysql(
        make_mysql("""
        CREATE TABLE t (a varchar(9), b varchar(9) CHARACTER SET latin1, c varchar(9) CHARACTER SET ucs2, d varchar(9) CHARACTER SET ascii);
        INSERT INTO t VALUES ('a\\0b', x'00', _utf8mb4 'x\\0', 'a'), ('\\0', x'8085', 'xy', ''), ('', '', '', NULL);
        """)
    )
    table = source.catalog(None).tables[0]
    reasons = {r.column: r.reason for r in source.survey(table, table.columns, None, 1 << 20).refused}
    assert {c: r.split(" ")[0] for c, r in reasons.items()} == {"a": "2", "b": "1", "c": "1"}


def test_json_that_only_mariadb_takes_for_json(make_mysql: Make, open_mysql: Open) -> None:
    """Counted in the plan; what looks like it inside a string, or is escaped rightly, is not."""
    loose = [r'"\x"', "1.", "[2.e5]", r'{"\\\q": 1}']
    strict = [
        r'"\\x"',
        '"1. 2."',
        "1.5",
        r'"\u00e9\n\/"',
        r'{"a\"1.": "\\\\"}',
        "null",
        '"' + "x" * 100_000 + r'\\"',
    ]
    url = make_mysql("CREATE TABLE t (id int PRIMARY KEY, j json)")
    source = open_mysql(url)
    if source.info().dialect == "mysql":
        pytest.skip("MySQL keeps JSON in a form of its own, which is always well-formed")
    with connected(url) as db, db.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", list(enumerate([*loose, *strict])))
    table = source.catalog(None).tables[0]
    (refused,) = source.survey(table, table.columns, None, 1 << 20).refused
    assert refused.reason.startswith(f"{len(loose)} values are JSON to MariaDB but not to PostgreSQL")
    assert not source.survey(table, table.columns, f"id >= {len(loose)}", 1 << 20).refused


def test_utf8_in_latin1_is_named(make_mysql: Make, open_mysql: Open) -> None:
    """It is carried as MySQL reads it, which is exact; that it was hardly meant so is said."""
    source = open_mysql(
        make_mysql("""
        CREATE TABLE t (v varchar(9) CHARACTER SET latin1);
        INSERT INTO t VALUES (x'c3a9'), (x'e9'), ('plain'), (x'e282ac'), (NULL), ('');
        """)
    )
    table = source.catalog(None).tables[0]
    survey = source.survey(table, table.columns, None, 1 << 20)
    assert not survey.refused
    assert [(r.column, r.reason.split(" ")[0]) for r in survey.lossy] == [("v", "2")]
    with source.snapshot(1) as snapshot:
        assert rows_of(snapshot, plan_of(source, "t")) == [
            ("Ã©",),
            ("é",),
            ("plain",),
            ("â‚¬",),
            (None,),
            ("",),
        ]


def test_enumerations(make_mysql: Make, open_mysql: Open) -> None:
    """The error value prints as '' and is not NULL; that it becomes the member '' is said."""
    source = open_mysql(
        make_mysql("""
        CREATE TABLE t (id int PRIMARY KEY, e enum('a',''), f enum('a','b'));
        INSERT INTO t VALUES (1, 'zzz', 'zzz'), (2, '', 'a'), (3, NULL, NULL);
        """)
    )
    table = source.catalog(None).tables[0]
    assert [c.expression for c in table.checks] == ["\"e\" IN ('a', '')", "\"f\" IN ('a', 'b', '')"]
    survey = source.survey(table, table.columns, None, 1 << 20)
    assert not survey.refused
    assert [r.column for r in survey.lossy] == ["e", "f"]
    assert "1 other is the member ''" in survey.lossy[0].reason
    with source.snapshot(1) as snapshot:
        assert rows_of(snapshot, plan_of(source, "t")) == [(1, "", ""), (2, "", "a"), (3, None, None)]


@pytest.mark.parametrize("where", ["nonsense >", "missing = 1", "(SELECT 1"])
def test_a_wrong_where(make_mysql: Make, open_mysql: Open, where: str) -> None:
    source = open_mysql(make_mysql("CREATE TABLE t (id int)"))
    table = source.catalog(None).tables[0]
    with pytest.raises(SpecError, match=r"MySQL does not take rules\.t\.where"):
        source.survey(table, table.columns, where, 1 << 20)


def test_what_the_user_may_not_read_is_refused(
    make_mysql: Make, make_mysql_user: Make, open_mysql: Open
) -> None:
    """A right on one column only: the table is refused, the others are not."""
    url = make_mysql("CREATE TABLE good (id int);\nCREATE TABLE half (id int, secret int);\n")
    user = make_mysql_user(url, "SHOW VIEW")
    name, database = urlsplit(user).username, urlsplit(url).path[1:]
    change(
        url,
        f"GRANT SELECT ON {database}.good TO {name}@'%'",
        f"GRANT SELECT (id) ON {database}.half TO {name}@'%'",
    )
    source = open_mysql(user)
    tables = {t.name: t for t in source.catalog(None).tables}
    assert not source.survey(tables["good"], tables["good"].columns, None, 1 << 20).refused
    # information_schema shows a user only the columns that he may read, and would have hidden the other.
    assert [c.name for c in tables["half"].columns] == ["id"]
    refused = source.survey(tables["half"], tables["half"].columns, None, 1 << 20).refused
    assert "does not let this user read all of it" in refused[0].reason


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("n bigint unsigned", "n * 3", ChunkBy.KEY), ("k varchar(20)", "concat(if(n % 2, 'K', 'k'), n % 50)", ChunkBy.KEY),
        ("k varbinary(20)", "concat(char(n % 7), n)", ChunkBy.KEY), ("d datetime", "'2020-01-01' + INTERVAL n HOUR", ChunkBy.WHOLE),
    ],
)  # fmt: skip
def test_chunks_cover_every_row_once(
    make_mysql: Make, open_mysql: Open, key: str, value: str, kind: ChunkBy
) -> None:
    """Also where a single value of the key fills more than a chunk, and where equal ones differ in case."""
    name = key.split(maxsplit=1)[0]
    source = open_mysql(
        make_mysql(f"""
        CREATE TABLE seq (n int PRIMARY KEY);
        INSERT INTO seq SELECT a.n + 10 * b.n + 100 * c.n FROM
            (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) a,
            (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) b,
            (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) c;
        CREATE TABLE t ({key} NOT NULL, i int, PRIMARY KEY ({name}, i));
        INSERT INTO t SELECT {value}, n FROM seq;
        """)
    )
    plan = plan_of(source, "t", chunk_bytes=700)
    assert plan.chunk_by is kind
    with source.snapshot(1) as snapshot:
        assert sorted(i for _, i in rows_of(snapshot, plan)) == list(range(1000))
        whole = plan.model_copy(
            update={"chunks": (Chunk(index=0),), "chunk_by": ChunkBy.WHOLE, "chunk_columns": ()}
        )
        assert digest_of(snapshot, plan) == digest_of(snapshot, whole)
    assert (len(plan.chunks) >= 10) is (kind is ChunkBy.KEY)


@pytest.mark.parametrize("spelling", [Spelling.CHAIN, Spelling.CANONICAL])
def test_digests_are_of_the_canonical_texts(make_mysql: Make, open_mysql: Open, spelling: Spelling) -> None:
    """As plain Python hashes them, which knows only what is written down here."""
    source = open_mysql(
        make_mysql(
            "CREATE TABLE t (id int unsigned zerofill, v varchar(9), n decimal(9,4), f float, b blob, m datetime(6), s timestamp NULL,"
            " t time(2), x bit(3));\n"
            "INSERT INTO t VALUES (1, 'ä☃', '-1.5000', 0.5, x'00ff', '2020-02-29 01:02:03.4', '2020-02-29 01:02:03', '-0:00:01.5', 5),"
            " (20, NULL, '100', -2, '', '2020-02-29', NULL, '10:00:00', 0),"
            " (300, '', '-0.0000', 0, NULL, NULL, '1970-01-01 00:00:01', NULL, NULL)"
        )
    )
    rows = [
        ["1", "ä☃", "-1.5", "3fe0000000000000", "00ff", "2020-02-29 01:02:03.4", "2020-02-29 01:02:03+00", "-00:00:01.5", "101"],
        ["20", None, "100", "c000000000000000", "", "2020-02-29 00:00:00", None, "10:00:00", "000"],
        ["300", "", "0", "0000000000000000", None, None, "1970-01-01 00:00:01+00", None, None],
    ]  # fmt: skip
    plan = plan_of(source, "t").model_copy(update={"spelling": spelling})
    with source.snapshot(1) as snapshot:
        assert digest_of(snapshot, plan) == reference(rows, [c.canon for c in plan.columns], spelling)
        key = [plan.columns[0], plan.columns[1]]
        hashes = {key: hashed for hashed, key in snapshot.hashes(plan, plan.chunks[0], key)}
    assert hashes.keys() == {("1", "ä☃"), ("20", None), ("300", "")}
    for row in rows:
        one = reference([row], [c.canon for c in plan.columns], spelling)
        signed = struct.unpack(">q" if spelling is Spelling.CHAIN else ">qq", hashes[row[0] or "", row[1]])
        assert sum(signed) == one.high + one.low


@pytest.mark.parametrize("spelling", [Spelling.CHAIN, Spelling.CANONICAL])
def test_values_near_the_packet_limit(make_mysql: Make, open_mysql: Open, spelling: Spelling) -> None:
    """A blob of which the hex is longer than the server lets any text be is hashed all the same."""
    url = make_mysql("CREATE TABLE t (id int PRIMARY KEY, b longblob);\nINSERT INTO t VALUES (1, x'01')")
    with connected(url) as db, db.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        size = cursor.fetchone()[0] // 8 * 5
    change(url, f"INSERT INTO t VALUES (2, repeat(x'ab', {size}))")
    source = open_mysql(url)
    plan = plan_of(source, "t").model_copy(update={"spelling": spelling})
    with source.snapshot(1) as snapshot:
        assert [len(b) for _, b in rows_of(snapshot, plan)] == [1, size]
        expected = [["1", "01"], ["2", "ab" * size]]
        assert digest_of(snapshot, plan) == reference(expected, [c.canon for c in plan.columns], spelling)


def test_rows_of_several_packets(make_mysql: Make, open_mysql: Open) -> None:
    """Rows on both sides of the largest packet come as they are, in their order, also between small ones."""
    url = make_mysql("CREATE TABLE t (id int PRIMARY KEY, b longblob, c varchar(9))")
    # A row is the values with their lengths: "n", four bytes and the blob's, and "end" with one.
    whole = (1 << 24) - 1
    sizes = [3, *(whole - 2 - 4 - 4 + more for more in (-1, 0, 1, 2)), 3, 2 * whole - 2 - 9 - 4, 5]
    with connected(url) as db, db.cursor() as cursor:
        cursor.execute(f"SET GLOBAL max_allowed_packet = GREATEST(@@max_allowed_packet, {64 << 20})")
    with connected(url) as db, db.cursor() as cursor:
        for number, size in enumerate(sizes):
            cursor.execute(f"INSERT INTO t VALUES ({number}, repeat('x', {size}), 'end')")
        db.commit()
    source = open_mysql(url)
    plan = plan_of(source, "t")
    with source.snapshot(1) as snapshot:
        found = rows_of(snapshot, plan)
        assert [(n, len(b), c) for n, b, c in found] == [(n, size, "end") for n, size in enumerate(sizes)]
        assert all(set(b) == {ord("x")} for _, b, _ in found)
        counted = sum(snapshot.count(plan, chunk) for chunk in plan.chunks)
        assert counted == digest_of(snapshot, plan).rows == len(sizes)


class _Counted:
    """Permits for a number of connections, one at a time."""

    def __init__(self, free: int) -> None:
        self.free, self.taken, self.count = free, 0, 1

    def take(self, wanted: int, *, least: int = 1, of: int | None = None) -> _Counted:
        del least, of
        if wanted > self.free:
            raise Crowded("no connection is free", hint="wait")
        self.free, self.taken = self.free - wanted, self.taken + 1
        return self

    def give_back(self) -> None:
        self.free += 1


def test_a_large_table_is_looked_at_by_two_sessions(make_mysql: Make, open_mysql: Open) -> None:
    """Or by one, where no connection is free for another; both find the same."""
    digits = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(10))
    numbers = " + ".join(f"{10**e} * d{e}.n" for e in range(5))
    tables = ", ".join(f"({digits}) d{e}" for e in range(5))
    url = make_mysql(
        "CREATE TABLE t (id int PRIMARY KEY, yes tinyint(1), d date, v varchar(9), e enum('a'), x text);\n"
        f"INSERT INTO t SELECT {numbers}, 1, '2020-02-29', 'v', 'a', 'text' FROM {tables};\n"
        "INSERT INTO t SELECT id + 100000, 0, NULL, NULL, NULL, NULL FROM t;\n"
        "INSERT INTO t SELECT id + 200000, 1, d, v, e, x FROM t;\n"
        "UPDATE t SET d = '0000-00-00' WHERE id < 3;\n"
        "UPDATE t SET v = concat('a', char(0)), e = 'none' WHERE id < 7;\n"
        "UPDATE t SET yes = 2 WHERE id = 9;\n"
        "ANALYZE TABLE t"
    )
    surveys: list[Survey] = []
    for free in (1, 2):
        permits = _Counted(free)
        source = open_mysql(url, permits=permits)
        found = source.catalog(None).table("t")
        assert found is not None
        surveys.append(source.survey(found, found.columns, None, 1 << 20))
        assert (permits.taken, permits.free) == (free, free - 1)
    assert surveys[0] == surveys[1]
    assert surveys[0].rows == 400_000
    assert len(surveys[0].chunks) == 11
    reasons = {r.column: r.reason for r in surveys[0].refused}
    assert reasons["d"].startswith("3 values are no day")
    assert reasons["v"].startswith("7 texts hold a NUL")
    assert surveys[0].lossy[0].reason.startswith("7 values are the error value of the ENUM")


@pytest.mark.parametrize("rights", [None, "SELECT, LOCK TABLES"])
def test_a_table_that_the_server_cannot_use_fails_alone(
    make_mysql: Make, make_mysql_user: Make, open_mysql: Open, rights: str | None
) -> None:
    """A merge table whose part is gone and a table without its file are refused by name; all others are read."""
    url = make_mysql(
        "CREATE TABLE part (n int) ENGINE=MyISAM;\nCREATE TABLE merged (n int) ENGINE=MERGE UNION=(part);\n"
        "DROP TABLE part;\nCREATE TABLE lost (n int);\nALTER TABLE lost DISCARD TABLESPACE;\n"
        "CREATE TABLE good (n int);\nINSERT INTO good VALUES (1)"
    )
    source = open_mysql(make_mysql_user(url, rights) if rights else url)
    catalog = source.catalog(None)
    reasons = {
        t.name: [r.reason for r in source.survey(t, t.columns, None, 1 << 30).refused] for t in catalog.tables
    }
    assert reasons == {
        "good": [],
        "merged": ["the server cannot use it (error 1168); repair it there, or put it under tables.exclude"],
        "lost": ["the server cannot use it (error 1814); repair it there, or put it under tables.exclude"],
    }
    plan = plan_of(source, "good")
    with source.snapshot(2) as snapshot:
        assert rows_of(snapshot, plan) == [(1,)]


# ── the snapshot ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (None, "one snapshot"),
        ("SELECT, LOCK TABLES", "one snapshot, begun under LOCK TABLES (the privilege RELOAD is missing)"),
        ("SELECT", "one snapshot, read by one session: others could not join it without the privilege RELOAD or LOCK TABLES"),
    ],
)  # fmt: skip
def test_all_readers_see_one_moment(
    make_mysql: Make, make_mysql_user: Make, open_mysql: Open, rights: str | None, said: str
) -> None:
    """A writer that changes two tables together is seen in both or in none, by every reader, whatever the user may do."""
    url = make_mysql(
        "CREATE TABLE a (n int);\nCREATE TABLE b (n int);\nINSERT INTO a VALUES (0);\nINSERT INTO b VALUES (0)"
    )
    source = open_mysql(make_mysql_user(url, rights) if rights else url)
    plans = [plan_of(source, name) for name in ("a", "b")]
    stop = threading.Event()

    def write() -> None:
        with connected(url) as db, db.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("BEGIN")
                cursor.execute("UPDATE a SET n = n + 1")
                cursor.execute("UPDATE b SET n = n + 1")
                cursor.execute("COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            with source.snapshot(3) as snapshot:
                assert snapshot.consistency == said
                seen = {rows_of(snapshot, plan)[0][0] for _ in range(6) for plan in plans}
                assert len(seen) == 1
    finally:
        stop.set()
        writer.join(10)


def test_tables_without_transactions_are_named(make_mysql: Make, open_mysql: Open) -> None:
    source = open_mysql(make_mysql("CREATE TABLE a (n int);\nCREATE TABLE old (n int) ENGINE=MyISAM"))
    source.catalog(None)
    with source.snapshot(2) as snapshot:
        assert snapshot.consistency == "one snapshot; not covered, having no transactions: old (MyISAM)"


def test_a_lock_that_is_not_granted_is_not_waited_for_for_ever(make_mysql: Make, open_mysql: Open) -> None:
    """While another program holds the tables, one session reads alone, and says so."""
    url = make_mysql("CREATE TABLE a (n int);\nINSERT INTO a VALUES (1)")
    source = open_mysql(url, io_timeout_seconds=4)
    plan = plan_of(source, "a")
    with connected(url) as db, db.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLES a WRITE")
        began = time.monotonic()
        with source.snapshot(2) as snapshot:
            assert "read by one session" in snapshot.consistency
            assert time.monotonic() - began < 10
            cursor.execute("UNLOCK TABLES")
            assert rows_of(snapshot, plan) == [(1,)]


def test_a_table_that_was_changed_ends_the_snapshot(make_mysql: Make, open_mysql: Open) -> None:
    """Rows of a table made anew are of another moment."""
    url = make_mysql("CREATE TABLE a (n int);\nINSERT INTO a VALUES (1)")
    source = open_mysql(url)
    plan = plan_of(source, "a")
    with source.snapshot(1) as snapshot:
        change(url, "ALTER TABLE a ADD COLUMN m int, ALGORITHM=COPY")
        with pytest.raises(SnapshotLost, match="changed after the snapshot"):
            rows_of(snapshot, plan)


def test_a_lost_session_is_the_snapshots_end_only_when_it_is_the_last(
    make_mysql: Make, make_wire: Callable[..., Proxy], open_mysql: Open
) -> None:
    url = make_mysql("CREATE TABLE a (n int);\nINSERT INTO a VALUES (1)")
    proxy = make_wire()
    source = open_mysql(at_port(url, proxy.port), io_timeout_seconds=5)
    plan = plan_of(source, "a")
    with source.snapshot(2) as snapshot:
        proxy.cut_one(len(proxy._pairs) - 2)
        outcomes = [_outcome(snapshot, plan) for _ in range(3)]
        assert outcomes.count(TransientError) == 1
        assert outcomes.count(None) == 2
        proxy.cut()
        for _ in range(2):
            with pytest.raises(SnapshotLost):
                rows_of(snapshot, plan)


def test_silence_is_bounded(make_mysql: Make, make_wire: Callable[..., Proxy], open_mysql: Open) -> None:
    """A wire that says nothing more ends the read soon after the timeout."""
    proxy = make_wire()
    source = open_mysql(
        at_port(make_mysql("CREATE TABLE a (n int);\nINSERT INTO a VALUES (1)"), proxy.port),
        io_timeout_seconds=1,
    )
    plan = plan_of(source, "a")
    with source.snapshot(1) as snapshot:
        proxy.stall()
        began = time.monotonic()
        with pytest.raises(SnapshotLost):
            rows_of(snapshot, plan)
        assert time.monotonic() - began < 10


def test_a_server_that_works_may_be_silent(make_mysql: Make, open_mysql: Open) -> None:
    """A long question is no silence: another session says that the server works on it."""
    source = open_mysql(make_mysql("CREATE TABLE a (n int);\nINSERT INTO a VALUES (1)"), io_timeout_seconds=1)
    plan = plan_of(source, "a", where="sleep(3) = 0")
    with source.snapshot(1) as snapshot:
        assert rows_of(snapshot, plan) == [(1,)]


def test_rows_that_nobody_wants_to_the_end(make_mysql: Make, open_mysql: Open) -> None:
    """The statement is ended, and the session stays in the snapshot."""
    url = make_mysql("CREATE TABLE a (n int PRIMARY KEY, v longtext);\n")
    change(
        url,
        "INSERT INTO a SELECT seq, repeat('x', 2000) FROM (SELECT @n := @n + 1 AS seq FROM information_schema.COLLATIONS, information_schema.COLLATIONS c, (SELECT @n := 0) z LIMIT 20000) s",
    )
    source = open_mysql(url, batch_bytes=65536)
    plan = plan_of(source, "a")
    with source.snapshot(1) as snapshot:
        batches = snapshot.batches(plan, plan.chunks[0])
        assert 0 < next(batches).num_rows < 100
        batches.close()
        assert len(rows_of(snapshot, plan)) == 20_000
        assert sum(snapshot.count(plan, chunk) for chunk in plan.chunks) == 20_000


def test_choices_never_lack_an_arrow_type() -> None:
    for mapping in MYSQL_TYPES:
        assert choose_mysql(
            mysql_type(
                mapping.declared.partition(" auto")[0].replace("(n)", "(5)").replace("(p,s)", "(5,2)")
            ),
            MysqlValues(),
        ).arrow
