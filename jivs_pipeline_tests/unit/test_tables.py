"""The catalog's declarations of loaded tables, whatever the tables are called."""

import dagster as dg
import pytest

from jivs_pipeline.defs.build import build_defs
from jivs_pipeline.defs.story import table_key
from jivs_pipeline.defs.tables import _asset, _check


@pytest.mark.parametrize(
    "name", ["public.towns", "Music Store.Album", "s.a.b", "sch\u00e4.\u8868", 's."; DROP', "s.a/b", "s. "]
)
def test_a_table_of_any_name_loads_and_can_be_checked(name):
    """One name that Dagster does not like must not keep the whole code location from loading."""
    table = {"target_name": "ware-house", "table_name": name, "source_name": "legacy", "key": "k"}
    defs = build_defs(tables=[_asset(table)], checks=[_check(table)])
    dg.Definitions.validate_loadable(defs)
    keys = defs.get_repository_def().asset_checks_defs_by_key
    assert [k.asset_key for k in keys] == [table_key("ware-house", name)]
