"""`jivs run` from PostgreSQL to PostgreSQL: a schema of everything that other tests have not, none of it silent.

What belongs here: settings of tables and columns, seen through pg_catalog, and the names of all that stays behind. What does
not: objects that are carried (`test_postgresql_objects.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import ELSEWHERE, fingerprints
from jivs_pipeline_tests.fix_cli import Jivs

CARRIED = """
CREATE SCHEMA shop; SET search_path TO shop;
CREATE TYPE pair AS (x integer, y text); COMMENT ON COLUMN pair.x IS 'the first';
CREATE TABLE typed OF pair (x WITH OPTIONS PRIMARY KEY, y WITH OPTIONS DEFAULT 'q');
INSERT INTO typed SELECT i FROM generate_series(1, 10) i;
CREATE UNLOGGED TABLE fast (id integer PRIMARY KEY); INSERT INTO fast VALUES (1);
CREATE TABLE known (id integer PRIMARY KEY, code text CONSTRAINT must NOT NULL UNIQUE, n integer);
CREATE INDEX known_n ON known (n); INSERT INTO known VALUES (1, 'a', 2);
ALTER TABLE known REPLICA IDENTITY USING INDEX known_code_key; ALTER TABLE known CLUSTER ON known_n;
CREATE TABLE known_by_all (a integer); ALTER TABLE known_by_all REPLICA IDENTITY FULL;
CREATE TABLE known_by_none (a integer); ALTER TABLE known_by_none REPLICA IDENTITY NOTHING;
CREATE TABLE stored (a integer, b text, c text, d integer, e bytea, f text DEFAULT 'x')
    WITH (fillfactor = 60, autovacuum_enabled = false, toast.autovacuum_enabled = false);
ALTER TABLE stored ALTER COLUMN b SET STORAGE EXTERNAL; ALTER TABLE stored ALTER COLUMN c SET STATISTICS 500;
ALTER TABLE stored ALTER COLUMN a SET (n_distinct = -0.5, n_distinct_inherited = 7); ALTER TABLE stored ALTER COLUMN e SET COMPRESSION pglz;
INSERT INTO stored VALUES (1, 'b', 'c', 2, 'x'); ALTER TABLE stored ADD COLUMN "Added later" integer DEFAULT 5;
CREATE STATISTICS of_both ON a, d FROM stored; ALTER STATISTICS of_both SET STATISTICS 77;
CREATE TABLE egg (id integer PRIMARY KEY, hen integer);
CREATE TABLE hen (id integer PRIMARY KEY, egg integer REFERENCES egg DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen DEFERRABLE INITIALLY DEFERRED;
INSERT INTO egg VALUES (1, 1); INSERT INTO hen VALUES (1, 1);
CREATE TABLE later (a integer, b integer); INSERT INTO later VALUES (-1, 9);
ALTER TABLE later ADD CONSTRAINT positive CHECK (a > 0) NOT VALID; COMMENT ON CONSTRAINT positive ON later IS 'soon';
ALTER TABLE later ADD CONSTRAINT to_egg FOREIGN KEY (b) REFERENCES egg NOT VALID;
CREATE VIEW shown AS SELECT id, n FROM known; ALTER VIEW shown ALTER COLUMN n SET DEFAULT 5; COMMENT ON COLUMN shown.n IS 'a number';
CREATE MATERIALIZED VIEW kept WITH (fillfactor = 70) AS SELECT id FROM known; COMMENT ON COLUMN kept.id IS 'of known';
CREATE UNIQUE INDEX kept_id ON kept (id); COMMENT ON INDEX kept_id IS 'one each'; ALTER MATERIALIZED VIEW kept CLUSTER ON kept_id;
CREATE DOMAIN natural_number AS integer CONSTRAINT above CHECK (VALUE > 0);
COMMENT ON CONSTRAINT above ON DOMAIN natural_number IS 'why not 0';
CREATE TABLE parent (a integer, b integer) PARTITION BY RANGE (a); ALTER TABLE parent ALTER COLUMN b SET STATISTICS 33;
CREATE TABLE part PARTITION OF parent FOR VALUES FROM (0) TO (10) WITH (fillfactor = 50);
CREATE TABLE typed_parts OF pair PARTITION BY LIST (x);
CREATE FUNCTION to_pair(number integer) RETURNS pair LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1, NULL)::pair';
CREATE CAST (integer AS pair) WITH FUNCTION to_pair(integer) AS ASSIGNMENT; CREATE CAST (pair AS point) WITH INOUT;
COMMENT ON CAST (integer AS pair) IS 'half of it';
CREATE TEXT SEARCH DICTIONARY "Few words" (TEMPLATE = simple, STOPWORDS = english, ACCEPT = false);
CREATE TEXT SEARCH CONFIGURATION searching (COPY = simple); COMMENT ON TEXT SEARCH CONFIGURATION searching IS 'for notes';
ALTER TEXT SEARCH CONFIGURATION searching ALTER MAPPING FOR word, asciiword WITH "Few words", simple;
CREATE TABLE notes (id integer, note text, found tsvector GENERATED ALWAYS AS (to_tsvector('searching'::regconfig, note)) STORED);
INSERT INTO notes SELECT i, 'the note ' || i FROM generate_series(1, 50) i;
CREATE INDEX notes_found ON notes USING gin (to_tsvector('searching'::regconfig, note));
CREATE TRIGGER same BEFORE UPDATE ON known FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON known DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE COLLATION "By phonebook" (PROVIDER = builtin, LOCALE = 'C.UTF-8'); COMMENT ON COLLATION "By phonebook" IS 'as printed';
CREATE COLLATION any_case (LOCALE = 'POSIX'); CREATE COLLATION upside FROM "C";
CREATE DOMAIN named AS text COLLATE any_case; CREATE TYPE title AS (t text COLLATE upside);
CREATE TYPE letters AS RANGE (SUBTYPE = text, COLLATION = "By phonebook");
CREATE TABLE sorted (t text COLLATE upside, u text COLLATE any_case UNIQUE, v text COLLATE pg_c_utf8, n named, title title, l letters);
INSERT INTO sorted VALUES ('b', 'B', 'ß', 'x', ROW('y'), '[a,b]'), ('A', 'a', 'ä', NULL, NULL, NULL);
CREATE INDEX sorted_t ON sorted (t COLLATE "By phonebook", v COLLATE pg_unicode_fast);
CREATE VIEW sorted_by AS SELECT t COLLATE any_case AS t FROM sorted;
CREATE TABLE sorted_parts (k text COLLATE "By phonebook") PARTITION BY RANGE (k);
CREATE TABLE sorted_part PARTITION OF sorted_parts FOR VALUES FROM ('a') TO ('z');
CREATE TYPE point_of AS (x integer);
CREATE FUNCTION same(point_of, point_of) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.x = $2.x';
CREATE FUNCTION same(point_of, integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.x = $2';
CREATE FUNCTION other(point_of, point_of) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.x <> $2.x';
CREATE FUNCTION less(point_of, point_of) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.x < $2.x';
CREATE FUNCTION more(point_of, point_of) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.x > $2.x';
CREATE FUNCTION negative(point_of) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT -$1.x';
CREATE OPERATOR = (FUNCTION = same, LEFTARG = point_of, RIGHTARG = point_of, COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel,
    HASHES, MERGES);
CREATE OPERATOR <> (FUNCTION = other, LEFTARG = point_of, RIGHTARG = point_of, COMMUTATOR = <>, NEGATOR = =);
CREATE OPERATOR <~ (FUNCTION = less, LEFTARG = point_of, RIGHTARG = point_of, COMMUTATOR = ~>);
CREATE OPERATOR ~> (FUNCTION = more, LEFTARG = point_of, RIGHTARG = point_of, COMMUTATOR = <~);
CREATE OPERATOR = (FUNCTION = same, LEFTARG = point_of, RIGHTARG = integer); COMMENT ON OPERATOR = (point_of, integer) IS 'x only';
CREATE OPERATOR !~ (FUNCTION = negative, RIGHTARG = point_of); COMMENT ON OPERATOR !~ (NONE, point_of) IS 'before it';
CREATE TABLE compared (p point_of, q point_of, CHECK (p <> q), CHECK (p OPERATOR(shop.=) 1)); INSERT INTO compared VALUES (ROW(1), ROW(2));
CREATE INDEX negatives ON compared ((!~ p)); CREATE VIEW compare AS SELECT p = q AS same, p <~ q AS less FROM compared;
CREATE CONVERSION latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8; COMMENT ON CONVERSION latin IS 'as everywhere';
CREATE AGGREGATE moving(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0', MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = integer,
    MINITCOND = '5', SORTOP = <);
CREATE AGGREGATE picky(integer) (SFUNC = int4pl, STYPE = integer, FINALFUNC_MODIFY = READ_WRITE);
CREATE FUNCTION gathered(integer[], integer) RETURNS integer[] LANGUAGE sql IMMUTABLE AS 'SELECT array_append($1, $2)';
CREATE FUNCTION first_of(integer[], float8, integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1[1]';
CREATE AGGREGATE sorted_first(float8 ORDER BY integer) (SFUNC = gathered, STYPE = integer[], INITCOND = '{}', FINALFUNC = first_of,
    FINALFUNC_EXTRA, FINALFUNC_MODIFY = SHAREABLE);
CREATE FUNCTION compare(point_of, point_of) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1.x - $2.x';
CREATE FUNCTION compare(point_of, integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1.x - $2';
CREATE OPERATOR FAMILY "By x" USING btree; COMMENT ON OPERATOR FAMILY "By x" USING btree IS 'and nothing else';
CREATE OPERATOR CLASS by_x FOR TYPE point_of USING btree FAMILY "By x" AS OPERATOR 1 <~, OPERATOR 3 =, OPERATOR 5 ~>,
    FUNCTION 1 compare(point_of, point_of); COMMENT ON OPERATOR CLASS by_x USING btree IS 'as points are';
ALTER OPERATOR FAMILY "By x" USING btree ADD OPERATOR 3 = (point_of, integer), FUNCTION 1 (point_of, integer) compare(point_of, integer);
CREATE OPERATOR CLASS near FOR TYPE box USING gist AS OPERATOR 15 <-> (box, point) FOR ORDER BY float_ops,
    FUNCTION 1 gist_box_consistent(internal, box, smallint, oid, internal), FUNCTION 2 gist_box_union(internal, internal),
    FUNCTION 5 gist_box_penalty(internal, internal, internal), FUNCTION 6 gist_box_picksplit(internal, internal),
    FUNCTION 7 gist_box_same(box, box, internal), FUNCTION 8 gist_box_distance(internal, box, smallint, oid, internal);
CREATE TABLE ranked (p point_of, n integer); INSERT INTO ranked SELECT ROW(i)::point_of, i FROM generate_series(1, 100) i;
CREATE INDEX "Ranked by x" ON ranked (p by_x DESC, n) WHERE n > 5; COMMENT ON INDEX "Ranked by x" IS 'ranked';
CREATE INDEX ranked_p ON ranked (p by_x); ALTER TABLE ranked CLUSTER ON ranked_p;
CREATE FOREIGN TABLE far (a integer OPTIONS (column_name 'A''s') NOT NULL, b text COLLATE "C" DEFAULT 'x', c integer,
    CONSTRAINT above CHECK (a > 0)) SERVER elsewhere OPTIONS (table_name 'far "off"', schema_name 'x');
COMMENT ON FOREIGN TABLE far IS 'elsewhere'; COMMENT ON COLUMN far.a IS 'first'; ALTER FOREIGN TABLE far ALTER COLUMN c SET STATISTICS 20;
CREATE VIEW farther AS SELECT a, b FROM far;
CREATE PUBLICATION "One's" FOR TABLE known (id, code), ONLY stored WITH (publish = 'insert, delete');
CREATE PUBLICATION whole FOR TABLES IN SCHEMA shop, TABLE parent WITH (publish_via_partition_root); COMMENT ON PUBLICATION whole IS 'all';
"""

SERVER = "CREATE FOREIGN DATA WRAPPER wrapper; CREATE SERVER elsewhere FOREIGN DATA WRAPPER wrapper;"

LEFT = """
SET search_path TO shop;
COMMENT ON SCHEMA shop IS 'all of it';
CREATE UNLOGGED SEQUENCE fast_numbers;
CREATE INDEX sums ON stored ((a + d)); ALTER INDEX sums ALTER COLUMN 1 SET STATISTICS 300;
CREATE OPERATOR ?~ (FUNCTION = same, LEFTARG = point_of, RIGHTARG = point_of, NEGATOR = ~?);
CREATE SCHEMA aside; CREATE COLLATION aside.c FROM "C"; CREATE TABLE beside (t text COLLATE aside.c); CREATE TABLE aside.more ();
CREATE AGGREGATE inner_state(bigint) (SFUNC = int8_avg_accum, STYPE = internal, FINALFUNC = numeric_poly_avg);
CREATE TEXT SEARCH DICTIONARY of_files (TEMPLATE = synonym, SYNONYMS = synonym_sample);
CREATE TEXT SEARCH CONFIGURATION with_files (COPY = simple); ALTER TEXT SEARCH CONFIGURATION with_files ADD MAPPING FOR tag WITH of_files;
CREATE FUNCTION spelled(point) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT to_json($1::text)';
CREATE CAST (point AS json) WITH FUNCTION spelled(point);
CREATE TEXT SEARCH TEMPLATE pattern (LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH PARSER parsed (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype);
CREATE FOREIGN TABLE heir () INHERITS (stored) SERVER elsewhere;
CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION on_ddl();
CREATE PUBLICATION some_rows FOR TABLE known WHERE (id > 1); CREATE PUBLICATION everything FOR ALL TABLES;
CREATE PUBLICATION both_schemas FOR TABLES IN SCHEMA shop, aside; CREATE PUBLICATION mixed FOR TABLE known, aside.more;
CREATE TYPE shell;
CREATE TABLE virtual (a integer, b integer GENERATED ALWAYS AS (a * 2) VIRTUAL); INSERT INTO virtual VALUES (4);
CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE odd (a integer) USING heap_too;
ALTER TABLE egg DISABLE TRIGGER ALL;
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO PUBLIC;
SELECT lo_from_bytea(0, 'abc'), lo_from_bytea(0, 'def');
"""
EXPECTED = {
    ("shop.point as json", "refused", "cast"),
    ("mixed", "refused", "publication"),
    ("both_schemas", "refused", "publication"),
    ("everything", "refused", "publication"),
    ("some_rows", "refused", "publication"),
    ("shop", "lossy", "comment"),
    ("shop.egg", "lossy", "disabled foreign keys"),
    ("shop", "lossy", "grants"),
    ("shop.far", "refused", "foreign table"),
    ("shop.farther", "refused", "view"),
    ("shop.heir", "refused", "foreign table"),
    ("shop.fast_numbers", "lossy", "unlogged sequence"),
    ("shop.inner_state(bigint)", "refused", "aggregate"),
    ("shop.odd", "lossy", "access method"),
    ("shop.parsed", "refused", "text search parser"),
    ("shop.pattern", "refused", "text search template"),
    ("shop.of_files", "refused", "text search dictionary"),
    ("shop.with_files", "refused", "text search configuration"),
    ("shop.shell", "refused", "shell type"),
    ("shop.beside.t", "lossy", "collation"),
    ("shop.stored.sums", "lossy", "statistics target"),
    ("shop.virtual.b", "lossy", "generated column"),
    ("shop.~?(shop.point_of, shop.point_of)", "refused", "operator"),
    ("1 schema", "refused", "not asked for"),
    ("watching", "refused", "event trigger"),
}

SETTINGS: dict[str, Any] = {
    "relations": """
        SELECT c.relname, c.relkind, c.relpersistence, c.relreplident, c.reloptions, t.reloptions, c.reloftype::regtype::text,
               ARRAY(SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                      WHERE i.indrelid = c.oid AND (i.indisclustered OR i.indisreplident) ORDER BY 1), obj_description(c.oid, 'pg_class')
          FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
         WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, a.attcompression, a.attstattarget,
               a.attoptions, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2""",
    "constraints": """
        SELECT coalesce(c.relname, t.typname), k.conname, pg_get_constraintdef(k.oid), k.convalidated, k.condeferrable, k.condeferred,
               obj_description(k.oid, 'pg_constraint')
          FROM pg_constraint k LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
         WHERE k.connamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1, 2""",
    "statistics": "SELECT stxname, stxstattarget FROM pg_statistic_ext WHERE stxnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)",
    "casts": """
        SELECT format('%%s %%s %%s %%s %%s', castsource::regtype, casttarget::regtype, castfunc::regprocedure, castcontext, castmethod),
               obj_description(k.oid, 'pg_cast')
          FROM pg_cast k JOIN pg_type t ON t.oid IN (castsource, casttarget)
         WHERE k.oid >= 16384 AND t.typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "collations": """
        SELECT collname, collprovider, collisdeterministic, collcollate, collctype, to_jsonb(l) ->> 'colllocale', obj_description(l.oid, 'pg_collation')
          FROM pg_collation l WHERE collnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "collated": """
        SELECT c.relname, a.attname, a.attcollation::regcollation::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE a.attnum > 0 AND attcollation NOT IN (0, 100) AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1, 2""",
    "operators": """
        SELECT o.oid::regoperator::text, oprcode::oid::regprocedure::text, oprcom::regoperator::text, oprnegate::regoperator::text,
               oprrest::text, oprjoin::text, oprcanhash, oprcanmerge, obj_description(o.oid, 'pg_operator')
          FROM pg_operator o WHERE oprnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "operator classes": """
        SELECT c.opcname, m.amname, f.opfname, c.opcintype::regtype::text, c.opcdefault, c.opckeytype::regtype::text, obj_description(c.oid, 'pg_opclass'),
               obj_description(f.oid, 'pg_opfamily')
          FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod JOIN pg_opfamily f ON f.oid = c.opcfamily
         WHERE c.opcnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "their operators": """
        SELECT f.opfname, p.amopstrategy, p.amoppurpose, p.amopopr::regoperator::text, (SELECT s.opfname FROM pg_opfamily s WHERE s.oid = p.amopsortfamily), d.deptype,
               d.refclassid::regclass::text
          FROM pg_amop p JOIN pg_opfamily f ON f.oid = p.amopfamily JOIN pg_depend d ON d.classid = 'pg_amop'::regclass AND d.objid = p.oid
           AND d.refclassid IN ('pg_opclass'::regclass, 'pg_opfamily'::regclass)
         WHERE f.opfnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1, 2""",
    "their functions": """
        SELECT f.opfname, p.amprocnum, p.amproclefttype::regtype::text, p.amprocrighttype::regtype::text, p.amproc::oid::regprocedure::text, d.deptype,
               d.refclassid::regclass::text
          FROM pg_amproc p JOIN pg_opfamily f ON f.oid = p.amprocfamily JOIN pg_depend d ON d.classid = 'pg_amproc'::regclass AND d.objid = p.oid
           AND d.refclassid IN ('pg_opclass'::regclass, 'pg_opfamily'::regclass)
         WHERE f.opfnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1, 2""",
    "foreign tables": """
        SELECT c.relname, s.srvname, f.ftoptions, ARRAY(SELECT a.attfdwoptions::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
               ORDER BY a.attnum), obj_description(c.oid, 'pg_class')
          FROM pg_foreign_table f JOIN pg_class c ON c.oid = f.ftrelid JOIN pg_foreign_server s ON s.oid = f.ftserver
         WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "publications": """
        SELECT to_jsonb(p) - 'oid' - 'pubowner', obj_description(p.oid, 'pg_publication'), t.tablename, t.attnames
          FROM pg_publication p JOIN pg_publication_tables t USING (pubname) WHERE t.schemaname = %s ORDER BY 3, p.pubname""",
    "conversions": """
        SELECT conname, condefault, conforencoding, contoencoding, conproc::text, obj_description(v.oid, 'pg_conversion')
          FROM pg_conversion v WHERE connamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "aggregates": """
        SELECT aggfnoid::oid::regprocedure::text, to_jsonb(a) - 'aggfnoid' - 'aggtranstype' - 'aggmtranstype', pg_get_function_arguments(p.oid)
          FROM pg_aggregate a JOIN pg_proc p ON p.oid = aggfnoid WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = %s ORDER BY 1",
    "text search": """
        SELECT c.cfgname, p.prsname, m.maptokentype, m.mapseqno, d.dictname, d.dictinitoption, obj_description(c.oid, 'pg_ts_config')
          FROM pg_ts_config c JOIN pg_ts_parser p ON p.oid = c.cfgparser JOIN pg_ts_config_map m ON m.mapcfg = c.oid
          JOIN pg_ts_dict d ON d.oid = m.mapdict
         WHERE c.cfgnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1, 3, 4""",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1",
    "triggers": """
        SELECT pg_get_triggerdef(g.oid) FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
         WHERE NOT tgisinternal AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) ORDER BY 1""",
}


def settings(url: str, schema: str) -> dict[str, list[str]]:
    """Everything as the server writes it, without the schema's name."""

    def bare(row: Any) -> str:
        text = json.dumps(row, default=str).replace('\\"', '"')
        return text.replace(f'"{schema}".', "").replace(f"{schema}.", "")

    with psycopg.connect(url) as db:
        return {
            what: sorted(map(bare, db.execute(query, (schema,)).fetchall()))
            for what, query in SETTINGS.items()
        }


@pytest.fixture
def source(make_target: Callable[[], str]) -> str:
    url = make_target()
    with psycopg.connect(url) as db:
        db.execute(SERVER)
        db.execute(CARRIED)
    return url


def test_settings_come_along(jivs: Jivs, source: str, make_target: Callable[[], str], key: str) -> None:
    """Equal at both ends, without a word in the plan; running again does nothing; a rollback leaves nothing."""
    target = make_target()
    with psycopg.connect(target) as db:
        db.execute(SERVER)
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema=ELSEWHERE)
    env = jivs.connections(a=source, b=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    assert fingerprints(target, ELSEWHERE) == fingerprints(source, "shop")
    there, here = settings(source, "shop"), settings(target, ELSEWHERE)
    for what, lines in there.items():
        assert here[what] == lines, what
    assert document["warnings"] == []
    jivs("run", spec, "--json", code=0, env=env)
    assert settings(target, ELSEWHERE) == there
    jivs("rollback", key, code=0, env=env)
    with psycopg.connect(target) as db:
        assert db.execute("SELECT FROM pg_namespace WHERE nspname = %s", (ELSEWHERE,)).rowcount == 0
        assert db.execute("SELECT FROM pg_publication").rowcount == 0


def test_nothing_stays_behind_silently(
    jivs: Jivs, source: str, make_target: Callable[[], str], key: str
) -> None:
    with psycopg.connect(source) as db:
        db.execute(LEFT)
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema="other")
    document = jivs("run", spec, "--json", code=0, env=jivs.connections(a=source, b=make_target())).document
    check_run(document)
    assert {(w["table"], w["kind"], w["reason"].partition(":")[0]) for w in document["warnings"]} == {
        *EXPECTED,
    }
