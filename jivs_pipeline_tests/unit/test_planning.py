"""From catalog, survey, target and spec to a plan: what is carried, and what is refused and why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.errors import ConfigError, JivsError, SpecError
from jivs_pipeline.core.model import Catalog, Check, Column, ForeignKey, Index, IndexPart, Key, LeftOut, Table
from jivs_pipeline.core.plan import Chunk, Lane, Plan, TableMode
from jivs_pipeline.core.ports import Dependent, ExistingColumn, ExistingTable, Refusal
from jivs_pipeline.core.spec import parse_spec
from jivs_pipeline.engine.planning import build_plan, check
from jivs_pipeline.infra.rules.book import RuleBook
from jivs_pipeline.infra.rules.python_rule import PythonRules
from jivs_pipeline_tests.fakes import FakeSource, FakeTarget

ACTOR = Table(
    "main",
    "actor",
    (Column("id", "bigint", nullable=False), Column("name", "text")),
    primary_key=Key("actor_pkey", ("id",)),
)
FILM = Table(
    "main",
    "film",
    (
        Column("id", "bigint", nullable=False),
        Column("star", "bigint"),
        Column("title", "text", default="'?'"),
        Column("year", "bigint"),
    ),
    primary_key=Key("film_pkey", ("id",), include=("title",)),
    unique_keys=(Key("film_title", ("title",), include=("year",)), Key(None, ("star", "year"))),
    foreign_keys=(ForeignKey("film_star", ("star",), "main", "actor", ("id",)),),
    checks=(Check("film_year", "year > 1800"),),
    indexes=(
        Index("film_by_year", (IndexPart("year"),), include=("title",)),
        Index("film_lower", (IndexPart(None, "lower(title)"),)),
        Index("film_new", (IndexPart("title"),), predicate="year > 2000"),
    ),
)
CATALOG = Catalog("main", (FILM, ACTOR))
RULES = RuleBook(PythonRules())


def spec(**changes: Any):
    return parse_spec({"key": "k", "source": "legacy", "target": "warehouse", **changes})


def planned(
    catalog: Catalog = CATALOG, target: FakeTarget | None = None, surveys: Any = None, **changes: Any
) -> Plan:
    return build_plan(spec(**changes), FakeSource(catalog, surveys), target or FakeTarget(), RULES)


def refusal(catalog: Catalog = CATALOG, target: FakeTarget | None = None, **changes: Any) -> JivsError:
    with pytest.raises(ConfigError) as caught:
        check(spec(**changes), FakeSource(catalog), target or FakeTarget())
    assert caught.value.hint
    return caught.value


def reasons(plan: Plan, kind: str = "refused") -> dict[str, str]:
    return {w.table: w.reason for w in plan.warnings if w.kind == kind}


def there(
    name: str = "film", kind: str = "r", columns: dict[str, str] | None = None, **changes: Any
) -> ExistingTable:
    types = columns or {"id": "bigint", "star": "bigint", "title": "text", "year": "bigint"}
    flags = {"required": False, "generated": False, "filled": False}
    return ExistingTable(
        name, kind, tuple(ExistingColumn(n, t, **flags) for n, t in types.items()), **changes
    )


# What is carried


def test_without_rules_every_table_is_carried_as_it_is():
    plan = planned()
    film = plan.table("public.film")
    assert (plan.key, plan.source, plan.target, plan.source_dialect, plan.source_version, plan.target_version) == (
        "k", "legacy", "warehouse", "sqlite", "3.45", "18.1",
    )  # fmt: skip
    assert [(c.source, c.target) for c in film.columns] == [(c, c) for c in ("id", "star", "title", "year")]
    assert film.definition is not None
    assert film.definition.primary_key == FILM.primary_key
    assert film.definition.unique_keys == FILM.unique_keys
    assert film.definition.indexes == FILM.indexes
    assert film.definition.checks == FILM.checks
    assert film.definition.foreign_keys == (ForeignKey("film_star", ("star",), "public", "actor", ("id",)),)
    assert (film.mode, film.where, film.refused, plan.warnings) == (TableMode.CREATE, None, None, ())


def test_largest_tables_come_first_and_equal_ones_by_name():
    assert [t.target for t in planned().tables] == ["public.actor", "public.film"]
    assert [t.target for t in planned(surveys={"film": {"bytes": 101}}).tables] == [
        "public.film",
        "public.actor",
    ]


def test_the_same_plan_twice_has_the_same_hash():
    assert planned().hash == planned().hash
    assert (
        planned(
            surveys={"film": {"chunks": (Chunk(index=0, upper=("1",)), Chunk(index=1, lower=("1",)))}}
        ).hash
        != planned().hash
    )


@given(st.permutations(CATALOG.tables))
def test_the_order_of_a_catalog_does_not_matter(tables):
    assert planned(Catalog("main", tuple(tables))).hash == planned().hash


def test_the_survey_decides_how_rows_travel():
    film = planned(surveys={"film": {"lane": Lane.COPY, "rows": 7, "rows_exact": False}}).table("public.film")
    assert (film.lane, film.rows, film.rows_exact) == (Lane.COPY, 7, False)


def test_the_source_is_asked_with_the_specs_schema_filter_and_chunk_size():
    source = FakeSource(CATALOG)
    rules = {"film": {"where": "year > 1", "columns": {"title": {"drop": True}}}}
    plan = build_plan(spec(source_schema="shop", chunk_bytes=70000, rules=rules), source, FakeTarget(), RULES)
    assert source.schema == "shop"
    assert source.asked["film"] == (("id", "star", "year"), "year > 1", 70000)
    assert source.asked["actor"] == (("id", "name"), None, 70000)
    assert plan.table("public.film").where == "year > 1"


def test_checking_a_spec_looks_at_no_row():
    source = FakeSource(CATALOG)
    check(spec(), source, FakeTarget())
    assert source.asked == {}


def test_renames_reach_keys_indexes_and_the_keys_of_others():
    rules = {
        "actor": {"rename": "people", "columns": {"id": {"rename": "person"}}},
        "film": {"columns": {"star": {"rename": "lead"}}},
    }
    plan = planned(rules=rules, target_schema="shop")
    people, film = plan.table("shop.people").definition, plan.table("shop.film").definition
    assert people is not None
    assert film is not None
    assert people.primary_key == Key("actor_pkey", ("person",))
    assert (people.schema, people.name) == ("shop", "people")
    assert film.foreign_keys == (ForeignKey("film_star", ("lead",), "shop", "people", ("person",)),)
    assert film.unique_keys[1].columns == ("lead", "year")
    assert [c.name for c in film.columns] == ["id", "lead", "title", "year"]


def test_a_table_that_refers_to_itself_follows_its_own_renames():
    table = Table(
        "main", "node", (Column("id", "bigint"), Column("up", "bigint")), primary_key=Key(None, ("id",)),
        foreign_keys=(ForeignKey(None, ("up",), "main", "node", ("id",)),),
    )  # fmt: skip
    rules = {"node": {"rename": "nodes", "columns": {"id": {"rename": "key"}, "up": {"rename": "parent"}}}}
    definition = planned(Catalog("main", (table,)), rules=rules).tables[0].definition
    assert definition is not None
    assert definition.foreign_keys == (ForeignKey(None, ("parent",), "public", "nodes", ("key",)),)


# What is left out aloud


def test_what_hangs_on_a_dropped_column_is_left_out_aloud():
    plan = planned(rules={"film": {"columns": {"year": {"drop": True}}}})
    film = plan.table("public.film").definition
    assert film is not None
    assert [c.name for c in film.columns] == ["id", "star", "title"]
    assert [k.name for k in film.unique_keys] == ["film_title"]
    assert (film.checks, film.indexes) == ((), ())
    assert set(reasons(plan)) == {
        "main.film.unique key",
        "main.film.film_by_year",
        "main.film.film_lower",
        "main.film.film_new",
        "main.film.film_year",
    }
    assert reasons(plan)["main.film.film_by_year"] == "index: column year is dropped"


def test_a_key_or_index_loses_a_dropped_column_of_its_include_and_stays():
    plan = planned(rules={"film": {"columns": {"title": {"drop": True}}}})
    film = plan.table("public.film").definition
    assert film is not None
    assert film.primary_key == Key("film_pkey", ("id",))
    assert film.indexes == (Index("film_by_year", (IndexPart("year"),)),)
    assert reasons(plan, "lossy") == {
        "main.film.film_pkey": "primary key: its INCLUDE loses column title, which is dropped",
        "main.film.film_by_year": "index: its INCLUDE loses column title, which is dropped",
    }
    year = planned(rules={"film": {"columns": {"year": {"drop": True}}}})
    assert "main.film.film_title" in reasons(year, "lossy")


def test_a_dropped_key_column_takes_the_primary_key_and_foreign_keys_to_it_along():
    plan = planned(rules={"actor": {"columns": {"id": {"drop": True}}}})
    actor, film = plan.table("public.actor").definition, plan.table("public.film").definition
    assert actor is not None
    assert film is not None
    assert actor.primary_key is None
    assert film.foreign_keys == ()
    assert set(reasons(plan)) == {"main.actor.actor_pkey", "main.film.film_star"}


def test_expressions_are_left_out_when_a_column_changes_its_name():
    plan = planned(rules={"film": {"columns": {"star": {"rename": "lead"}}}})
    assert set(reasons(plan)) == {"main.film.film_lower", "main.film.film_new", "main.film.film_year"}


@pytest.mark.parametrize(
    ("changes", "surveys", "why"),
    [
        ({"tables": {"exclude": ["actor"]}}, None, "main.actor is not part of this migration"),
        ({}, {"actor": {"refused": (Refusal("id", "odd"),)}}, "main.actor is refused"),
        ({}, {"film": {"broken_keys": {("star",): 3}}}, "3 rows of the source break it"),
        ({"rules": {"film": {"columns": {"star": {"drop": True}}}}}, None, "column star is dropped"),
    ],
)
def test_a_foreign_key_that_cannot_hold_is_a_warning(changes, surveys, why):
    plan = planned(surveys=surveys, **changes)
    film = plan.table("public.film").definition
    assert film is not None
    assert film.foreign_keys == ()
    assert reasons(plan)["main.film.film_star"] == f"foreign key: {why}"


def test_a_foreign_key_to_a_table_of_that_name_in_another_schema_is_a_warning():
    key = ForeignKey("elsewhere", ("star",), "archive", "actor", ("id",))
    table = Table("main", "film", FILM.columns, foreign_keys=(key,))
    plan = planned(Catalog("main", (table, ACTOR)))
    assert reasons(plan) == {
        "main.film.elsewhere": "foreign key: archive.actor is not part of this migration"
    }


def test_objects_that_are_not_carried_are_named_unless_their_table_is_left_out():
    left = (
        LeftOut("main.v", "view", "views are not carried"),
        LeftOut("main.film.t", "trigger", "triggers are not carried", "film"),
        LeftOut("main.actor.t", "trigger", "triggers are not carried", "actor"),
        LeftOut("main.film.c", "collation", "differs", "film", "lossy"),
    )
    plan = planned(Catalog("main", (FILM, ACTOR), left), tables={"include": ["film"]})
    assert reasons(plan)["main.v"] == "view: views are not carried"
    assert "main.film.t" in reasons(plan)
    assert "main.actor.t" not in reasons(plan)
    assert reasons(plan, "lossy") == {"main.film.c": "collation: differs"}


def test_losses_that_the_survey_saw_are_warnings_of_their_column():
    plan = planned(surveys={"film": {"lossy": (Refusal("title", "padded"),)}})
    assert [(w.table, w.column, w.kind, w.reason) for w in plan.warnings] == [
        ("main.film", "title", "lossy", "padded")
    ]


# Tables that are refused alone


def test_a_refused_column_refuses_its_table_alone():
    plan = planned(surveys={"film": {"refused": (Refusal("title", "mixes"), Refusal("year", "other"))}})
    film = plan.table("public.film")
    assert (film.refused, film.refused_column) == ("mixes", "title")
    assert [t.target for t in plan.carried] == ["public.actor"]
    assert ("main.film", "title", "refused", "mixes") in [
        (w.table, w.column, w.kind, w.reason) for w in plan.warnings
    ]


def named(table: str = "t", column: str = "c") -> Catalog:
    return Catalog("main", (Table("main", table, (Column(column, "text"),)), ACTOR))


def test_names_too_long_in_the_source_refuse_their_table_until_a_rename():
    long = "n" * 64
    assert "63 bytes" in (planned(named(table=long)).table(f"public.{long}").refused or "")
    assert "63 bytes" in (planned(named(column="é" * 32)).table("public.t").refused or "")
    assert planned(named(table=long)).table("public.actor").refused is None
    assert planned(named(table=long), rules={long: {"rename": "short"}}).table("public.short").refused is None
    assert (
        planned(named(column=long), rules={"t": {"columns": {long: {"rename": "short"}}}})
        .table("public.t")
        .refused
        is None
    )


def test_two_tables_that_would_become_one_are_both_refused():
    plan = planned(rules={"actor": {"rename": "film"}})
    assert [t.refused for t in plan.tables] == [
        "two tables would both become public.film; rename one in the spec"
    ] * 2


def test_two_columns_that_would_become_one_refuse_their_table():
    plan = planned(rules={"film": {"columns": {"star": {"rename": "title"}}}})
    assert "both be called 'title'" in (plan.table("public.film").refused or "")


# What the target already has


def test_a_table_that_exists_ends_the_plan_unless_the_spec_says_what_to_do():
    error = refusal(target=FakeTarget([there(), there("actor")]))
    assert "public.actor and 1 more" in error.message
    assert "on_existing" in error.hint


def test_a_table_that_this_migration_made_is_no_obstacle():
    assert (
        planned(target=FakeTarget([there()], made=["public.film"])).table("public.film").mode
        is TableMode.CREATE
    )
    assert "public.film" in refusal(target=FakeTarget([there()], made=["other.film"])).message


def test_the_target_is_asked_for_the_new_names_in_its_schema():
    target = FakeTarget([there("actor")])
    planned(target=target, target_schema="shop", rules={"actor": {"rename": "people"}})
    assert target.inspected == ("shop", ("film", "people"))


@pytest.mark.parametrize("mode", ["replace", "truncate", "append"])
def test_only_tables_that_exist_have_the_specs_mode(mode):
    plan = planned(target=FakeTarget([there()]), on_existing=mode)
    assert plan.table("public.film").mode == mode
    assert plan.table("public.film").refused is None
    assert plan.table("public.actor").mode is TableMode.CREATE


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("v", "view"),
        ("m", "materialized view"),
        ("S", "sequence"),
        ("f", "foreign table"),
        ("i", "index"),
        ("c", "something"),
    ],
)
@pytest.mark.parametrize("mode", ["fail", "replace", "append"])
def test_what_is_no_table_is_never_overwritten(kind, name, mode):
    assert name in refusal(target=FakeTarget([there(kind=kind)]), on_existing=mode).message


@pytest.mark.parametrize(
    ("dependent", "mode", "refused"),
    [
        (Dependent("view", "film_names", "public", "film_names"), "replace", True),
        (Dependent("view", "film_names", "public", "film_names"), "truncate", False),
        (Dependent("view", "film_names", "public", "film_names"), "append", False),
        (Dependent("foreign key", "stranger", "public", "stranger"), "replace", True),
        (Dependent("foreign key", "stranger", "public", "stranger"), "truncate", True),
        (Dependent("foreign key", "stranger", "public", "stranger"), "append", False),
        (Dependent("foreign key", "own", "public", "film"), "replace", False),
        (Dependent("foreign key", "own", "public", "film"), "truncate", False),
        (Dependent("foreign key", "other", "elsewhere", "film"), "truncate", True),
    ],
)
def test_what_depends_on_a_table_is_not_pulled_from_under_it(dependent, mode, refused):
    """Unless it is part of the same migration, or stays valid."""
    problem = (
        planned(target=FakeTarget([there(dependents=(dependent,))]), on_existing=mode)
        .table("public.film")
        .refused
    )
    assert (dependent.name in (problem or "")) is refused


COLUMNS = {"id": "bigint", "star": "bigint", "title": "text", "year": "bigint"}


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({**COLUMNS, "id": "numeric", "title": "character varying"}, None),
        ({**COLUMNS, "note": "text"}, None),
        ({**COLUMNS, "id": "integer"}, "'id' is integer, which does not hold every bigint"),
        ({**COLUMNS, "title": "character varying(20)"}, "'title' is character varying(20)"),
        ({c: t for c, t in COLUMNS.items() if c != "year"}, "no column 'year'"),
    ],
)
@pytest.mark.parametrize("mode", ["truncate", "append"])
def test_rows_go_into_an_existing_table_only_if_every_value_fits(mode, columns, problem):
    found = (
        planned(target=FakeTarget([there(columns=columns)]), on_existing=mode).table("public.film").refused
    )
    assert (found is None) if problem is None else (problem in (found or ""))
    assert (
        planned(target=FakeTarget([there(columns=columns)]), on_existing="replace")
        .table("public.film")
        .refused
        is None
    )


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (
            ExistingColumn("title", "text", required=False, generated=True, filled=False),
            "'title' is generated",
        ),
        (ExistingColumn("note", "text", required=True, generated=False, filled=False), "'note' is NOT NULL"),
        (ExistingColumn("note", "text", required=True, generated=False, filled=True), None),
        (ExistingColumn("note", "text", required=True, generated=True, filled=False), None),
        (ExistingColumn("note", "text", required=False, generated=False, filled=False), None),
    ],
)
def test_columns_of_an_existing_table_must_be_filled_by_somebody(column, problem):
    table = there()
    table = ExistingTable(
        table.name, table.kind, (*(c for c in table.columns if c.name != column.name), column)
    )
    found = planned(target=FakeTarget([table]), on_existing="append").table("public.film").refused
    assert (found is None) if problem is None else (problem in (found or ""))


# Mistakes in the spec


@pytest.mark.parametrize(
    ("changes", "wrong", "near"),
    [
        ({"tables": {"include": ["flim"]}}, "'flim'", "'film'"),
        ({"rules": {"actors": {}}}, "'actors'", "'actor'"),
        ({"rules": {"film": {"columns": {"titel": {"drop": True}}}}}, "film.titel", "'title'"),
    ],
)
def test_a_name_that_the_source_lacks_gets_the_nearest_one(changes, wrong, near):
    error = refusal(**changes)
    assert isinstance(error, SpecError)
    assert wrong in error.message
    assert near in error.hint


def test_including_something_that_is_no_table_says_what_it_is():
    catalog = Catalog("main", (FILM,), (LeftOut("main.names", "view", "views are not carried"),))
    assert "it is a view: views are not carried" in refusal(catalog, tables={"include": ["names"]}).message


def test_a_pattern_may_match_nothing_but_not_all_of_them():
    assert [t.source_table for t in planned(tables={"include": ["fil*", "x*"]}).tables] == ["film"]
    assert "no table to migrate" in refusal(tables={"include": ["x*"]}).message
    assert "no table to migrate" in refusal(Catalog("main", ())).message


def test_rights_of_other_databases_are_not_carried_and_that_is_said():
    assert "is sqlite" in refusal(grants=True).message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"type": "incremental"}, "type: incremental"),
        ({"staging": "none"}, "staging: none"),
        ({"rules": {"film": {"load": "upsert"}}}, "rules.film.load: upsert"),
    ],
)
def test_what_this_version_cannot_do_is_said_and_never_skipped(changes, named):
    source = FakeSource(CATALOG)
    with pytest.raises(SpecError, match="cannot do") as caught:
        check(spec(**changes), source, FakeTarget())
    assert named in caught.value.message
    assert source.schema == "never asked"
