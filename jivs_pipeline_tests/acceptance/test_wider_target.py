"""Tables of the target whose types are wider than the source's: loaded, verified, and what differs is found.

What belongs here: both ends together. What does not: which types are wider (`unit/test_widening.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from jivs_pipeline_tests.fix_cli import Jivs

_CHANGES = {
    "s": "s = s + 0.5", "n": "n = n + 0.0001", "r": "r = r + 1e-9", "d": "d = d + interval '1 second'", "v": "v = v || ' '",
}  # fmt: skip


def test_values_are_the_same_in_a_wider_type(jivs: Jivs, make_target: Callable[[], str], key: str) -> None:
    """A smallint that is a numeric there, a float4 that is a double: equal, until a change that only they can hold."""
    source, target = make_target(), make_target()
    with psycopg.connect(source) as db:
        db.execute(
            "CREATE TABLE t (i int PRIMARY KEY, s smallint, n numeric(10,2), r real, d date, v varchar(5));"
            " INSERT INTO t SELECT i, i % 30, i / 7.0, i / 3.0, date '2020-01-01' + i, 'v' || i % 9"
            " FROM generate_series(1, 500) i; INSERT INTO t (i, r, d) VALUES (0, 'NaN', 'infinity'), (-1, '-0', '-infinity')"
        )
    with psycopg.connect(target) as db:
        db.execute(
            "CREATE TABLE t (i bigint PRIMARY KEY, s numeric, n numeric(14,4), r double precision, d timestamp, v text)"
        )
    env = jivs.connections(a=source, b=target)
    spec = jivs.spec(key=key, source="a", target="b", on_existing="truncate")
    jivs("run", spec, code=0, env=env)
    with psycopg.connect(target) as db:
        for number, change in enumerate(_CHANGES.values(), 1):
            db.execute(f"UPDATE t SET {change} WHERE i = {number}".encode())
    document = jivs("verify", key, "--level", "rows", "--json", code=4, env=env).document
    found = {d["key"]["i"]: d["columns"] for d in document["tables"][0]["differences"]}
    assert found == {str(number): [column] for number, column in enumerate(_CHANGES, 1)}


def test_a_type_that_was_changed_afterwards_is_a_difference(
    jivs: Jivs, make_target: Callable[[], str], key: str
) -> None:
    """Said in one sentence, for the hashes of two types cannot be compared; a type with the same hash is none."""
    source, target = make_target(), make_target()
    with psycopg.connect(source) as db:
        db.execute(
            "CREATE TABLE t (i int PRIMARY KEY, v varchar(5)); INSERT INTO t VALUES (1, 'a'), (2, NULL)"
        )
    env = jivs.connections(a=source, b=target)
    jivs("run", jivs.spec(key=key, source="a", target="b"), code=0, env=env)
    for change, code in (("v TYPE text", 0), ("i TYPE numeric", 4)):
        with psycopg.connect(target) as db:
            db.execute(f"ALTER TABLE t ALTER {change}".encode())
        ended = jivs("verify", key, code=code, env=env)
    assert "public.t has other columns or types than what was loaded" in ended.stderr
