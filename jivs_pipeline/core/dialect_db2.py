"""Db2 for Linux, UNIX and Windows through IBM's ODBC driver. Never run here: no such server can be.

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

__all__ = ["Db2"]

_MOST_VARCHAR = 32_672
_OF = "FROM SYSCAT.TABLES t{more} WHERE t.TABSCHEMA = {schema} AND t.TYPE = 'T'"
_TYPE = (
    "CASE WHEN c.TYPENAME = 'DECIMAL' THEN 'DECIMAL(' || c.LENGTH || ',' || c.SCALE || ')'"
    " WHEN c.TYPENAME = 'TIMESTAMP' THEN 'TIMESTAMP(' || c.SCALE || ')'"
    " WHEN c.TYPENAME IN ('CHARACTER', 'VARCHAR') AND c.CODEPAGE = 0 THEN c.TYPENAME || ' FOR BIT DATA'"
    " WHEN c.TYPENAME IN ('CHARACTER', 'VARCHAR', 'GRAPHIC', 'VARGRAPHIC') THEN c.TYPENAME || '(' || c.LENGTH || ')'"
    " ELSE c.TYPENAME END"
)
_RULE = "CASE r.{rule} WHEN 'A' THEN 'NO ACTION' WHEN 'C' THEN 'CASCADE' WHEN 'N' THEN 'SET NULL' ELSE 'RESTRICT' END"


class Db2(Dialect):
    """See `Dialect`. There are no snapshots: rows are locked as they are read, and stay so until the end."""

    name = "db2"
    title = "Db2"
    default_schema = "VALUES CURRENT SCHEMA"
    opening = ("SET CURRENT ISOLATION = RR",)
    own_transactions = False
    consistency = (
        "each table as it is when it is read, by one session in isolation level RR; Db2 has no snapshot of all tables,"
        " so nobody should write meanwhile"
    )
    tables = f"SELECT t.TABNAME, t.REMARKS {_OF.replace('{more}', '')} ORDER BY 1"
    columns = (
        f"SELECT t.TABNAME, c.COLNAME, {_TYPE}, CASE WHEN c.NULLS = 'Y' THEN 'YES' ELSE 'NO' END,"
        " CASE WHEN c.IDENTITY = 'Y' THEN 'YES' ELSE 'NO' END, c.REMARKS "
        + _OF.replace(
            "{more}", " JOIN SYSCAT.COLUMNS c ON c.TABSCHEMA = t.TABSCHEMA AND c.TABNAME = t.TABNAME"
        )
        + " AND c.HIDDEN <> 'S' ORDER BY t.TABNAME, c.COLNO"
    )
    keys = (
        "SELECT t.TABNAME, k.CONSTNAME, k.TYPE, u.COLNAME "
        + _OF.replace(
            "{more}",
            " JOIN SYSCAT.TABCONST k ON k.TABSCHEMA = t.TABSCHEMA AND k.TABNAME = t.TABNAME AND k.TYPE IN ('P', 'U')"
            " JOIN SYSCAT.KEYCOLUSE u ON u.CONSTNAME = k.CONSTNAME AND u.TABSCHEMA = t.TABSCHEMA AND u.TABNAME = t.TABNAME",
        )
        + " ORDER BY t.TABNAME, k.CONSTNAME, u.COLSEQ"
    )
    references = (
        f"SELECT t.TABNAME, r.CONSTNAME, u.COLNAME, r.REFTABSCHEMA, r.REFTABNAME, p.COLNAME,"
        f" {_RULE.replace('{rule}', 'DELETERULE')}, {_RULE.replace('{rule}', 'UPDATERULE')} "
        + _OF.replace(
            "{more}",
            " JOIN SYSCAT.REFERENCES r ON r.TABSCHEMA = t.TABSCHEMA AND r.TABNAME = t.TABNAME"
            " JOIN SYSCAT.KEYCOLUSE u ON u.CONSTNAME = r.CONSTNAME AND u.TABSCHEMA = t.TABSCHEMA AND u.TABNAME = t.TABNAME"
            " JOIN SYSCAT.KEYCOLUSE p ON p.CONSTNAME = r.REFKEYNAME AND p.TABSCHEMA = r.REFTABSCHEMA"
            " AND p.TABNAME = r.REFTABNAME AND p.COLSEQ = u.COLSEQ",
        )
        + " ORDER BY t.TABNAME, r.CONSTNAME, u.COLSEQ"
    )
    indexes = (
        "SELECT t.TABNAME, i.INDNAME, CASE WHEN i.UNIQUERULE = 'U' THEN 'YES' ELSE 'NO' END, u.COLNAME,"
        " CASE WHEN u.COLORDER = 'D' THEN 'YES' ELSE 'NO' END "
        + _OF.replace(
            "{more}",
            " JOIN SYSCAT.INDEXES i ON i.TABSCHEMA = t.TABSCHEMA AND i.TABNAME = t.TABNAME"
            " JOIN SYSCAT.INDEXCOLUSE u ON u.INDSCHEMA = i.INDSCHEMA AND u.INDNAME = i.INDNAME AND u.COLORDER IN ('A', 'D')",
        )
        + " AND i.INDEXTYPE IN ('REG', 'CLUS') AND NOT EXISTS (SELECT 1 FROM SYSCAT.CONSTDEP d WHERE d.BTYPE = 'I'"
        " AND d.BSCHEMA = i.INDSCHEMA AND d.BNAME = i.INDNAME) ORDER BY t.TABNAME, i.INDNAME, u.COLSEQ"
    )
    others = (
        "SELECT VIEWNAME, 'view' FROM SYSCAT.VIEWS WHERE VIEWSCHEMA = {schema} UNION ALL"
        " SELECT TRIGNAME, 'trigger' FROM SYSCAT.TRIGGERS WHERE TRIGSCHEMA = {schema} UNION ALL"
        " SELECT ROUTINENAME, 'routine' FROM SYSCAT.ROUTINES WHERE ROUTINESCHEMA = {schema} UNION ALL"
        " SELECT CONSTNAME, 'check constraint' FROM SYSCAT.CHECKS WHERE TABSCHEMA = {schema} UNION ALL"
        " SELECT SEQNAME, 'sequence' FROM SYSCAT.SEQUENCES WHERE SEQSCHEMA = {schema} AND SEQTYPE = 'S' ORDER BY 1"
    )

    def choose(self, column: Column, counts: Mapping[str, int]) -> TypeChoice:
        """By the table of types."""
        return choose_driver(self.name, column.type, counts)

    def is_integer(self, column: Column) -> bool:
        """Integers of at most 64 bits."""
        return driver_type(column.type).name in {"smallint", "integer", "bigint"}

    def counted(self, column: Column) -> dict[str, str]:
        """Characters and digits that PostgreSQL has no place for."""
        c, read = self.quoted(column.name), driver_type(column.type)
        if read.name in {"real", "double"}:
            return {"rounded": f"DOUBLE(CHAR(DOUBLE({c}))) <> DOUBLE({c})"}
        if read.name == "timestamp" and (read.first or 0) > 6:
            return {"finer": f"{c} <> TIMESTAMP({c}, 6)"}
        if choose_driver(self.name, column.type, {}).carrier == "utf8" and read.name != "xml":
            return {"nul": f"LOCATE(CHR(0), {c}) > 0"}
        return {}

    def text(self, column: ColumnPlan) -> str:
        """Times by ISO's order, floats as doubles."""
        c, read = self.quoted(column.source), driver_type(column.source_type)
        match column.carrier:
            case "integer":
                return f"TRIM(CHAR({c}))"
            case "number":
                return f"CAST({c} AS VARCHAR(60))"
            case "boolean":
                return f"CASE WHEN {c} THEN '1' WHEN NOT {c} THEN '0' END"
            case "float":
                return f"TRIM(CHAR(DOUBLE({c})))"
            case "date":
                return f"CHAR({c}, ISO)"
            case "time":
                return f"CHAR({c}, JIS)"
            case "timestamp":
                return f"VARCHAR_FORMAT({c}, 'YYYY-MM-DD HH24:MI:SS.FF6')"
            case "bytes":
                return f"HEX({c})"
            case _ if read.name == "xml":
                return f"XMLSERIALIZE({c} AS CLOB(2G))"
            case _:
                return c

    def bound(self, column: ColumnPlan) -> int | None:
        """Numbers too have one."""
        return 60 if column.canon is Canon.NUMERIC else super().bound(column)

    def characters(self, text: str) -> str:
        """Code units of UTF-32."""
        return f"CHARACTER_LENGTH({text}, CODEUNITS32)"

    def big(self, number: str) -> str:
        """Sums are of their terms' type."""
        return f"BIGINT({number})"

    def sized(self, text: str, width: int) -> str:
        """Lengths are bytes; what is longer than any VARCHAR stays what it is."""
        return f"CAST({text} AS VARCHAR({4 * width}))" if 4 * width <= _MOST_VARCHAR else f"CLOB({text})"

    def hexed(self, text: str) -> str:
        """UTF-8, which the database has to be of."""
        return f"HEX({text})"

    def next_value(self, schema: str, table: str, column: str) -> str | None:
        """As the catalog has it."""
        return (
            f"SELECT CHAR(NEXTCACHEFIRSTVALUE) FROM SYSCAT.COLIDENTATTRIBUTES WHERE TABSCHEMA = {self.literal(schema)}"
            f" AND TABNAME = {self.literal(table)} AND COLNAME = {self.literal(column)}"
        )
