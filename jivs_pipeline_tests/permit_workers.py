"""Processes that read one source under permits. As a program it forks one child per number it is given.

What belongs here: what such a process does. What does not: what must come out.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import Crowded
from jivs_pipeline.core.plan import TablePlan
from jivs_pipeline.infra.control import Control
from jivs_pipeline.infra.permits import EndpointPermits, PermitBook
from jivs_pipeline.infra.sources.postgresql import PostgresqlSource


def permits_of(book: PermitBook, key: str, limit: int) -> EndpointPermits:
    return EndpointPermits(
        book, "source shop@1", "source 'shop'", key, limit, "raise limits.source_connections"
    )


def read(orders: dict[str, Any], number: int) -> dict[str, int]:
    """Open snapshots for one to three readers until the time is over; tells how many it got, and how many not."""
    rng = random.Random(number)
    plan = TablePlan.model_validate(orders["plan"])
    told = {"got": 0, "crowded": 0}
    with closing(Control(orders["control"], timeout_seconds=20)) as control:
        control.open()
        with closing(control.permits(lease_seconds=300, patience_seconds=20)) as book:
            permits = permits_of(book, f"k{number}", orders["limit"])
            until = time.monotonic() + orders["seconds"]
            while time.monotonic() < until:
                source = PostgresqlSource(parse_url(orders["source"], "shop"), permits=permits)
                try:
                    readers = rng.randint(1, 3)
                    with source.snapshot(readers) as snapshot, ThreadPoolExecutor(readers) as pool:
                        list(pool.map(lambda _: snapshot.count(plan, plan.chunks[0]), range(readers)))
                        told["got"] += 1
                except Crowded:
                    told["crowded"] += 1
                    time.sleep(rng.uniform(0.02, 0.2))
                finally:
                    source.close()
    return told


def main() -> None:
    orders = json.loads(sys.stdin.readline())
    children = 0
    for number in range(orders["processes"]):
        if os.fork() == 0:
            try:
                os.write(1, json.dumps(read(orders, number)).encode() + b"\n")
            finally:
                os._exit(0)
        children += 1
    for _ in range(children):
        os.wait()


if __name__ == "__main__":
    main()
