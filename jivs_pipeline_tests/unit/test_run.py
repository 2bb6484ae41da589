"""What a run holds of one end while it waits for the other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jivs_pipeline.core.errors import Crowded
from jivs_pipeline.engine.run import take_permits


@pytest.mark.parametrize("crowded", [False, True])
def test_who_waits_for_the_target_holds_nothing_of_the_source(crowded: bool) -> None:
    """Otherwise two runs could wait for each other, one with the source and one with the target."""
    story: list[str] = []

    def take(workers: int) -> None:
        story.append(f"take {workers}")
        if crowded:
            raise Crowded("full")

    source = cast("Any", SimpleNamespace(close=lambda: story.append("close")))
    target = cast("Any", SimpleNamespace(take_permits=take))
    if crowded:
        with pytest.raises(Crowded):
            take_permits(source, target, 3)
    else:
        take_permits(source, target, 3)
    assert story == ["take 3", *(["close"] if crowded else [])]
