"""What MySQL's types become, and which values are refused."""

from __future__ import annotations

import pyarrow as pa
import pytest

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.types import TABLES, arrow_type
from jivs_pipeline.core.types_mysql import MYSQL_TYPES, MysqlValues, choose_mysql, mysql_type


@pytest.mark.parametrize(
    ("declared", "target", "arrow"),
    [
        ("tinyint(1)", "boolean", "bool"),
        ("tinyint(4)", "smallint", "int16"),
        ("tinyint", "smallint", "int16"),
        ("tinyint(1) unsigned", "smallint", "int16"),
        ("smallint(5) unsigned", "integer", "int32"),
        ("mediumint unsigned", "integer", "int32"),
        ("int(10) unsigned zerofill", "bigint", "int64"),
        ("bigint(20)", "bigint", "int64"),
        ("bigint unsigned", "numeric(20)", "decimal128(20,0)"),
        ("decimal(10,2) unsigned", "numeric(10,2)", "decimal128(10,2)"),
        ("decimal(38,30)", "numeric(38,30)", "decimal128(38,30)"),
        ("decimal(65,30)", "numeric(65,30)", "string"),
        ("float", "real", "float"),
        ("float(7,3) unsigned", "real", "float"),
        ("double(10,2)", "double precision", "double"),
        ("bit(64)", "bit(64)", "string"),
        ("year(4)", "smallint", "int16"),
        ("date", "date", "date32"),
        ("datetime", "timestamp(0)", "timestamp[us]"),
        ("datetime(6)", "timestamp", "timestamp[us]"),
        ("timestamp(3)", "timestamptz(3)", "timestamp[us]"),
        ("time(6)", "interval", "string"),
        ("char(5)", "varchar(5)", "string"),
        ("char(0)", "text", "string"),
        ("varchar(255)", "varchar(255)", "string"),
        ("longtext", "text", "string"),
        ("enum('a(','it''s')", "text", "string"),
        ("set('x','y')", "text", "string"),
        ("json", "json", "string"),
        ("binary(16)", "bytea", "binary"),
        ("mediumblob", "bytea", "binary"),
        ("point", "bytea", "binary"),
        ("uuid", "uuid", "string"),
        ("inet6", "text", "string"),
    ],
)
def test_types(declared: str, target: str, arrow: str) -> None:
    choice = choose_mysql(mysql_type(declared), MysqlValues())
    assert (choice.target, choice.arrow, choice.refused) == (target, arrow, None)


def test_members_of_an_enumeration() -> None:
    """A quote is doubled; commas and brackets mean nothing inside."""
    assert mysql_type("enum('a','it''s','(b),','')").members == ("a", "it's", "(b),", "")


def test_boolean_only_by_its_values_and_outside_of_keys() -> None:
    """tinyint(1) is how BOOLEAN is declared, and holds -128 to 127."""
    declared = mysql_type("tinyint(1)")
    assert choose_mysql(declared, MysqlValues(beyond=2)).target == "smallint"
    assert "2 values are neither 0 nor 1" in choose_mysql(declared, MysqlValues(beyond=2)).note
    assert choose_mysql(declared, MysqlValues(in_key=True)).target == "smallint"


def test_what_numbers_itself_is_bigint_where_all_values_fit() -> None:
    """PostgreSQL numbers no numeric."""
    declared = mysql_type("bigint(20) unsigned")
    assert choose_mysql(declared, MysqlValues(numbered=True)).target == "bigint"
    assert choose_mysql(declared, MysqlValues(beyond=1)).target == "numeric(20)"
    assert "larger than any bigint" in (
        choose_mysql(declared, MysqlValues(numbered=True, beyond=1)).refused or ""
    )


@pytest.mark.parametrize(
    ("declared", "values", "reason"),
    [
        ("date", MysqlValues(zero_dates=1), "1 value is no day of the calendar"),
        ("timestamp", MysqlValues(zero_dates=1200), "1,200 values are no day"),
        ("varchar(9)", MysqlValues(nul=3), "3 texts hold a NUL character"),
        ("text", MysqlValues(unreadable=1), "1 text holds bytes that are no characters"),
        ("vector(3)", MysqlValues(), "its type vector(3) is not known"),
    ],
)
def test_refused(declared: str, values: MysqlValues, reason: str) -> None:
    """Counted, and said what to do."""
    refused = choose_mysql(mysql_type(declared), values).refused or ""
    assert reason in refused
    assert "column" in refused or "source" in refused


def test_the_table_is_consistent() -> None:
    """No line twice, and every Arrow type exists."""
    assert TABLES["mysql"] is MYSQL_TYPES
    keys = [m.declared for m in MYSQL_TYPES]
    assert len(keys) == len(set(keys))
    for mapping in MYSQL_TYPES:
        assert isinstance(arrow_type(mapping.arrow.replace("(p,s)", "(10,2)")), pa.DataType)
        assert mapping.canon in Canon
