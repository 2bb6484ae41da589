"""Oracle by its own driver. Never run here: no such server can be.

What belongs here: its SQL texts. What does not: types (`types_drivers.py`).

Numbers and times cross as text, floats as the hex digits of their eight bytes, texts and bytes as they are: LOBs have
no function that spells all of one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.model import Column
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.type_mapping import TypeChoice
from jivs_pipeline.core.types_drivers import choose_driver, driver_type

__all__ = ["Oracle"]

_OF = (
    "FROM all_tables t{more} WHERE t.owner = {schema} AND t.nested = 'NO' AND t.secondary = 'N' AND t.temporary = 'N'"
    " AND t.dropped = 'NO'"
)
_TYPE = (
    "CASE WHEN c.data_type = 'NUMBER' AND c.data_scale IS NOT NULL THEN"
    " 'NUMBER(' || NVL(c.data_precision, 38) || ',' || c.data_scale || ')'"
    " WHEN c.data_type IN ('CHAR', 'VARCHAR2', 'NCHAR', 'NVARCHAR2') THEN c.data_type || '(' || c.char_length || ')'"
    " ELSE c.data_type END"
)
_RULE = (
    "CASE k.delete_rule WHEN 'CASCADE' THEN 'CASCADE' WHEN 'SET NULL' THEN 'SET NULL' ELSE 'NO ACTION' END"
)
_SCALAR_TIMES = frozenset({"timestamp"})


class Oracle(Dialect):
    """See `Dialect`. One session in a read-only transaction, which sees what was committed when it began."""

    name = "oracle"
    title = "Oracle"
    default_schema = "SELECT SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') FROM dual"
    opening = (
        "ALTER SESSION SET TIME_ZONE = '+00:00'",
        "ALTER SESSION SET NLS_NUMERIC_CHARACTERS = '.,'",
        "ALTER SESSION SET NLS_CALENDAR = 'GREGORIAN'",
        "ALTER SESSION SET NLS_COMP = BINARY",
        "ALTER SESSION SET NLS_SORT = BINARY",
    )
    begin = ("SET TRANSACTION READ ONLY",)
    end = "ROLLBACK"
    tables = (
        "SELECT t.table_name, m.comments "
        + _OF.replace(
            "{more}", " LEFT JOIN all_tab_comments m ON m.owner = t.owner AND m.table_name = t.table_name"
        )
        + " ORDER BY 1"
    )
    columns = (
        f"SELECT t.table_name, c.column_name, {_TYPE}, CASE WHEN c.nullable = 'Y' THEN 'YES' ELSE 'NO' END,"
        " NVL(c.identity_column, 'NO'), m.comments "
        + _OF.replace(
            "{more}",
            " JOIN all_tab_cols c ON c.owner = t.owner AND c.table_name = t.table_name AND c.user_generated = 'YES'"
            " LEFT JOIN all_col_comments m ON m.owner = c.owner AND m.table_name = c.table_name"
            " AND m.column_name = c.column_name",
        )
        + " ORDER BY t.table_name, c.column_id"
    )
    keys = (
        "SELECT t.table_name, k.constraint_name, k.constraint_type, u.column_name "
        + _OF.replace(
            "{more}",
            " JOIN all_constraints k ON k.owner = t.owner AND k.table_name = t.table_name"
            " AND k.constraint_type IN ('P', 'U')"
            " JOIN all_cons_columns u ON u.owner = k.owner AND u.constraint_name = k.constraint_name",
        )
        + " AND k.status = 'ENABLED' ORDER BY t.table_name, k.constraint_name, u.position"
    )
    references = (
        f"SELECT t.table_name, k.constraint_name, u.column_name, r.owner, r.table_name, r.column_name, {_RULE}, 'NO ACTION' "
        + _OF.replace(
            "{more}",
            " JOIN all_constraints k ON k.owner = t.owner AND k.table_name = t.table_name AND k.constraint_type = 'R'"
            " JOIN all_cons_columns u ON u.owner = k.owner AND u.constraint_name = k.constraint_name"
            " JOIN all_cons_columns r ON r.owner = k.r_owner AND r.constraint_name = k.r_constraint_name"
            " AND r.position = u.position",
        )
        + " AND k.status = 'ENABLED' ORDER BY t.table_name, k.constraint_name, u.position"
    )
    indexes = (
        "SELECT t.table_name, i.index_name, CASE WHEN i.uniqueness = 'UNIQUE' THEN 'YES' ELSE 'NO' END, u.column_name,"
        " CASE WHEN u.descend = 'DESC' THEN 'YES' ELSE 'NO' END "
        + _OF.replace(
            "{more}",
            " JOIN all_indexes i ON i.table_owner = t.owner AND i.table_name = t.table_name AND i.index_type = 'NORMAL'"
            " JOIN all_ind_columns u ON u.index_owner = i.owner AND u.index_name = i.index_name",
        )
        + " AND NOT EXISTS (SELECT 1 FROM all_constraints k WHERE k.owner = t.owner AND k.index_name = i.index_name"
        " AND k.constraint_type IN ('P', 'U')) ORDER BY t.table_name, i.index_name, u.column_position"
    )
    others = (
        "SELECT object_name, LOWER(object_type) FROM all_objects WHERE owner = {schema} AND object_type IN"
        " ('VIEW', 'MATERIALIZED VIEW', 'TRIGGER', 'PROCEDURE', 'FUNCTION', 'PACKAGE', 'TYPE', 'SEQUENCE', 'SYNONYM')"
        " AND object_name NOT LIKE 'ISEQ$$%' ORDER BY 1"
    )
    encoding = ""

    def choose(self, column: Column, counts: Mapping[str, int]) -> TypeChoice:
        """By the table of types."""
        return choose_driver(self.name, column.type, counts)

    def is_integer(self, column: Column) -> bool:
        """Numbers without a scale that 64 bits hold."""
        read = driver_type(column.type)
        return read.name == "number" and read.second == 0 and (read.first or 38) <= 18

    def counted(self, column: Column) -> dict[str, str]:
        """Characters, digits and years that PostgreSQL has no place for."""
        c, read = self.quoted(column.name), driver_type(column.type)
        if read.name in _SCALAR_TIMES and (read.first or 6) > 6:
            return {"finer": f"TO_CHAR({c}, 'FF9') NOT LIKE '%000' OR EXTRACT(YEAR FROM {c}) < 1"}
        if read.name in {*_SCALAR_TIMES, "date"}:
            return {"ancient": f"EXTRACT(YEAR FROM {c}) < 1"}
        if read.name in {"char", "varchar2", "nchar", "nvarchar2", "clob", "nclob"}:
            return {"nul": f"INSTR({c}, CHR(0)) > 0"}
        return {}

    def text(self, column: ColumnPlan) -> str:
        """See the module."""
        c = self.quoted(column.source)
        match column.carrier:
            case "number":
                return f"TO_CHAR({c}, 'TM9')"
            case "float":
                return f"RAWTOHEX(UTL_RAW.CAST_FROM_BINARY_DOUBLE(TO_BINARY_DOUBLE({c})))"
            case "boolean":
                return f"CASE WHEN {c} THEN '1' WHEN NOT {c} THEN '0' END"
            case "timestamp":
                fraction = ".FF6" if driver_type(column.source_type).name == "timestamp" else ""
                return f"TO_CHAR({c}, 'YYYY-MM-DD HH24:MI:SS{fraction}')"
            case "timestamptz":
                return f"TO_CHAR(SYS_EXTRACT_UTC({c}), 'YYYY-MM-DD HH24:MI:SS.FF6') || '+00'"
            case _:
                return self._plain(c, driver_type(column.source_type).name)

    @staticmethod
    def _plain(c: str, name: str) -> str:
        match name:
            case "xmltype":
                return f"XMLSERIALIZE(CONTENT {c} AS CLOB)"
            case "json":
                return f"JSON_SERIALIZE({c} RETURNING CLOB)"
            case "rowid" | "urowid":
                return f"CAST({c} AS VARCHAR2(4000))"
            case _ if name.startswith("interval"):
                return f"TO_CHAR({c})"
            case _:
                return c

    def bound(self, column: ColumnPlan) -> int | None:
        """Numbers too have one; the driver makes room for all others by itself."""
        return 64 if column.canon is Canon.NUMERIC else super().bound(column)

    def sized(self, text: str, width: int) -> str:  # noqa: ARG002 - the driver makes room by itself
        """As it is."""
        return text

    def hexed(self, text: str) -> str:
        """As it is: there is no function for LOBs."""
        return text

    def spelled(self, column: ColumnPlan, text: str) -> str:
        """Floats out of their bytes."""
        return repr(struct.unpack(">d", bytes.fromhex(text))[0]) if column.carrier == "float" else text

    def next_value(self, schema: str, table: str, column: str) -> str | None:
        """What the identity's own sequence has not yet handed out to anybody."""
        return (
            "SELECT TO_CHAR(s.last_number) FROM all_tab_identity_cols i JOIN all_sequences s"
            " ON s.sequence_owner = i.owner AND s.sequence_name = i.sequence_name"
            f" WHERE i.owner = {self.literal(schema)} AND i.table_name = {self.literal(table)}"
            f" AND i.column_name = {self.literal(column)}"
        )
