"""SQL Server, Oracle, Db2 and SAP HANA: the statements that are sent, seen by a connection that only listens.

No such server can be run here, so what they answer is made up; docs/drivers.md says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.dialect_db2 import Db2
from jivs_pipeline.core.dialect_hana import Hana
from jivs_pipeline.core.dialect_mssql import SqlServer
from jivs_pipeline.core.dialect_oracle import Oracle
from jivs_pipeline.core.digest import Canon, Digest
from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.errors import ConnectionFailed
from jivs_pipeline.core.plan import Chunk, ChunkBy, ColumnPlan, TablePlan
from jivs_pipeline.infra.sources.generic import GenericSource
from jivs_pipeline.infra.sources.generic_values import canonical_array
from jivs_pipeline.infra.sources.odbc_link import OdbcError
from jivs_pipeline.infra.sources.odbc_open import attributes_of, look_behind
from jivs_pipeline_tests.sqlite_files import expected_digest

DIALECTS = [SqlServer(), Oracle(), Db2(), Hana()]
TYPES = {
    "mssql": [
        "bigint",
        "decimal(10,2)",
        "nvarchar(40)",
        "nvarchar(max)",
        "varbinary(max)",
        "datetime2(7)",
        "float",
        "bit",
    ],
    "oracle": [
        "NUMBER(18,0)",
        "NUMBER(10,2)",
        "VARCHAR2(40)",
        "CLOB",
        "BLOB",
        "TIMESTAMP(9)",
        "BINARY_DOUBLE",
        "BOOLEAN",
    ],
    "db2": ["BIGINT", "DECIMAL(10,2)", "VARCHAR(40)", "CLOB", "BLOB", "TIMESTAMP(12)", "DOUBLE", "BOOLEAN"],
    "hana": ["BIGINT", "DECIMAL(10,2)", "NVARCHAR(40)", "NCLOB", "BLOB", "TIMESTAMP", "DOUBLE", "BOOLEAN"],
}
NAMES = ["id", "n", "s", "l", "b", "t", "f", "yes"]


def _items(statement: str) -> list[str]:
    """What a SELECT asks for, item by item."""
    items, depth = [""], 0
    for character in statement.removeprefix("SELECT "):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            items.append("")
        else:
            items[-1] += character
    return items


class Listening:
    """A connection that answers catalog queries with one table, and all others with small numbers."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect, self.said, self.lost = dialect, list[str](), False
        self.batch: pa.RecordBatch | None = None

    def drop(self) -> None:
        self.lost = True

    part = drop

    def command(self, statement: str) -> None:
        self.said.append(statement)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        self.said.append(statement)
        schema = self.dialect.literal("sales")
        answers = {
            self.dialect.tables: [("orders", "what they buy"), ("parents", None)],
            self.dialect.columns: [
                *(("orders", n, t, "NO" if n == "id" else "YES", "YES" if n == "id" else "NO", None)
                  for n, t in zip(NAMES, TYPES[self.dialect.name], strict=True)),
                ("parents", "id", TYPES[self.dialect.name][0], "NO", "NO", None),
            ],
            self.dialect.keys: [("orders", "pk", "P", "id"), ("orders", "u", "U", "s"), ("parents", "pp", "P", "id")],
            self.dialect.references: [("orders", "fk", "n", "sales", "parents", "id", "CASCADE", "NO ACTION")],
            self.dialect.indexes: [("orders", "ix", "NO", "t", "YES")],
            self.dialect.others: [("v", "VIEW")],
        }  # fmt: skip
        for query, answer in answers.items():
            if statement == query.replace("{schema}", schema):
                return answer
        if statement == self.dialect.default_schema:
            return [("sales",)]
        if "MIN(" in statement:
            return [("1", "100")]
        return [tuple("0" if "SUM(CASE" in item else "2" for item in _items(statement))]

    def stream(self, statement: str, *_: int) -> Iterator[pa.RecordBatch]:
        self.said.append(statement)
        if self.batch is not None:
            yield self.batch


def opened(dialect: Dialect) -> tuple[GenericSource, list[Listening]]:
    """A source over connections that listen."""
    links: list[Listening] = []

    def open_link(**_: Any) -> Listening:
        links.append(Listening(dialect))
        return links[-1]

    return GenericSource(parse_url("odbc://?dsn=x", "legacy"), dialect, "1", open_link), links


def planned(source: GenericSource) -> TablePlan:
    """A plan of the table, in three chunks."""
    table = source.catalog(None).table("orders")
    assert table is not None
    survey = source.survey(table, table.columns, None, 30)
    assert survey.refused == ()
    return TablePlan(
        source_schema="sales", source_table="orders", target_schema="public", target_table="orders", columns=survey.columns,
        lane=survey.lane, wire=survey.wire, spelling=survey.spelling, chunk_by=survey.chunk_by,
        chunk_columns=survey.chunk_columns, chunks=survey.chunks, definition=table,
    )  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_the_catalog(dialect: Dialect) -> None:
    """Tables, keys, references, indexes and comments come out of the dialect's own catalog; views are named."""
    source, links = opened(dialect)
    catalog = source.catalog(None)
    table = catalog.table("orders")
    assert table is not None
    assert [c.name for c in table.columns] == NAMES
    assert table.comment == "what they buy"
    assert table.primary_key is not None
    assert table.primary_key.columns == ("id",)
    assert [k.columns for k in table.unique_keys] == [("s",)]
    assert [(k.columns, k.target_table, k.on_delete) for k in table.foreign_keys] == [
        (("n",), "parents", "CASCADE")
    ]
    assert table.indexes[0].parts[0].descending
    assert [(o.name, o.kind) for o in catalog.left_out] == [
        ("v", "view"),
        ("sales", "defaults, checks and generated columns"),
    ]
    assert links[0].said[: len(dialect.opening)] == list(dialect.opening)
    assert links[0].said[-1] == dialect.end
    assert not any("{" in said for said in links[0].said)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_reading_twice(dialect: Dialect) -> None:
    """Chunks are ranges of the integer key; rows are read as text, and once more for the digest, in one transaction."""
    source, links = opened(dialect)
    plan = planned(source)
    assert (plan.chunk_by, plan.chunk_columns) == (ChunkBy.KEY, ("id",))
    assert len(plan.chunks) > 2
    assert plan.chunks[0].lower is None
    assert all(a.upper == b.lower for a, b in zip(plan.chunks, plan.chunks[1:], strict=False))
    with source.snapshot(4) as snapshot:
        list(snapshot.batches(plan, plan.chunks[1]))
        snapshot.digest(plan, plan.chunks[1])
        snapshot.next_values(plan)
    said = links[-1].said
    assert said[len(dialect.opening) : len(dialect.opening) + len(dialect.begin)] == list(dialect.begin)
    key = dialect.quoted("id")
    lower, upper = plan.chunks[1].lower, plan.chunks[1].upper
    assert lower is not None
    assert upper is not None
    bounds = f"{key} >= {lower[0]}\n) AND (\n{key} < {upper[0]}"
    reading = [s for s in said if bounds in s]
    assert len(reading) >= 3
    assert all(dialect.quoted("sales", "orders") in s for s in reading)
    assert source.info().dialect == dialect.name
    assert len(links) == 2


READ = {
    "mssql": "SELECT CAST(CONVERT(varchar(20), [id]) AS nvarchar(20)), CAST(CONVERT(varchar(45), [n]) AS nvarchar(45)), "
    "CAST(CAST([s] AS nvarchar(max)) AS nvarchar(2)), CAST(CAST([l] AS nvarchar(max)) AS nvarchar(2)), "
    "CAST(CONVERT(varchar(max), CAST([b] AS varbinary(max)), 2) AS nvarchar(2)), "
    "CAST(LEFT(CONVERT(varchar(27), [t], 121), 26) AS nvarchar(40)), CAST(CONVERT(varchar(40), [f], 3) AS nvarchar(32)), "
    "CAST(CONVERT(varchar(20), [yes]) AS nvarchar(1)) FROM [sales].[orders]",
    "oracle": """SELECT TO_CHAR("id", 'TM9'), TO_CHAR("n", 'TM9'), "s", "l", "b", TO_CHAR("t", 'YYYY-MM-DD HH24:MI:SS.FF6'), """
    """RAWTOHEX(UTL_RAW.CAST_FROM_BINARY_DOUBLE(TO_BINARY_DOUBLE("f"))), CASE WHEN "yes" THEN '1' WHEN NOT "yes" THEN '0' END """
    """FROM "sales"."orders\"""",
    "db2": """SELECT CAST(TRIM(CHAR("id")) AS VARCHAR(80)), CAST(CAST("n" AS VARCHAR(60)) AS VARCHAR(240)), """
    """CAST("s" AS VARCHAR(8)), CAST("l" AS VARCHAR(8)), CAST(HEX("b") AS VARCHAR(8)), """
    """CAST(VARCHAR_FORMAT("t", 'YYYY-MM-DD HH24:MI:SS.FF6') AS VARCHAR(160)), CAST(TRIM(CHAR(DOUBLE("f"))) AS VARCHAR(128)), """
    """CAST(CASE WHEN "yes" THEN '1' WHEN NOT "yes" THEN '0' END AS VARCHAR(4)) FROM "sales"."orders\"""",
    "hana": """SELECT CAST(TO_VARCHAR("id") AS NVARCHAR(20)), CAST(TO_VARCHAR("n") AS NVARCHAR(60)), CAST("s" AS NVARCHAR(2)), """
    """CAST("l" AS NVARCHAR(2)), CAST(BINTOHEX("b") AS NVARCHAR(2)), """
    """CAST(TO_VARCHAR("t", 'YYYY-MM-DD HH24:MI:SS.FF6') AS NVARCHAR(40)), CAST(TO_VARCHAR("f") AS NVARCHAR(32)), """
    """CAST(CASE WHEN "yes" = TRUE THEN '1' WHEN "yes" = FALSE THEN '0' END AS NVARCHAR(1)) FROM "sales"."orders\"""",
}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.name)
def test_the_statement_that_reads_rows(dialect: Dialect) -> None:
    """Letter by letter: whoever changes it must have a server of that kind at hand."""
    source, links = opened(dialect)
    plan = planned(source)
    with source.snapshot(1) as snapshot:
        list(snapshot.batches(plan, Chunk(index=0)))
    assert links[-1].said[-1].rstrip() == READ[dialect.name]


@pytest.mark.parametrize(
    ("dialect", "encoding"),
    [(SqlServer(), "utf-16-le"), (Db2(), "utf-8"), (Hana(), "utf-8")],
    ids=["mssql", "db2", "hana"],
)
def test_the_second_read_is_spelled_as_digests_ask(dialect: Dialect, encoding: str) -> None:
    """Hex digits of texts become the digest that any source would have for these values."""
    source, links = opened(dialect)
    plan = planned(source)
    texts = ["7", "01.50", "é☃😀", "", "00FF", "2020-01-01 10:00:00.500000", "-0.0", "1"]
    with source.snapshot(1) as snapshot:
        links[-1].batch = pa.record_batch(
            [pa.array([t.encode(encoding).hex().upper()]) for t in texts], NAMES
        )
        found = snapshot.digest(plan, Chunk(index=0))
        links[-1].batch = pa.record_batch([pa.array([t]) for t in texts], NAMES)
        (batch,) = snapshot.batches(plan, Chunk(index=0))
    canons = [c.canon for c in plan.columns]
    row = (7, 1.5, "é☃😀", "", b"\x00\xff", "2020-01-01 10:00:00.5", -0.0, 1)
    assert canons == [
        Canon.INTEGER, Canon.NUMERIC, Canon.TEXT, Canon.TEXT, Canon.BYTES, Canon.TIMESTAMP, Canon.FLOAT, Canon.BOOLEAN,
    ]  # fmt: skip
    assert found == expected_digest([row], canons)
    assert found != Digest()
    assert str(batch.column("n")[0].as_py()) == "1.50"
    assert batch.column("b")[0].as_py() == b"\x00\xff"
    assert str(batch.column("f")[0].as_py()) == "-0.0"


def test_counts_decide_before_rows_move() -> None:
    """What PostgreSQL has no place for is counted by the server."""
    source, links = opened(SqlServer())
    planned(source)
    counting = next(s for s in links[0].said if "SUM(CASE WHEN" in s)
    assert "DATEPART(nanosecond, [t]) % 1000 <> 0" in counting
    assert "CHARINDEX(NCHAR(0), CAST([s] AS nvarchar(max)) COLLATE Latin1_General_100_BIN2) > 0" in counting


def test_a_name_cannot_end_its_quotes() -> None:
    """Names and literals hold whatever they hold."""
    assert SqlServer().quoted("a]b", "c[d") == "[a]]b].[c[d]"
    assert Oracle().quoted('a"b') == '"a""b"'
    assert SqlServer().literal("it's") == "N'it''s'"


def test_a_url_of_sql_server_means_microsofts_driver() -> None:
    """Unless another is named; the port goes after a comma."""
    found = attributes_of(parse_url("mssql://sa:pw@db:1444/shop?encrypt=no"))
    assert found == {
        "DSN": "", "Driver": "ODBC Driver 18 for SQL Server", "Encrypt": "no", "Server": "db,1444", "Database": "shop",
        "UID": "sa", "PWD": "pw",
    }  # fmt: skip
    assert attributes_of(parse_url("mssql://sa@db/shop?driver=FreeTDS"))["Driver"] == "FreeTDS"


@pytest.mark.parametrize(("answers", "reason"), [("Oracle Database 23ai", "without ODBC"), (None, "no kind")])
def test_a_database_of_no_kind_is_refused(answers: str | None, reason: str) -> None:
    """One sentence says what can be read; Oracle is not read through ODBC."""

    class Behind:
        lost = False

        def rows(self, statement: str) -> list[tuple[Any, ...]]:
            if answers is None or "v$version" not in statement:
                raise OdbcError("42000", 0, "what?")
            return [(answers,)]

    link: Any = Behind()
    with pytest.raises(ConnectionFailed, match=reason) as error:
        look_behind(link, parse_url("odbc://?dsn=x", "legacy"))
    assert error.value.hint


@pytest.mark.parametrize(
    ("canon", "target", "text", "spelled"),
    [
        (Canon.NUMERIC, "numeric", ".5", "0.5"),
        (Canon.NUMERIC, "numeric", "-.50", "-0.5"),
        (Canon.NUMERIC, "numeric(5,2)", "0012.00", "12"),
        (Canon.NUMERIC, "numeric", "1E+3", "1000"),
        (Canon.FLOAT, "double precision", "1.0000000000000000e-001", "3fb999999999999a"),
        (Canon.FLOAT, "real", "1.00000001e-001", "3fb99999a0000000"),
        (Canon.FLOAT, "real", "1.0000000149011612e-001", "3fb99999a0000000"),
        (Canon.FLOAT, "double precision", "-0.0", "8000000000000000"),
        (Canon.BYTES, "bytea", "00FF", "00ff"),
        (Canon.TIME, "time", "10:00:00.500000", "10:00:00.5"),
        (Canon.TIMESTAMP, "timestamp", "2020-01-01 10:00:00.000", "2020-01-01 10:00:00"),
        (Canon.TIMESTAMP, "timestamptz", "2020-01-01 10:00:00.100000+00", "2020-01-01 10:00:00.1+00"),
    ],
)
def test_texts_of_all_databases_are_spelled_alike(canon: Canon, target: str, text: str, spelled: str) -> None:
    """However a database prints a value, digests see one spelling: PostgreSQL's."""
    column = ColumnPlan(source="a", target="a", source_type="", target_type=target, canon=canon)
    assert canonical_array(column, pa.array([text, None]), str).to_pylist() == [spelled, None]
