"""SQLite as its ODBC driver hands it out.

What belongs here: its SQL texts. What does not: type rules (`types.py`), SQLite read directly (`sqlite://`).

The driver calls integers int32, cuts texts at a NUL and hands out 255 characters of an expression: so every value is
read as text in pieces of that size, and what would take too many is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.model import Column
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.type_mapping import TypeChoice
from jivs_pipeline.core.types import Affinity, Family, StoredValues, choose_sqlite, sqlite_type

__all__ = ["SqliteThroughDriver"]

_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_CLOCK = "[0-9][0-9]:[0-9][0-9]:[0-9][0-9]"


class SqliteThroughDriver(Dialect):
    """See `Dialect`. One schema, `main`; one session, in a transaction that sees one state of the file."""

    name = "sqlite"
    title = "SQLite"
    default_schema = "SELECT 'main'"
    settings: ClassVar[Mapping[str, str]] = {
        "NoCreat": "1",
        "FKSupport": "0",
        "LongNames": "0",
        "StepAPI": "1",
        "Timeout": "30000",
    }
    opening = ("PRAGMA query_only = 1",)
    # A transaction begins to see with its first read.
    begin = ("BEGIN", "SELECT COUNT(*) FROM sqlite_master")
    consistency = "one state of the file, read by one session"
    tables = (
        "SELECT name, NULL FROM pragma_table_list WHERE schema = {schema} AND type = 'table'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    columns = (
        "SELECT t.name, c.name, c.type, CASE WHEN c.\"notnull\" THEN 'NO' ELSE 'YES' END,"
        " CASE WHEN c.pk = 1 AND upper(c.type) = 'INTEGER' AND t.wr = 0 AND"
        " (SELECT count(*) FROM pragma_table_info(t.name) p WHERE p.pk > 0) = 1 THEN 'YES' ELSE 'NO' END, NULL"
        " FROM pragma_table_list t JOIN pragma_table_xinfo(t.name) c"
        " WHERE t.schema = {schema} AND t.type = 'table' AND c.hidden <> 1 ORDER BY t.name, c.cid"
    )
    keys = (
        "SELECT t.name, '', 'P', c.name FROM pragma_table_list t JOIN pragma_table_info(t.name) c"
        " WHERE t.schema = {schema} AND t.type = 'table' AND c.pk > 0"
        " UNION ALL SELECT t.name, i.name, 'U', c.name FROM pragma_table_list t JOIN pragma_index_list(t.name) i"
        " JOIN pragma_index_info(i.name) c WHERE t.schema = {schema} AND i.origin = 'u' AND i.partial = 0"
        " ORDER BY 1, 2"
    )
    references = (
        "SELECT t.name, 'fk' || f.id, f.\"from\", 'main', f.\"table\", coalesce(f.\"to\", ''), f.on_delete, f.on_update"
        " FROM pragma_table_list t JOIN pragma_foreign_key_list(t.name) f WHERE t.schema = {schema}"
        " ORDER BY t.name, f.id, f.seq"
    )
    indexes = (
        "SELECT t.name, i.name, CASE WHEN i.\"unique\" THEN 'YES' ELSE 'NO' END, c.name,"
        " CASE WHEN c.\"desc\" THEN 'YES' ELSE 'NO' END FROM pragma_table_list t JOIN pragma_index_list(t.name) i"
        " JOIN pragma_index_xinfo(i.name) c WHERE t.schema = {schema} AND i.origin = 'c' AND i.partial = 0"
        " AND c.key = 1 ORDER BY t.name, i.name, c.seqno"
    )
    others = (
        "SELECT name, type FROM sqlite_master WHERE type IN ('view', 'trigger') UNION ALL"
        " SELECT i.name, 'partial index' FROM pragma_table_list t JOIN pragma_index_list(t.name) i"
        " WHERE t.schema = {schema} AND i.partial = 1 UNION ALL"
        " SELECT name, 'virtual table' FROM pragma_table_list WHERE schema = {schema} AND type = 'virtual'"
    )
    piece = 255

    def choose(self, column: Column, counts: Mapping[str, int]) -> TypeChoice:
        """By the declared type and the census, as `sqlite://` does; numeric is without a scale here."""
        declared = sqlite_type(column.type)
        if declared.family is Family.NUMERIC:
            declared = replace(declared, precision=None, scale=None)
        if zeros := counts.get("zeros"):
            found = counted(zeros, "real is", "reals are")
            reason = f"{found} zero, and SQL of SQLite's does not tell 0.0 from -0.0; read it with sqlite://"
            return TypeChoice("", "", "", Canon.TEXT, refused=reason)
        note = ""
        if counts.get("longer"):
            note = f"declared {column.type}, but {counted(counts['longer'], 'value is', 'values are')} longer"
            declared = replace(declared, family=Family.TEXT, length=None)
        values = StoredValues(
            **{name: counts.get(name, 0) for name in ("integers", "reals", "texts", "blobs", "nul")},
            conforming=not counts.get("odd", 0),
        )
        choice = choose_sqlite(declared, values)
        if choice.refused:
            return choice
        choice = replace(choice, note=choice.note or note)
        # Decimals of Arrow's have a scale, which numeric has not.
        return replace(choice, arrow="string") if choice.carrier == "number" else choice

    def is_integer(self, column: Column) -> bool:
        """Only an INTEGER PRIMARY KEY holds integers for sure."""
        return column.identity is not None

    def counted(self, column: Column) -> dict[str, str]:
        """How many values of each storage class, and those that are not what was declared."""
        c, declared = self.quoted(column.name), sqlite_type(column.type)
        found = {f"{kind}s": f"typeof({c}) = '{kind}'" for kind in ("integer", "real", "text", "blob")} | {
            "nul": f"typeof({c}) = 'text' AND instr(CAST({c} AS BLOB), x'00') > 0",
        }
        if declared.length is not None:
            found["longer"] = f"typeof({c}) = 'text' AND length({c}) > {declared.length}"
        if declared.affinity is Affinity.BLOB:
            # Columns of other affinities keep no real zero.
            found["zeros"] = f"typeof({c}) = 'real' AND {c} = 0"
        odd = {
            Family.BOOLEAN: f"{c} NOT IN (0, 1)",
            Family.DATE: f"NOT ({c} GLOB '{_DAY}' AND {c} >= '0001' AND date({c}) = {c})",
            Family.TIME: f"NOT ({c} GLOB '{_CLOCK}' AND time({c}) = {c})",
            Family.TIMESTAMP: f"NOT ({c} GLOB '{_DAY} {_CLOCK}' AND {c} >= '0001' AND datetime({c}) = {c})",
        }.get(declared.family)
        return found | ({"odd": f"{c} IS NOT NULL AND coalesce({odd}, 1)"} if odd else {})

    def text(self, column: ColumnPlan) -> str:
        """Reals with digits that give them back, marked where they stand among integers."""
        c = self.quoted(column.source)
        # 17 digits would do if SQLite rounded the last of them; it cuts.
        real = f"printf('%!.20g', {c})"
        match column.carrier:
            case "real":
                return f"CASE WHEN {c} IS NOT NULL THEN {real} END"
            case "number" | "text":
                return (
                    f"CASE typeof({c}) WHEN 'real' THEN 'r' || {real} ELSE {_marked(c, column.carrier)} END"
                )
            case "bytes":
                return f"CASE WHEN {c} IS NOT NULL THEN hex({c}) END"
            case _:
                return f"CAST({c} AS TEXT)"

    def bound(self, column: ColumnPlan) -> int | None:
        """What is text may be of any length, whatever was declared."""
        return 32 if column.canon in {Canon.INTEGER, Canon.FLOAT, Canon.BOOLEAN} else None

    def sized(self, text: str, width: int) -> str:  # noqa: ARG002 - the driver does not look at types of expressions
        """Expressions have no size here."""
        return text

    def shown(self, number: str) -> str:
        """Its driver has room for 11 characters of an integer."""
        return f"CAST({number} AS TEXT)"

    def hexed(self, text: str) -> str:
        """UTF-8."""
        return f"CASE WHEN {text} IS NOT NULL THEN hex(CAST({text} AS BLOB)) END"

    def spelled(self, column: ColumnPlan, text: str) -> str:
        """Reals among integers have the shortest digits that give them back, as in `sqlite://`."""
        if column.carrier not in {"number", "text"}:
            return text
        return text[1:] if text[0] == "t" else repr(float(text[1:])) if text[0] == "r" else text


def _marked(c: str, carrier: str) -> str:
    # A text may begin with an r of its own.
    return (
        f"CASE WHEN typeof({c}) = 'text' THEN 't' || {c} ELSE CAST({c} AS TEXT) END"
        if carrier == "text"
        else f"CAST({c} AS TEXT)"
    )
