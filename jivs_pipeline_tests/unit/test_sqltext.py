"""Fragments of SQL that users write: accepted ones stay inside of our statement in every dialect."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jivs_pipeline.core.sqltext import fragment_problem

TOKENS = [
    "'",
    '"',
    "`",
    "[",
    "]",
    "(",
    ")",
    ";",
    "--",
    "/*",
    "*/",
    "#",
    "$$",
    "$a$",
    "\\",
    "\n",
    " ",
    "1",
    " or ",
    "a",
    "=",
    "''",
    "x'00'",
    "drop table t",
]
fragments = st.lists(st.sampled_from(TOKENS), max_size=12).map("".join) | st.text()


@given(fragments)
@example("[x'] ; drop table t ; ['y]")
@example("`'` ; drop table t ; `'`")
def test_an_accepted_fragment_never_ends_a_statement(fragment):
    if fragment_problem(fragment) is None:
        statement = f"SELECT * FROM t WHERE ({fragment})"
        ends = [
            n
            for n in range(1, len(statement))
            if statement[n - 1] == ";" and sqlite3.complete_statement(statement[:n])
        ]
        assert not ends


@given(fragments)
@example("1) or (1")
@example("[)] or 1 or [(]")
@example("'a' or 1) -- ")
def test_an_accepted_fragment_never_gets_out_of_its_brackets(fragment):
    if fragment_problem(fragment) is not None:
        return
    database = sqlite3.connect(":memory:")
    try:
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (1)")
        # Whatever the fragment says, 0 = 1 stands; only words outside of the brackets could change that.
        found = database.execute(f"SELECT a FROM t WHERE ({fragment}\n) AND 0 = 1").fetchall()
    except (sqlite3.OperationalError, UnicodeEncodeError):
        found = []
    except sqlite3.ProgrammingError as error:
        # Parameters such as ? or :a that nobody gave; a second statement is reported the same way.
        assert "binding" in str(error), error  # noqa: PT017 - raising is not required
        found = []
    finally:
        database.close()
    assert found == []


@pytest.mark.parametrize(
    "fragment",
    [
        "active = 1",
        "a = ANY(ARRAY['x','y'])",
        "ARRAY[[1,2],[3,4]] @> a",
        "a[1][2] = 3",
        "data #>> '{a,b}' = 'x'",
        "(data #> '{a}') IS NOT NULL",
        "name = 'it''s; -- fine /* here */ ('",
        '"odd;name" = 1',
        "path LIKE 'C:\\temp%'",
        "[order date] > 5",
        "`order` > 5",
        "numeric(10,2)",
        "timestamp with time zone",
        "coalesce(lower(a), '')",
        "x = $1 + $2",
        "'\\\\'",
    ],
)
def test_ordinary_expressions_are_accepted(fragment):
    assert fragment_problem(fragment) is None


@pytest.mark.parametrize(
    ("fragment", "problem"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("a\0", "NUL"),
        ("1; drop table t", "more than one statement"),
        (";", "more than one statement"),
        ("1 -- ", "comment"),
        ("1 /* ", "comment"),
        ("1) or (1 = 1", "unbalanced )"),
        ("a]", "unbalanced ]"),
        ("(1]", "unbalanced ]"),
        ("[1)", "unbalanced )"),
        ("(1", "lacks a closing )"),
        ("'a", "unclosed '"),
        ('"a', 'unclosed "'),
        ("$$a$$", "dollar quotes"),
        ("$x$ ' $x$ ; drop table t; $x$ ' $x$", "dollar quotes"),
        ("$é_1$ ' $é_1$", "dollar quotes"),
        (r"E'a\'' ; drop table t; select '''", "backslash before a quote"),
        (r"'a\' or 1 = 1", "backslash before a quote"),
        (r"'a\\\' or 1 = 1", "backslash before a quote"),
        # A backtick is an operator in PostgreSQL, a bracket quotes in SQLite, # is a comment in MySQL.
        ("a ` ; drop table t ; ` b", "more than one statement"),
        ("[x'] ; drop table t ; ['y]", "more than one statement"),
        ("1 # '\n ; drop table t ; # '", "more than one statement"),
        ("1 = 1 # '\n) OR (1 = 1 # '", "unbalanced )"),
        ("[;]", "more than one statement"),
        ("`--`", "comment"),
    ],
)
def test_what_could_end_our_statement_in_any_dialect_is_named(fragment, problem):
    assert problem in (fragment_problem(fragment) or "")
