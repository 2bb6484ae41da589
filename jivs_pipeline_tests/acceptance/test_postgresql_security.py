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
from jivs_pipeline_tests.acceptance.rows import catalog, fingerprints
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


@pytest.mark.parametrize("schema", ["shop", "Other Shop"])
def test_policies_come_along(
    jivs: Jivs, ends: tuple[str, str], people: dict[str, str], key: str, schema: str
) -> None:
    """All but the one that names a role which the target lacks; all rows are verified, and a rollback leaves nothing."""
    source, target = ends
    run_sql(source, POLICIES, quoted(people))
    before = catalog(target)
    spec = jivs.spec(key=key, source="a", target="b", source_schema="shop", target_schema=schema)
    env = jivs.connections(a=source, b=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    check_run(document)
    assert fingerprints(target, schema) == fingerprints(source, "shop")
    there, here = policies(source, "shop"), policies(target, schema)
    assert here["tables"] == there["tables"]
    assert here["policies"] == [p for p in there["policies"] if p[1] != "theirs"]
    reasons = {w["table"]: w["reason"] for w in document["warnings"]}
    assert reasons["shop.orders.theirs"] == (
        f"policy: it names role {people['gone']}, which the target lacks; create it there first"
    )
    with psycopg.connect(target, autocommit=True) as db:
        name = sql.Identifier(schema)
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
