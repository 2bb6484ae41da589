"""PostgreSQL to PostgreSQL with five rules: a column renamed, one cast, one in capitals, one masked, and rows left out.

What belongs here: this scenario. A version that refuses the rules says so in the results.
"""

from __future__ import annotations

from benchmarks.compare import check
from benchmarks.compare.data import BARE
from benchmarks.compare.ours import jivs
from benchmarks.compare.postgresql import make_tables, pipe
from benchmarks.compare.scenario import Candidate, Goal, Place, Scenario
from benchmarks.compare.servers import Postgres

__all__ = ["TABLE", "with_rules"]

TABLE = "lineitem"
_WHERE = "l_returnflag <> 'R'"
_COLUMNS = {
    "l_comment": {"rename": "note"},
    "l_linenumber": {"type": "bigint"},
    "l_shipmode": {"expression": "upper(l_shipmode)"},
    "l_shipinstruct": {"mask": "sha256"},
}


def with_rules(server: Postgres) -> Scenario:
    """The raw pipe brings the same rows as they are; only its count is compared."""
    source = server.at(BARE)

    def command(place: Place) -> list[str]:
        rows = f"(SELECT * FROM public.{TABLE} WHERE {_WHERE})"
        return ["bash", "-eo", "pipefail", "-c", pipe(source, place.target, rows, f"public.{TABLE}")]

    def prepare(place: Place) -> None:
        make_tables(source, place.target)

    rules = {TABLE: {"where": _WHERE, "columns": _COLUMNS}}
    return Scenario(
        name="rules",
        title="PostgreSQL → PostgreSQL, lineitem with five rules",
        candidates=(
            Candidate("1 raw pipe", command, prepare),
            jivs("jivs", source, tables={"include": [TABLE]}, rules=rules),
        ),
        expected={TABLE: check.expect(source, f"public.{TABLE}", {"l_orderkey": "{}::text"}, _WHERE)},
        base="1 raw pipe",
        goals=(Goal("whole command / 1 raw pipe", "jivs", ("1 raw pipe",), 1.6),),
        servers=(server.pid,),
    )
