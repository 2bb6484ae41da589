"""Undoing steps in a real target: their order, what stays, and that a step is undone whole or not at all.

What belongs here: `infra/undo.py`, one step at a time. What does not: the command (`acceptance/test_cancel.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import ConflictError, DataError, TerminalError, TransientError
from jivs_pipeline.core.model import Column, Identity
from jivs_pipeline.core.plan import ObjectPlan, TableMode, TablePlan
from jivs_pipeline.infra import ddl
from jivs_pipeline.infra.failpoints import arm
from jivs_pipeline.infra.target import PostgresqlTarget
from jivs_pipeline_tests.integration.test_target import (
    _CONTROL,
    _apply,
    _family,
    _guarded,
    _load,
    _made,
    _one,
    _rows,
    _table,
    _triggers,
)

Db = psycopg.Connection[Any]


@pytest.fixture
def target(database: str) -> Iterator[PostgresqlTarget]:
    target = PostgresqlTarget(parse_url(database, "warehouse"), io_timeout_seconds=10)
    target.claim("shop", _CONTROL, 1, "owner1")
    yield target
    arm(None)
    target.close()


@pytest.fixture
def db(database: str) -> Iterator[Db]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET search_path = ''")
        yield connection


def _all(target: PostgresqlTarget) -> list[str]:
    """Undo everything; what was undone, in that order."""
    undone: list[str] = []
    while (step := target.undo_next()) is not None:
        undone.append(step)
    return undone


def _is_there(db: Db, relation: str) -> bool:
    return _one(db, "SELECT to_regclass(%s) IS NOT NULL", (relation,))


def _replaced(target: PostgresqlTarget, db: Db, name: str = "t") -> TablePlan:
    """A table in the place of one with the row (0, 'before')."""
    create = sql.SQL("CREATE TABLE {} AS SELECT 0 AS a, 'before' AS b")
    db.execute(create.format(sql.Identifier("public", name)))
    return _made(target, _table(name, mode=TableMode.REPLACE), [(1, "x")])


def test_the_last_step_comes_first_and_nothing_is_left(target: PostgresqlTarget, db: Db) -> None:
    """But for the epoch, by which whatever the run still sends is refused."""
    target.ensure_schema("fresh")
    parent, child = _family()
    for table, rows in ((parent, [(1, None)]), (child, [(1, 1)])):
        _made(target, table, rows)
        _apply(
            target,
            [
                *ddl.build_keys(table),
                *ddl.build_references(table),
                *ddl.check_references(table),
                *ddl.analyze(table),
            ],
        )
    assert _all(target) == [
        "foreign key child_fk of public.child",
        "create of public.child",
        "foreign key parent_fk of public.parent",
        "create of public.parent",
        "schema of fresh.*",
    ]
    assert not _is_there(db, "public.parent")
    assert not _is_there(db, "public.child")
    assert _one(db, "SELECT to_regnamespace('fresh') IS NULL") is True
    ledger = target.ledger("shop")
    assert (ledger.steps, ledger.chunks, ledger.epoch) == ({}, {}, 1)
    assert target.undo_next() is None


def test_another_migration_is_left_alone(target: PostgresqlTarget, database: str, db: Db) -> None:
    other = PostgresqlTarget(parse_url(database, "warehouse"), io_timeout_seconds=10)
    try:
        other.claim("other", _CONTROL, 1, "owner1")
        _apply(other, ddl.create("other", _table("u")))
        _load(other, _table("u"), [(1, "x")])
        _made(target, _table(), [(1, "x")])
        assert _all(target) == ["create of public.t"]
        assert (len(other.ledger("other").chunks), _rows(db, "public.u")) == (1, [(1, "x")])
    finally:
        other.close()


def test_what_others_have_built_stops_it_and_stays(target: PostgresqlTarget, db: Db) -> None:
    """Never with CASCADE. The sentence names them, and what was not undone is undone later."""
    _made(target, _table(), [(1, "x")])
    db.execute("CREATE VIEW public.theirs AS SELECT a FROM public.t")
    with pytest.raises(
        TerminalError, match=r"Table public\.t cannot be dropped: view public\.theirs depends"
    ):
        target.undo_next()
    assert _rows(db, "public.theirs") == [(1,)]
    assert set(target.ledger("shop").steps) == {("public.t", "create")}
    assert set(target.ledger("shop").chunks) == {("public.t", 0)}
    db.execute("DROP VIEW public.theirs")
    assert _all(target) == ["create of public.t"]


@pytest.mark.parametrize("place", ["inside_undo", "before_commit", "after_commit"])
@pytest.mark.parametrize("mode", [TableMode.CREATE, TableMode.REPLACE])
def test_an_error_anywhere_in_it_leaves_the_step_as_it_was(
    target: PostgresqlTarget, db: Db, mode: TableMode, place: str
) -> None:
    """Or undone with its entry: the ledger always says what is there."""
    if mode is TableMode.CREATE:
        _made(target, _table(), [(1, "x")])
    else:
        _replaced(target, db)
    arm(f"{place}:error")
    with pytest.raises(TransientError):
        target.undo_next()
    stands = place != "after_commit"
    assert (("public.t", "create") in target.ledger("shop").steps) is stands
    assert (("public.t", 0) in target.ledger("shop").chunks) is stands
    assert _is_there(db, "public.t") is stands
    arm(None)
    rest = ["create of public.t"] * stands + ["set aside of public.t"] * (mode is TableMode.REPLACE)
    assert _all(target) == rest
    assert _is_there(db, "public.t") is (mode is TableMode.REPLACE)


@pytest.mark.parametrize("name", ["t", "we.ird", 'q"uote', "a b; DROP TABLE c", "ü🦆"])
def test_a_replaced_table_comes_back_as_itself(target: PostgresqlTarget, db: Db, name: str) -> None:
    """It is the same table, not one like it, whatever its name."""
    table = _replaced(target, db, name)
    oid = "SELECT c.oid FROM pg_class c WHERE c.relname = %s ORDER BY c.oid"
    before = _one(db, oid, (name,))
    assert _rows(db, sql.Identifier("public", name).as_string()) == [(1, "x")]
    assert _all(target) == [f"create of {table.target}", f"set aside of {table.target}"]
    assert _one(db, oid, (name,)) == before
    assert _rows(db, sql.Identifier("public", name).as_string()) == [(0, "before")]
    assert _one(db, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'jivs\\_kept%'") == 0


def test_a_schema_that_others_use_by_now_is_theirs(target: PostgresqlTarget, db: Db) -> None:
    """Their table is no reason to stop, and ours goes."""
    target.ensure_schema("fresh")
    _made(target, _table(schema="fresh"))
    db.execute("CREATE TABLE fresh.theirs AS SELECT 1 AS a")
    assert _all(target) == ["create of fresh.t", "schema of fresh.*"]
    assert _rows(db, "fresh.theirs") == [(1,)]
    assert not _is_there(db, "fresh.t")
    assert target.ledger("shop").steps == {}


def test_what_is_gone_already_is_no_error(target: PostgresqlTarget, db: Db) -> None:
    """Somebody has dropped a table and a schema by hand."""
    target.ensure_schema("fresh")
    parent, child = _family()
    for table in (parent, child):
        _made(target, table)
        _apply(target, [*ddl.build_keys(table), *ddl.build_references(table), *ddl.check_references(table)])
    db.execute("DROP SCHEMA fresh; DROP TABLE public.child; DROP TABLE public.parent")
    assert len(_all(target)) == 5
    assert target.ledger("shop").steps == {}


def _merged(target: PostgresqlTarget, db: Db, mode: TableMode, key: tuple[str, ...] = ("a",)) -> None:
    """Rows 1 and 2 beside or in the place of row 0, in a table with triggers."""
    db.execute("CREATE TABLE public.t (a integer UNIQUE NOT NULL, b text)")
    db.execute("INSERT INTO public.t VALUES (0, 'old')")
    _guarded(db)
    table = _table(mode=mode).model_copy(update={"existing_key": key})
    _made(target, table, [(1, "x"), (2, "y")])
    assert _apply(target, ddl.merge("shop", [table]), "") == [True]
    assert len(_rows(db)) == (2 if mode is TableMode.TRUNCATE else 3)


@pytest.mark.parametrize("mode", [TableMode.TRUNCATE, TableMode.APPEND])
def test_a_merge_is_taken_back(target: PostgresqlTarget, db: Db, mode: TableMode) -> None:
    """The rows of before, with nobody's triggers between, and no table of ours left."""
    db.execute("CREATE TABLE public.fired (name text)")
    db.execute(
        "CREATE FUNCTION public.fire() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.fired VALUES (TG_OP); RETURN OLD; END $$"
    )
    _merged(target, db, mode)
    db.execute("CREATE TRIGGER fire AFTER DELETE ON public.t FOR EACH ROW EXECUTE FUNCTION public.fire()")
    before = _triggers(db)
    target.undoable("shop")
    _all(target)
    assert _rows(db) == [(0, "old")]
    assert _triggers(db) == before
    assert _one(db, "SELECT count(*) FROM public.fired") == 0
    left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'jivs_ledger'::regnamespace AND relname ~ '^(side|kept|numbers)_'"
    assert _one(db, left) == 0


def test_rows_that_came_since_stay_where_rows_were_appended(target: PostgresqlTarget, db: Db) -> None:
    """Ours are told by their key, also when others have changed them since."""
    _merged(target, db, TableMode.APPEND)
    db.execute("ALTER TABLE public.t DISABLE TRIGGER USER")
    db.execute("INSERT INTO public.t VALUES (7, 'since')")
    db.execute("UPDATE public.t SET b = 'changed' WHERE a = 1")
    _all(target)
    assert _rows(db) == [(0, "old"), (7, "since")]


@pytest.mark.parametrize("key", [("a",), ()])
def test_an_exchange_is_taken_back(target: PostgresqlTarget, db: Db, key: tuple[str, ...]) -> None:
    """Changed, deleted and doubled rows are what they were; of a table with a key, also when others changed them since."""
    db.execute("CREATE TABLE public.t (a integer, b text)")
    db.execute("INSERT INTO public.t VALUES (0, 'same'), (1, 'old'), (2, 'gone')")
    db.execute("ALTER TABLE public.t ADD UNIQUE (a)" if key else "INSERT INTO public.t VALUES (2, 'gone')")
    before = _rows(db)
    table = _table(mode=TableMode.UPDATE).model_copy(update={"existing_key": key})
    _made(target, table, [(0, "same"), (1, "new"), (3, "added")])
    assert _apply(target, ddl.merge("shop", [table], {table.target: [(None, None)]}), "") == [True]
    assert _rows(db) == [(0, "same"), (1, "new"), (3, "added")]
    wanted = (
        {"inserted": 1, "updated": 1, "deleted": 1} if key else {"inserted": 2, "updated": 0, "deleted": 3}
    )
    assert target.changes(table) == wanted
    if key:
        db.execute("UPDATE public.t SET b = 'since' WHERE a = 1; INSERT INTO public.t VALUES (2, 'since')")
    target.undoable("shop")
    _all(target)
    assert _rows(db) == before


def test_an_update_without_differences_is_no_merge(target: PostgresqlTarget) -> None:
    assert ddl.merge("shop", [_table(mode=TableMode.UPDATE)], {"public.t": []}) == []


def test_an_upsert_is_taken_back(target: PostgresqlTarget, db: Db) -> None:
    """Rows of the same key are changed, in the source's columns only, and get their old values back."""
    db.execute("CREATE TABLE public.t (a integer PRIMARY KEY, b text, mine text DEFAULT 'mine')")
    db.execute("INSERT INTO public.t VALUES (0, 'same', 'x'), (1, 'old', 'y')")
    table = _table(mode=TableMode.APPEND).model_copy(update={"existing_key": ("a",), "upsert": True})
    _made(target, table, [(1, "new"), (3, "added")])
    assert _apply(target, ddl.merge("shop", [table]), "") == [True]
    everything = "SELECT array_agg(t::text ORDER BY a) FROM public.t"
    assert _one(db, everything) == ["(0,same,x)", "(1,new,y)", "(3,added,mine)"]
    assert target.changes(table) == {"inserted": 1, "updated": 1, "deleted": 0}
    _all(target)
    assert _one(db, everything) == ["(0,same,x)", "(1,old,y)"]
    left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'jivs_ledger'::regnamespace AND relname ~ '^(side|kept)_'"
    assert _one(db, left) == 0


@pytest.mark.parametrize("action", ["NO ACTION", "CASCADE", "SET NULL", "RESTRICT"])
@pytest.mark.parametrize("more", ["", "DEFERRABLE", "NOT VALID"])
def test_references_are_put_off_and_come_back_as_they_were(
    target: PostgresqlTarget, db: Db, action: str, more: str
) -> None:
    """A parent that changes keeps its child; one that goes while a child stays is an error, and nothing has happened."""
    db.execute(
        "CREATE TABLE public.t (a integer PRIMARY KEY, b text); INSERT INTO public.t VALUES (1, 'old'), (2, 'old')"
    )
    db.execute(
        "CREATE TABLE public.child (a integer); INSERT INTO public.child VALUES (1);"
        f" ALTER TABLE public.child ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES public.t ON DELETE {action} {more};"
        " COMMENT ON CONSTRAINT k ON public.child IS 'kept'".encode()
    )
    shown = (
        "SELECT pg_get_constraintdef(oid) || condeferred || convalidated || obj_description(oid, 'pg_constraint')"
        " FROM pg_constraint WHERE conname = 'k'"
    )
    before = _one(db, shown)
    table = _table(mode=TableMode.UPDATE).model_copy(update={"existing_key": ("a",)})
    _made(target, table, [(1, "new")])
    _apply(target, ddl.merge("shop", [table], {table.target: [(None, None)]}), "")
    assert _rows(db) == [(1, "new")]
    assert _one(db, "SELECT a FROM public.child") == 1
    assert _one(db, shown) == before
    _all(target)
    assert _rows(db) == [(1, "old"), (2, "old")]
    assert _one(db, shown) == before
    if more != "NOT VALID":
        _made(target, table, [(2, "new")])
        with pytest.raises(DataError):
            _apply(target, ddl.merge("shop", [table], {table.target: [(None, None)]}), "")
        assert _rows(db) == [(1, "old"), (2, "old")]
        assert _one(db, shown) == before


def test_rows_that_no_key_tells_apart_are_said_before(target: PostgresqlTarget, db: Db) -> None:
    _merged(target, db, TableMode.APPEND, key=())
    with pytest.raises(ConflictError, match=r"appended to public\.t cannot be told from those"):
        target.undoable("shop")
    assert len(_rows(db)) == 3


@pytest.mark.parametrize(
    ("since", "following"),
    [
        pytest.param((), 43, id="unused since"),
        pytest.param((44,), 77, id="a number was given out"),
    ],
)
def test_sequences_go_back_unless_their_numbers_were_used(
    target: PostgresqlTarget, db: Db, since: Sequence[int], following: int
) -> None:
    db.execute(
        "CREATE TABLE public.t (a integer GENERATED BY DEFAULT AS IDENTITY UNIQUE, b text); INSERT INTO public.t VALUES (0, 'old')"
    )
    sequence = "pg_catalog.pg_get_serial_sequence('public.t', 'a')"
    db.execute(f"SELECT setval({sequence}, 42)".encode())
    columns = (Column("a", "integer", identity=Identity()), Column("b", "text"))
    table = _table(columns=columns, mode=TableMode.APPEND).model_copy(update={"existing_key": ("a",)})
    _made(target, table, [(50, "x")])
    _apply(target, [*ddl.merge("shop", [table]), *ddl.number(table, {"a": 77})])
    assert _one(db, f"SELECT last_value FROM {_one(db, f'SELECT {sequence}')}") == 76
    for number in since:
        db.execute("INSERT INTO public.t VALUES (%s, 'since')", (number,))
    _all(target)
    assert _one(db, "INSERT INTO public.t (b) VALUES ('next') RETURNING a") == following


# ── What stands beside the tables ────────────────────────────────────────────────────────────────────────


def _objects(target: PostgresqlTarget) -> None:
    mood = ObjectPlan(
        kind="enum",
        name="mood",
        statements=("CREATE TYPE mood AS ENUM ('sad')",),
        drop="DROP TYPE mood",
        before=True,
    )
    view = ObjectPlan(
        kind="view", name="v", statements=("CREATE VIEW v AS SELECT 1 AS one FROM t",), drop="DROP VIEW v"
    )
    for step in ddl.make_objects("public", [mood]):
        target.apply(step, "")
    _apply(target, ddl.create("shop", _table()))
    for step in ddl.make_objects("public", [view]):
        target.apply(step, "")


def _there(db: Db) -> tuple[bool, bool]:
    """Whether the type is there, and the view."""
    row = db.execute("SELECT to_regtype('public.mood') IS NOT NULL, to_regclass('public.v') IS NOT NULL")
    found = row.fetchone()
    assert found is not None
    return found


def test_objects_on_rows_go_before_their_table_is_made_anew(target: PostgresqlTarget, db: Db) -> None:
    """What a table needs stays; what was taken back is made again, once."""
    _objects(target)
    target.undo_objects("public")
    assert _there(db) == (True, False)
    target.reset(_table())
    _objects(target)
    _objects(target)
    assert _there(db) == (True, True)
    assert _all(target)[:2] == ["view v of public.*", "create of public.t"]
    assert _there(db) == (False, False)


def test_an_object_that_others_have_built_on_stops_the_rollback(target: PostgresqlTarget, db: Db) -> None:
    _objects(target)
    db.execute("CREATE VIEW public.theirs AS SELECT * FROM public.v")
    with pytest.raises(TerminalError, match=r"view v of schema public cannot be dropped: view .*theirs"):
        target.undo_next()
    assert _there(db) == (True, True)
    db.execute("DROP VIEW public.theirs, public.v")
    assert _all(target)[-1].startswith("enum mood")
    assert _there(db) == (False, False)
