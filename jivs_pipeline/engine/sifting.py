"""Bad rows on their way into the quarantine: what the plan says of them, and taking them out of a chunk.

What belongs here: the budget. What does not: telling bad rows from good ones (`infra/sources/`), keeping them
(`infra/quarantine.py`) and trying them again (`engine/replay.py`).

They are taken out while a chunk is read, before anything of it is staged: the digest of what should arrive is then
the source's own digest of the other rows, and neither the staging area nor the target ever sees them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.plan import Chunk, Sifted, TablePlan
from jivs_pipeline.core.ports import Refusal, Sieve, Snapshot, Survey
from jivs_pipeline.core.quarantine import BadRow, RejectedBy

if TYPE_CHECKING:
    from jivs_pipeline.engine.run import Run

__all__ = ["Sifting", "check_budget", "portions", "tolerated"]

_PORTION_ROWS, _PORTION_BYTES = 1_000, 8 << 20


def tolerated(survey: Survey, budget: int) -> Survey:
    """The survey with the table's bad rows left out, where they fit into the budget; it says how many they are."""
    if budget == 0:
        return survey
    survey = _without_orphans(survey, budget)
    out = survey.tolerated
    if not survey.refused:
        return survey
    if out is None:
        first, *others = survey.refused
        reason = (
            f"{first.reason}; quarantine.max_rows does not help, because single rows cannot be taken out here"
        )
        return replace(survey, refused=(Refusal(first.column, reason), *others))
    rows = counted(out.rows, "row is", "rows are")
    if out.rows > budget:
        first = out.reasons[0] if out.reasons else survey.refused[0]
        reason = f"{rows} bad and quarantine.max_rows is {budget:,}; the first of the reasons: {first.reason}"
        return replace(survey, refused=(Refusal(first.column, reason), *survey.refused))
    lossy = tuple(
        Refusal(r.column, f"{r.reason}; {rows} to be quarantined in this table") for r in out.reasons
    )
    return replace(
        survey, columns=out.columns, wire=out.wire, refused=(), lossy=(*survey.lossy, *lossy),
        rows=survey.rows if out.total is None else out.total,
        bytes=survey.bytes if out.bytes is None else out.bytes,
        chunks=survey.chunks if out.chunks is None else out.chunks,
    )  # fmt: skip


def _without_orphans(survey: Survey, budget: int) -> Survey:
    """The survey whose foreign keys stay, because the rows that break them are taken out."""
    broken = survey.broken_keys or {}
    if not broken or not survey.addressed:
        return survey
    reasons = [
        (
            n,
            Refusal(
                columns[0],
                f"{counted(n, 'row is', 'rows are')} without the row that foreign key ({', '.join(columns)}) needs",
            ),
        )
        for columns, n in broken.items()
    ]
    most, first = max(reasons, key=lambda pair: pair[0])
    survey = replace(survey, broken_keys=None)
    if most > budget:
        reason = f"{first.reason}, and quarantine.max_rows is {budget:,}"
        return replace(survey, tolerated=None, refused=(Refusal(first.column, reason), *survey.refused))
    told = tuple(Refusal(r.column, f"{r.reason}; to be quarantined") for _, r in reasons)
    return replace(survey, lossy=(*survey.lossy, *told))


class Sifting:
    """Takes the bad rows out of one table's chunks, up to the budget of all of them together."""

    def __init__(self, run: Run, table: TablePlan, snapshot: Snapshot) -> None:
        self._run = run
        self._table = table
        self._sieve = snapshot if run.spec.quarantine.max_rows and isinstance(snapshot, Sieve) else None
        self._taken: dict[tuple[int, RejectedBy], int] = {}
        self._first: BadRow | None = None
        self._lock = threading.Lock()

    def sift(self, chunk: Chunk) -> tuple[Chunk, int]:
        """Put the chunk's bad rows into quarantine.

        Returns:
            The chunk without them, and how many they are.

        Raises:
            DataError: they are more than the table's budget allows. What is in quarantine by then stays, to be looked at.
        """
        if self._sieve is None:
            return chunk, 0
        positions = [
            row.position
            for portion in self._keep(chunk, self._sieve.bad_rows(self._table, chunk), "source")
            for row in portion
        ]
        if not positions:
            return chunk, 0
        return Sifted(**chunk.model_dump(), without=tuple(positions)), len(positions)

    def reject(self, chunk: Chunk, rows: Iterator[BadRow]) -> int:
        """Put rows into quarantine that rules reject where nothing is staged as it was read, and say how many.

        Raises:
            DataError: as `sift`; the budget is one.
        """
        return sum(len(portion) for portion in self._keep(chunk, rows, "rules"))

    def _keep(self, chunk: Chunk, rows: Iterator[BadRow], by: RejectedBy) -> Iterator[list[BadRow]]:
        run, table = self._run, self._table
        place = chunk.index, by
        with self._lock:
            self._taken[place] = 0
        # Even where there are none: an earlier attempt may have seen others.
        run.checkpoints.quarantined(table.target, run.generation, chunk.index, (), first=True, by=by)
        with closing(cast("Any", rows)) as found:
            for portion in portions(found):
                run.guard.check()
                self._count(place, portion)
                run.checkpoints.quarantined(
                    table.target, run.generation, chunk.index, portion, first=False, by=by
                )
                yield portion

    def _count(self, place: tuple[int, RejectedBy], portion: list[BadRow]) -> None:
        with self._lock:
            self._taken[place] += len(portion)
            first = self._first = self._first or portion[0]
            taken = sum(self._taken.values())
        check_budget(self._run, self._table, taken, first)


def check_budget(run: Run, table: TablePlan, taken: int, first: BadRow) -> None:
    """Whether a table may have so many bad rows.

    Args:
        first: of them, for the sentence.

    Raises:
        DataError: it may not.
    """
    budget = run.spec.quarantine.max_rows
    if taken <= budget:
        return
    where = f"column {first.column}" if first.column else "a row"
    raise DataError(
        f"{table.source} has more bad rows than quarantine.max_rows allows:"
        f" {taken:,} were found and {budget:,} are allowed, the first in {where}: {first.reason}",
        hint=f"See jivs quarantine list {run.key}; correct the source, or raise quarantine.max_rows",
        table=table.source,
        column=first.column,
    )


def portions(rows: Iterator[BadRow]) -> Iterator[list[BadRow]]:
    """Rows in lists that take little memory."""
    portion: list[BadRow] = []
    size = 0
    for row in rows:
        portion.append(row)
        size += row.bytes
        if len(portion) >= _PORTION_ROWS or size >= _PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
