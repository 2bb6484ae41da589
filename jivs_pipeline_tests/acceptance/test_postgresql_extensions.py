"""`jivs run` from PostgreSQL to PostgreSQL: what belongs to extensions, where the target has them and where it does not."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.contract import check_run
from jivs_pipeline_tests.acceptance.rows import fingerprints
from jivs_pipeline_tests.acceptance.test_postgresql_objects import objects
from jivs_pipeline_tests.fix_cli import Jivs

EXTENSIONS = ("citext", "hstore", "ltree", "pg_trgm", "btree_gist", "fuzzystrmatch", "vector")

SCRIPT = """
CREATE DOMAIN email AS citext CHECK (VALUE ~ '@');
CREATE TABLE people (id int PRIMARY KEY, name citext UNIQUE, tags hstore NOT NULL DEFAULT ''::hstore, place ltree,
    nicks citext[], mail email, code uuid DEFAULT gen_random_uuid(), salt text DEFAULT soundex('abc'),
    plain text CHECK (similarity(plain, 'x') < 1), low citext GENERATED ALWAYS AS (lower(plain)::citext) STORED);
INSERT INTO people (id, name, tags, place, nicks, mail, plain)
SELECT i, 'Name ' || i, hstore(ARRAY['a', NULL, 'b "q" => ', repeat('x', i % 9)]), ('top.n' || i)::ltree,
       ARRAY['A', NULL, 'b,"']::citext[], 'm' || i || '@x', 'plain ' || i FROM generate_series(1, 2000) i;
INSERT INTO people (id, tags) VALUES (0, 'n=>NULL');
CREATE INDEX people_like ON people USING gin (plain gin_trgm_ops);
CREATE INDEX people_tags ON people USING gin (tags);
CREATE INDEX people_place ON people USING gist (place gist_ltree_ops (siglen='100'));
CREATE TABLE bookings (room int, at int4range, EXCLUDE USING gist (room WITH =, at WITH &&));
INSERT INTO bookings VALUES (1, '[1,5)'), (2, '[1,5)');
CREATE TABLE points (id int PRIMARY KEY, at vector(3));
INSERT INTO points SELECT i, format('[%s,0.5,-1]', i)::vector FROM generate_series(1, 200) i;
CREATE INDEX points_at ON points USING hnsw (at vector_cosine_ops) WITH (m = 8);
CREATE VIEW tagged AS SELECT id, tags -> 'a' AS a, name FROM people WHERE tags ? 'a' AND name = 'NAME 7';
CREATE FUNCTION tag(h hstore, k text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 -> $2';
"""


@pytest.fixture
def source(make_target: Callable[[], str]) -> str:
    url = make_target()
    with psycopg.connect(url) as db:
        for name in EXTENSIONS:
            db.execute(f"CREATE EXTENSION {name}")
        db.execute(SCRIPT)
    return url


@pytest.mark.parametrize("schema", ["public", "shop"])
def test_what_the_target_has_is_used(
    jivs: Jivs, source: str, make_target: Callable[[], str], key: str, schema: str
) -> None:
    target = make_target()
    with psycopg.connect(target) as db:
        for name in EXTENSIONS:
            db.execute(f"CREATE EXTENSION {name}")
    spec = jivs.spec(key=key, source="a", target="b", target_schema=schema)
    document = jivs("run", spec, "--json", code=0, env=jivs.connections(a=source, b=target)).document
    check_run(document)
    assert document["warnings"] == []
    assert fingerprints(target, schema) == fingerprints(source, "public")
    made, wanted = objects(target, schema), objects(source, "public")
    for what, lines in wanted.items():
        # The extensions' own functions and types are in public, with the schema's or without.
        missing = [line for line in lines if what not in {"routines", "types"} and line not in made[what]]
        assert [m.replace("public.", "") for m in missing if m.replace("public.", "") not in str(made[what]).replace("public.", "")] == []  # fmt: skip


def test_what_the_target_lacks_is_said(
    jivs: Jivs, source: str, make_target: Callable[[], str], key: str
) -> None:
    """The table whose types are missing fails alone; what merely uses an extension is left out with a warning."""
    target = make_target()
    with psycopg.connect(target) as db:
        for name in ("citext", "hstore", "ltree", "vector"):
            db.execute(f"CREATE EXTENSION {name}")
    spec = jivs.spec(key=key, source="a", target="b")
    env = jivs.connections(a=source, b=target)
    document = jivs("run", spec, "--json", code=0, env=env).document
    reasons = {(w["table"], w["reason"].partition(":")[0]): w["reason"] for w in document["warnings"]}
    assert {label: "the target" in reason for label, reason in reasons.items()} == dict.fromkeys(
        [
            ("btree_gist", "extension"), ("pg_trgm", "extension"), ("fuzzystrmatch", "extension"),
            ("public.people.salt", "default"), ("public.people.people_plain_check", "check constraint"),
            ("public.people.people_like", "index"), ("public.bookings.bookings_room_at_excl", "exclusion constraint"),
        ],
        True,
    )  # fmt: skip
    assert fingerprints(target, "public") == fingerprints(source, "public")
    bare = make_target()
    spec = jivs.spec(key=f"{key}-2", source="a", target="b")
    document = jivs("run", spec, "--json", code=1, env=jivs.connections(a=source, b=bare)).document
    errors = {t["source_table"]: t["error"] for t in document["tables"]}
    assert errors["public.bookings"] is None
    assert errors["public.people"]["column"] == "name"
    assert errors["public.people"]["message"] == (
        "its type public.citext is not there: it needs extension citext in schema public, which the target lacks;"
        " create it there first"
    )
