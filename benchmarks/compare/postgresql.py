"""PostgreSQL to PostgreSQL: rows alone, and the whole database with keys and indexes.

What belongs here: these two scenarios and the raw pipes. What does not: rules (`rules.py`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import psycopg

from benchmarks.compare import check, peers
from benchmarks.compare.data import BARE, WHOLE
from benchmarks.compare.ours import jivs
from benchmarks.compare.scenario import Candidate, Goal, Place, Scenario
from benchmarks.compare.servers import PROGRAMS, Postgres
from jivs_pipeline_tests.databases import TPCH_TABLES

__all__ = ["make_tables", "pipe", "rows_alone", "whole_database"]

_LARGE = 16 << 20
"""Tables of more bytes are split in two halves where there are two pipes."""


def rows_alone(server: Postgres) -> Scenario:
    """All eight tables without keys and indexes."""
    source = server.at(BARE)
    staged, streamed = "jivs", "jivs, staging: none"
    phases = ("extract", "load")
    return Scenario(
        name="rows",
        title="PostgreSQL → PostgreSQL, rows alone",
        candidates=(
            pipes(source, 1),
            pipes(source, 2),
            jivs(staged, source),
            jivs(streamed, source, staging="none"),
            jivs("jivs, verify: count", source, verify="count"),
            jivs("jivs, staging: none, verify: count", source, staging="none", verify="count"),
            Candidate("pgcopydb clone", lambda place: peers.pgcopydb(source, place)),
            Candidate("pg_dump -Fd, pg_restore", lambda place: peers.pg_dump(source, place)),
        ),
        expected={t: check.expect(source, f"public.{t}") for t in TPCH_TABLES},
        base="2 raw pipes",
        goals=(
            Goal("staged, extract + load / 2 raw pipes", staged, ("2 raw pipes",), 1.25, phases),
            Goal("staging: none, load / 2 raw pipes", streamed, ("2 raw pipes",), 1.10, phases),
            Goal(
                "the same without digests (verify: count)",
                "jivs, verify: count",
                ("2 raw pipes",),
                1.25,
                phases,
            ),
            Goal(
                "the same, staging: none, without digests",
                "jivs, staging: none, verify: count",
                ("2 raw pipes",),
                1.10,
                phases,
            ),
        ),
        servers=(server.pid,),
    )


def whole_database(server: Postgres) -> Scenario:
    """With nine keys, eight foreign keys and four indexes."""
    source = server.at(WHOLE)
    return Scenario(
        name="whole",
        title="PostgreSQL → PostgreSQL, with keys and indexes",
        candidates=(
            jivs("jivs", source),
            jivs("jivs, staging: none", source, staging="none"),
            jivs("jivs, verify: count", source, verify="count"),
            Candidate("pgcopydb clone", lambda place: peers.pgcopydb(source, place)),
            Candidate("pg_dump -Fd, pg_restore", lambda place: peers.pg_dump(source, place)),
        ),
        expected={t: check.expect(source, f"public.{t}") for t in TPCH_TABLES},
        base="pgcopydb clone",
        indexes=check.structure_of(source),
        goals=(
            Goal("whole command / pgcopydb clone", "jivs", ("pgcopydb clone",), 0.95),
            Goal(
                "whole command, staging: none / pgcopydb clone",
                "jivs, staging: none",
                ("pgcopydb clone",),
                0.95,
            ),
        ),
        servers=(server.pid,),
    )


def pipes(source: str, count: int) -> Candidate:
    """psql to psql, in binary; two pipes take half of each large table, by its pages."""

    def command(place: Place) -> Sequence[str]:
        scripts = ["; ".join(lines) for lines in _split(source, place.target, count)]
        if count == 1:
            return ["bash", "-eo", "pipefail", "-c", scripts[0]]
        both = " & ".join(f"( {script} )" for script in scripts)
        return ["bash", "-eo", "pipefail", "-c", f"{both} & wait -n; wait"]

    def prepare(place: Place) -> None:
        make_tables(source, place.target)

    return Candidate(f"{count} raw pipe{'s' if count > 1 else ''}", command, prepare)


def make_tables(source: str, target: str) -> None:
    """The source's tables, empty."""
    dump = subprocess.run(
        [PROGRAMS / "pg_dump", "--section=pre-data", "--no-owner", source], check=True, capture_output=True
    )
    subprocess.run(
        [PROGRAMS / "psql", "-q", "-X", target], input=dump.stdout, check=True, capture_output=True
    )


def pipe(source: str, target: str, what: str, table: str) -> str:
    """A shell command that copies `what`, a table or a query in brackets, into a table."""
    out, into = f"COPY {what} TO STDOUT (FORMAT binary)", f"COPY {table} FROM STDIN (FORMAT binary)"
    return f"psql -qX -c \"{out}\" '{source}' | psql -qX -c \"{into}\" '{target}'"


def _split(source: str, target: str, count: int) -> list[list[str]]:
    """Commands for each of `count` pipes: large tables in as many parts, small ones dealt out."""
    work: list[list[str]] = [[] for _ in range(count)]
    with psycopg.connect(source) as db:
        for table in TPCH_TABLES:
            row = db.execute(
                "SELECT relpages, pg_relation_size(oid) FROM pg_class WHERE relname = %s", (table,)
            )
            pages, size = row.fetchone() or (0, 0)
            if count == 1 or size < _LARGE:
                min(work, key=len).append(pipe(source, target, f"public.{table}", f"public.{table}"))
                continue
            for part, lines in enumerate(work):
                bounds = f"ctid >= '({pages * part // count},0)'"
                if part < count - 1:
                    bounds += f" AND ctid < '({pages * (part + 1) // count},0)'"
                rows = f"(SELECT * FROM public.{table} WHERE {bounds})"
                lines.append(pipe(source, target, rows, f"public.{table}"))
    return work
