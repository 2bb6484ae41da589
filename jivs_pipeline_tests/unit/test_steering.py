"""A state that is set in place of a run that is gone, and the fence that goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jivs_pipeline.core.errors import ConfigError, TransientError
from jivs_pipeline.core.spec import Spec
from jivs_pipeline.core.states import Status
from jivs_pipeline.engine.services import Services
from jivs_pipeline.engine.steering import cancel, settle_dead


class _World:
    """A control database and a target, as far as steering needs them."""

    def __init__(self, status: Status, *, settles: bool = True, unreachable: Exception | None = None) -> None:
        self.story: list[Any] = []
        self.row = {"key": "k", "status": status, "epoch": 7, "spec": Spec(key="k", source="s", target="t").model_dump(mode="json")}  # fmt: skip
        self._settles = settles
        self._unreachable = unreachable

    def settle(self, _: str, before: Status, after: Status, *__: object) -> bool:
        if not self._settles or self.row["status"] != before:
            return False
        self.row.update(status=after, epoch=8)
        self.story.append((before, after))
        return True

    @contextmanager
    def opened_target(self, _: Spec) -> Iterator[Any]:
        if self._unreachable:
            raise self._unreachable
        yield SimpleNamespace(claim=lambda *claim: self.story.append(claim))

    @property
    def services(self) -> Services:
        control = SimpleNamespace(
            settle=self.settle, migration=lambda _: dict(self.row), control_id=lambda: "control",
            request=lambda *asked: self.story.append(asked),
        )  # fmt: skip
        staging = SimpleNamespace(discard=lambda *what: self.story.append(("discard", *what)))
        made = SimpleNamespace(control=control, staging=staging, opened_target=self.opened_target)
        return cast("Services", made)


def test_who_is_settled_is_fenced_off_the_target():
    """Should the run only have slept, it finds another epoch there."""
    world = _World(Status.RUNNING)
    assert settle_dead(world.services, "k", Status.FAILED)
    assert world.story == [(Status.RUNNING, Status.FAILED), ("k", "control", 8, "settled-8")]


@pytest.mark.parametrize("error", [ConfigError("no"), TransientError("cut")])
def test_a_target_that_is_away_does_not_keep_the_state(error: Exception):
    """The next run claims it, and until then the stale one does not reach it either."""
    world = _World(Status.RUNNING, unreachable=error)
    assert settle_dead(world.services, "k", Status.FAILED)
    assert world.row["status"] == Status.FAILED


def test_the_living_keep_state_and_target():
    world = _World(Status.RUNNING, settles=False)
    assert not settle_dead(world.services, "k", Status.FAILED)
    assert world.story == []


def test_cancelling_what_is_gone_leaves_no_rows_outside_of_the_target():
    """Its own epoch was raised before, so what is staged is of an earlier one."""
    world = _World(Status.RUNNING)
    cancel(world.services, "k", wait_seconds=5)
    assert world.story == [
        ("k", "cancel"),
        (Status.RUNNING, Status.CANCELLED),
        ("k", "control", 8, "settled-8"),
        ("discard", "k", 8),
    ]
