"""Collations of a catalog in a target that has them, calls them otherwise, or has them not."""

from __future__ import annotations

import pytest

from jivs_pipeline.core.model import Catalog, Column, Index, IndexPart, SchemaObject, Table
from jivs_pipeline.engine.extensions import asks, fitted

ICU = ("collation provider", "icu")
TABLE = Table(
    "shop",
    "t",
    (
        Column("plain", "text"),
        Column("own", "text", collation='"By ""phone"'),
        Column("common", "text", collation='pg_catalog."C"'),
        Column("french", "text", collation='pg_catalog."fr-x-icu"'),
    ),
    indexes=(Index("i", (IndexPart("plain", collation='"By ""phone"'), IndexPart("own"))),),
)
OWN = SchemaObject("collation", 'By "phone', ("CREATE …",), "DROP …", needs=frozenset({ICU}))
CATALOG = Catalog("shop", (TABLE,), objects=(OWN,))
COMMON = ("collation", 'pg_catalog."C"')
FRENCH = ("collation", 'pg_catalog."fr-x-icu"')
PLACED = '"the target"."By ""phone"'


@pytest.mark.parametrize(
    ("found", "collations", "lost"),
    [
        ({COMMON, FRENCH, ICU}, [None, PLACED, COMMON[1], FRENCH[1], PLACED, None], []),
        ({COMMON, ICU}, [None, PLACED, COMMON[1], None, PLACED, None], ["shop.t.french"]),
        (
            {COMMON},
            [None, None, COMMON[1], None, None, None],
            ["shop.t.own", "shop.t.french", "shop.t.i"],
        ),
        # Without its library it cannot be made, whatever has its name there.
        (
            {COMMON, ("collation", 'By "phone')},
            [None, None, COMMON[1], None, None, None],
            ["shop.t.own", "shop.t.french", "shop.t.i"],
        ),
    ],
)  # fmt: skip
def test_what_the_target_has_is_named_as_there_and_the_rest_is_said(
    found: set[tuple[str, str]], collations: list[str | None], lost: list[str]
) -> None:
    catalog = fitted(CATALOG, found, "the target")
    (table,) = catalog.tables
    parts = [p for i in table.indexes for p in i.parts]
    assert [c.collation for c in (*table.columns, *parts)] == collations
    assert [(o.name, o.severity) for o in catalog.left_out] == [(name, "lossy") for name in lost]


def test_who_has_no_collation_does_not_ask() -> None:
    plain = Catalog("main", (Table("main", "t", (Column("a", "text"),)),))
    assert not asks(plain)
    assert fitted(plain, (), "public") == plain
    assert asks(Catalog("main", (TABLE,)))
