"""`jivs run` from PostgreSQL to PostgreSQL: the same rows, the same catalog, seen through pg_catalog and md5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import constraints, fingerprints, indexes, ledger, next_value
from jivs_pipeline_tests.databases import load_tpch
from jivs_pipeline_tests.fix_cli import Jivs


def assert_same_structure(source: str, target: str, schema: str = "public") -> None:
    """Constraints, indexes, columns with everything that hangs on them, and comments are equal."""
    with psycopg.connect(source) as a, psycopg.connect(target) as b:
        for kind in "pufcx":
            assert constraints(b, kind, schema) == constraints(a, kind, schema), f"constraints of kind {kind}"
        assert indexes(b, schema) == indexes(a, schema)
        for what, query in STRUCTURE.items():
            assert b.execute(query, (schema,)).fetchall() == a.execute(query, (schema,)).fetchall(), what


STRUCTURE: dict[str, Any] = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
               pg_get_expr(d.adbin, d.adrelid), l.collname
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
          LEFT JOIN pg_collation l ON l.oid = a.attcollation
         WHERE c.relnamespace = %s::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY c.relname, a.attnum""",
    "comments": """
        SELECT c.relname, a.attname, d.description
          FROM pg_description d JOIN pg_class c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
          LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND a.attnum > 0
         WHERE c.relnamespace = %s::regnamespace ORDER BY 1, 2""",
    "sequences": """
        SELECT c.relname, s.seqtypid::regtype::text, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcycle
          FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid WHERE c.relnamespace = %s::regnamespace ORDER BY 1""",
}


def test_tpch(jivs: Jivs, make_target: Callable[[], str], key: str) -> None:
    """86,000 rows: md5 of every table, keys, references and indexes are equal; a second run does nothing."""
    source, target = make_target(), make_target()
    rows = load_tpch(source, 0.01)
    urls = ("--source", source, "--target", target, "--key", key)
    document = jivs("run", *urls, "--json", code=0).document
    check_run(document)
    assert {t["source_table"].removeprefix("public."): t["source_rows"] for t in document["tables"]} == rows
    assert {t["lane"] for t in document["tables"]} == {"copy"}
    expected = fingerprints(source)
    assert fingerprints(target) == expected
    assert {t: n for t, (n, _) in expected.items()} == rows
    assert_same_structure(source, target)
    before = ledger(target, key)
    again = jivs("run", *urls, "--json", code=0).document
    check_run(again)
    assert again["tables"] == document["tables"]
    assert ledger(target, key) == before
    assert fingerprints(target) == expected


CHUNKED = """
CREATE TABLE by_text (k text COLLATE "C" PRIMARY KEY, v text NOT NULL);
INSERT INTO by_text SELECT md5(i::text) || CASE i % 3 WHEN 0 THEN '' WHEN 1 THEN 'é''"' ELSE E'\\t\\n' END, repeat(md5((-i)::text), 2)
  FROM generate_series(1, 4000) i;
INSERT INTO by_text VALUES ('', 'empty key'), ('\\N', 'not null');
CREATE TABLE by_composite (a smallint, b text, c date, v text, PRIMARY KEY (b, a, c));
INSERT INTO by_composite SELECT i % 7, 'group ' || i % 11, date '2020-01-01' + i, repeat('v', 60) FROM generate_series(1, 5000) i;
CREATE TABLE by_uuid (k uuid PRIMARY KEY, v text);
INSERT INTO by_uuid SELECT md5(i::text)::uuid, repeat('u', 80) FROM generate_series(1, 4000) i;
-- No key, rows twice, holes where rows were deleted, and rows that an update moved.
CREATE TABLE no_key (a integer, b text);
INSERT INTO no_key SELECT i / 2, repeat('n', 90) FROM generate_series(1, 6000) i;
INSERT INTO no_key SELECT NULL, NULL FROM generate_series(1, 5);
DELETE FROM no_key WHERE a BETWEEN 500 AND 1500;
UPDATE no_key SET b = 'moved' WHERE a % 10 = 3;
CREATE TABLE by_bigint (id bigint PRIMARY KEY, v text);
INSERT INTO by_bigint SELECT i * i * sign(i - 2000), repeat('b', 70) FROM generate_series(1, 5000) i WHERE i <> 2000;
INSERT INTO by_bigint VALUES (9223372036854775807, 'max'), (-9223372036854775808, 'min');
CREATE TABLE by_case (k varchar(20) PRIMARY KEY, v text);
INSERT INTO by_case SELECT (CASE i % 2 WHEN 0 THEN 'A' ELSE 'a' END) || (i / 2), repeat('c', 90) FROM generate_series(1, 3000) i;
CREATE TABLE nothing (id integer PRIMARY KEY, v text);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
ANALYZE;
"""


def test_small_chunks_by_every_kind_of_key(jivs: Jivs, make_target: Callable[[], str], key: str) -> None:
    """Key ranges of text, composite, uuid and integer keys, and block ranges: each row once, none lost at a bound."""
    source, target = make_target(), make_target()
    with psycopg.connect(source) as db:
        db.execute(CHUNKED)
    env = jivs.connections(legacy=source, warehouse=target)
    spec = jivs.spec(key=key, source="legacy", target="warehouse", chunk_bytes=65536)
    plan = jivs("plan", spec, "--json", code=0, env=env).document
    chunked = {
        t["source_table"].removeprefix("public."): (t["chunk_by"], t["chunks"]) for t in plan["tables"]
    }
    for table in ("by_text", "by_composite", "by_uuid", "by_bigint"):
        assert chunked[table][0] == "key", (table, chunked)
        assert chunked[table][1] >= 3, (table, chunked)
    assert chunked["no_key"][0] == "ctid"
    assert chunked["no_key"][1] >= 3
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    assert fingerprints(target) == fingerprints(source)
    assert_same_structure(source, target)
    chunks = ledger(target, key)
    assert {t["target_table"]: (t["chunks"], t["target_rows"]) for t in document["tables"]} == {
        t: (len(c), sum(rows for _, rows, *_ in c)) for t, c in chunks.items()
    }
    # A bound that all rows are on one side of would prove nothing.
    for table in ("by_text", "by_composite", "by_uuid", "by_bigint", "no_key"):
        assert sum(rows > 0 for _, rows, *_ in chunks[f"public.{table}"]) >= 3, (table, chunks)


OBJECTS = """
CREATE TABLE parent (id serial PRIMARY KEY, code text NOT NULL UNIQUE, name varchar(40) DEFAULT 'unnamed');
INSERT INTO parent (code) SELECT 'c' || i FROM generate_series(1, 50) i;
SELECT setval('parent_id_seq', 900);
CREATE TABLE fresh (id integer GENERATED BY DEFAULT AS IDENTITY (START WITH 7 INCREMENT BY 5), v text);
CREATE TABLE always (id bigint GENERATED ALWAYS AS IDENTITY, v text, PRIMARY KEY (id));
INSERT INTO always (v) SELECT 'x' FROM generate_series(1, 20);
CREATE TABLE computed (a integer PRIMARY KEY, b integer GENERATED ALWAYS AS (a * 2) STORED, c text COLLATE "C" NOT NULL);
INSERT INTO computed (a, c) SELECT i, 'c' || i FROM generate_series(1, 30) i;
CREATE TABLE child (
    id integer PRIMARY KEY,
    parent_id integer REFERENCES parent ON DELETE CASCADE ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED,
    sibling_id integer REFERENCES child (id),
    code text REFERENCES parent (code) DEFERRABLE,
    amount numeric(12, 3) CHECK (amount >= 0), flag boolean NOT NULL DEFAULT true);
INSERT INTO child SELECT i, i, i / 2 + 1, 'c' || i, i / 8.0, i % 2 = 0 FROM generate_series(1, 50) i;
SET CONSTRAINTS ALL IMMEDIATE;
CREATE INDEX child_partial ON child (amount) WHERE flag;
CREATE INDEX child_expression ON child (lower(code), (amount + 1) DESC NULLS LAST);
CREATE UNIQUE INDEX child_desc ON child (amount DESC, id) INCLUDE (flag);
CREATE INDEX child_hash ON child USING hash (code);
CREATE INDEX child_pattern ON child (code text_pattern_ops);
-- Two tables that refer to each other.
CREATE TABLE egg (id integer PRIMARY KEY, hen integer);
CREATE TABLE hen (id integer PRIMARY KEY, egg integer REFERENCES egg DEFERRABLE INITIALLY DEFERRED);
INSERT INTO egg SELECT i, i FROM generate_series(1, 9) i;
INSERT INTO hen SELECT i, i FROM generate_series(1, 9) i;
SET CONSTRAINTS ALL IMMEDIATE;
ALTER TABLE egg ADD CONSTRAINT egg_of FOREIGN KEY (hen) REFERENCES hen DEFERRABLE;
COMMENT ON TABLE parent IS 'it''s a "parent" %s';
COMMENT ON COLUMN child.amount IS 'in €, never negative';
"""


def test_structure_is_the_sources(jivs: Jivs, make_target: Callable[[], str], key: str) -> None:
    """Sequences and identities, generated columns, every kind of index, deferrable and cyclic references, comments."""
    source, target = make_target(), make_target()
    with psycopg.connect(source) as db:
        db.execute(OBJECTS)
    document = jivs("run", "--source", source, "--target", target, "--key", key, "--json", code=0).document
    check_run(document)
    assert fingerprints(target) == fingerprints(source)
    assert_same_structure(source, target)
    with psycopg.connect(source) as a, psycopg.connect(target) as b:
        for table in ("parent", "fresh", "always"):
            assert next_value(b, table, "id") == next_value(a, table, "id"), table
    with psycopg.connect(target) as db:
        db.execute("INSERT INTO computed (a, c) VALUES (100, 'new')")
        assert db.execute("SELECT b FROM computed WHERE a = 100").fetchone() == (200,)


VALUES = r"""
CREATE TABLE scalars (id integer PRIMARY KEY, kind text, i interval, n numeric, d date, t timestamp, z timestamptz, c time, cz timetz,
    f double precision, r real, b bytea, j json, jb jsonb, ch char(6), u uuid, ip inet, bits bit varying, m money, o "char", bo boolean);
INSERT INTO scalars (id, kind, i, n, d, t, z, c, cz, f, r) VALUES
    (1, 'extremes', '1 mon', 'NaN', 'infinity', 'infinity', '-infinity', '24:00:00', '23:59:59.999999+15:59', 'NaN', 'NaN'),
    (2, 'other ends', '30 days', 'Infinity', '-infinity', '-infinity', 'infinity', '00:00', '00:00-15:59', '-Infinity', 'Infinity'),
    (3, 'BC', '-178000000 years', '-Infinity', '4713-01-01 BC', '4713-01-01 00:00:00 BC', '0044-03-15 12:00:00+00 BC', '00:00:00.000001', '12:00+00', -0.0, -0.0),
    (4, 'far', '178000000 years 11 mons 3 days 04:05:06.789', repeat('9', 1000)::numeric, '5874897-12-31', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59+00', '12:34:56.789012', '12:34:56.789012+05:30', 5e-324, 1e-45),
    (5, 'small', '-00:00:00.000001', ('0.' || repeat('0', 500) || '1')::numeric, '0001-01-01', '0001-01-01', '1970-01-01 00:00:00+00', '01:02:03', '01:02:03-08', 1.7976931348623157e308, 3.4028235e38),
    (6, 'zeros', '1 mon -30 days +00:00:01', 0.000, '2000-02-29', '2000-02-29 24:00:00', '2024-03-31 02:30:00 Europe/Berlin', NULL, NULL, 0.1, 0.1);
INSERT INTO scalars (id, kind, b, j, jb, ch, u, ip, bits, m, o, bo) VALUES
    (10, 'bytes', '\x00ff5c4e0a0d09', '{"a": 1, "a": 2, "n": 123456789012345678901234567890.10}', '{"a": 1e400, "z": [null, "☃"]}', 'ab', md5('x')::uuid, '::1/64', B'10110', 1234.56, 'x', false),
    (11, 'empty', '', ' [ ] ', '"\\u2603"', '', md5('y')::uuid, '10.0.0.1', B'', -0.01, '', true);
CREATE TABLE texts (id integer PRIMARY KEY, v text, w varchar);
INSERT INTO texts VALUES (1, '', NULL), (2, NULL, ''), (3, '\N', E'\\.'), (4, E'tab\tnl\ncr\rbs\\', ' lead and trail '), (5, 'e' || U&'\0301', 'é'), (6, '😀 ﷽ ' || chr(1114111), repeat('x', 100000)), (7, E'\x7f\x01', '"quoted",comma');
CREATE TABLE arrays (id integer PRIMARY KEY, i integer[], t text[], d date[], n numeric[]);
INSERT INTO arrays VALUES (1, '{}', '{}', NULL, '{NaN,1.10,NULL}'), (2, '[0:2]={1,2,3}', '{"a,b","\"q\"",NULL,"NULL",""}', '{infinity,0044-03-15 BC}', NULL),
    (3, '{{1,2},{3,NULL}}', '[-1:0][5:5]={{x},{y}}', '{2020-01-01}', '{}');
CREATE TABLE ranges (id integer PRIMARY KEY, i int4range, n numrange, t tstzrange, mi int4multirange, p point, tv tsvector);
INSERT INTO ranges VALUES (1, 'empty', '(,)', '[2020-01-01,infinity)', '{}', '(1.5,-0)', 'a:1 b:2,3A'), (2, '[1,9)', '[1.10,2.0]', '(,2021-01-01]', '{[1,3),[5,)}', '(NaN,Infinity)', ''), (3, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE DOMAIN euros AS numeric(12, 2) CHECK (VALUE >= 0);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'Very Happy');
CREATE TYPE pair AS (a integer, b text);
CREATE TABLE defined (id integer PRIMARY KEY, m mood);
INSERT INTO defined VALUES (1, 'sad'), (2, 'Very Happy'), (3, NULL);
CREATE TABLE of_domain (id integer PRIMARY KEY, e euros);
INSERT INTO of_domain VALUES (1, 1.50), (2, NULL);
CREATE TABLE of_pair (id integer PRIMARY KEY, p pair);
INSERT INTO of_pair VALUES (1, '(1,"x,y")'), (2, '(,)'), (3, NULL);
"""

_FINE = ("scalars", "texts", "arrays", "ranges")


def test_values_are_exact_in_the_copy_lane(jivs: Jivs, make_target: Callable[[], str], key: str) -> None:
    """Values that corrupt elsewhere arrive bit by bit. User-defined types are carried exactly or refused aloud."""
    source, target = make_target(), make_target()
    with psycopg.connect(source) as db:
        db.execute(VALUES)
    env = jivs.connections(legacy=source, warehouse=target)
    spec = jivs.spec(key=key, source="legacy", target="warehouse")
    ended = jivs("run", spec, "--json", env=env)
    document = ended.document
    assert ended.code in {0, 1}, ended
    errors = {t["source_table"].removeprefix("public."): t["error"] for t in document["tables"]}
    assert [errors[t] for t in _FINE] == [None] * 4, ended
    expected, found = fingerprints(source), fingerprints(target)
    carried = [t for t, error in errors.items() if error is None]
    assert sorted(errors) == sorted(expected), "a table was left out in silence"
    assert {t: found[t] for t in carried} == {t: expected[t] for t in carried}
    assert sorted(found) == sorted(carried)
    assert ended.code == (1 if len(carried) < len(errors) else 0)
    for table in errors.keys() - set(carried):
        assert [
            w for w in document["warnings"] if w["table"] == f"public.{table}" and w["kind"] == "refused"
        ], table
    with psycopg.connect(source) as a, psycopg.connect(target) as b:
        # The text of a value hides -0 in float4 and the padding of char(n); its binary form does not.
        query = "SELECT id, float8send(f), float4send(r), numeric_send(n), bpcharsend(ch), interval_send(i) FROM scalars ORDER BY id"
        assert b.execute(query).fetchall() == a.execute(query).fetchall()


HIDDEN = """
CREATE TABLE base (id integer PRIMARY KEY, v text);
INSERT INTO base SELECT i, 'base' FROM generate_series(1, 10) i;
CREATE TABLE heir (extra text) INHERITS (base);
INSERT INTO heir SELECT i, 'heir', 'x' FROM generate_series(11, 30) i;
CREATE TABLE guarded (id integer PRIMARY KEY, v text);
INSERT INTO guarded SELECT i, 'g' FROM generate_series(1, 40) i;
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY few ON guarded USING (id <= 5);
CREATE VIEW seen AS SELECT * FROM base;
CREATE SCHEMA elsewhere;
CREATE TABLE elsewhere.kept_out (id integer);
"""


def test_rows_that_hide(jivs: Jivs, make_target: Callable[[], str], key: str) -> None:
    """A parent's rows come once, not with its children's; row security hides nothing, and comes along with a view."""
    source, target = make_target(), make_target()
    with psycopg.connect(source) as db:
        db.execute(HIDDEN)
    document = jivs("run", "--source", source, "--target", target, "--key", key, "--json").document
    errors = {t["source_table"].removeprefix("public."): t["error"] for t in document["tables"]}
    refused = {w["table"].removeprefix("public.") for w in document["warnings"] if w["kind"] == "refused"}
    found, expected = fingerprints(target), fingerprints(source)
    for table in ("base", "heir", "guarded"):
        assert errors[table] is None, table
        assert found[table] == expected[table], table
    assert found["guarded"][0] == 40
    assert refused == {"1 schema"}
    with psycopg.connect(target) as db:
        assert db.execute("SELECT to_regclass('seen') IS NOT NULL").fetchone() == (True,)
    assert not any("kept_out" in t for t in errors)


def test_a_table_that_is_left_out_is_no_success(jivs: Jivs, make_target: Callable[[], str], key: str) -> None:
    """A table whose rows do not come along fails, as the contract says of a table that the plan refuses."""
    source, target = make_target(), make_target()
    with psycopg.connect(source) as db:
        db.execute("""
            CREATE TABLE plain (id integer PRIMARY KEY);
            INSERT INTO plain VALUES (1);
            CREATE SCHEMA other; CREATE TYPE other.pair AS (id integer, v text);
            CREATE TABLE paired (p other.pair);
            INSERT INTO paired SELECT ROW(i, 'x')::other.pair FROM generate_series(1, 50) i;
        """)
    jivs("run", "--source", source, "--target", target, "--key", key, "--json", code=1)
    assert {t: n for t, (n, _) in fingerprints(target).items()} == {"plain": 1}
