"""The rules of a table and, for rows that they reject, those that replays were given: the first that take a row make it.

What belongs here: putting the results together. What does not: applying rules (`refiner.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Any, Self

import pyarrow as pa

from jivs_pipeline.core.ports import Refined
from jivs_pipeline.infra.rules.refiner import Refiner

__all__ = ["InTurn"]


class InTurn:
    """For one thread; as a context manager it ends its refiners with the block.

    Args:
        makers: of each refiner, in order. All are called at the beginning: one that looks into another table reads it, and
            whoever refines has the only reader by then.
    """

    def __init__(self, makers: Sequence[Callable[[], Refiner]]) -> None:
        self._makers = makers
        self._refiners: list[Refiner] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._refiners = [opening.enter_context(make()) for make in self._makers]
            self._open = opening.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def refine(self, batch: pa.RecordBatch, dropped: Collection[int] = ()) -> Refined:
        """As `Refiner.refine`; `bad` are the rows that none of the rules take, with what the last say of them."""
        first, *later = self._refiners
        refined = first.refine(batch, dropped)
        for refiner in later:
            if not refined.bad:
                break
            left = batch.take(pa.array(refined.places, pa.int64()))
            refined = _joined(refined, refiner.refine(left))
        return refined


def _joined(first: Refined, second: Refined) -> Refined:
    """The rows of both, `second` being of the bad ones of `first`."""
    canon = [pa.concat_arrays([_flat(a), _flat(b)]) for a, b in zip(first.canon, second.canon, strict=True)]
    columns = zip(first.batch.columns, second.batch.columns, strict=True)
    return Refined(
        pa.RecordBatch.from_arrays([pa.concat_arrays([a, b]) for a, b in columns], schema=first.batch.schema),
        canon,
        first.digest + second.digest,
        first.source,
        second.bad,
        Counter(first.changed) + Counter(second.changed),
        [first.places[n] for n in second.places],
    )


def _flat(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
