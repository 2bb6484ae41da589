"""`jivs verify`: source and target as they are now, compared again by each side's own digest.

What belongs here: reading both sides of a stored plan. What does not: claiming or changing anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import ConfigError, Crowded, JivsError
from jivs_pipeline.core.plan import RULED, Chunk, Plan, Sifted, TableMode, TablePlan
from jivs_pipeline.core.ports import Sieve, Snapshot
from jivs_pipeline.core.spec import parse_spec
from jivs_pipeline.core.states import Phase
from jivs_pipeline.engine.narrow import differing_rows
from jivs_pipeline.engine.pool import Guard, run_all, with_retries
from jivs_pipeline.engine.ports import RefinedSnapshot, Target
from jivs_pipeline.engine.run import take_permits
from jivs_pipeline.engine.services import Services
from jivs_pipeline.engine.verify import compare

__all__ = ["reverify"]

_ROOM = "again"
"""Where in the staging area comparing puts what does not fit into memory."""
_MOST = 10
"""Differences that a table is said to have; the contract's number."""


def reverify(
    services: Services,
    row: Mapping[str, Any],
    level: str | None,
    *,
    only: str | None = None,
    narrow: bool = False,
) -> dict[str, Any]:
    """The contract's document of `jivs verify`.

    Args:
        row: the migration's row in the control database.
        level: count, digest or rows; None takes the spec's.
        only: one target table, `schema.table`, instead of all.
        narrow: look for the rows that differ; their keys are in the document then, so it must not be kept.

    Raises:
        ConfigError: the migration has no plan, or an end does not let us in.
    """
    if row["plan"] is None:
        raise ConfigError(
            f"Migration {row['key']!r} has loaded nothing to compare yet", hint=f"Run {row['key']} first"
        )
    spec, plan = parse_spec(row["spec"]), Plan.model_validate(row["plan"])
    level = level or spec.verify
    # Rows that were appended cannot be told from those that were there before.
    wanted = [t for t in plan.carried if t.mode is not TableMode.APPEND and only in {None, t.target}]
    found: dict[str, dict[str, Any]] = {}
    readers = min(spec.parallelism, spec.limits.source_connections)
    guard = Guard(services.patience_seconds)
    known = services.control.quarantine.positions(row["key"])
    ruled = services.control.quarantine.ruled(row["key"])
    room = services.staging.path(row["key"], _ROOM, ".")
    with services.opened(spec) as (source, target), ExitStack() as opened:
        if any(t.rules and t.rules.dedupe for t in wanted):
            services.staging.prepare(row["key"], _ROOM)
            # Of no epoch, so what runs have staged stays.
            opened.callback(services.staging.discard, row["key"], 0)
        with_retries(
            partial(take_permits, source, target, spec.parallelism), guard, _tell_nobody, only=Crowded
        )
        snapshot = with_retries(
            lambda: opened.enter_context(source.snapshot(readers)), guard, _tell_nobody, only=Crowded
        )
        if spec.quarantine.max_rows and isinstance(snapshot, Sieve):
            snapshot.relate([t.as_read for t in plan.carried])

        budget = spec.quarantine.max_rows
        ledger = with_retries(partial(target.ledger, row["key"]), guard, _tell_nobody)
        generations = {
            p.table: p.generation
            for p in services.control.checkpoints(row["key"])
            if p.phase is Phase.EXTRACT and p.ok
        }
        refined = services.rules.refined(snapshot, plan.tables, room, sifts=budget > 0, kept=ruled)

        def one(table: TablePlan) -> None:
            sifted = _sift(table, snapshot, known.get(table.target, ()), budget)
            # By their keys those in quarantine are left out; without, as many must be bad now as then.
            unknown = 0 if refined.keyed(table) else len(ruled.get(table.target, ()))
            refused = ledger.refused(table.target, generations.get(table.target, ""))
            sifted = replace(sifted, ruled=unknown, refused=refused)
            found[table.target] = _compare(
                sifted,
                refined,
                target,
                level,
                partial(_refused_keys, services, row["key"]) if narrow else None,
            )

        run_all([partial(one, t) for t in wanted], spec.parallelism, guard)
    tables = [found[t.target] for t in wanted]
    return {
        "key": row["key"],
        "level": level,
        "equal": all(t["equal"] for t in tables),
        "tables": tables,
        "not_compared": [t.target for t in plan.carried if t not in wanted and only in {None, t.target}],
    }


def _tell_nobody(_attempt: int, _error: JivsError, _delay: float) -> None:
    """Retries are events of runs; this is none."""


Kept = Sequence[tuple[int, str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class _Sifted:
    """A table whose chunks are without bad rows, how many rows of the source are in quarantine, and how many bad ones
    are not; `ruled` are those in quarantine that are bad to the rules and have no key to know them by. `refused` has the
    digests of those that the target did not take, by chunk.
    """

    table: TablePlan
    chunks: Sequence[Chunk]
    rejected: int = 0
    strangers: int = 0
    ruled: int = 0
    refused: Mapping[int, Digest] = field(default_factory=dict[int, Digest])

    def without(self, there: Sequence[Digest]) -> list[Digest]:
        """Digests of the source's chunks without what the target refused; with the first, where chunks are others by now."""
        apart = [self.refused.get(n, Digest()) for n in range(len(there))]
        rest = sum((d for n, d in self.refused.items() if n >= len(there)), Digest())
        return [
            d - out - (Digest() if n else rest) for n, (d, out) in enumerate(zip(there, apart, strict=True))
        ]


def _sift(table: TablePlan, snapshot: Snapshot, kept: Kept, budget: int) -> _Sifted:
    """What is compared: the source without the rows in quarantine. Other bad rows are a difference, and said."""
    if not budget or not isinstance(snapshot, Sieve):
        return _Sifted(table, table.chunks)
    read = snapshot.as_now(table.as_read)
    now = table.model_copy(update={"chunks": read.chunks})
    same = now.chunks == table.chunks
    chunks: list[Chunk] = []
    keys = Counter(_text(key) for _, _, key in kept)
    rejected = strangers = 0
    for chunk in now.chunks:
        bad = {row.position: _text(row.key) for row in snapshot.bad_rows(read, chunk)}
        # What was corrected is in quarantine until it is replayed, and not in the target. In files that are others by now
        # it cannot be told by its position; it is a difference then.
        mine = {position for number, position, _ in kept if number == chunk.index} if same else set[str]()
        for position, key in bad.items():
            known = position in mine if same else keys[key] > 0
            keys[key] -= 1
            strangers += not known
            rejected += known and not same
        if mine:
            rejected += snapshot.count(read, Sifted(**chunk.model_dump(), only=tuple(sorted(mine))))
        chunks.append(Sifted(**chunk.model_dump(), without=tuple(sorted(mine.union(bad)))))
    return _Sifted(now, chunks, rejected, strangers)


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def _compare(
    sifted: _Sifted,
    snapshot: RefinedSnapshot,
    target: Target,
    level: str,
    narrow: Callable[[TablePlan], list[Mapping[str, Any]]] | None,
) -> dict[str, Any]:
    """What both ends say of one table; with `narrow`, which knows the rows that the target has refused, down to rows."""
    table = sifted.table
    counts_only = level == "count"
    if counts_only:
        counted = [Digest(snapshot.count(table, c)) for c in sifted.chunks]
        expected = [Digest(d.rows) for d in sifted.without(counted)]
        found = (Digest(target.count(table)),)
    else:
        expected = sifted.without([snapshot.digest(table, c) for c in sifted.chunks])
        found = target.digests_now(table)
    bad = snapshot.bad(table)
    left_out = snapshot.left_out(table)
    refused = sum(d.rows for d in sifted.refused.values())
    rejected = sifted.rejected + sifted.strangers + bad + left_out + refused
    result = compare(expected, found, counts_only=counts_only, rejected=rejected)
    result["equal"] = result["equal"] and not sifted.strangers and bad <= sifted.ruled
    different = result["different_chunks"]
    rows: list[dict[str, Any]] = []
    if narrow is not None and not result["equal"] and not counts_only:
        both = zip(expected, found, strict=False) if different else ()
        most = max((max(a.rows, b.rows) for n, (a, b) in enumerate(both) if n in different), default=0)
        most = most * len(different) or max(result["source_rows"], result["target_rows"])
        known = [{"key": key, "kind": "missing"} for key in (narrow(table) if refused else ())]
        rows = differing_rows(table, sifted.chunks, snapshot, target, different, most, _MOST + len(known))
        rows = [one for one in rows if one not in known][:_MOST]
    return {
        "source_table": table.source,
        "target_table": table.target,
        **result,
        "quarantined_rows": sifted.rejected + left_out + min(bad, sifted.ruled) + refused,
        "differences": rows or _differences(table, expected, found, result),
    }


def _refused_keys(services: Services, key: str, table: TablePlan) -> list[Mapping[str, Any]]:
    """Keys of the rows that the target did not take, by its names of columns."""
    names = {c.source: c.target for c in table.columns if c.carrier != RULED}
    found: list[Mapping[str, Any]] = []
    after = 0
    while rows := services.control.quarantine.page(key, table.target, after, "target"):
        after = rows[-1].id
        found += [{names.get(n, n): value for n, value in row.key.items()} for row in rows]
    return found


def _differences(
    table: TablePlan, expected: Sequence[Digest], found: Sequence[Digest], result: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Up to ten places that differ: ranges of the key where chunks can be told apart, else the table."""
    if result["equal"]:
        return []
    places = [
        {
            "chunk": n,
            "key": table.chunk_key,
            "from": lower[0] if (lower := table.chunks[n].lower) else None,
            "below": upper[0] if (upper := table.chunks[n].upper) else None,
            "source_rows": expected[n].rows,
            "target_rows": found[n].rows,
        }
        for n in result["different_chunks"]
    ]
    whole = {"chunk": None, "source_rows": result["source_rows"], "target_rows": result["target_rows"]}
    return places[:_MOST] or [whole]
