"""DuckDB as a calculator: in memory, on one thread, without a way to files, networks or settings.

What belongs here: opening it, and which parts of its SQL an expression of a spec may use. What does not: what is
computed (`compiler.py`, `refiner.py`).

An expression must give the same for the same row, now and when the rows are compared again: functions of the clock, of
chance, of the session and of other rows are refused. The session's time zone is UTC, so functions of dates are the same
everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jivs_pipeline.core.errors import SpecError
from jivs_pipeline.core.file_types import target_type
from jivs_pipeline.core.names import did_you_mean
from jivs_pipeline.core.plan import ColumnPlan

__all__ = [
    "as_arrow",
    "calculator",
    "columns_of",
    "first_line",
    "kind_of",
    "names_in",
    "quoted",
    "seen_type",
]

_MEMORY = "384MB"
_MOST_DIGITS = 38  # of DuckDB's DECIMAL
_SEEN = {
    "text": "VARCHAR", "varchar": "VARCHAR", "smallint": "SMALLINT", "integer": "INTEGER", "bigint": "BIGINT",
    "real": "FLOAT", "double precision": "DOUBLE", "boolean": "BOOLEAN", "date": "DATE", "time": "TIME",
    "timestamp": "TIMESTAMP", "timestamptz": "TIMESTAMP WITH TIME ZONE", "uuid": "UUID", "bytea": "BLOB",
}  # fmt: skip
_CLASSES = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "OPERATOR",
        "TYPE",
    }
)
_SAID = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "*",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by its number",
}
# DuckDB calls these constant within a query; they are functions of the clock or of the session.
_OF_THE_SESSION = frozenset(
    {
        "ago", "assert_true", "getvariable", "in_search_path", "inet_client_addr", "now", "obj_description",
        "session_user", "today", "transaction_timestamp", "txid_current", "user", "col_description", "shobj_description",
    }
)  # fmt: skip
_SESSION_PREFIXES = ("current_", "get_current_", "get_block", "has_", "pg_", "inet_")
# With one argument they count from today.
_FROM_TODAY = frozenset({"age"})


def calculator(room: Path | None = None) -> Any:
    """A new connection.

    Args:
        room: where it may put what does not fit into memory; nowhere by default.
    """
    import duckdb

    connection = duckdb.connect(
        config={
            "threads": "1",
            "memory_limit": _MEMORY,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
    )
    place = str(room) if room else ""
    connection.execute("SET temp_directory = '" + place.replace("'", "''") + "'").fetchall()
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    connection.execute("SET enable_external_access = false").fetchall()
    connection.execute("SET lock_configuration = true").fetchall()
    return connection


def as_arrow(connection: Any, query: str, parameters: Mapping[str, object] | None = None) -> Any:
    """The whole result of a query, as a `pyarrow.Table`."""
    return connection.sql(query, params=dict(parameters or {})).to_arrow_table()


def quoted(name: str) -> str:
    """A name as DuckDB reads it."""
    return '"' + name.replace('"', '""') + '"'


def seen_type(column: ColumnPlan) -> str:
    """The DuckDB type in which expressions see a column; VARCHAR, PostgreSQL's own text, where none holds it exactly."""
    type_ = target_type(column.target_type)
    if type_ is None:
        return "VARCHAR"
    bare = type_.target.partition("(")[0]
    if bare == "numeric" and type_.numbers and type_.numbers[0] <= _MOST_DIGITS:
        return f"DECIMAL({type_.numbers[0]},{type_.numbers[1]})"
    return _SEEN.get(bare, "VARCHAR")


def kind_of(error: Exception) -> str:
    """The kind of an error; the rest of its text may hold a value."""
    return str(error).partition(":")[0].strip() or type(error).__name__


def first_line(error: Exception) -> str:
    """What DuckDB says, without its suggestions and without the statement."""
    return str(error).strip().splitlines()[0].rstrip(".")


def columns_of(connection: Any, expression: str, known: Sequence[str], place: str) -> tuple[str, ...]:
    """The columns that an expression uses, of those that are known.

    Args:
        place: the key of the spec, for the sentence.

    Raises:
        SpecError: it is no expression, or uses what a rule may not use.
    """
    answer = _parsed(connection, expression)
    if answer.get("error"):
        raise SpecError(
            f"{place} is no expression: {answer.get('error_message', 'it cannot be parsed').splitlines()[0]}",
            hint="It is DuckDB's SQL over the columns of one row",
        )
    used: dict[str, None] = {}
    functions = _functions(connection)
    nodes = list(_nodes(answer["statements"][0]["node"]["select_list"]))
    own = {
        ref["column_names"][0]
        for node in nodes
        if node["class"] == "LAMBDA"
        for ref in _nodes(node["lhs"])
        if ref["class"] == "COLUMN_REF"
    }
    for node in nodes:
        kind = str(node["class"])
        if kind not in _CLASSES:
            raise SpecError(
                f"{place} uses {_SAID.get(kind, kind.lower())}, which is more than one row",
                hint="Use the columns of the row, constants and functions of them",
            )
        if kind == "FUNCTION":
            _check_function(node, functions, place)
        if kind == "COLUMN_REF" and node["column_names"][0] not in own:
            used[_known(node["column_names"][0], known, functions, place)] = None
    return tuple(used)


def _parsed(connection: Any, expression: str) -> dict[str, Any]:
    query = "SELECT json_serialize_sql(?)"
    return json.loads(connection.execute(query, [f"SELECT ({expression})"]).fetchall()[0][0])


def names_in(connection: Any, expression: str) -> set[str]:
    """Names that stand for columns in an expression, as they are written; none where it is no expression."""
    answer = _parsed(connection, expression)
    nodes = _nodes(answer.get("statements", []))
    return {str(node["column_names"][0]) for node in nodes if node["class"] == "COLUMN_REF"}


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every expression of a parsed statement."""
    if isinstance(value, dict):
        if "class" in value:
            yield value
        for part in value.values():
            yield from _nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from _nodes(part)


def _known(name: str, known: Sequence[str], functions: Mapping[str, bool], place: str) -> str:
    """The column that a reference means; DuckDB's names do not care for case, so a reference must be of one only."""
    meant = [name] if name in known else [c for c in known if c.casefold() == name.casefold()]
    if len(meant) > 1:
        raise SpecError(
            f"{place} may mean column {meant[0]!r} or {meant[1]!r}", hint="Write the name as the source does"
        )
    if meant:
        return meant[0]
    if name.lower() in functions:  # current_date and its like need no brackets
        raise _depends(name, place)
    raise SpecError(f"{place}: there is no column {name!r}", hint=did_you_mean(name, known, "columns"))


def _depends(name: str, place: str) -> SpecError:
    return SpecError(
        f"{place} uses {name}(), which does not depend on the row alone",
        hint="Use functions that give the same for the same row, at any time",
    )


def _check_function(node: Mapping[str, Any], functions: Mapping[str, bool], place: str) -> None:
    name = str(node["function_name"]).lower()
    alone = name in _FROM_TODAY and len(node.get("arguments", ())) == 1
    if alone or not functions.get(name, True):
        raise _depends(name, place)


_LISTING: dict[str, bool] = {}


def _functions(connection: Any) -> Mapping[str, bool]:
    """Whether each function may be used; what DuckDB does not know at all it refuses itself."""
    if not _LISTING:
        query = "SELECT lower(function_name), function_type, stability FROM duckdb_functions()"
        for name, kind, stability in connection.execute(query).fetchall():
            fine = kind in {"scalar", "macro"} and stability != "VOLATILE" and not _session(name)
            _LISTING[name] = fine or (kind != "scalar" and _LISTING.get(name, False))
    return _LISTING


@cache
def _session(name: str) -> bool:
    return name in _OF_THE_SESSION or name.startswith(_SESSION_PREFIXES)
