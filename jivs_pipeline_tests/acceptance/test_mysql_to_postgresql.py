"""`jivs run` from MariaDB to PostgreSQL, as a user types it: what arrives is compared without the product."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline_tests.acceptance.contract import check_error, check_run
from jivs_pipeline_tests.acceptance.rows import columns, constraints, indexes, ledger, next_value, tables_of
from jivs_pipeline_tests.fix_cli import Jivs, with_parts
from jivs_pipeline_tests.fix_mysql import connected
from jivs_pipeline_tests.mysql_databases import EVERY_TYPE, SHOP

Make = Callable[..., str]


def _mysql_rows(url: str, table: str) -> Counter[Any]:
    """Rows as PyMySQL reads them, with values brought to what psycopg gives for them."""
    with connected(url) as db, db.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'")
        cursor.execute("SELECT * FROM `{}`".format(table.replace("`", "``")))
        return Counter(tuple(map(_plain, row)) for row in cursor.fetchall())


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack(">d", value)
    return bytes(value) if isinstance(value, bytes | memoryview | bytearray) else value


def _postgresql_rows(url: str, table: str) -> Counter[Any]:
    with psycopg.connect(url) as db:
        db.execute("SET timezone = 'UTC'")
        rows = db.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("public", table))).fetchall()
    return Counter(tuple(map(_plain, row)) for row in rows)


@pytest.fixture
def run(jivs: Jivs, target: str, key: str) -> Callable[..., Any]:
    """Migrates a MySQL database into `target`; returns the document."""

    def run(url: str, *, code: int = 0, **spec: Any) -> Any:
        values = {"key": key, "source": "legacy", "target": "warehouse", **spec}
        env = jivs.connections(legacy=url, warehouse=target)
        return jivs("run", jivs.spec(**values), "--json", code=code, env=env).document

    return run


def test_a_shop(run: Callable[..., Any], make_mysql: Make, target: str, key: str) -> None:
    """Rows, keys, references, numbers and defaults arrive; what stays behind is named."""
    source = make_mysql(SHOP)
    document = run(source)
    check_run(document)
    tables = ['Select `it"s', "codes", "customers", "doubled", "empty", "items", "orders"]
    with psycopg.connect(target) as db:
        assert sorted(tables_of(db)) == sorted(tables)
    for table in tables:
        expected, actual = _mysql_rows(source, table), _postgresql_rows(target, table)
        if table == "customers":
            # Booleans are 0 and 1 here, bits are bytes.
            bits = {bytes([n]): f"{n:04b}" for n in range(16)}
            expected = Counter({(*r[:10], bits[r[10]], r[11]): n for r, n in expected.items()})
        assert expected == actual, table
    assert {t: len(chunks) for t, chunks in ledger(target, key).items()} == {f"public.{t}": 1 for t in tables}
    with psycopg.connect(target) as db:
        assert columns(db, "public", "customers")["active"] == "boolean"
        assert columns(db, "public", "orders") == {
            "id": "bigint", "customer_id": "bigint", "total": "numeric(10,2)", "memo": "text",
        }  # fmt: skip
        assert next_value(db, "customers", "id") == 51
        assert next_value(db, "orders", "id") == 151
        assert {(t, d) for t, d, *_ in constraints(db, "f")} == {
            (
                "orders",
                "FOREIGN KEY (customer_id) REFERENCES public.customers(id) ON UPDATE RESTRICT ON DELETE CASCADE",
            ),
            (
                "items",
                "FOREIGN KEY (order_id) REFERENCES public.orders(id) ON UPDATE RESTRICT ON DELETE RESTRICT",
            ),
        }
        assert {d for t, d, *_ in constraints(db, "u")} == {"UNIQUE (email)"}
        checks = {d for t, d, *_ in constraints(db, "c") if t == "customers"}
        assert any("credit >= " in c for c in checks)
        assert any("level" in c for c in checks)
        made = indexes(db)
        assert any('note ON public.customers USING btree ("left"((note)::text, 3))' in i for i in made), made
        assert any("orders_note ON public.orders" in i for i in made), made
        row = db.execute(
            """INSERT INTO public.customers (id, email) OVERRIDING SYSTEM VALUE VALUES (99, 'x')
               RETURNING active, credit, born::text, note, level, flags::text, token, now() - joined < '1 day'"""
        ).fetchone()
        assert row == (True, Decimal("0.00"), "2000-01-31", "it's \\ new", "low", "0101", None, True)
        comments = db.execute(
            "SELECT obj_description('public.customers'::regclass), col_description('public.orders'::regclass, 2)"
        )
        assert comments.fetchone() == ("who buys", "who")
    named = {(w["table"].split(".")[-1], w["reason"].split(":")[0]) for w in document["warnings"]}
    assert {
        ("tr", "trigger"), ("pr", "routine"), ("words", "index"), ("changed", "on update"),
        ("double_credit", "generated column"), ("token", "default"), ("no_joke", "check constraint"),
    } <= named, named  # fmt: skip
    again = run(source)
    assert again["tables"] == document["tables"]


def test_every_type(run: Callable[..., Any], make_mysql: Make, target: str) -> None:
    """The ends of every type's range, each value written down here once more."""
    check_run(run(make_mysql(EVERY_TYPE)))
    with psycopg.connect(target) as db:
        db.execute("SET timezone = 'UTC'")
        types = columns(db, "public", "every")
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c in types)
        rows = db.execute(sql.SQL("SELECT {} FROM public.every ORDER BY every.id").format(texts)).fetchall()
        floats = db.execute(
            "SELECT encode(float4send(f), 'hex'), encode(float8send(d), 'hex') FROM public.every ORDER BY id"
        ).fetchall()
        assert next_value(db, "every", "id") == 10
    assert dict(zip(types, rows[0], strict=True)) == {
        "id": "1", "yes": "true", "two": "2", "ti": "-128", "tu": "255", "si": "-32768", "su": "65535", "mi": "-8388608",
        "mu": "16777215", "i": "-2147483648", "iu": "42", "bi": "-9223372036854775808", "bu": "18446744073709551615",
        "big": "-12345678901234567890123456789012345.123456789012345678901234567890", "money": "7.50", "f": "0.1",
        "d": "1.7976931348623157e+308", "fixed": "1.25", "bits": "00101", "wide": f"1{'0' * 62}1", "y": "0",
        "da": "0009-01-02", "dt": "0009-01-02 03:04:05.1234", "d0": "9999-12-31 23:59:59", "ts": "2038-01-19 03:14:07.5+00",
        "t0": "1970-01-01 00:00:01+00", "tm": "-838:59:59", "t1": "838:59:59", "c": "ab", "vc": "trail  ", "l1": "€éŸ",
        "u2": "ž☃", "tx": 'tab\t"quote" \\ \n☃😀, \\N \r', "bn": "\\x01020000", "vb": "\\x00ff00", "bl": "\\x", "e": "",
        "st": "x,y", "j": '{"a": 1, "a": 1e400}', "g": "\\x0101000020e6100000000000000000f03f0000000000000040",
        "p": "\\x010100000000000000000008400000000000001040",
    }  # fmt: skip
    second = {c: v for c, v in zip(types, rows[1], strict=True) if v is not None}
    assert second == {
        "id": "3", "f": "1.6777216e+07", "d": "-2.5", "e": "it's", "vc": "", "tm": "-00:00:00.5",
        "dt": "2020-02-29 00:00:00", "st": "", "tx": "",
    }  # fmt: skip
    wanted = [
        (0.1, 1.7976931348623157e308),
        (16777216, -2.5),
        (3.4028234e38, 5e-324),
        (1.17549435e-38, 2.2250738585072014e-308),
        (0.3, 0.1),
    ]
    assert floats[:5] == [(struct.pack(">f", f).hex(), struct.pack(">d", d).hex()) for f, d in wanted]
    assert types["yes"] == "boolean"
    assert types["two"] == "smallint"
    assert types["bu"] == "numeric(20,0)"


def test_what_postgresql_cannot_hold_fails_alone(
    run: Callable[..., Any], make_mysql: Make, target: str
) -> None:
    """Zero dates and NUL characters are counted in the plan; a `where` or a drop is the way out."""
    source = make_mysql("""
        CREATE TABLE good (id int PRIMARY KEY, d date);
        INSERT INTO good VALUES (1, '0009-12-31');
        CREATE TABLE zero (id int PRIMARY KEY, d date, t datetime);
        INSERT INTO zero VALUES (1, '0000-00-00', NULL), (2, '2020-02-31', NULL), (3, '2020-02-28', '0000-00-00'), (4, NULL, NULL);
        CREATE TABLE nul (id int PRIMARY KEY, v varchar(9));
        INSERT INTO nul VALUES (1, 'a\\0b'), (2, 'c');
        """)  # fmt: skip
    document = run(source, code=1)
    check_run(document, "failed")
    errors = {t["source_table"].split(".")[1]: t["error"] for t in document["tables"]}
    assert errors["good"] is None
    assert errors["zero"]["column"] == "d"
    assert "2 values are no day of the calendar" in errors["zero"]["message"]
    assert "1 text holds a NUL" in errors["nul"]["message"]
    with psycopg.connect(target) as db:
        assert tables_of(db) == ["good"]
    rules = {
        "zero": {"where": "id > 2", "columns": {"t": {"drop": True}}},
        "nul": {"columns": {"v": {"drop": True}}},
    }
    document = run(source, rules=rules)
    check_run(document)
    assert sum(_postgresql_rows(target, "zero").values()) == 2
    assert sum(_postgresql_rows(target, "nul").values()) == 2


def test_keys_that_differ_in_case_only_here(run: Callable[..., Any], make_mysql: Make, target: str) -> None:
    """Text keys are compared in the source: chunks of a case-insensitive key meet without a gap; broken references are said."""
    rows = ", ".join(f"('{'aAbB'[i % 4]}{i // 4:04d}', {i})" for i in range(12_000))
    source = make_mysql(f"""
        CREATE TABLE parent (k varchar(20) PRIMARY KEY, n int);
        INSERT INTO parent VALUES ('A', 1), ('b', 2);
        CREATE TABLE child (id int PRIMARY KEY, k varchar(20), CONSTRAINT fk FOREIGN KEY (k) REFERENCES parent (k));
        INSERT INTO child VALUES (1, 'a'), (2, 'B'), (3, NULL), (4, 'A');
        CREATE TABLE words (k varchar(20), n int, PRIMARY KEY (k, n));
        INSERT INTO words VALUES {rows};
        CREATE TABLE numbered (id int PRIMARY KEY, k varchar(20));
        INSERT INTO numbered SELECT n * 7 - 5000, k FROM words;
        """)  # fmt: skip
    document = run(source, chunk_bytes=65536)
    check_run(document)
    for table in ("parent", "child", "words", "numbered"):
        assert _mysql_rows(source, table) == _postgresql_rows(target, table)
    chunks = {t["target_table"]: t["chunks"] for t in document["tables"]}
    assert chunks["public.words"] >= 3
    assert chunks["public.numbered"] >= 3
    assert any("2 rows of the source break it" in w["reason"] for w in document["warnings"])
    with psycopg.connect(target) as db:
        assert not constraints(db, "f")


@pytest.mark.parametrize("place", ["after_staging_rename@2", "after_copy_before_commit@3"])
def test_a_killed_run_goes_on(jivs: Jivs, make_mysql: Make, target: str, key: str, place: str) -> None:
    """Killed while it reads, or while it loads: the next run brings every row once."""
    source = make_mysql(SHOP)
    spec = jivs.spec(key=key, source="legacy", target="warehouse")
    env = jivs.connections(legacy=source, warehouse=target)
    killed = jivs("run", spec, "--json", env={**env, "JIVS_FAILPOINT": f"{place}:kill"})
    assert killed.code not in {0, 4}
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    assert document["resumed"] is True
    for table in ("orders", "items", "codes", "doubled"):
        assert _mysql_rows(source, table) == _postgresql_rows(target, table), table


@pytest.mark.parametrize("what", ["password", "database", "port"])
def test_no_way_in_is_one_sentence(
    jivs: Jivs, make_mysql: Make, make_mysql_user: Make, target: str, key: str, what: str
) -> None:
    """Exit code 2, nothing touched, no password anywhere."""
    url = make_mysql_user(make_mysql("CREATE TABLE t (id int)"), password="s3cr3t")
    if what == "password":
        url = url.replace("s3cr3t", "wr0ng")
    elif what == "database":
        url = url.rpartition("/")[0] + "/nowhere"
    else:
        url = with_parts(url, port=1)
    ended = jivs("run", "--source", url, "--target", target, "--key", key, "--json", code=2)
    error = check_error(ended.document)
    assert error["hint"]
    assert "s3cr3t" not in str(ended)
    assert "wr0ng" not in str(ended)
    with psycopg.connect(target) as db:
        assert not tables_of(db)


def test_now_on_update_and_words(run: Callable[..., Any], make_mysql: Make, target: str) -> None:
    """ON UPDATE CURRENT_TIMESTAMP as a trigger where the spec asks for it, FULLTEXT as an index over words."""
    source = make_mysql(
        """CREATE TABLE `or"ders` (id int PRIMARY KEY, n int, j json, memo longtext, title varchar(50),
            seen timestamp NULL DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP,
            at datetime(3) NULL ON UPDATE CURRENT_TIMESTAMP(3), FULLTEXT KEY words (title, memo));
        INSERT INTO `or"ders` VALUES (1, 1, '{}', repeat('word ', 400000), 'A Title', '2020-01-01 00:00:00', NULL),
            (2, 1, NULL, NULL, 'other', '2020-01-01 00:00:00', NULL)"""
    )
    document = run(source, on_update="trigger")
    reasons = [w["reason"] for w in document["warnings"]]
    assert sum(r.startswith("on update: a trigger") for r in reasons) == 2
    assert any("GIN index" in r for r in reasons)
    with psycopg.connect(target) as db:
        query = """SELECT id FROM "or""ders" WHERE to_tsvector('simple', left(coalesce(title, '') || ' ' || coalesce(memo, ''),
            200000)) @@ to_tsquery('simple', 'title')"""
        db.execute("SET enable_seqscan = off")
        plan = db.execute(f"EXPLAIN {query}".encode()).fetchall()
        assert any("words" in line for (line,) in plan), plan
        assert db.execute(query.encode()).fetchall() == [(1,)]
        old = db.execute('SELECT seen, at FROM "or""ders" WHERE id = 1').fetchone()
        db.execute('UPDATE "or""ders" SET n = 2 WHERE id = 1')
        db.execute('UPDATE "or""ders" SET n = 1 WHERE id = 2')
        row = db.execute(
            """SELECT seen > now() - interval '1 minute', at > now()::timestamp - interval '1 minute',
                date_trunc('second', seen) = seen, date_trunc('milliseconds', at) = at FROM "or""ders" WHERE id = 1"""
        ).fetchone()
        assert row == (True, True, True, True)
        assert db.execute('SELECT seen, at FROM "or""ders" WHERE id = 2').fetchone() == old
        db.execute("""UPDATE "or""ders" SET n = 3, seen = '2001-01-01' WHERE id = 1""")
        assert db.execute("""SELECT seen = '2001-01-01' FROM "or""ders" WHERE id = 1""").fetchone() == (True,)
