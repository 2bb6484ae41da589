"""`jivs types`: what becomes of each type of a source.

What belongs here: printing the tables. What does not: the tables (`core/types.py`).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.names import did_you_mean

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command("types")
def types(
    dialect: Annotated[
        str,
        typer.Argument(
            metavar="DIALECT", help="mysql, sqlite, mssql, oracle, db2, hana, csv, parquet or postgresql."
        ),
    ],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Show what each type of a source becomes in PostgreSQL, and what its values must be for that."""
    from jivs_pipeline.core.types import TABLES

    if dialect == "postgresql":
        said = (
            "Every type of PostgreSQL itself and of the migrated schema stays what it is; others are refused"
        )
        print(json.dumps({"dialect": dialect, "types": [], "note": said}) if json_ else said)
        return
    if dialect not in TABLES:
        raise ConfigError(
            f"There is no dialect {dialect!r}",
            hint=did_you_mean(dialect, [*TABLES, "postgresql"], "dialects"),
        )
    if json_:
        print(json.dumps({"dialect": dialect, "types": [asdict(m) for m in TABLES[dialect]]}))
        return
    rows = [("declared", "stored", "PostgreSQL", "if every value is", "note")]
    rows += [(m.declared, m.stored, m.target, m.condition, m.note) for m in TABLES[dialect]]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print(
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]
            ).rstrip()
        )
