"""Row 7: the connection ends exactly around a COMMIT, and nobody tells the client whether it was carried out.

What belongs here: chunk and step transactions of the target, and those of the control database. What does not:
networks that are silent (`test_networks.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count

import psycopg
import pytest

from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine import pool
from jivs_pipeline_tests.faults.here import ROWS, MakeHere
from jivs_pipeline_tests.faults.wire import Cut, Frames, MakeWire
from jivs_pipeline_tests.fix_faults import FULL, Round, rounds

pytestmark = pytest.mark.faults

_SHARE = 0.3
"""Of the commits are cut."""


@pytest.fixture(autouse=True)
def _more_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits are cut more often than three attempts would stand; what an attempt does is the same."""
    monkeypatch.setattr(pool, "ATTEMPTS", 12)
    monkeypatch.setattr(pool, "FIRST_DELAY_SECONDS", 0.001)


def _dice(one: Round) -> Callable[[int], Cut | None]:
    left = iter(range(one.rng.randint(3, 6)) if not FULL else count())

    def cut(_: int) -> Cut | None:
        return (
            one.rng.choice(list(Cut)) if one.rng.random() < _SHARE and next(left, None) is not None else None
        )

    return cut


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_commits_of_the_target(make_here: MakeHere, make_wire: MakeWire, dialect: str) -> None:
    for one in rounds(7, quick=1, part=f"target {dialect}", full=75):
        with one:
            here = make_here(dialect)
            wire = make_wire(here.target, _dice(one))
            here.urls = {"target": wire.url}
            run = here.start()
            run.wait(120)
            one.faults = len(wire.cuts)
            one.note(f"{wire.commits} commits; {'; '.join(wire.cuts)}")
            run.succeeded(0)
            here.check()
            wire.close()


_HAPPENED = Counter(
    {
        "migration.started": 1,
        "migration.phase": len(Phase),
        "migration.table_loaded": len(ROWS),
        "migration.completed": 1,
    }
)
"""Events of a migration that nothing happens to; retries of jobs would add to them."""


@pytest.mark.timeout(3600)
def test_commits_of_the_control_database(make_here: MakeHere, make_wire: MakeWire) -> None:
    """Nothing is recorded twice, and nothing is missing; a job that has loaded rows is not done again for it."""
    for one in rounds(7, quick=1, part="control", full=50):
        with one:
            here = make_here(one.rng.choice(["sqlite", "postgresql"]))
            control = here.environment["JIVS_CONTROL_URL"]
            wire = make_wire(control, _dice(one))
            here.environment["JIVS_CONTROL_URL"] = wire.url
            run = here.start()
            run.wait(120)
            one.faults = len(wire.cuts)
            one.note(f"{wire.commits} commits; {'; '.join(wire.cuts)}")
            run.succeeded(0)
            here.check()
            with psycopg.connect(control) as db:
                events = db.execute(
                    "SELECT seq, type FROM jivs.migration_events WHERE key = %s ORDER BY 1", (here.key,)
                ).fetchall()
                retries = db.execute(
                    "SELECT count(*) FROM jivs.migration_retries WHERE key = %s", (here.key,)
                ).fetchone()
                row = db.execute(
                    "SELECT status, epoch FROM jivs.migrations WHERE key = %s", (here.key,)
                ).fetchone()
            assert [seq for seq, _ in events] == list(range(1, len(events) + 1))
            assert Counter(kind for _, kind in events) == _HAPPENED
            assert retries == (0,)
            assert row == ("completed", 1)
            wire.close()


def test_a_commit_in_the_rows_is_none() -> None:
    """Only the message is cut, wherever the stream is split; everything passes unchanged."""
    query = b"Q\0\0\0\x0bCOMMIT\0"
    rows = b"d" + (len(query) * 3 + 4).to_bytes(4) + query * 3
    stream = (
        b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x0c\0\3\0\0user" + rows + query + b"Q\0\0\0\x0cCOMMIT;\0" + query
    )
    for size in (1, 7, len(stream)):
        frames = Frames()
        parts = [p for at in range(0, len(stream), size) for p in frames.feed(stream[at : at + size])]
        assert b"".join(parts) == stream
        commits = [n for n, part in enumerate(parts) if part == query]
        assert len(commits) == 2, f"in pieces of {size}"
