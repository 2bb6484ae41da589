"""The lease in a real Valkey: who gets it, who may prolong and end it, and what happens without Redis."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from threading import Barrier, Thread
from typing import Any

import pytest

from jivs_pipeline.core.claims import Claim, Owner
from jivs_pipeline.core.errors import ConflictError
from jivs_pipeline.infra.leases import Leases
from jivs_pipeline.infra.owner import this_process
from jivs_pipeline.infra.taking import Taking
from jivs_pipeline_tests.fix_control import elsewhere

MakeLeases = Callable[..., Leases]


@pytest.fixture
def make(redis_url: str) -> Iterator[MakeLeases]:
    made: list[Leases] = []

    def make(seconds: float = 30, *, at: str = redis_url) -> Leases:
        made.append(Leases(at, seconds))
        return made[-1]

    yield make
    for leases in made:
        leases.close()


def _claim(key: str, owner: Owner) -> Claim:
    return Claim(key, 1, "r", owner, resumed=False, plan=None, same_spec=False)


def test_the_second_learns_who_has_it(make: MakeLeases, redis_server: Any, key: str) -> None:
    first, second = make(), make()
    assert first.take(key, this_process(), "r1") is None
    assert 29_000 < redis_server.pttl(f"migration:lock:{key}") <= 30_000
    holder = second.take(key, this_process(), "r2")
    assert holder is not None
    assert (holder.run_id, holder.pid) == ("r1", os.getpid())
    first.release(key)
    assert second.take(key, this_process(), "r2") is None


def test_of_twenty_one_gets_it(make: MakeLeases, key: str) -> None:
    barrier, found = Barrier(20), list[Any]()

    def start() -> None:
        leases = make()
        barrier.wait(10)
        found.append(leases.take(key, this_process(), "r"))

    threads = [Thread(target=start) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(None) == 1
    assert len(found) == 20


def test_only_its_holder_prolongs_and_ends_it(make: MakeLeases, redis_server: Any, key: str) -> None:
    """A run whose lease ran out neither renews nor releases that of its successor."""
    name, old, new = f"migration:lock:{key}", make(0.2), make(30)
    owner = this_process()
    assert old.take(key, owner, "old") is None
    deadline = time.monotonic() + 5
    while redis_server.exists(name):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert new.take(key, elsewhere(), "new") is None
    value = redis_server.get(name)
    old.renew(_claim(key, owner))
    old.release(key)
    assert redis_server.get(name) == value
    assert redis_server.pttl(name) > 28_000


def test_a_lease_is_renewed_when_a_third_has_passed(make: MakeLeases, redis_server: Any, key: str) -> None:
    leases, owner, name = make(3), this_process(), f"migration:lock:{key}"
    leases.take(key, owner, "r")
    leases.renew(_claim(key, owner))
    deadline = time.monotonic() + 10
    while redis_server.pttl(name) > 1900:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    leases.renew(_claim(key, owner))
    assert redis_server.pttl(name) > 2500


def test_after_redis_lost_its_data_the_holder_takes_it_again(
    make: MakeLeases, redis_server: Any, key: str
) -> None:
    leases, owner = make(0.3), this_process()
    leases.take(key, owner, "r")
    redis_server.delete(f"migration:lock:{key}")
    time.sleep(0.15)
    leases.renew(_claim(key, owner))
    assert f'"{owner.owner}"' in redis_server.get(f"migration:lock:{key}")


def test_the_lease_of_a_dead_process_need_not_run_out(make: MakeLeases, redis_url: str, key: str) -> None:
    program = (
        "import sys, time; from jivs_pipeline.infra.leases import Leases; from jivs_pipeline.infra.owner import this_process;"
        f"Leases(sys.stdin.readline().strip(), 300).take({key!r}, this_process(), 'dead'); print('ok', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{redis_url}\n".encode())
        child.stdin.flush()
        assert child.stdout.readline() == b"ok\n"
        holder = make().take(key, this_process(), "r")
        assert holder is not None
        assert holder.run_id == "dead"
        child.send_signal(signal.SIGKILL)
    assert make().take(key, this_process(), "r") is None


def test_without_redis_runs_go_on_and_it_is_said_once(
    make: MakeLeases, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    leases, owner = make(at="redis://127.0.0.1:1/0"), this_process()
    with caplog.at_level(logging.WARNING):
        assert leases.take(key, owner, "r") is None
        leases.renew(_claim(key, owner))
        leases.release(key)
        assert leases.take(key, owner, "r") is None
    assert [r.message for r in caplog.records].count(caplog.records[0].message) == len(caplog.records) == 1
    assert "goes on" in caplog.text


def test_waiting_ends_when_the_holder_goes(make: MakeLeases, key: str) -> None:
    """A second starter waits as long as asked, and gets it once it is free."""
    first, second = make(), make()
    first.take(key, this_process(), "r1")
    began = time.monotonic()
    with pytest.raises(ConflictError, match=rf"held by process {os.getpid()} .* since .*\(run r1\)"):
        Taking(second, 0.6).take(key, "r2", lambda owner: owner)
    assert 0.5 < time.monotonic() - began < 5
    releasing = Thread(target=lambda: (time.sleep(0.3), first.release(key)))
    releasing.start()
    assert Taking(second, 20).take(key, "r2", lambda owner: owner.pid) == os.getpid()
    releasing.join()


def test_what_a_state_forbids_is_not_waited_for_and_leaves_no_lease(
    make: MakeLeases, redis_server: Any, key: str
) -> None:
    def refuse(_: Owner) -> None:
        raise ConflictError("Migration is paused")

    began = time.monotonic()
    with pytest.raises(ConflictError, match="paused"):
        Taking(make(), 20).take(key, "r", refuse)
    assert Taking(make(), 20).take(key, "r", lambda _: None) is None
    assert time.monotonic() - began < 5
    assert not redis_server.exists(f"migration:lock:{key}")
