"""Keys, connection names, identifiers and the nearest valid name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.names import (
    did_you_mean,
    fits_identifier,
    is_connection_name,
    is_migration_key,
    is_reserved_schema,
    key_from_names,
    name_from_text,
    qualified,
    short_hash,
)

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)


@pytest.mark.parametrize("text", ["a", "0", "sakila-2026", "a_b-c", "a" * 63])
def test_a_key_is_lower_case_letters_digits_dash_and_underscore(text):
    assert is_migration_key(text)
    assert is_connection_name(text)


@pytest.mark.parametrize("text", ["", "-a", "_a", "A", "a.b", "a b", "a\n", "é", "a" * 64, "a/b", "a:b"])
def test_everything_else_is_no_key(text):
    assert not is_migration_key(text)
    assert not is_connection_name(text)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("a" * 63, True),
        ("a" * 64, False),
        ("é" * 31, True),
        ("é" * 32, False),
        ("", False),
        ("a\0", False),
        ('"; --', True),
    ],
)
def test_an_identifier_is_measured_in_bytes(name, fits):
    assert fits_identifier(name) is fits


@pytest.mark.parametrize(
    "name", ["jivs", "jivs_ledger", "jivsomething", "pg_catalog", "pg_temp_3", "information_schema"]
)
def test_schemas_of_ours_and_of_the_server_are_reserved(name):
    assert is_reserved_schema(name)


@pytest.mark.parametrize("name", ["public", "pg", "my_jivs", "information_schema2", "postgres"])
def test_other_schemas_are_not_reserved(name):
    assert not is_reserved_schema(name)


def test_a_qualified_name_is_unquoted():
    assert qualified("public", "Order items") == "public.Order items"


@given(names, names)
def test_the_key_of_two_connections_is_always_a_key(source, target):
    assert is_migration_key(key_from_names(source, target))


def test_the_key_names_both_ends():
    assert key_from_names("legacy", "warehouse") == "legacy-to-warehouse"


@given(names, names, names)
def test_other_targets_give_other_keys_even_where_names_are_cut(source, one, two):
    assert (key_from_names(source, one) == key_from_names(source, two)) == (one == two)


@given(st.text())
def test_free_text_becomes_a_connection_name(text):
    assert is_connection_name(name_from_text(text, "fallback"))


@pytest.mark.parametrize(
    ("text", "name"),
    [("Sakila DB", "sakila-db"), ("_x_", "x"), ("日本", "fallback"), ("", "fallback"), ("a" * 80, "a" * 63)],
)
def test_names_from_text_keep_what_they_can(text, name):
    assert name_from_text(text, "fallback") == name


def test_hashes_do_not_confuse_where_parts_end():
    assert short_hash("ab", "c") != short_hash("a", "bc")
    assert short_hash("a", "b") == short_hash("a", "b")
    assert len(short_hash("a", length=12)) == 12


def test_hashes_stay_the_same_from_release_to_release():
    # Names of staged files and locks are made of them.
    assert short_hash("key") == "2c70e12b7a0646f9"


def test_the_nearest_valid_name_is_offered_whatever_its_case():
    assert did_you_mean("PARALELISM", ["parallelism", "verify"]) == "Did you mean 'parallelism'?"
    assert did_you_mean("customers", ["Customer", "Orders"]) == "Did you mean 'Customer'?"


def test_valid_names_are_listed_when_none_is_near():
    assert did_you_mean("x", ["b", "a"], "tables") == "The tables are: a, b"
    assert did_you_mean("x", [f"name{n:02}" for n in range(20)]).endswith("name11, …")
    assert did_you_mean("x", [], "tables") == "There are no tables"
