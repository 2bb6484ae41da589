"""Views that are translated, and those that are refused by name rather than silently changed."""

from __future__ import annotations

import pytest

from jivs_pipeline.infra.sources.mysql_expressions import UntranslatableError
from jivs_pipeline.infra.sources.mysql_view_kinds import column_value
from jivs_pipeline.infra.sources.mysql_views import Relation, translate

_COLUMNS = {
    "id": ("int(11)", ""), "a": ("int(11)", ""), "m": ("decimal(10,2)", ""), "x": ("double", ""), "b": ("tinyint(1)", ""),
    "s": ("varchar(20)", "utf8mb4_general_ci"), "u": ("varchar(20)", "utf8mb4_bin"), "d": ("date", ""),
    "dt": ("datetime", ""), "ts": ("timestamp", ""), "e": ("enum('p','q')", "utf8mb4_general_ci"), "j": ("json", ""),
    "l": ("varchar(9)", "latin1_swedish_ci"), "z": ("int(5) unsigned zerofill", ""), "f": ("float", ""),
}  # fmt: skip
_T = Relation({name: column_value(name, *said) for name, said in _COLUMNS.items()}, ("id",))


def _translated(query: str) -> str:
    return translate(query, "shop", {"t": _T, "o": _T}).query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            "select `shop`.`t`.`id` AS `id`,`shop`.`t`.`b` AS `b` from `shop`.`t` where `shop`.`t`.`b` <> 0",
            'SELECT "t"."id" AS "id", "t"."b" AS "b" FROM "t" WHERE CAST(("t"."b") AS integer) <> 0',
        ),
        (
            "select concat(`t`.`s`,'-',`t`.`a`) AS `c` from `shop`.`t`",
            """SELECT (CAST("t"."s" AS text) || CAST('-' AS text) || CAST("t"."a" AS text)) AS "c" FROM "t\"""",
        ),
        (
            "select `t`.`a` > 1 AS `c` from `shop`.`t` order by `t`.`a` desc",
            'SELECT CAST(("t"."a" > 1) AS integer) AS "c" FROM "t" ORDER BY "t"."a" DESC NULLS LAST',
        ),
        (
            "select `t`.`id` AS `id` from `shop`.`t` where `t`.`e` = 'p' and `t`.`u` = 'x '",
            """SELECT "t"."id" AS "id" FROM "t" WHERE (("t"."e" = 'p') AND (rtrim("t"."u", ' ') = rtrim('x ', ' ')))""",
        ),
    ],
)
def test_translated(query: str, expected: str) -> None:
    assert _translated(query) == expected


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("`t`.`a` / 2", "division"),
        ("`t`.`a` DIV 2", "DIV"),
        ("`t`.`a` MOD 2", "MOD"),
        ("`t`.`s` = 'x'", "by a collation"),
        ("`t`.`s` <> `t`.`u`", "by a collation"),
        ("`t`.`s` like 'x%'", "by a collation"),
        ("`t`.`e` = 'P'", "by a collation"),
        ("`t`.`e` < 'q'", "by a collation"),
        ("`t`.`s` + 1", "as a number"),
        ("`t`.`a` = '1'", "compares a"),
        ("`t`.`d` = '0000-00-00'", "no day of the calendar"),
        ("`t`.`d` > '2020-02-31'", "no day of the calendar"),
        ("`t`.`ts` > '2020-01-01'", "compares a"),
        ("`t`.`a` || `t`.`b` || 'x'", "as a condition"),
        ("avg(`t`.`a`)", "AVG"),
        ("sum(`t`.`x`)", "SUM of a double"),
        ("max(`t`.`s`)", "MAX of a text"),
        ("group_concat(`t`.`s`)", "GROUPCONCAT"),
        ("count(distinct `t`.`s`)", "COUNT DISTINCT of texts"),
        ("upper(`t`.`s`)", "UPPER"),
        ("length(`t`.`l`)", "another character set"),
        ("greatest(`t`.`a`,2)", "GREATEST"),
        ("round(`t`.`x`,2)", "ROUND of a double"),
        ("if(`t`.`a` > 1,`t`.`s`,2)", "several kinds"),
        ("concat(`t`.`d`,'x')", "CONCAT of a date"),
        ("concat(`t`.`m` * 2,'x')", "CONCAT of a decimal"),
        ("concat(`t`.`z`,'x')", "CONCAT of a other"),
        ("left(`t`.`s`,-1)", "no plain number"),
        ("date_format(`t`.`d`,'%W')", "DATE_FORMAT"),
        ("now()", "by now"),
        ("rand()", "RAND"),
        ("'a\\\\b'", "backslash"),
        ("row_number() over (order by `t`.`a`)", "WINDOW"),
        ("`t`.`s` regexp 'x'", "REGEXPLIKE"),
        ("`other`.`a`", "not carried"),
        ("`t`.`j` = 'x'", "compares a"),
        ("`t`.`a` in (select `t`.`s` from `shop`.`t`)", "IN of values"),
    ],
)
def test_refused_by_name(expression: str, reason: str) -> None:
    with pytest.raises(UntranslatableError, match=reason):
        _translated(f"select {expression} AS `v` from `shop`.`t`")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("select `t`.`s` AS `s`,count(0) AS `n` from `shop`.`t` group by `t`.`s`", "GROUP BY of texts"),
        ("select `t`.`a` AS `a`,`t`.`b` AS `b` from `shop`.`t` group by `t`.`a`", "GROUP BY without"),
        ("select `t`.`a` AS `a`,count(0) AS `n` from `shop`.`t`", "GROUP BY without"),
        ("select count(0) AS `n` from `shop`.`t` group by `t`.`a` with rollup", "GROUP with rollup"),
        ("select distinct `t`.`s` AS `s` from `shop`.`t`", "DISTINCT of texts"),
        ("select `t`.`a` AS `a` from `shop`.`t` limit 3", "LIMIT"),
        ("select `t`.`a` AS `a` from `shop`.`t` order by `t`.`a` limit 3", "LIMIT"),
        ("select `t`.`s` AS `s` from `shop`.`t` order by `t`.`s`", "ORDER BY"),
        ("select `t`.`a` AS `a` from `elsewhere`.`t`", "another database"),
        ("select `v`.`a` AS `a` from `shop`.`v`", "not carried"),
        ("select `t`.`s` AS `s` from `shop`.`t` union select 'x' AS `x`", "UNION without ALL"),
        ("with c as (select 1 AS `n`) select `c`.`n` AS `n` from `c`", "with"),
        ("select `t`.`a` AS `a` from `shop`.`t` for update", "locks"),
        ("select ((", "not understood"),
        ("insert into t values (1)", "INSERT"),
    ],
)
def test_queries_refused_by_name(query: str, reason: str) -> None:
    with pytest.raises(UntranslatableError, match=reason):
        _translated(query)
