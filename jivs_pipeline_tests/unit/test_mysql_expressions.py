"""Defaults and CHECKs of MySQL in PostgreSQL's words, or not at all."""

from __future__ import annotations

import pytest

from jivs_pipeline.core.types_mysql import mysql_type
from jivs_pipeline.infra.sources.mysql_expressions import (
    UntranslatableError,
    check_expression,
    default_expression,
    read_default,
)


@pytest.mark.parametrize(
    ("declared", "mariadb", "mysql", "extra", "expected"),
    [
        ("int(11)", "5", "5", "", "'5'"),
        ("decimal(10,2)", "0.00", "0.00", "", "'0.00'"),
        ("tinyint(1)", "1", "1", "", "'1'"),
        ("varchar(9)", r"'it''s \\ \n'", "it's \\ \n", "", "'it''s \\ \n'"),
        ("varchar(9)", "''", "", "", "''"),
        ("enum('a','b')", "'b'", "b", "", "'b'"),
        ("bit(5)", "b'101'", "b'101'", "", "'00101'"),
        ("date", "'2000-01-31'", "2000-01-31", "", "'2000-01-31'"),
        ("datetime", "'2000-01-31 10:00:00'", "2000-01-31 10:00:00", "", "'2000-01-31 10:00:00'"),
        ("time", "'-10:00:00'", "-10:00:00", "", "'-10:00:00'"),
        ("datetime", "current_timestamp()", "CURRENT_TIMESTAMP", "DEFAULT_GENERATED", "LOCALTIMESTAMP(0)"),
        (
            "timestamp(6)",
            "current_timestamp(6)",
            "CURRENT_TIMESTAMP(6)",
            "DEFAULT_GENERATED",
            "CURRENT_TIMESTAMP(6)",
        ),
        ("date", "curdate()", "curdate()", "DEFAULT_GENERATED", "CURRENT_DATE"),
    ],
)
def test_defaults(declared: str, mariadb: str, mysql: str, extra: str, expected: str) -> None:
    """MariaDB writes SQL, MySQL the bare value: the same comes of both."""
    type_ = mysql_type(declared)
    for written, is_mariadb in ((mariadb, True), (mysql, False)):
        default = read_default(written, "" if is_mariadb else extra, mariadb=is_mariadb)
        assert default is not None
        assert default_expression(default, type_) == expected


def test_no_default() -> None:
    assert read_default(None, "", mariadb=True) is None
    assert read_default("NULL", "", mariadb=True) is None
    # The text NULL of a column that is to hold it.
    text = read_default("'NULL'", "", mariadb=True)
    assert text is not None
    assert text.text == "NULL"


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("date", "'0000-00-00'"),
        ("datetime", "'2020-02-31 00:00:00'"),
        ("tinyint(1)", "2"),
        ("varchar(36)", "uuid()"),
        ("int(11)", "(1 + 1)"),
        ("timestamp", "'2020-01-01 00:00:00'"),
        ("varbinary(9)", "'abc'"),
        ("varchar(9)", r"'a\0b'"),
    ],
)
def test_defaults_that_stay_behind(declared: str, written: str) -> None:
    """What is not sure is not carried."""
    default = read_default(written, "", mariadb=True)
    assert default is not None
    with pytest.raises(UntranslatableError):
        default_expression(default, mysql_type(declared))


TYPES = {
    "n": mysql_type("int(11)"), "d": mysql_type("decimal(10,2)"), 'q"`': mysql_type("bigint unsigned"),
    "flag": mysql_type("tinyint(1)"), "f": mysql_type("double"), "t": mysql_type("varchar(9)"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ("`n` > 0 and `n` < 100", '"n" > 0 AND "n" < 100'),
        ("(`d` >= 0.5) or (`n` is null)", '( "d" >= 0.5 ) OR ( "n" IS NULL )'),
        ("`n` in (1,2,3) and not `n` between 5 and 7", '"n" IN ( 1 , 2 , 3 ) AND NOT "n" BETWEEN 5 AND 7'),
        ('`q"``` != `n` * 2 - 1', '"q""`" <> "n" * 2 - 1'),
    ],
)
def test_checks(clause: str, expected: str) -> None:
    assert check_expression(clause, TYPES) == expected


@pytest.mark.parametrize(
    "clause",
    [
        "`t` <> 'x'", "`flag` = 1", "`f` > 0.1", "char_length(`t`) > 3", "`n` / 2 > 1", "`n` <=> 1", "`n` div 2 = 1",
        "`n` & 1", "`n` xor `d`", "`missing` > 1", "`n` > 1; drop table t", "!`n`", "`n` % 2 = 0", "`n` > -- 1",
    ],
)  # fmt: skip
def test_checks_that_stay_behind(clause: str) -> None:
    """Texts, floats, booleans, functions and what is written otherwise in PostgreSQL."""
    with pytest.raises(UntranslatableError):
        check_expression(clause, TYPES)
