"""`jivs run` from PostgreSQL to PostgreSQL: what stands beside the tables, seen through pg_catalog.

What belongs here: types, functions, views, triggers and so on, made again, taken back, and what is left out aloud.
What does not: tables (`test_postgresql_to_postgresql.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import ELSEWHERE, catalog, fingerprints
from jivs_pipeline_tests.fix_cli import Jivs

SCRIPT = """
CREATE SCHEMA shop;
SET search_path TO shop;
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'Happy');
COMMENT ON TYPE mood IS 'how one feels, isn''t it';
CREATE DOMAIN "Percent" AS numeric(5,2) DEFAULT 0 NOT NULL CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN moods AS mood[] CHECK (cardinality(VALUE) < 5);
CREATE TYPE place AS (street text, zip varchar(10), feeling mood);
CREATE TYPE span AS RANGE (SUBTYPE = double precision);
CREATE FUNCTION clean(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(btrim($1)) $$;
CREATE FUNCTION clean(integer) RETURNS integer LANGUAGE sql IMMUTABLE RETURN $1 % 1000;
CREATE FUNCTION next_mood(m mood) RETURNS mood LANGUAGE sql IMMUTABLE AS
  $$ SELECT CASE m WHEN 'sad' THEN 'it''s ok'::shop.mood ELSE 'Happy'::shop.mood END $$;
CREATE TABLE people (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL CHECK (clean(name) <> ''),
    tidy text GENERATED ALWAYS AS (clean(name)) STORED,
    feels mood NOT NULL DEFAULT 'sad',
    was moods, share "Percent", lives place, height span, homes place[], spans span[]
);
INSERT INTO people (name, feels, was, share, lives, height, homes, spans)
SELECT ' Person ' || i, (enum_range(NULL::mood))[1 + i % 3], ARRAY['sad', 'Happy']::mood[], i % 100,
       ROW('Way, ' || i, NULL, 'sad')::place, span(i, i + 0.5),
       ARRAY[ROW('a "b" \\ c', '1', NULL)::place, NULL], ARRAY[span(NULL, i), 'empty'::span]
  FROM generate_series(1, 3000) i;
INSERT INTO people (name, lives) VALUES ('nobody', NULL), ('empty', ROW(NULL, NULL, NULL));
CREATE INDEX people_tidy ON people (clean(name)) WHERE feels <> 'sad';
CREATE TABLE bookings (room integer, during tsrange, booked_by integer REFERENCES people,
    CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&) WHERE (room > 0));
INSERT INTO bookings VALUES (1, '[2026-01-01, 2026-01-02)', 1), (1, '[2026-01-02, 2026-01-03)', 2);
CREATE STATISTICS by_name (dependencies) ON name, tidy FROM people;
CREATE VIEW happy AS SELECT id, tidy, next_mood(feels) AS then FROM people WHERE feels = 'Happy';
CREATE VIEW "Happiest" WITH (security_barrier) AS SELECT count(*) AS many, max(h.id) AS last FROM happy h;
COMMENT ON VIEW happy IS 'those who are';
CREATE MATERIALIZED VIEW counted AS SELECT feels, count(*) AS n FROM people GROUP BY feels;
CREATE UNIQUE INDEX counted_feels ON counted (feels);
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
CREATE FUNCTION add_up(state integer, more integer) RETURNS integer LANGUAGE sql AS 'SELECT coalesce($1, 0) + coalesce($2, 0)';
CREATE AGGREGATE total(integer) (SFUNC = add_up, STYPE = integer, INITCOND = '0');
CREATE TABLE log (at timestamptz DEFAULT now(), what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO shop.log (what) VALUES (TG_OP); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON people FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER asleep AFTER DELETE ON people FOR EACH STATEMENT EXECUTE FUNCTION note();
ALTER TABLE people DISABLE TRIGGER asleep;
CREATE RULE kept AS ON DELETE TO log DO INSTEAD NOTHING;
CREATE PROCEDURE forget() LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION by_row(p people) RETURNS text LANGUAGE sql STABLE AS 'SELECT p.name';
INSERT INTO log (what) VALUES ('begun');
"""

OBJECTS: dict[str, Any] = {
    "types": """
        SELECT t.typname, t.typtype, t.typnotnull, t.typdefault, pg_get_expr(t.typdefaultbin, 0), obj_description(t.oid, 'pg_type'),
               ARRAY(SELECT enumlabel FROM pg_enum e WHERE e.enumtypid = t.oid ORDER BY enumsortorder),
               ARRAY(SELECT format('%%s %%s', attname, format_type(atttypid, atttypmod)) FROM pg_attribute a
                      WHERE a.attrelid = t.typrelid AND attnum > 0 ORDER BY attnum),
               ARRAY(SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE k.contypid = t.oid ORDER BY 1)
          FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
         WHERE t.typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND coalesce(c.relkind, 'c') = 'c' ORDER BY 1""",
    "routines": """
        SELECT p.oid::regprocedure::text, CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END, a.agginitval,
               a.aggtransfn::text
          FROM pg_proc p LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "views": """
        SELECT c.relname, c.relkind, c.reloptions, c.relispopulated, pg_get_viewdef(c.oid), obj_description(c.oid, 'pg_class'),
               ARRAY(SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i WHERE i.indrelid = c.oid ORDER BY 1)
          FROM pg_class c WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND c.relkind IN ('v', 'm') ORDER BY 1""",
    "triggers": """
        SELECT pg_get_triggerdef(g.oid), g.tgenabled FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
         WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND NOT g.tgisinternal ORDER BY 1""",
    "rules": """
        SELECT pg_get_ruledef(w.oid) FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class
         WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND w.rulename <> '_RETURN' ORDER BY 1""",
    "statistics": "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1",
    "constraints": """
        SELECT c.relname, k.conname, pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
         WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND k.contype IN ('c', 'x', 'f') ORDER BY 1, 2""",
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated, pg_get_expr(d.adbin, d.adrelid)
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY 1, a.attnum""",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1",
}


def objects(url: str, schema: str) -> dict[str, list[str]]:
    """Everything as the server writes it, without the schema's name; `shop` is in the bodies of functions wherever they are."""

    def bare(row: Any) -> str:
        text = json.dumps(row, default=str).replace('\\"', '"')
        return text.replace(f'"{schema}".', "").replace(f"{schema}.", "").replace("shop.", "")

    with psycopg.connect(url) as db:
        return {
            what: sorted(map(bare, db.execute(query, (schema,)).fetchall()))
            for what, query in OBJECTS.items()
        }


@pytest.fixture
def source(make_target: Callable[[], str]) -> str:
    url = make_target()
    with psycopg.connect(url) as db:
        db.execute(SCRIPT)
    return url


def test_all_of_a_schema(jivs: Jivs, source: str, make_target: Callable[[], str], key: str) -> None:
    """Equal rows and an equal catalog, in a schema of another name; triggers did not fire during the load."""
    target = make_target()
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema=ELSEWHERE)
    env = jivs.connections(a=source, b=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    assert fingerprints(target, ELSEWHERE) == fingerprints(source, "shop")
    assert objects(target, ELSEWHERE) == objects(source, "shop")
    # Bodies of functions are texts: what they name stays, and the plan says so.
    expected = ["shop.next_mood(m shop.mood)", "shop.note()"]
    assert [w["table"] for w in document["warnings"]] == expected


def test_a_rollback_takes_everything_back(
    jivs: Jivs, source: str, make_target: Callable[[], str], key: str
) -> None:
    target = make_target()
    before = catalog(target)
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema="shop")
    env = jivs.connections(a=source, b=target)
    jivs("run", spec, "--json", code=0, env=env)
    jivs("rollback", key, "--json", code=0, env=env)
    after = catalog(target)
    with psycopg.connect(target) as db:
        left = db.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'shop'").fetchone()
    assert left == (0,)
    assert [s for s in after["schemas"] if s not in before["schemas"] and s[0] != "jivs_ledger"] == []


def test_what_uses_something_that_stays_behind_is_said(
    jivs: Jivs, source: str, make_target: Callable[[], str], key: str
) -> None:
    """A view of a renamed table, a trigger of an excluded one, and a view that one asks to leave out."""
    target = make_target()
    spec = jivs.spec(
        key=key, source="a", target="b", source_schema="shop", target_schema="shop",
        tables={"exclude": ["log", "counted"]}, rules={"people": {"rename": "persons"}},
    )  # fmt: skip
    document = jivs("run", spec, "--json", code=0, env=jivs.connections(a=source, b=target)).document
    reasons = {w["table"]: w["reason"] for w in document["warnings"]}
    assert reasons["shop.happy"] == "view: it uses table people, which is renamed"
    assert reasons["shop.Happiest"] == "view: it uses view happy, which is not carried"
    assert reasons["shop.people.noted"] == "trigger: it uses table people, which is renamed"
    assert "shop.counted" not in reasons
    with psycopg.connect(target) as db:
        views = db.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'shop'::regnamespace"
        )
        assert views.fetchall() == [("unfilled",)]


def test_what_hangs_on_a_replaced_table_is_made_anew(
    jivs: Jivs, make_target: Callable[[], str], key: str
) -> None:
    """The old table keeps its trigger; the type that is there already is kept and said."""
    source, target = make_target(), make_target()
    script = """CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (id int PRIMARY KEY, m mood); INSERT INTO t VALUES (1, 'sad');
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER noted BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()"""
    for url in (source, target):
        with psycopg.connect(url) as db:
            db.execute(script)
    spec = jivs.spec(key=key, source="a", target="b", on_existing="replace")
    env = jivs.connections(a=source, b=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    assert {w["table"] for w in document["warnings"]} == {"public.mood", "public.note()"}
    assert objects(target, "public") == objects(source, "public")
    jivs("rollback", key, code=0, env=env)
    assert objects(target, "public") == objects(source, "public")
