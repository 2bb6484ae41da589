"""`jivs run` from PostgreSQL to PostgreSQL: who may see and do what.

What belongs here: row-level security, and rights that are granted. What does not: what they are about
(`test_postgresql_objects.py`).

Roles belong to a whole server, so source and target are on two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import ELSEWHERE, catalog, fingerprints
from jivs_pipeline_tests.fix_cli import Jivs, with_parts
from jivs_pipeline_tests.fix_postgresql import MakeDatabase

POLICIES = """
CREATE SCHEMA shop; SET search_path TO shop;
CREATE FUNCTION mine(owner text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT owner = current_user';
CREATE TABLE forced (id integer); INSERT INTO forced VALUES (1), (2);
CREATE TABLE orders (id integer PRIMARY KEY, owner text, total integer);
INSERT INTO orders SELECT i, 'o' || i % 3, i FROM generate_series(1, 100) i;
CREATE POLICY own ON orders USING (mine(owner)) WITH CHECK (total > 0);
CREATE POLICY "Small ones" ON orders AS RESTRICTIVE FOR SELECT TO {reader}, {writer} USING (total < (SELECT 1000 + max(p.id) FROM forced p));
CREATE POLICY added ON orders FOR INSERT TO {writer} WITH CHECK (true);
CREATE POLICY theirs ON orders FOR DELETE TO {gone} USING (true);
COMMENT ON POLICY own ON orders IS 'each their own';
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE forced ENABLE ROW LEVEL SECURITY; ALTER TABLE forced FORCE ROW LEVEL SECURITY;
CREATE TABLE parts (id integer) PARTITION BY LIST (id);
CREATE TABLE part PARTITION OF parts DEFAULT; INSERT INTO parts VALUES (7);
CREATE POLICY seven ON parts USING (id = 7); ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
CREATE OPERATOR CLASS plain FOR TYPE integer USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,
    OPERATOR 5 >, FUNCTION 1 btint4cmp(integer, integer);
CREATE INDEX by_class ON orders (total plain);
"""

Names = dict[str, sql.Identifier]


def run_sql(url: str, script: str, names: Names) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(sql.SQL(script).format(**names))  # pyright: ignore[reportArgumentType]


@contextmanager
def roles(url: str, names: Sequence[str]) -> Iterator[None]:
    """Roles of a server as long as the block; before them goes what they own and may do in this database."""
    with psycopg.connect(url, autocommit=True) as db:
        for name in names:
            db.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        yield
        for name in names:
            db.execute(sql.SQL("DROP OWNED BY {0} CASCADE").format(sql.Identifier(name)))
            db.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def people() -> dict[str, str]:
    """Names of roles that no other test has: two that both servers know, and one of the source's alone."""
    end = uuid4().hex[:8]
    return {"reader": f"reader_{end}", "writer": f"Writer {end}", "gone": f"gone_{end}"}


@pytest.fixture
def ends(
    make_database: MakeDatabase, make_target: Callable[[], str], people: dict[str, str]
) -> Iterator[tuple[str, str]]:
    source, target = make_database(), make_target()
    both = [people["reader"], people["writer"]]
    with roles(source, [*both, people["gone"]]), roles(target, both):
        yield source, target


def quoted(people: dict[str, str]) -> Names:
    return {k: sql.Identifier(v) for k, v in people.items()}


def policies(url: str, schema: str) -> dict[str, list[Any]]:
    with psycopg.connect(url) as db:
        db.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
        return {
            "policies": db.execute(
                """SELECT tablename, policyname, permissive, roles::text[], cmd, qual, with_check, obj_description(p.oid, 'pg_policy')
                     FROM pg_policies v JOIN pg_policy p ON p.polname = v.policyname AND p.polrelid = quote_ident(tablename)::regclass
                    WHERE schemaname = %s ORDER BY 1, 2""",
                (schema,),
            ).fetchall(),
            "tables": db.execute(
                """SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
                    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND relkind IN ('r', 'p') ORDER BY 1""",
                (schema,),
            ).fetchall(),
        }


def test_policies_come_along(jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str) -> None:
    """All but the one that names a role which the target lacks; all rows are verified, and a rollback leaves nothing."""
    source, target = ends
    run_sql(source, POLICIES, quoted(people))
    before = catalog(target)
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema=ELSEWHERE)
    env = jivs.connections(a=source, b=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    assert fingerprints(target, ELSEWHERE) == fingerprints(source, "shop")
    there, here = policies(source, "shop"), policies(target, ELSEWHERE)
    assert here["tables"] == there["tables"]
    assert here["policies"] == [p for p in there["policies"] if p[1] != "theirs"]
    reasons = {w["table"]: w["reason"] for w in document["warnings"]}
    assert reasons["shop.orders.theirs"] == (
        f"policy: it names role {people['gone']}, which the target lacks; create it there first"
    )
    with psycopg.connect(target, autocommit=True) as db:
        name = sql.Identifier(ELSEWHERE)
        reader = quoted(people)["reader"]
        db.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(name, reader))
        db.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}").format(name, reader))
        db.execute(sql.SQL("SET ROLE {}").format(reader))
        assert db.execute(sql.SQL("SELECT FROM {}.orders").format(name)).rowcount == 0
        assert db.execute(sql.SQL("SELECT FROM {}.parts").format(name)).rowcount == 1
        db.execute("RESET ROLE")
    assert jivs("verify", key, "--json", code=0, env=env).document["tables"]
    assert jivs("run", spec, "--json", code=0, env=env).document["resumed"] is not None
    jivs("rollback", key, code=0, env=env)
    after = catalog(target)
    assert [o for o in after["objects"] if o[0] != "jivs_ledger"] == before["objects"]


def test_a_loader_that_policies_would_blind(
    jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str
) -> None:
    """FORCE would hide rows from an owner without BYPASSRLS: it is left out aloud, and everything is verified."""
    source, target = ends
    run_sql(source, POLICIES, quoted(people))
    with psycopg.connect(target, autocommit=True) as db:
        db.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
            sql.Identifier(db.info.dbname), sql.Identifier(people["reader"])
        ))  # fmt: skip
    loader = with_parts(target, user=people["reader"], password="x")
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema="shop")
    env = jivs.connections(a=source, b=loader)
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    reasons = {w["table"]: w["reason"] for w in document["warnings"]}
    assert reasons["shop.forced"] == (
        "forced row-level security: the target's role has no BYPASSRLS and could not verify the rows any more;"
        " switch it on after the migration"
    )
    # What only superusers make is left out with what needs it, and nothing else.
    assert "only superusers make one" in reasons["shop.plain using btree"]
    assert reasons["shop.by_class"] == "index: it uses operator class plain using btree, which is not carried"
    tables = policies(target, "shop")["tables"]
    assert ("forced", True, False) in tables
    assert ("orders", True, False) in tables
    jivs("verify", key, "--json", code=0, env=env)
    # Whoever switches it on gets a sentence, not fewer rows.
    with psycopg.connect(target, autocommit=True) as db:
        db.execute("ALTER TABLE shop.forced FORCE ROW LEVEL SECURITY")
    ended = jivs("verify", key, "--json", env=env)
    assert ended.code not in {0, 4}
    assert "row-level security" in ended.document["error"]["message"]
    jivs("rollback", key, code=0, env=env)
    with psycopg.connect(target) as db:
        assert db.execute("SELECT FROM pg_namespace WHERE nspname = 'shop'").rowcount == 0


def test_a_reader_to_whom_rows_are_hidden(
    jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str
) -> None:
    """Neither plan nor run read fewer rows: the table is refused by name."""
    source, target = ends
    run_sql(source, POLICIES, quoted(people))
    run_sql(
        source,
        "GRANT USAGE ON SCHEMA shop TO {reader}; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {reader}",
        quoted(people),
    )
    reader = with_parts(source, user=people["reader"], password="x")
    spec = jivs.spec(
        key=key, source="a", target="b", source_schema="shop", target_schema="shop",
        tables={"include": ["orders"]},
    )  # fmt: skip
    env = jivs.connections(a=reader, b=target)
    reason = (
        "the source does not let us read it:"
        ' query would be affected by row-level security policy for table "orders"'
    )
    plan = jivs("plan", spec, "--json", code=0, env=env).document
    assert reason in [w["reason"] for w in plan["warnings"] if w["table"] == "shop.orders"]
    document = jivs("run", spec, "--json", code=1, env=env).document
    [table] = document["tables"]
    assert (table["error"]["message"], table["target_rows"]) == (reason, 0)


@pytest.mark.parametrize("mode", ["append", "truncate"])
def test_a_table_of_the_target_that_hides_rows_from_us(
    jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str, mode: str
) -> None:
    """It could neither be verified nor be given back: it is refused before anything is written."""
    source, target = ends
    for url, rows in ((source, 5), (target, 1)):
        run_sql(
            url,
            f"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series({rows}, 2 * {rows})",
            {},
        )
    run_sql(
        target,
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY; ALTER TABLE t OWNER TO {reader};"
        "GRANT CREATE ON SCHEMA public TO {reader}",
        quoted(people),
    )
    before = catalog(target)
    with psycopg.connect(target, autocommit=True) as db:
        grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
        db.execute(grant.format(sql.Identifier(db.info.dbname), quoted(people)["reader"]))
    spec = jivs.spec(key=key, source="a", target="b", on_existing=mode)
    env = jivs.connections(a=source, b=with_parts(target, user=people["reader"], password="x"))
    document = jivs("run", spec, "--json", code=1, env=env).document
    [table] = document["tables"]
    assert table["error"]["message"] == (
        "row-level security of the target's table hides rows from the target's role; give it BYPASSRLS"
    )
    after = catalog(target)
    assert [o for o in after["objects"] if o[0] != "jivs_ledger"] == before["objects"]
    assert [r for r in after["rows"] if r[0][0] == "public"] == before["rows"]


# Rights

RIGHTS = """
CREATE SCHEMA shop; SET search_path TO shop;
CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN share AS integer; CREATE TYPE pair AS (a integer, b mood);
CREATE FUNCTION secret(a mood, integer DEFAULT 1) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE doing() LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION one_more(n bigint) RETURNS bigint LANGUAGE sql AS 'SELECT n + 1';
CREATE AGGREGATE many(*) (SFUNC = one_more, STYPE = bigint, INITCOND = '0');
CREATE TABLE orders (id serial PRIMARY KEY, number integer GENERATED ALWAYS AS IDENTITY, "Full name" text, total integer);
INSERT INTO orders ("Full name", total) VALUES ('x', 1);
CREATE SEQUENCE alone; CREATE VIEW seen AS SELECT id, total FROM orders; CREATE MATERIALIZED VIEW summed AS SELECT 1 AS n;
CREATE TABLE parts (id integer GENERATED ALWAYS AS IDENTITY, at integer) PARTITION BY LIST (at);
CREATE TABLE part PARTITION OF parts DEFAULT;
CREATE TABLE hidden (id integer);
GRANT USAGE ON SCHEMA shop TO {reader} WITH GRANT OPTION; GRANT USAGE, CREATE ON SCHEMA shop TO {writer};
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {reader}; REVOKE ALL ON hidden FROM {reader};
GRANT ALL ON orders TO {writer}; GRANT SELECT, UPDATE ON orders TO {gone}; GRANT INSERT, DELETE ON orders TO {reader} WITH GRANT OPTION;
GRANT UPDATE ("Full name", total), REFERENCES (id) ON orders TO {reader}; GRANT SELECT (id) ON seen TO {gone};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA shop TO {writer};
REVOKE ALL ON FUNCTION secret(mood, integer) FROM PUBLIC; GRANT EXECUTE ON FUNCTION secret(mood, integer) TO {reader};
GRANT EXECUTE ON FUNCTION many() TO {reader}; GRANT EXECUTE ON PROCEDURE doing() TO {writer} WITH GRANT OPTION;
REVOKE USAGE ON TYPE mood FROM PUBLIC; GRANT USAGE ON TYPE mood TO {writer}; GRANT USAGE ON TYPE pair TO {reader};
REVOKE USAGE ON DOMAIN share FROM PUBLIC;
GRANT SELECT ON seen TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE {writer} IN SCHEMA shop GRANT SELECT ON TABLES TO {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {writer} IN SCHEMA shop GRANT EXECUTE ON FUNCTIONS TO {reader} WITH GRANT OPTION;
"""


def rights(url: str, schema: str, without: str) -> set[tuple[Any, ...]]:
    """(thing, role, privilege, grantable) of a schema, without those of the owner and of one role."""
    query = """
        WITH here AS (SELECT oid, nspacl, nspowner FROM pg_namespace WHERE nspname = %(schema)s),
        things AS (
            SELECT 'schema' AS thing, nspacl AS acl, nspowner AS owner FROM here
            UNION ALL SELECT c.relname, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)), c.relowner
            FROM pg_class c WHERE c.relnamespace = (SELECT oid FROM here) AND c.relkind <> 'i'
            UNION ALL SELECT c.relname || '.' || a.attname, a.attacl, c.relowner FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE c.relnamespace = (SELECT oid FROM here)
            UNION ALL SELECT p.proname, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner FROM pg_proc p
            WHERE p.pronamespace = (SELECT oid FROM here)
            UNION ALL SELECT 'type ' || t.typname, coalesce(t.typacl, acldefault('T', t.typowner)), t.typowner FROM pg_type t
            WHERE t.typnamespace = (SELECT oid FROM here)
            UNION ALL SELECT 'default of ' || pg_get_userbyid(defaclrole) || ' on ' || defaclobjtype::text, defaclacl, 0 FROM pg_default_acl
            WHERE defaclnamespace = (SELECT oid FROM here)
        )
        SELECT thing, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee)::text END, x.privilege_type, x.is_grantable
          FROM things t, aclexplode(t.acl) x WHERE x.grantee <> t.owner"""
    with psycopg.connect(url) as db:
        return {r for r in db.execute(query, {"schema": schema}).fetchall() if r[1] != without}


def test_rights_come_along_when_asked_for(
    jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str
) -> None:
    """All of them but those of a role that the target lacks; the rest of the same table's are granted."""
    source, target = ends
    run_sql(source, RIGHTS, quoted(people))
    spec = jivs.spec(
        key=key, source="a", target="b", source_schema="shop", target_schema=ELSEWHERE, grants=True
    )
    env = jivs.connections(a=source, b=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    expected = rights(source, "shop", people["gone"])
    assert ("orders.Full name", people["reader"], "UPDATE", False) in expected
    assert (f"default of {people['writer']} on f", people["reader"], "EXECUTE", True) in expected
    assert rights(target, ELSEWHERE, people["gone"]) == expected
    told = {w["table"]: w["reason"] for w in document["warnings"] if w["reason"].startswith("grant")}
    reason = f"grant: it names role {people['gone']}, which the target lacks; create it there first"
    assert told == {
        f"shop.orders (SELECT, UPDATE to {people['gone']})": reason,
        f"shop.seen.id (SELECT to {people['gone']})": reason,
    }
    assert jivs("run", spec, "--json", code=0, env=env).document["resumed"] is not None
    jivs("rollback", key, code=0, env=env)
    with psycopg.connect(target) as db:
        assert db.execute("SELECT FROM pg_namespace WHERE nspname = %s", (ELSEWHERE,)).rowcount == 0


def test_rights_stay_behind_unless_asked_for(
    jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str
) -> None:
    """One line says so, not one per thing."""
    source, target = ends
    run_sql(source, RIGHTS, quoted(people))
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema="shop")
    document = jivs("run", spec, "--json", code=0, env=jivs.connections(a=source, b=target)).document
    assert [(w["table"], w["kind"]) for w in document["warnings"] if w["reason"].startswith("grant")] == [
        ("shop", "lossy")
    ]
    left = {r for r in rights(target, "shop", "") if r[1] != "PUBLIC"}
    assert left == set()


def test_what_was_there_keeps_its_rights(
    jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str
) -> None:
    """Neither a run nor its rollback changes rights on a schema or function of before, but for those that the run gave."""
    source, target = ends
    script = """
        CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'; CREATE TABLE t (id integer); CREATE VIEW v AS SELECT * FROM t;
    """
    run_sql(source, script, {})
    run_sql(
        source,
        "GRANT USAGE ON SCHEMA public TO {reader} WITH GRANT OPTION; GRANT CREATE ON SCHEMA public TO {writer};"
        "REVOKE ALL ON FUNCTION f() FROM PUBLIC; GRANT SELECT ON t, v TO {reader}",
        quoted(people),
    )
    run_sql(target, script.replace("CREATE TABLE t (id integer); CREATE VIEW v AS SELECT * FROM t;", ""), {})
    run_sql(target, "GRANT USAGE ON SCHEMA public TO {reader}", quoted(people))
    before = rights(target, "public", "")
    spec = jivs.spec(key=key, source="a", target="b", grants=True)
    env = jivs.connections(a=source, b=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    assert {w["table"]: w["reason"] for w in document["warnings"]} == {
        "public.f()": "function: the target has one of that name already, which is kept",
        "public.f() (EXECUTE not to PUBLIC)": "grant: function f() was there before and keeps what hangs on it",
    }
    reader, writer = people["reader"], people["writer"]
    given = rights(target, "public", "") - before
    assert {r for r in given if not r[0].startswith("type ")} == {
        ("schema", reader, "USAGE", True),
        ("schema", writer, "CREATE", False),
        ("t", reader, "SELECT", False),
        ("v", reader, "SELECT", False),
    }
    jivs("rollback", key, code=0, env=env)
    assert rights(target, "public", "") == before


def test_killed_again_and_again(jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str) -> None:
    """A run that is killed inside of every ninth step, and its rollback that is, end as if nobody had killed them."""
    source, target = ends
    run_sql(source, RIGHTS, quoted(people))
    run_sql(
        source,
        "CREATE POLICY own ON shop.orders TO {reader} USING (total > 0); ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;"
        "SELECT nextval('shop.alone'), nextval('shop.alone')",
        quoted(people),
    )
    before = catalog(target)
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema="new", grants=True)
    env = jivs.connections(a=source, b=target)
    kills = until_done(jivs, ["run", spec, "--json"], {**env, "JIVS_FAILPOINT": "inside_step@9:kill"})
    assert kills > 2
    assert rights(target, "new", people["gone"]) == rights(source, "shop", people["gone"])
    assert policies(target, "new") == policies(source, "shop")
    assert fingerprints(target, "new") == fingerprints(source, "shop")
    with psycopg.connect(target) as db:
        assert db.execute("SELECT last_value, is_called FROM new.alone").fetchone() == (2, True)
    kills = until_done(jivs, ["rollback", key, "--json"], {**env, "JIVS_FAILPOINT": "inside_undo@9:kill"})
    assert kills > 2
    after = catalog(target)
    assert [o for o in after["objects"] if o[0] != "jivs_ledger"] == before["objects"]
    assert [s for s in after["schemas"] if s != ("jivs_ledger",)] == before["schemas"]


def until_done(jivs: Jivs, argv: Sequence[Any], env: dict[str, str]) -> int:
    """Run it until it is not killed; how often it was."""
    for kills in range(30):
        if (ended := jivs(*argv, env=env)).code >= 0:
            assert ended.code == 0, ended
            return kills
    raise AssertionError("it is killed for ever")
