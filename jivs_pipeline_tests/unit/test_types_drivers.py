"""Types of SQL Server, Oracle, Db2 and SAP HANA: what each documented one becomes, exact or refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.types import TABLES, arrow_type
from jivs_pipeline.core.types_drivers import choose_driver, driver_type

DOCUMENTED = {
    # https://learn.microsoft.com/sql/t-sql/data-types
    "mssql": [
        "tinyint", "smallint", "int", "bigint", "bit", "decimal(38,10)", "numeric(5,0)", "money", "smallmoney", "float", "real",
        "date", "time(7)", "datetime2(7)", "datetimeoffset(7)", "datetime", "smalldatetime", "char(5)", "varchar(50)",
        "varchar(max)", "text", "nchar(5)", "nvarchar(50)", "nvarchar(max)", "ntext", "binary(5)", "varbinary(5)",
        "varbinary(max)", "image", "rowversion", "timestamp", "uniqueidentifier", "xml", "json", "vector", "sql_variant",
        "hierarchyid", "geometry", "geography", "sysname",
    ],
    # Oracle's SQL Language Reference, Data Types
    "oracle": [
        "NUMBER", "NUMBER(10,2)", "NUMBER(38,0)", "FLOAT", "BINARY_FLOAT", "BINARY_DOUBLE", "DATE", "TIMESTAMP(6)", "TIMESTAMP(9)",
        "TIMESTAMP(6) WITH TIME ZONE", "TIMESTAMP(6) WITH LOCAL TIME ZONE", "INTERVAL YEAR(2) TO MONTH",
        "INTERVAL DAY(2) TO SECOND(6)", "CHAR(5)", "NCHAR(5)", "VARCHAR2(4000)", "NVARCHAR2(2000)", "CLOB", "NCLOB", "LONG", "RAW",
        "LONG RAW", "BLOB", "BFILE", "ROWID", "UROWID", "XMLTYPE", "JSON", "BOOLEAN", "SDO_GEOMETRY", "ANYDATA", "VECTOR",
    ],
    # Db2's SQL Reference, Data types
    "db2": [
        "SMALLINT", "INTEGER", "BIGINT", "DECIMAL(31,10)", "NUMERIC(5,2)", "DECFLOAT", "REAL", "DOUBLE", "CHARACTER(5)",
        "VARCHAR(50)", "LONG VARCHAR", "CLOB", "GRAPHIC(5)", "VARGRAPHIC(5)", "LONG VARGRAPHIC", "DBCLOB", "BINARY", "VARBINARY",
        "BLOB", "CHARACTER FOR BIT DATA", "VARCHAR FOR BIT DATA", "DATE", "TIME", "TIMESTAMP(12)", "BOOLEAN", "XML", "DISTINCT",
        "STRUCTURED", "REFERENCE",
    ],
    # SAP HANA SQL Reference, Data Types
    "hana": [
        "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "SMALLDECIMAL", "DECIMAL", "DECIMAL(38,10)", "REAL", "DOUBLE", "BOOLEAN", "DATE",
        "TIME", "SECONDDATE", "TIMESTAMP", "VARCHAR(10)", "NVARCHAR(10)", "CHAR(3)", "NCHAR(3)", "ALPHANUM(10)", "SHORTTEXT(10)",
        "VARBINARY", "BINARY", "BLOB", "CLOB", "NCLOB", "TEXT", "BINTEXT", "ST_POINT", "ST_GEOMETRY", "ARRAY", "REAL_VECTOR",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("dialect", "declared"), [(d, t) for d, types in DOCUMENTED.items() for t in types])
def test_every_documented_type_has_its_place(dialect: str, declared: str) -> None:
    """It is carried with a type that both Arrow and the digests know, or refused with a reason."""
    choice = choose_driver(dialect, declared, {})
    if choice.refused is not None:
        assert "is not known" not in choice.refused
        return
    assert choice.target
    assert "(n)" not in choice.target
    assert "(p,s)" not in choice.target + choice.arrow
    assert isinstance(arrow_type(choice.arrow), pa.DataType)
    assert choice.canon in Canon


def test_every_line_of_the_tables_is_documented() -> None:
    """No line that nothing declares."""
    for dialect, types in DOCUMENTED.items():
        reached = {driver_type(t).name for t in types}
        lines = {m.declared.partition("(")[0] for m in TABLES[dialect]}
        assert lines <= reached, dialect


@pytest.mark.parametrize(
    ("dialect", "declared", "target", "arrow"),
    [
        ("mssql", "decimal(38,10)", "numeric(38,10)", "decimal128(38,10)"),
        ("mssql", "datetime2(7)", "timestamp", "timestamp[us]"),
        ("mssql", "datetime2(3)", "timestamp(3)", "timestamp[us]"),
        ("mssql", "nvarchar(50)", "varchar(50)", "string"),
        ("mssql", "nvarchar(max)", "text", "string"),
        ("oracle", "NUMBER", "numeric", "string"),
        ("oracle", "NUMBER(10,2)", "numeric(10,2)", "decimal128(10,2)"),
        ("oracle", "NUMBER(5,-2)", "numeric(7,0)", "decimal128(7,0)"),
        ("oracle", "NUMBER(2,5)", "numeric(5,5)", "decimal128(5,5)"),
        ("oracle", "NUMBER(38,-84)", "numeric(122,0)", "string"),
        ("oracle", "DATE", "timestamp(0)", "timestamp[us]"),
        ("oracle", "TIMESTAMP(6) WITH LOCAL TIME ZONE", "timestamptz", "string"),
        ("db2", "TIMESTAMP(0)", "timestamp(0)", "timestamp[us]"),
        ("hana", "DECIMAL", "numeric", "string"),
        ("hana", "DECIMAL(38,10)", "numeric(38,10)", "decimal128(38,10)"),
    ],
)  # fmt: skip
def test_numbers_of_a_type_decide(dialect: str, declared: str, target: str, arrow: str) -> None:
    """Precision, scale and length go into PostgreSQL's type."""
    choice = choose_driver(dialect, declared, {})
    assert (choice.target, choice.arrow) == (target, arrow)


@pytest.mark.parametrize(
    ("declared", "counts", "reason"),
    [
        ("datetime2(7)", {"finer": 3}, "3 values have digits beyond microseconds"),
        ("nvarchar(10)", {"nul": 1}, "1 text holds a NUL"),
        ("float", {"rounded": 2}, "2 floats are not what the text says"),
        ("datetimeoffset(7)", {}, "keeps the moment and not the zone"),
        ("something", {}, "is not known to this version"),
    ],
)
def test_what_would_be_changed_is_refused(declared: str, counts: dict[str, int], reason: str) -> None:
    """Counted, and never rounded, cut or converted."""
    refused = choose_driver("mssql", declared, counts).refused
    assert refused is not None
    assert reason in refused
