"""`make bench`: installs the peers, makes the sources, measures everybody in turns and writes RESULTS.md with its plot.

`python -m benchmarks.compare --scale 0.1 --rounds 3 --only rows,whole`. What belongs here: the sequence.
"""

from __future__ import annotations

import argparse
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.compare import data, one_table, peers, postgresql, results, rules
from benchmarks.compare.many import many_at_once
from benchmarks.compare.running import Runner
from benchmarks.compare.scenario import Outcome, Scenario
from benchmarks.compare.servers import Postgres, mariadb, postgres

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / ".bench"
VENV = BENCH / "venv"
ALL = ("rows", "whole", "rules", "mariadb", "sqlite", "parquet", "many")


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="TPC-H scale factor")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(ALL), help=f"some of {','.join(ALL)}")
    parser.add_argument("--many", type=int, default=50, help="how many migrations are queued at once")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="where the results go")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(ALL):
        parser.error(f"unknown scenarios: {', '.join(sorted(unknown))}")
    given.out.mkdir(parents=True, exist_ok=True)
    BENCH.mkdir(exist_ok=True)
    peers.install(BENCH)
    versions = peers.versions(BENCH)
    measured: list[tuple[Scenario, dict[str, list[Outcome]]]] = []
    notes: list[str] = []

    def write() -> None:
        """After each scenario: whoever interrupts the benchmark keeps what was measured."""
        text = results.page(given.scale, given.rounds, versions, measured, notes)
        (given.out / "RESULTS.md").write_text(text)
        results.plotted(measured, BENCH / "plot.json")

    with postgres(BENCH / "home") as server, ExitStack() as opened:
        # Two at once would drop each other's targets, and measure each other.
        lock = opened.enter_context((BENCH / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("Another benchmark runs in this checkout")
        runner = Runner(server, BENCH, int(time.time()))
        for scenario in _scenarios(server, given.scale, wanted, opened, notes):
            outcomes = runner.measure(scenario, given.rounds)
            measured.append((scenario, outcomes))
            write()
        if "many" in wanted:
            notes.append(many_at_once(server, given.many, runner.environment))
            write()
    drawn = [VENV / "bin" / "python", Path(__file__).with_name("plot.py")]
    subprocess.run([*drawn, BENCH / "plot.json", given.out / "results.svg"], check=False)
    print((given.out / "RESULTS.md").read_text())


def _scenarios(
    server: Postgres, scale: float, wanted: list[str], opened: ExitStack, notes: list[str]
) -> Iterator[Scenario]:
    """Each is made when it is its turn, so that its source is fresh in memory."""
    data.postgresql_sources(server, scale)
    csv = data.csv_files(BENCH, scale)[data.ONE]
    for name in wanted:
        if name == "rows":
            yield postgresql.rows_alone(server)
        elif name == "whole":
            yield postgresql.whole_database(server)
        elif name == "rules":
            yield rules.with_rules(server)
        elif name == "mariadb":
            try:
                rival = opened.enter_context(mariadb(BENCH / "mariadb"))
                data.mariadb_source(rival, BENCH, scale)
            except (LookupError, OSError, subprocess.CalledProcessError) as error:
                notes.append(f"MariaDB was left out: {error}")
                continue
            yield one_table.from_mariadb(server, rival, VENV)
        elif name == "sqlite":
            yield one_table.from_sqlite(server, data.sqlite_source(BENCH, scale), VENV)
        elif name == "parquet":
            yield one_table.from_parquet(server, data.parquet_source(BENCH, scale), csv, VENV)


if __name__ == "__main__":
    sys.exit(main())
