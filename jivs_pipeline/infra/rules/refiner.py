"""Applies a table's rules to batches, and says what should be in the target then.

What belongs here: from a staged batch to the rows that go on, the bad ones, and their digests. What does not: files,
budgets and phases (`engine/transform.py`).

A row that a rule cannot be applied to is found by halving the batch that fails: DuckDB says that one is there, not
which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyarrow import compute

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import DataError
from jivs_pipeline.core.plan import ColumnPlan, Rules, TablePlan
from jivs_pipeline.core.ports import Refined
from jivs_pipeline.core.quarantine import BadRow
from jivs_pipeline.infra.rules.checks import Checker
from jivs_pipeline.infra.rules.duck import as_arrow, calculator, kind_of, quoted
from jivs_pipeline.infra.rules.python_rule import PythonRules
from jivs_pipeline.infra.rules.statement import ROW, reading, statement
from jivs_pipeline.infra.rules.texts import Texts, from_source, from_text
from jivs_pipeline.infra.sources.row_text import digest_of_texts, digests_of_texts

__all__ = ["Refiner"]

_pc: Any = compute  # pyarrow.compute makes its functions at import, where no checker sees them
Array = Any  # pyarrow has no stubs that a checker can follow


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a row is bad: its number in the batch, the column of the target, and what is wrong."""

    row: int
    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Read:
    """A batch as it was read: its columns as digests spell them."""

    canon: Sequence[Array]
    rows: int


class Refiner:
    """The rules of one table, for one thread; as a context manager it ends its DuckDB and its Python with the block.

    Args:
        pads: parameters for `mask: hmac`.
        lookups: rows of the tables that are looked into, as they were read, in the order of the plan's lookups.
    """

    def __init__(
        self,
        table: TablePlan,
        python: PythonRules,
        pads: Mapping[str, bytes],
        lookups: Sequence[Iterable[pa.RecordBatch]] = (),
    ) -> None:
        rules = table.rules
        if rules is None:
            raise ValueError(f"{table.source} has no rules")
        self._table = table
        self._rules: Rules = rules
        self._as_read = table.as_read
        self._made = {m.target: n for n, m in enumerate(rules.made)}
        self._read = {c.source: n for n, c in enumerate(rules.read)}
        self._open = ExitStack()
        self._duck: Any = self._open.enter_context(calculator())
        self._python = self._open.enter_context(python.started(rules.python)) if rules.python else None
        for number, batches in enumerate(lookups):
            self._look_into(number, batches)
        checks = [c for c in rules.checks if c.quarantine]
        self._checker = self._open.enter_context(Checker(table.columns, checks)) if checks else None
        self._pads = (
            dict(pads)
            if any(s.kind == "mask" and "$jivs_" in s.sql for m in rules.made for s in m.steps)
            else {}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _look_into(self, number: int, batches: Iterable[pa.RecordBatch]) -> None:
        """Put keys and values of another table into DuckDB; a key that two rows have would double ours."""
        lookup, name = self._rules.lookups[number], f"lookup{number}"
        self._duck.execute(f"CREATE TABLE {name} (k VARCHAR, v VARCHAR)").fetchall()
        for batch in batches:
            names = batch.schema.names
            texts = [_text(batch.column(names.index(column))) for column in (lookup.key, lookup.value)]
            self._duck.register("looked", pa.table(texts, names=["k", "v"]))
            self._duck.execute(f"INSERT INTO {name} SELECT k, v FROM looked WHERE k IS NOT NULL").fetchall()
        query = f"SELECT count(*) - count(DISTINCT k) FROM {name}"
        if doubled := self._duck.execute(query).fetchall()[0][0]:
            raise DataError(
                f"{lookup.table} has {doubled:,} rows more than values in column {lookup.key}, so they cannot be looked up",
                hint="Look up by a column that is different in every row",
                table=self._table.source,
            )

    # One batch

    def refine(self, batch: pa.RecordBatch, dropped: Collection[int] = ()) -> Refined:
        """The rules applied to a batch as it was staged.

        Args:
            dropped: numbers of rows that do not go on, whatever is in them.

        Raises:
            DataError: a python rule fails.
        """
        rules = self._rules
        texts = [from_source(a, c) for a, c in zip(batch.columns, rules.read, strict=True)]
        read = _Read([t.canon for t in texts], batch.num_rows)
        alive = (
            pa.array([n for n in range(batch.num_rows) if n not in dropped], pa.int64()) if dropped else None
        )
        changed: Counter[str] = Counter({"rows: dedupe": len(dropped)} if dropped else {})
        places = alive.to_pylist() if alive is not None else range(batch.num_rows)
        if alive is not None:
            texts = [Texts(t.input.take(alive), t.canon.take(alive)) for t in texts]
        rows = batch.num_rows - len(dropped)
        base, names = self._base([t.input for t in texts], rows)
        if rules.python:
            base, names, after = self._through_python(base, names)
            changed["rows: python"] += abs(rows - after)
            rows = after
        made, problems = self._apply(base, names, rows)
        refined = self._result(texts, made, problems, base, rows, read, changed)
        if rules.python:
            return refined
        numbers = sorted({p.row for p in problems})
        return replace(refined, places=[places[n] for n in numbers])

    def _base(self, inputs: Sequence[Array], rows: int) -> tuple[pa.Table, dict[str, str]]:
        """The texts as a table for DuckDB, and SQL of each column that steps see."""
        numbers = [self._read[name] for name, _ in self._rules.seen]
        arrays = [_numbered(rows), *(inputs[n] for n in numbers)]
        table = pa.table(arrays, names=[ROW, *(f"r{n}" for n in numbers)])
        return table, {
            name: reading(type_, f"r{n}") for (name, type_), n in zip(self._rules.seen, numbers, strict=True)
        }

    def _through_python(
        self, base: pa.Table, names: Mapping[str, str]
    ) -> tuple[pa.Table, dict[str, str], int]:
        rules = self._rules
        if self._python is None:
            raise ValueError(rules.python)
        given = ", ".join(
            f"{sql} AS {quoted(name)}" for name, sql in names.items() if name in dict(rules.returned)
        )
        self._register(base)
        try:
            typed = as_arrow(self._duck, f'SELECT {given} FROM raw ORDER BY "{ROW}"')
        except self._errors() as error:
            raise self._unseen(error) from None
        batches = typed.combine_chunks().to_batches()
        answer = (
            self._python.apply(batches[0]) if batches else pa.RecordBatch.from_pylist([], schema=typed.schema)
        )
        back = [answer.schema.get_field_index(name) for name, _ in rules.returned]
        if -1 in back:
            raise DataError(
                f"The python rule {rules.python} gives back other columns than for a batch of no rows",
                hint="Always return the same columns",
                table=self._table.source,
            )
        arrays = [_numbered(answer.num_rows), *(answer.column(n) for n in back)]
        table = pa.table(arrays, names=[ROW, *(f"p{n}" for n in range(len(back)))])
        # Cast, so that a type that is another one in this batch is an error instead of another text.
        sql = {name: f"CAST(p{n} AS {type_})" for n, (name, type_) in enumerate(rules.returned)}
        return table, sql, answer.num_rows

    def _unseen(self, error: Exception) -> DataError:
        return DataError(
            f"{self._table.source} has values that a python rule cannot be given: {kind_of(error)}",
            hint="Give the columns an expression or a type instead",
            table=self._table.source,
        )

    def _errors(self) -> type[Exception]:
        import duckdb

        return duckdb.Error

    def _register(self, table: pa.Table) -> None:
        self._duck.register("raw", table)

    def _apply(
        self, base: pa.Table, names: Mapping[str, str], rows: int
    ) -> tuple[pa.Table | None, list[_Problem]]:
        """Texts of the made columns, and the rows that have none: their numbers are not in the table."""
        if not self._rules.made:
            return None, []
        query = statement(self._rules, "raw", names)
        problems: list[_Problem] = []
        parts: list[pa.Table] = []
        todo = [(0, rows)]
        while todo:
            start, end = todo.pop()
            self._register(base.slice(start, end - start))
            try:
                parts.append(self._run(query))
            except self._errors() as error:
                if _resource(error):
                    raise self._too_large(error) from None
                if end - start == 1:
                    problems.append(self._guilty(names, start))
                    continue
                half = (start + end) // 2
                todo += [(half, end), (start, half)]
        return pa.concat_tables(parts) if parts else self._run_on_nothing(query, base), problems

    def _run(self, query: str) -> pa.Table:
        """The result in the order of its rows, in which it is but for joins: DuckDB would sort what is sorted."""
        found = as_arrow(self._duck, query, self._pads)
        numbers = found.column(ROW).to_numpy()
        return found if (numbers[1:] > numbers[:-1]).all() else found.sort_by(ROW)

    def _run_on_nothing(self, query: str, base: pa.Table) -> pa.Table:
        self._register(base.slice(0, 0))
        return self._run(query)

    def _too_large(self, error: Exception) -> DataError:
        return DataError(
            f"The rules of {self._table.source} need more memory than they may have: {kind_of(error)}",
            hint="Make the expressions' values smaller",
            table=self._table.source,
        )

    def _guilty(self, names: Mapping[str, str], row: int) -> _Problem:
        """Which made column of the one row that is registered cannot be computed."""
        for number, made in enumerate(self._rules.made):
            try:
                self._run(statement(self._rules, "raw", names, only=[number]))
            except self._errors() as error:
                kinds = ", ".join(s.kind for s in made.steps) or "value"
                return _Problem(row, made.target, f"its {kinds} cannot be computed: {kind_of(error)}")
        return _Problem(row, "", "the rules cannot be applied to it")

    # The result

    def _result(
        self,
        texts: Sequence[Texts],
        made: pa.Table | None,
        problems: list[_Problem],
        base: pa.Table,
        rows: int,
        read: _Read,
        changed: Counter[str],
    ) -> Refined:
        kept = made.column(ROW).combine_chunks() if made is not None else _numbered(rows)
        columns: list[Texts] = []
        for column in self._table.columns:
            number = self._made.get(column.target)
            if number is None or made is None:
                whole = texts[self._read[column.source]]
                gone = len(kept) != rows
                columns.append(Texts(whole.input.take(kept), whole.canon.take(kept)) if gone else whole)
                continue
            rule = self._rules.made[number]
            one = from_text(_single(made.column(f"t{number}")), column, checked=rule.checked)
            problems += self._misfits(one, column, kept, required=rule.required)
            columns.append(one)
            for depth, step in enumerate(rule.steps):
                count = _pc.sum(made.column(f"c{number}.{depth}")).as_py() or 0
                changed[f"{column.target}: {step.kind}"] += count
        columns, kept = _without({p.row for p in problems}, columns, kept)
        if self._checker is not None:
            failing = self._checker.failing(self._batch(columns))
            for name, numbers in failing.items():
                check = next(c for c in self._rules.checks if c.name == name)
                column = check.columns[0] if check.columns else ""
                problems += [
                    _Problem(row, column, f"does not pass {name}")
                    for row in kept.take(pa.array(numbers, pa.int64())).to_pylist()
                ]
                changed[f"check: {name}"] += len(numbers)
            columns, kept = _without({p.row for p in problems}, columns, kept)
        batch = self._batch(columns)
        canon = [t.canon for t in columns]
        source, digest = self._digests(read, canon, batch.num_rows)
        return Refined(batch, canon, digest, source, self._bad_rows(problems, base, texts), changed)

    def _digests(self, read: _Read, canon: Sequence[Array], rows: int) -> tuple[Digest, Digest]:
        """Of the batch as it was read, and of what became of it."""
        if read.rows == rows:
            return digests_of_texts(self._as_read, read.canon, self._table, canon, rows)
        source = digest_of_texts(self._as_read, read.canon, read.rows)
        return source, digest_of_texts(self._table, canon, rows)

    def _batch(self, columns: Sequence[Texts]) -> pa.RecordBatch:
        schema = pa.schema([pa.field(c.target, pa.string()) for c in self._table.columns])
        return pa.RecordBatch.from_arrays([t.input for t in columns], schema=schema)

    def _misfits(self, one: Texts, column: ColumnPlan, kept: Array, *, required: bool) -> list[_Problem]:
        found: list[_Problem] = []
        if one.canon.null_count > one.input.null_count:
            odd = _pc.and_(_pc.is_valid(one.input), _pc.is_null(one.canon))
            reason = f"its value after the rules is no {column.target_type}"
            found += [_Problem(row, column.target, reason) for row in kept.filter(odd).to_pylist()]
        if required and one.input.null_count:
            reason = "is NULL after the rules, and the column is NOT NULL"
            found += [
                _Problem(row, column.target, reason)
                for row in kept.filter(_pc.is_null(one.input)).to_pylist()
            ]
        return found

    @cached_property
    def _hidden(self) -> frozenset[str]:
        """Columns of the source that go into a masked one: their values are shown nowhere."""
        masked = {m.origin for m in self._rules.made if m.masked}
        return frozenset(name for name in masked if name)

    def _bad_rows(self, problems: Sequence[_Problem], base: pa.Table, texts: Sequence[Texts]) -> list[BadRow]:
        """The first problem of each row, with what tells people which row it is."""
        first: dict[int, _Problem] = {}
        for problem in problems:
            first.setdefault(problem.row, problem)
        if not first:
            return []
        python = bool(self._rules.python)
        definition = self._table.definition
        keyed = definition.primary_key.columns if definition and definition.primary_key else ()
        source = {c.target: c.source for c in self._table.columns}
        key = [source[name] for name in keyed if name in source and source[name] in self._read]
        rows: list[BadRow] = []
        for number, problem in sorted(first.items()):

            def value(name: str, number: int = number) -> object:
                if name in self._hidden:
                    return "[masked]"
                if python and name in dict(self._rules.returned):
                    place = [n for n, _ in self._rules.returned].index(name)
                    return str(base.column(f"p{place}")[number].as_py())
                return texts[self._read[name]].input[number].as_py()

            shown = {name: value(name) for name in key or [c.source for c in self._rules.read]}
            origin = source.get(problem.column)
            row = {origin: value(origin)} if origin and origin in self._read else {}
            rows.append(BadRow.of("", shown, origin if row else None, problem.reason, row))
        return rows


def _numbered(rows: int) -> Array:
    """Numbers of rows: of numpy's, for pyarrow asks Python for each of a range."""
    return pa.array(np.arange(rows, dtype=np.int32))


def _without(bad: Collection[int], columns: list[Texts], kept: Array) -> tuple[list[Texts], Array]:
    """The columns without some rows, and the numbers of those that are left."""
    good = pa.array(
        [n for n, row in enumerate(kept.to_pylist()) if row not in bad] if bad else [], pa.int64()
    )
    if not bad or len(good) == len(kept):
        return columns, kept
    return [Texts(t.input.take(good), t.canon.take(good)) for t in columns], kept.take(good)


def _text(array: Array) -> Array:
    """As expressions of the plan read it: see `reading`."""
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def _single(column: Any) -> Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _resource(error: Exception) -> bool:
    return "OutOfMemory" in type(error).__name__
