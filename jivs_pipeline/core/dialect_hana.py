"""SAP HANA through its ODBC driver. Never run here: no such server can be.

What belongs here: its SQL texts. What does not: types (`types_drivers.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.model import Column
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.type_mapping import TypeChoice
from jivs_pipeline.core.types_drivers import choose_driver, driver_type

__all__ = ["Hana"]

_MOST_NVARCHAR = 5_000
_OF = (
    "FROM SYS.TABLES t{more} WHERE t.SCHEMA_NAME = {schema} AND t.IS_USER_DEFINED_TYPE = 'FALSE'"
    " AND t.IS_TEMPORARY = 'FALSE'"
)
_SAME = "x.SCHEMA_NAME = t.SCHEMA_NAME AND x.TABLE_NAME = t.TABLE_NAME"
_TYPE = (
    "CASE WHEN c.DATA_TYPE_NAME = 'DECIMAL' AND c.SCALE IS NOT NULL THEN 'DECIMAL(' || c.LENGTH || ',' || c.SCALE || ')'"
    " WHEN c.DATA_TYPE_NAME IN ('VARCHAR', 'NVARCHAR', 'CHAR', 'NCHAR', 'ALPHANUM', 'SHORTTEXT')"
    " THEN c.DATA_TYPE_NAME || '(' || c.LENGTH || ')' ELSE c.DATA_TYPE_NAME END"
)


class Hana(Dialect):
    """See `Dialect`. One session, in a transaction of isolation level SERIALIZABLE, which is HANA's snapshot."""

    name = "hana"
    title = "SAP HANA"
    default_schema = "SELECT CURRENT_SCHEMA FROM DUMMY"
    # Of this transaction only.
    begin = ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",)
    own_transactions = False
    tables = f"SELECT t.TABLE_NAME, t.COMMENTS {_OF.replace('{more}', '')} ORDER BY 1"
    columns = (
        f"SELECT t.TABLE_NAME, c.COLUMN_NAME, {_TYPE}, CASE WHEN c.IS_NULLABLE = 'TRUE' THEN 'YES' ELSE 'NO' END,"
        " CASE WHEN c.GENERATION_TYPE LIKE '%AS IDENTITY' THEN 'YES' ELSE 'NO' END, c.COMMENTS "
        + _OF.replace("{more}", f" JOIN SYS.TABLE_COLUMNS c ON {_SAME.replace('x.', 'c.')}")
        + " ORDER BY t.TABLE_NAME, c.POSITION"
    )
    keys = (
        "SELECT t.TABLE_NAME, k.CONSTRAINT_NAME, CASE WHEN k.IS_PRIMARY_KEY = 'TRUE' THEN 'P' ELSE 'U' END, k.COLUMN_NAME "
        + _OF.replace("{more}", f" JOIN SYS.CONSTRAINTS k ON {_SAME.replace('x.', 'k.')}")
        + " AND k.IS_UNIQUE_KEY = 'TRUE' ORDER BY t.TABLE_NAME, k.CONSTRAINT_NAME, k.POSITION"
    )
    references = (
        "SELECT t.TABLE_NAME, r.CONSTRAINT_NAME, r.COLUMN_NAME, r.REFERENCED_SCHEMA_NAME, r.REFERENCED_TABLE_NAME,"
        " r.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE "
        + _OF.replace("{more}", f" JOIN SYS.REFERENTIAL_CONSTRAINTS r ON {_SAME.replace('x.', 'r.')}")
        + " ORDER BY t.TABLE_NAME, r.CONSTRAINT_NAME, r.POSITION"
    )
    indexes = (
        "SELECT t.TABLE_NAME, i.INDEX_NAME, CASE WHEN i.CONSTRAINT = 'NOT NULL UNIQUE' OR i.CONSTRAINT = 'UNIQUE' THEN 'YES'"
        " ELSE 'NO' END, i.COLUMN_NAME, CASE WHEN i.ASCENDING_ORDER = 'FALSE' THEN 'YES' ELSE 'NO' END "
        + _OF.replace("{more}", f" JOIN SYS.INDEX_COLUMNS i ON {_SAME.replace('x.', 'i.')}")
        + " AND COALESCE(i.CONSTRAINT, '') <> 'PRIMARY KEY' AND NOT EXISTS (SELECT 1 FROM SYS.CONSTRAINTS k WHERE"
        f" {_SAME.replace('x.', 'k.')} AND k.CONSTRAINT_NAME = i.INDEX_NAME) ORDER BY t.TABLE_NAME, i.INDEX_NAME, i.POSITION"
    )
    others = (
        "SELECT VIEW_NAME, 'view' FROM SYS.VIEWS WHERE SCHEMA_NAME = {schema} UNION ALL"
        " SELECT TRIGGER_NAME, 'trigger' FROM SYS.TRIGGERS WHERE SCHEMA_NAME = {schema} UNION ALL"
        " SELECT PROCEDURE_NAME, 'procedure' FROM SYS.PROCEDURES WHERE SCHEMA_NAME = {schema} UNION ALL"
        " SELECT FUNCTION_NAME, 'function' FROM SYS.FUNCTIONS WHERE SCHEMA_NAME = {schema} UNION ALL"
        " SELECT SEQUENCE_NAME, 'sequence' FROM SYS.SEQUENCES WHERE SCHEMA_NAME = {schema}"
        " AND SEQUENCE_NAME NOT LIKE '\\_SYS\\_%' ESCAPE '\\' ORDER BY 1"
    )

    def choose(self, column: Column, counts: Mapping[str, int]) -> TypeChoice:
        """By the table of types."""
        return choose_driver(self.name, self._declared(column.type), counts)

    @staticmethod
    def _declared(type_: str) -> str:
        # Seven digits of a second, always.
        return "TIMESTAMP(7)" if type_ == "TIMESTAMP" else type_

    def is_integer(self, column: Column) -> bool:
        """Integers of at most 64 bits."""
        return driver_type(column.type).name in {"tinyint", "smallint", "integer", "bigint"}

    def counted(self, column: Column) -> dict[str, str]:
        """Characters and digits that PostgreSQL has no place for."""
        c, read = self.quoted(column.name), driver_type(column.type)
        if read.name in {"real", "double"}:
            return {"rounded": f"TO_DOUBLE(TO_VARCHAR({c})) <> TO_DOUBLE({c})"}
        if read.name == "timestamp":
            return {"finer": f"TO_VARCHAR({c}, 'FF7') NOT LIKE '%0'"}
        if choose_driver(self.name, column.type, {}).carrier == "utf8":
            return {"nul": f"LOCATE({c}, CHAR(0)) > 0"}
        return {}

    def text(self, column: ColumnPlan) -> str:
        """Times by ISO's order; geometries as EWKB."""
        c, read = self.quoted(column.source), driver_type(column.source_type)
        match column.carrier:
            case "integer" | "number" | "float":
                return f"TO_VARCHAR({c})"
            case "boolean":
                return f"CASE WHEN {c} = TRUE THEN '1' WHEN {c} = FALSE THEN '0' END"
            case "date":
                return f"TO_VARCHAR({c}, 'YYYY-MM-DD')"
            case "time":
                return f"TO_VARCHAR({c}, 'HH24:MI:SS')"
            case "timestamp":
                fraction = ".FF6" if read.name == "timestamp" else ""
                return f"TO_VARCHAR({c}, 'YYYY-MM-DD HH24:MI:SS{fraction}')"
            case "bytes":
                return f"BINTOHEX({c})"
            case "ewkb":
                return f"BINTOHEX({c}.ST_AsEWKB())"
            case _:
                return c

    def bound(self, column: ColumnPlan) -> int | None:
        """Numbers too have one."""
        return 60 if column.canon is Canon.NUMERIC else super().bound(column)

    def sized(self, text: str, width: int) -> str:
        """What is longer than any NVARCHAR stays what it is."""
        return f"CAST({text} AS NVARCHAR({width}))" if width <= _MOST_NVARCHAR else f"TO_NCLOB({text})"

    def hexed(self, text: str) -> str:
        """UTF-8."""
        return f"BINTOHEX(TO_BINARY({text}))"
