"""SQL Server through Microsoft's ODBC driver. Never run here: no such server can be.

What belongs here: its SQL texts. What does not: types (`types_drivers.py`).

It prints dates by style 121, floats by style 3 (17 digits, which give every double back; SQL Server 2016 and newer),
money by style 2 and bytes as hex digits. Digits of hundreds of nanoseconds are counted and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jivs_pipeline.core.digest import Canon
from jivs_pipeline.core.driver_dialects import Dialect
from jivs_pipeline.core.model import Column
from jivs_pipeline.core.plan import ColumnPlan
from jivs_pipeline.core.type_mapping import TypeChoice
from jivs_pipeline.core.types_drivers import choose_driver, driver_type

__all__ = ["SqlServer"]

_MOST_NVARCHAR = 4_000
_TABLE = (
    " FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id{more} WHERE s.name = {schema}"
    " AND t.is_ms_shipped = 0"
)


def _of_tables(select: str, more: str = "", rest: str = "", order: str = "1") -> str:
    return f"SELECT {select}{_TABLE.replace('{more}', more)}{rest} ORDER BY {order}"


_TYPE = (
    "CASE WHEN ty.name IN ('decimal', 'numeric') THEN CONCAT(ty.name, '(', c.precision, ',', c.scale, ')')"
    " WHEN ty.name IN ('datetime2', 'time', 'datetimeoffset') THEN CONCAT(ty.name, '(', c.scale, ')')"
    " WHEN ty.name IN ('char', 'varchar', 'nchar', 'nvarchar', 'binary', 'varbinary') THEN CONCAT(ty.name, '(',"
    " CASE WHEN c.max_length = -1 THEN 'max' WHEN ty.name LIKE 'n%' THEN CONCAT('', c.max_length / 2)"
    " ELSE CONCAT('', c.max_length) END, ')') ELSE ty.name END"
)
_COMMENT = (
    "(SELECT CONVERT(nvarchar(4000), p.value) FROM sys.extended_properties p WHERE p.class = 1 AND p.major_id = t.object_id"
    " AND p.minor_id = {minor} AND p.name = 'MS_Description')"
)


class SqlServer(Dialect):
    """See `Dialect`. One session in snapshot isolation, which the database must allow."""

    name = "mssql"
    title = "SQL Server"
    default_schema = "SELECT SCHEMA_NAME()"
    settings: ClassVar[Mapping[str, str]] = {"MARS_Connection": "no"}
    opening = (
        "SET LANGUAGE us_english",
        "SET DATEFORMAT ymd",
        "SET TEXTSIZE 2147483647",
        "SET ANSI_PADDING ON",
        "SET QUOTED_IDENTIFIER ON",
        "SET TRANSACTION ISOLATION LEVEL SNAPSHOT",
    )
    begin = ("BEGIN TRANSACTION", "SELECT COUNT(*) FROM sys.tables")
    end = "IF @@TRANCOUNT > 0 ROLLBACK"
    consistency = "one snapshot (isolation level SNAPSHOT), read by one session"
    tables = _of_tables(f"t.name, {_COMMENT.replace('{minor}', '0')}")
    columns = _of_tables(
        f"t.name, c.name, {_TYPE}, CASE WHEN c.is_nullable = 1 THEN 'YES' ELSE 'NO' END,"
        f" CASE WHEN c.is_identity = 1 THEN 'YES' ELSE 'NO' END, {_COMMENT.replace('{minor}', 'c.column_id')}",
        " JOIN sys.columns c ON c.object_id = t.object_id JOIN sys.types ty ON ty.user_type_id = c.system_type_id"
        " OR (c.system_type_id = 240 AND ty.user_type_id = c.user_type_id)",
        " AND c.is_hidden = 0",
        "t.name, c.column_id",
    )
    keys = _of_tables(
        "t.name, k.name, CASE k.type WHEN 'PK' THEN 'P' ELSE 'U' END, c.name",
        " JOIN sys.key_constraints k ON k.parent_object_id = t.object_id"
        " JOIN sys.index_columns i ON i.object_id = t.object_id AND i.index_id = k.unique_index_id"
        " AND i.is_included_column = 0"
        " JOIN sys.columns c ON c.object_id = t.object_id AND c.column_id = i.column_id",
        "",
        "t.name, k.name, i.key_ordinal",
    )
    references = _of_tables(
        "t.name, f.name, c.name, rs.name, r.name, rc.name, f.delete_referential_action_desc,"
        " f.update_referential_action_desc",
        " JOIN sys.foreign_keys f ON f.parent_object_id = t.object_id"
        " JOIN sys.foreign_key_columns k ON k.constraint_object_id = f.object_id"
        " JOIN sys.columns c ON c.object_id = t.object_id AND c.column_id = k.parent_column_id"
        " JOIN sys.tables r ON r.object_id = k.referenced_object_id JOIN sys.schemas rs ON rs.schema_id = r.schema_id"
        " JOIN sys.columns rc ON rc.object_id = r.object_id AND rc.column_id = k.referenced_column_id",
        "",
        "t.name, f.name, k.constraint_column_id",
    )
    indexes = _of_tables(
        "t.name, i.name, CASE WHEN i.is_unique = 1 THEN 'YES' ELSE 'NO' END, c.name,"
        " CASE WHEN k.is_descending_key = 1 THEN 'YES' ELSE 'NO' END",
        " JOIN sys.indexes i ON i.object_id = t.object_id"
        " JOIN sys.index_columns k ON k.object_id = t.object_id AND k.index_id = i.index_id AND k.is_included_column = 0"
        " JOIN sys.columns c ON c.object_id = t.object_id AND c.column_id = k.column_id",
        " AND i.is_primary_key = 0 AND i.is_unique_constraint = 0 AND i.has_filter = 0 AND i.type IN (1, 2)",
        "t.name, i.name, k.key_ordinal",
    )
    others = (
        "SELECT o.name, LOWER(REPLACE(o.type_desc, '_', ' ')) FROM sys.objects o"
        " JOIN sys.schemas s ON s.schema_id = o.schema_id"
        " WHERE s.name = {schema} AND o.is_ms_shipped = 0 AND o.type IN"
        " ('V', 'P', 'FN', 'IF', 'TF', 'TR', 'SO', 'SN', 'C', 'D', 'ET') ORDER BY 1"
    )
    encoding = "utf-16-le"

    def quoted(self, *names: str) -> str:
        """In brackets."""
        return ".".join("[" + name.replace("]", "]]") + "]" for name in names)

    def literal(self, text: str) -> str:
        """As nvarchar."""
        return "N" + super().literal(text)

    def choose(self, column: Column, counts: Mapping[str, int]) -> TypeChoice:
        """By the table of types."""
        return choose_driver(self.name, column.type, counts)

    def is_integer(self, column: Column) -> bool:
        """Integers of at most 64 bits."""
        return driver_type(column.type).name in {"tinyint", "smallint", "int", "bigint"}

    def counted(self, column: Column) -> dict[str, str]:
        """Characters and digits that PostgreSQL has no place for."""
        c, read = self.quoted(column.name), driver_type(column.type)
        choice = choose_driver(self.name, column.type, {})
        if read.name in {"datetime2", "time"} and (read.first or 7) > 6:
            return {"finer": f"DATEPART(nanosecond, {c}) % 1000 <> 0"}
        if choice.carrier == "utf8":
            text = f"CAST({self._plain(c, read.name)} AS nvarchar(max))"
            # Collations other than binary ones do not see a NUL.
            return {"nul": f"CHARINDEX(NCHAR(0), {text} COLLATE Latin1_General_100_BIN2) > 0"}
        return {}

    @staticmethod
    def _plain(c: str, name: str) -> str:
        return f"{c}.ToString()" if name == "hierarchyid" else c

    def text(self, column: ColumnPlan) -> str:
        """See the module."""
        c, read = self.quoted(column.source), driver_type(column.source_type)
        match column.carrier:
            case "integer" | "boolean":
                return f"CONVERT(varchar(20), {c})"
            case "number":
                return f"CONVERT(varchar(45), {c}{', 2' if 'money' in read.name else ''})"
            case "float":
                return f"CONVERT(varchar(40), {c}, 3)"
            case "date":
                return f"CONVERT(varchar(10), {c}, 23)"
            case "time":
                return f"LEFT(CONVERT(varchar(16), {c}, 121), 15)"
            case "timestamp":
                return f"LEFT(CONVERT(varchar(27), {c}, 121), 26)"
            case "uuid":
                return f"LOWER(CONVERT(varchar(36), {c}))"
            case "bytes":
                return f"CONVERT(varchar(max), CAST({c} AS varbinary(max)), 2)"
            case _:
                return f"CAST({self._plain(c, read.name)} AS nvarchar(max))"

    def bound(self, column: ColumnPlan) -> int | None:
        """Numbers too have one."""
        return (
            45 if column.canon is Canon.NUMERIC else 36 if column.carrier == "uuid" else super().bound(column)
        )

    def characters(self, text: str) -> str:
        """Units of UTF-16; LEN() does not see spaces at the end."""
        return f"DATALENGTH(CAST({text} AS nvarchar(max))) / 2"

    def big(self, number: str) -> str:
        """Sums are of their terms' type."""
        return f"CAST({number} AS bigint)"

    def sized(self, text: str, width: int) -> str:
        """From 4,000 characters on there is one type."""
        return f"CAST({text} AS nvarchar({width if width <= _MOST_NVARCHAR else 'max'}))"

    def hexed(self, text: str) -> str:
        """UTF-16."""
        return f"CONVERT(varchar(max), CAST(CAST({text} AS nvarchar(max)) AS varbinary(max)), 2)"

    def next_value(self, schema: str, table: str, column: str) -> str | None:
        """The last one that was given and the step, or the first where none was."""
        place = self.literal(self.quoted(schema, table))
        return (
            "SELECT CONVERT(varchar(40), COALESCE(CONVERT(numeric(38, 0), last_value)"
            " + CONVERT(numeric(38, 0), increment_value),"
            f" CONVERT(numeric(38, 0), seed_value))) FROM sys.identity_columns WHERE object_id = OBJECT_ID({place})"
            f" AND name = {self.literal(column)}"
        )
