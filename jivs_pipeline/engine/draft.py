"""A spec to begin with: written from the plan of a migration without rules, every choice there as a comment.

What belongs here: the text. What does not: the plan, and files (`cli_init.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from jivs_pipeline.core.counts import counted
from jivs_pipeline.core.plan import Plan, TablePlan
from jivs_pipeline.core.spec import Spec

__all__ = ["draft"]

_HEAD = """\
# Made by `jivs init`. Everything behind # is a choice that is not made yet; `jivs plan` says what would happen.
"""
_CHOICES = """\
# on_existing: fail          # fail | replace | truncate | append; what to do if a target table exists
# tables: {include: ["*"], exclude: ["tmp_*"]}
# quarantine: {max_rows: 0}  # bad rows per table that are put aside; 0: the first one fails its table
# verify: digest             # count | digest | rows
# on_failure: keep           # keep (resume later) | rollback
# parallelism: 2
# limits: {source_connections: 4}
# schedule: "0 3 * * *"      # cron, UTC; with on_existing other than fail, or type: incremental
"""


def draft(spec: Spec, plan: Plan, schema_file: str | None) -> str:
    """The text of a spec in YAML.

    Args:
        spec: what the text is to mean as it stands.
        plan: of that spec.
        schema_file: where editors find the JSON Schema, for completion.
    """
    return "\n".join(_lines(spec, plan, schema_file)) + "\n"


def _lines(spec: Spec, plan: Plan, schema_file: str | None) -> Iterator[str]:
    if schema_file:
        yield f"# yaml-language-server: $schema={schema_file}"
    yield _HEAD.rstrip()
    for name in ("key", "source", "target"):
        yield f"{name}: {_text(getattr(spec, name))}"
    for name in ("source_schema", "target_schema"):
        if (value := getattr(spec, name)) is not None:
            yield f"{name}: {_text(value)}"
    yield _CHOICES.rstrip()
    refused = [w for w in plan.warnings if w.kind == "refused"]
    if refused:
        yield f"# What cannot be carried as it is ({counted(len(refused), 'thing', 'things')}):"
        for warning in refused:
            column = f".{warning.column}" if warning.column else ""
            yield _comment(f"  {warning.table}{column}: {warning.reason}")
    yield "# rules:                     # docs/rules.md"
    for table in sorted(plan.tables, key=lambda t: t.source_table):
        yield from _table(table)
    yield "# validation:                # docs/validation.md"
    for table in sorted(plan.tables, key=lambda t: t.source_table)[:1]:
        yield _comment(f"  - {{kind: constraints, table: {_text(table.target_table)}, severity: critical}}")


def _table(table: TablePlan) -> Iterator[str]:
    about = "" if table.rows_exact else "about "
    said = table.refused or f"{about}{counted(table.rows, 'row', 'rows')}, {table.bytes:,} bytes"
    yield _comment(f"  {_text(table.source_table)}:  # {said}")
    yield "#     columns:"
    width = max((len(_text(c.source)) for c in table.columns), default=0)
    for column in table.columns:
        name = f"{_text(column.source)}:".ljust(width + 1)
        yield _comment(f"      {name} {{}}  # {column.source_type or 'untyped'} → {column.target_type}")


def _comment(text: str) -> str:
    return "# " + " ".join(text.split("\n")) if not text.startswith(" ") else "# " + text.replace("\n", " ")


def _text(value: str) -> str:
    """A name as YAML reads it back: plain where that is safe, else quoted as in JSON."""
    plain = value.replace("_", "a").replace("-", "a")
    safe = plain.isascii() and plain.isalnum() and plain[0].isalpha() and value.lower() not in _WORDS
    return value if safe else json.dumps(value, ensure_ascii=False)


_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "nan", "inf"})
