"""Row 6: sessions that an administrator ends and servers that restart. The run goes on by itself.

What belongs here: the server's end of the connection. What does not: the wire between (`test_wire.py`).
"""

from __future__ import annotations

import signal
import time
from urllib.parse import urlsplit

import psycopg
import pytest

from jivs_pipeline_tests.acceptance.rows import ledger
from jivs_pipeline_tests.faults.here import Going, Here, MakeHere
from jivs_pipeline_tests.faults.servers import OwnServer
from jivs_pipeline_tests.fix_faults import Round, rounds

pytestmark = pytest.mark.faults

RESUMED_SECONDS = 30
"""RELIABILITY.md, row 6: that long after the fault all is well again."""

_TERMINATE = """
SELECT pid, application_name, pg_terminate_backend(pid)
  FROM (SELECT * FROM pg_stat_activity
         WHERE datname = ANY (%s) AND backend_type = 'client backend' AND application_name LIKE 'jivs%%'
         ORDER BY pid LIMIT %s OFFSET %s) AS found
"""


def _databases(here: Here) -> list[str]:
    urls = [here.target, *([here.source] if isinstance(here.source, str) else [])]
    return [urlsplit(url).path[1:] for url in urls]


def _sessions(admin: psycopg.Connection, here: Here) -> int:
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = ANY (%s) AND application_name LIKE 'jivs%%'"
    )
    row = admin.execute(count, (_databases(here),)).fetchone()
    return row[0] if row else 0


def _terminate(admin: psycopg.Connection, here: Here, run: Going, one: Round) -> int:
    """End one session of the migration, or all; returns how many there were."""
    found = 0
    while run.sleep(0.005) and not found:
        found = _sessions(admin, here)
    everything = one.rng.random() < 0.3
    skip = 0 if everything else one.rng.randrange(max(1, found))
    ended = admin.execute(_TERMINATE, (_databases(here), 100 if everything else 1, skip)).fetchall()
    names = ", ".join(sorted({name for _, name, _ in ended}))
    one.note(f"{len(ended)} of {found} sessions ended at {time.monotonic() - run.began:.3f} s ({names})")
    return len(ended)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_sessions_are_terminated(make_here: MakeHere, jivs_home: tuple[object, str], dialect: str) -> None:
    with psycopg.connect(jivs_home[1], autocommit=True) as admin:
        for one in rounds(6, quick=1, part=f"terminate {dialect}", full=50):
            with one:
                here = make_here(dialect)
                run = here.start()
                one.faults = 0
                wanted = one.rng.randint(1, 2)
                at = time.monotonic()
                while one.faults < wanted and run.sleep(one.rng.uniform(0, 0.5)):
                    one.faults += _terminate(admin, here, run, one) > 0
                    at = time.monotonic()
                run.succeeded(at + RESUMED_SECONDS - time.monotonic())
                here.check()


def test_the_session_that_holds_the_snapshot_is_terminated(
    make_here: MakeHere, jivs_home: tuple[object, str]
) -> None:
    """Rows of two snapshots must never meet: the extraction is begun anew."""
    here = make_here("postgresql")
    run = here.start(JIVS_FAILPOINT="before_staging_sync@2:sleep=1")
    staged: set[str] = set()
    with psycopg.connect(jivs_home[1], autocommit=True) as admin:
        while run.sleep(0.01) and not any(path.suffix == ".copy" for path in here.staged):
            pass
        staged = {path.parent.name for path in here.staged}
        found = admin.execute(_TERMINATE, (_databases(here)[1:], 100, 0)).fetchall()
    assert len(staged) == 1
    assert len(found) > 1
    run.succeeded(RESUMED_SECONDS)
    here.check()
    assert run.document is not None
    generations = {c[3] for chunks in ledger(here.target, here.key).values() for c in chunks}
    assert len(generations) == 1
    assert generations.isdisjoint(staged)


@pytest.mark.timeout(3600)
def test_a_server_restarts(make_here: MakeHere, own_server: OwnServer) -> None:
    """Both ends are on the server, so that either is what the run waits for."""
    for one in rounds(6, quick=1, part="restart", full=20):
        with one:
            how = one.rng.choice([signal.SIGINT, signal.SIGQUIT])
            source = own_server.database() if one.rng.random() < 0.5 else None
            here = make_here(
                "postgresql" if source else "sqlite", source=source, target=own_server.database()
            )
            run = here.start()
            # Before the first greeting a server that is not there is a wrong URL.
            with psycopg.connect(own_server.url, autocommit=True) as admin:
                while run.sleep(0.005) and not _sessions(admin, here):
                    pass
            run.sleep(one.rng.uniform(0, 1.0))
            one.note(
                f"{'postgresql' if source else 'sqlite'}, {how.name} at {time.monotonic() - run.began:.3f} s"
            )
            own_server.stop(how)
            time.sleep(one.rng.uniform(0, 1))
            own_server.start()
            run.succeeded(RESUMED_SECONDS)
            here.check()
