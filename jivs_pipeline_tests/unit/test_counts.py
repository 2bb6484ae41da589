"""Numbers in sentences."""

from __future__ import annotations

import pytest

from jivs_pipeline.core.counts import counted


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 rows are"), (1, "1 row is"), (2, "2 rows are"), (12_345, "12,345 rows are")]
)
def test_one_is_not_many(number: int, said: str) -> None:
    assert counted(number, "row is", "rows are") == said
