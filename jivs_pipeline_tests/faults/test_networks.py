"""Row 8: networks that fall silent, lose one direction, or reset, at any moment and at either end.

What belongs here: how long a run is silent, and how it ends. What does not: commits whose answer is lost, which get
a test of their own (`test_commits.py`).
"""

from __future__ import annotations

import time

import pytest

from jivs_pipeline.core.errors import ConnectionFailed
from jivs_pipeline_tests.faults.here import Going, MakeHere
from jivs_pipeline_tests.faults.wire import Fault, MakeWire, Wire
from jivs_pipeline_tests.fix_faults import Round, rounds

pytestmark = pytest.mark.faults

_GRACE_SECONDS = 10
"""RELIABILITY.md, row 8: nothing waits longer than the I/O timeout and this."""


def _watch(run: Going, wire: Wire, one: Round, timeout: float, heal_at: float | None) -> None:
    """Until the run is over: fails when it neither gives up a connection nor makes one for too long."""
    struck = time.monotonic()
    while run.sleep(0.02):
        now = time.monotonic()
        if heal_at is not None and now >= heal_at:
            heal_at = None
            wire.heal()
            one.note(f"healed after {now - struck:.1f} s")
        silent = now - max([struck, *wire.signs])
        assert silent <= timeout + _GRACE_SECONDS, f"nothing was heard of the run for {silent:.1f} s"
        assert now - struck < 60, "the run does not end"
    assert run.ended is not None
    one.note(f"over {run.ended - struck:.1f} s after the fault: {run.error!r}")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("end", ["source", "target"])
def test_the_network_breaks(make_here: MakeHere, make_wire: MakeWire, end: str) -> None:
    for one in rounds(8, quick=1, part=end, full=100):
        with one:
            here = make_here("postgresql" if end == "source" else one.rng.choice(["sqlite", "postgresql"]))
            wire = make_wire(here.target if end == "target" else str(here.source))
            here.urls = {end: wire.url}
            timeout = one.rng.uniform(1, 2)
            run = here.start(JIVS_IO_TIMEOUT_SECONDS=f"{timeout:.2f}")
            while run.sleep(0.005) and not wire.signs:
                pass
            run.sleep(one.rng.uniform(0, 0.8))
            fault = one.rng.choice(list(Fault))
            first = len(wire.signs) == 1
            hit = wire.strike(fault)
            one.note(
                f"{end}: {fault} ({hit}) at {time.monotonic() - run.began:.3f} s, timeout {timeout:.2f} s"
            )
            heals = fault is Fault.STALL_ALL and one.rng.random() < 0.5
            _watch(run, wire, one, timeout, time.monotonic() + one.rng.uniform(0.5, 4) if heals else None)
            # Where new connections work from the start, the run goes on by itself; but a server whose very first greeting
            # stays away is not known to be there.
            unmet = first and isinstance(run.error, ConnectionFailed)
            assert run.settled(0) or fault is Fault.STALL_ALL or unmet, f"{run.error!r}"
            wire.heal()
            here.complete()
            wire.close()
