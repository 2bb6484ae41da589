"""Looking at a target: who is there, what bears which name, what the ledger says, and digests of what was loaded.

What belongs here: everything that only reads. What does not: writing (`target.py`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import psycopg
from psycopg import sql

from jivs_pipeline.core.digest import Digest
from jivs_pipeline.core.errors import MismatchError
from jivs_pipeline.core.model import ServerInfo
from jivs_pipeline.core.plan import ColumnPlan, Range, TablePlan
from jivs_pipeline.core.ports import Dependent, ExistingColumn, ExistingTable, HashedRow, LedgerView
from jivs_pipeline.infra import ddl, digests, large_objects, page_ranges
from jivs_pipeline.infra.postgresql import Session, mapped
from jivs_pipeline.infra.sources.postgresql_spelling import OBJECTS
from jivs_pipeline.infra.steps import kept
from jivs_pipeline.infra.target_sessions import SQL, TargetSessions, interrupt, value

__all__ = ["TargetView"]

_OTHERS = (
    psycopg.errors.UndefinedFunction,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.DatatypeMismatch,
)


class TargetView(TargetSessions):
    """What can be known of a target. Methods may be called from several threads."""

    def info(self) -> ServerInfo:
        """Who is there."""
        with self._reading() as db:
            version = str(db.info.server_version // 10000)
            row = db.execute("SELECT current_setting('server_version')").fetchone()
        shown = str(row[0]).split()[0] if row else version
        return ServerInfo(self._connection.name, "postgresql", shown, self._encoding or "UTF8")

    def inspect(self, schema: str, names: Sequence[str]) -> Mapping[str, ExistingTable]:
        """What already bears these names in the schema, by name."""
        parameters = {"schema": schema, "names": list(names)}
        with self._reading() as db:
            relations = db.execute(SQL["relations"], parameters).fetchall()
            columns = db.execute(SQL["columns"], parameters).fetchall()
            dependents = db.execute(SQL["dependents"], parameters).fetchall()
            keys = dict(db.execute(SQL["keys"], parameters).fetchall())
        return {
            name: ExistingTable(
                name,
                kind,
                tuple(ExistingColumn(*rest) for relation, *rest in columns if relation == name),
                tuple(Dependent(*rest) for relation, *rest in dependents if relation == name),
                tuple(keys.get(name, ())),
                parent,
                hides_rows,
            )
            for name, kind, parent, hides_rows in relations
        }

    def objects(self, schema: str) -> frozenset[tuple[str, str]]:
        """Kind and name of all that the schema has, with its tables; the database's extensions as `schema.name`; the
        server's roles; and rights of our own.
        """
        with self._reading() as db:
            found = db.execute(OBJECTS["objects"], {"schema": schema}).fetchall()
            rest = db.execute(SQL["surroundings"], {"schema": schema}).fetchall()
        return frozenset(
            {(kind, shown) for _, _, kind, shown, *_ in found} | {(kind, name) for kind, name in rest}
        )

    def large_objects(self, key: str) -> tuple[int, ...]:
        """Numbers of the database's large objects that a migration has not made."""
        with self._reading() as db:
            return large_objects.others(db, key)

    def ledger(self, key: str, since: int = 0) -> LedgerView:
        """What the ledger says of a migration, from the epoch `since` on; empty where there is no ledger."""
        with self._reading() as db:
            if not value(db, "has_ledger"):
                return LedgerView()
            parameters = {"key": key, "since": since}
            epoch = db.execute(SQL["ledger_epoch"], parameters).fetchone()
            steps = db.execute(SQL["ledger_steps"], parameters).fetchall()
            chunks = db.execute(SQL["ledger_chunks"], parameters).fetchall()
        return LedgerView(
            epoch=epoch[0] if epoch else 0,
            steps={(table, step): (generation, undo) for table, step, generation, undo in steps},
            chunks={
                (table, chunk): (generation, rows, size) for table, chunk, generation, rows, size in chunks
            },
        )

    def digests(self, table: TablePlan) -> tuple[Digest, ...]:
        """Digests of the loaded rows, computed by the target: one per chunk where an integer key tells the chunks
        apart, else one for the whole table.
        """
        right = self._claimed()
        relation = ddl.landing(right.key, table) if table.mode == "append" else _relation(table)
        return self._digests_of(table, relation)

    def digests_now(self, table: TablePlan) -> tuple[Digest, ...]:
        """The same of the table as it is now, without a claim: for `jivs verify`."""
        return self._digests_of(table, _relation(table))

    def hashes_now(
        self, table: TablePlan, key: Sequence[ColumnPlan], chunks: Sequence[int] | None
    ) -> Iterator[HashedRow]:
        """What `digests_now` sums up, row by row; of some chunks only, where it can tell them apart."""
        predicate = None
        if chunks is not None and (column := table.chunk_key):
            index = digests.Groups(column, _bounds(table)).index
            predicate = sql.SQL("{} = ANY ({})").format(index, sql.Literal(list(chunks)))
        query = digests.row_hashes(
            table.spelling,
            _rows_of(table, _relation(table)),
            [digests.Hashed.of_target(c) for c in table.columns],
            [digests.Hashed.of_target(c) for c in key],
            predicate,
            utf8=self._encoding == "UTF8",
        )
        with self._session_of_its_own("jivs verify", read_only=True) as db, _compared(table):
            for hashed, *texts in db.cursor().stream(query, size=1000):
                yield bytes(hashed), tuple(texts)

    def digests_within(self, table: TablePlan, within: Range, cuts: Sequence[int]) -> tuple[Digest, ...]:
        """Digests of a range of the table's chunk key as it is now: of each part, where it is cut. Of all rows where the
        table has no such key.
        """
        column = table.chunk_key
        groups = digests.Groups(column, cuts) if column and cuts else None
        query = self._digest_query(table, _relation(table), groups, _within(column, within))
        # Parts of a range are many short questions, for which a connection each would take longer than the answer.
        with self._reading() if groups else self._session_of_its_own("jivs compare", read_only=True) as db:
            rows = db.execute(query).fetchall()
        if groups is None:
            return tuple(Digest(*map(int, row)) for row in rows)
        found = {part: Digest(*map(int, parts)) for part, *parts in rows}
        return tuple(found.get(part, Digest()) for part in range(len(cuts) + 1))

    def cuts(self, table: TablePlan, within: Range, rows: int) -> tuple[int, ...]:
        """Values of the chunk key that cut a range into parts of so many rows each."""
        if (column := table.chunk_key) is None:
            return ()
        query = sql.SQL(
            "SELECT k FROM (SELECT {column}::int8 AS k, row_number() OVER (ORDER BY {column}) - 1 AS n FROM ONLY {table}"
            " {where}) AS s WHERE n > 0 AND n % {rows} = 0 ORDER BY k"
        ).format(
            column=sql.Identifier(column), table=_relation(table), rows=sql.Literal(rows),
            where=sql.SQL("WHERE {}").format(p) if (p := _within(column, within)) else sql.SQL(""),
        )  # fmt: skip
        with self._reading() as db:
            return tuple(int(k) for (k,) in db.execute(query).fetchall())

    def highest(self, table: TablePlan, column: str) -> str | None:
        """The greatest value of a column as text; None where it has none."""
        query = sql.SQL("SELECT max({})::text FROM ONLY {}").format(sql.Identifier(column), _relation(table))
        with self._reading() as db:
            row = db.execute(query).fetchone()
        return row[0] if row else None

    def changes(self, table: TablePlan) -> Mapping[str, int]:
        """How many rows of a table that was there before this load has inserted, updated and deleted. Where no key tells
        them apart, none is an update.
        """
        right = self._claimed()
        side, old = ddl.landing(right.key, table), kept(right.key, table)
        same = sql.SQL(" AND ").join(
            sql.SQL("s.{0} = k.{0}").format(sql.Identifier(c)) for c in table.existing_key
        )
        query = sql.SQL(
            "SELECT (SELECT count(*) FROM {side}), (SELECT count(*) FROM {old}),"
            " (SELECT count(*) FROM {side} s JOIN {old} k ON {same})"
        ).format(side=side, old=old, same=same if table.existing_key else sql.SQL("false"))
        with self._session_of_its_own("jivs compare", read_only=True) as db, mapped(table.target):
            there = db.execute("SELECT to_regclass(%s) IS NOT NULL", (old.as_string(),)).fetchone()
            row = db.execute(query).fetchone() if there and there[0] else None
        new, gone, both = row or (0, 0, 0)
        return {"inserted": new - both, "updated": both, "deleted": gone - both}

    def count(self, table: TablePlan) -> int:
        """Rows of the loaded table."""
        right = self._right
        relation = ddl.landing(right.key, table) if right and table.mode == "append" else _relation(table)
        with self._session_of_its_own("jivs verify", read_only=True) as db, mapped(table.target):
            row = db.execute(sql.SQL("SELECT count(*) FROM {}").format(_rows_of(table, relation))).fetchone()
        return int(row[0]) if row else 0

    def _digests_of(self, table: TablePlan, relation: sql.Identifier) -> tuple[Digest, ...]:
        groups = digests.Groups(key, _bounds(table)) if (key := table.chunk_key) else None
        question = partial(self._digest_query, table, relation, groups)
        name = "jivs verify"
        with self._session_of_its_own(name, read_only=True) as db, _compared(table):
            stored = table.large_objects_of is None
            spare = stored and page_ranges.is_worth_it(db, relation)
            with self._spare_sessions(name) if spare else nullcontext(list[Session]()) as others:
                rows = page_ranges.answered([db, *others], relation, question, interrupt)
        if groups is None:
            return (sum((Digest(*map(int, row)) for row in rows), Digest()),)
        found: dict[int, Digest] = {}
        for chunk, *parts in rows:
            found[chunk] = found.get(chunk, Digest()) + Digest(*map(int, parts))
        return tuple(found.get(c.index, Digest()) for c in table.chunks)

    def _digest_by_chunk(
        self,
        db: Session,
        table: TablePlan,
        relation: sql.Identifier,
        predicate: sql.Composable | None = None,
    ) -> dict[int, Digest]:
        """Of some rows, by their chunk; all with the first where chunks cannot be told apart."""
        groups = digests.Groups(key, _bounds(table)) if (key := table.chunk_key) else None
        rows = db.execute(self._digest_query(table, relation, groups, predicate)).fetchall()
        grouped = rows if groups else [(0, *row) for row in rows]
        return {chunk: Digest(*map(int, parts)) for chunk, *parts in grouped}

    def _digest_query(
        self,
        table: TablePlan,
        relation: sql.Composable,
        groups: digests.Groups | None,
        predicate: sql.Composable | None = None,
    ) -> sql.Composed:
        only = _rows_of(table, relation)
        columns = [digests.Hashed.of_target(c) for c in table.columns]
        utf8 = self._encoding == "UTF8"
        return digests.row_digest(table.spelling, only, columns, predicate, groups, utf8=utf8)


@contextmanager
def _compared(table: TablePlan) -> Generator[None]:
    """Raise what the server says of columns that are others by now as the difference that it is.

    Raises:
        MismatchError: a column is gone, or of a type that is hashed by other functions.
    """
    with mapped(table.target):
        try:
            yield
        except _OTHERS as error:
            raise MismatchError(
                f"{table.target} has other columns or types than what was loaded: {error.diag.message_primary}",
                hint="Change them back to compare its rows, or migrate the table anew",
                table=table.target,
            ) from error


def _bounds(table: TablePlan) -> list[int]:
    return [int(c.lower[0]) for c in table.chunks if c.lower is not None]


def _relation(table: TablePlan) -> sql.Identifier:
    return sql.Identifier(table.target_schema, table.target_table)


def _rows_of(table: TablePlan, relation: sql.Composable) -> sql.Composed:
    """What follows FROM."""
    if table.large_objects_of is not None:
        return large_objects.of_key(table.large_objects_of)
    return sql.SQL("ONLY {}").format(relation)


def _within(column: str | None, within: Range) -> sql.Composable | None:
    """The condition of a range's rows; None when it is all rows."""
    lower, upper = within
    if column is None:
        return None
    bounds = [
        sql.SQL("{} {} {}").format(sql.Identifier(column), sign, sql.Literal(bound))
        for sign, bound in ((sql.SQL(">="), lower), (sql.SQL("<"), upper))
        if bound is not None
    ]
    return sql.SQL(" AND ").join(bounds) if bounds else None
