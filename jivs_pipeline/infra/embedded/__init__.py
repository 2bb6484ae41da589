"""PostgreSQL and Valkey of our own, for a home without URLs: `make demo` needs nothing but Python.

How it runs: the first client of a home starts one supervisor, which owns both servers as its children.
Clients hold a shared lock, so one that is killed with -9 is gone by itself; without clients the
supervisor stops the servers and leaves. Nobody has to clean up, and nothing survives its users.

What belongs in this package: finding the binaries, placing the data, starting, watching, stopping.
What does not: connections, schemas and anything that knows what the databases are for. Nothing here
imports more than the standard library, because the supervisor must start in a tenth of a second.
"""

from __future__ import annotations

from jivs_pipeline.infra.embedded.client import (
    Embedded,
    EmbeddedUrls,
    open_embedded,
    remove_embedded,
    was_started,
)

__all__ = ["Embedded", "EmbeddedUrls", "open_embedded", "remove_embedded", "was_started"]
