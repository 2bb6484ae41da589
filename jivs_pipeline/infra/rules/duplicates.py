"""Which rows of a table are dropped because others are alike.

What belongs here: the one question that needs all rows of a table together. What does not: what a row is made of
otherwise (`refiner.py`).

DuckDB holds the keys and, where they are many, puts them on the disk of the staging area.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.plan import Rules, TablePlan
from jivs_pipeline.infra.rules.duck import calculator, kind_of, quoted
from jivs_pipeline.infra.rules.statement import reading
from jivs_pipeline.infra.rules.texts import from_source

__all__ = ["duplicates"]


def duplicates(
    table: TablePlan, batches: Iterable[tuple[int, pa.RecordBatch]], room: Path
) -> Mapping[int, Collection[int]]:
    """Numbers of the rows that are dropped, by chunk.

    Args:
        batches: all of the table as it was read, each with its chunk's index, those of a chunk in their order.
        room: a directory that DuckDB may write to.

    Raises:
        DataError: a value of the order cannot be computed.
    """
    import duckdb

    rules = table.rules
    if rules is None or rules.dedupe is None:
        return {}
    with calculator(room) as connection:
        try:
            return _found(connection, rules, batches)
        except duckdb.Error as error:
            raise DataError(
                f"The duplicates of {table.source} cannot be told: {kind_of(error)}",
                hint=f"See rules.{table.source_table}.dedupe",
                table=table.source,
            ) from None


def _found(
    connection: Any, rules: Rules, batches: Iterable[tuple[int, pa.RecordBatch]]
) -> dict[int, list[int]]:
    dedupe = rules.dedupe
    if dedupe is None:
        return {}
    place = {c.source: n for n, c in enumerate(rules.read)}
    seen = {name: (reading(type_, f"r{place[name]}"), place[name]) for name, type_ in rules.seen}
    columns = "".join(f", {sql} AS {quoted(name)}" for name, (sql, _) in seen.items())
    order = f"({dedupe.order})" if dedupe.order else "0"
    keys = ", ".join(f"r{place[name]} AS k{n}" for n, name in enumerate(dedupe.key))
    # A NULL is like no other value, not even like another NULL: such rows stay.
    known = " AND ".join(f"r{place[name]} IS NOT NULL" for name in dedupe.key)
    select = f"SELECT chunk, number, {keys}, {order} AS o FROM (SELECT *{columns} FROM raw) WHERE {known}"
    after: dict[int, int] = {}
    made = False
    for chunk, batch in batches:
        start = after.get(chunk, 0)
        after[chunk] = start + batch.num_rows
        numbers = sorted({n for _, n in seen.values()} | {place[name] for name in dedupe.key})
        texts = [from_source(batch.column(n), rules.read[n]).input for n in numbers]
        arrays = [
            pa.array([chunk] * batch.num_rows, pa.int32()),
            pa.array(range(start, start + batch.num_rows), pa.int64()),
            *texts,
        ]
        connection.register("raw", pa.table(arrays, names=["chunk", "number", *(f"r{n}" for n in numbers)]))
        connection.execute(f"INSERT INTO d {select}" if made else f"CREATE TABLE d AS {select}").fetchall()
        made = True
    if not made:
        return {}
    by = ", ".join(f"k{n}" for n in range(len(dedupe.key)))
    direction = "DESC" if dedupe.descending else "ASC"
    cursor = connection.execute(
        "SELECT chunk, number FROM (SELECT chunk, number, row_number() OVER"
        f" (PARTITION BY {by} ORDER BY o {direction} NULLS LAST, chunk, number) AS n FROM d) WHERE n > 1"
    )
    found: dict[int, list[int]] = {}
    while rows := cursor.fetchmany(10_000):
        for chunk, number in rows:
            found.setdefault(chunk, []).append(number)
    return found
