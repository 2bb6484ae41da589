"""What hangs on a PostgreSQL table: its keys, checks, references and indexes as `core.model` says them.

What belongs here: turning lines of the catalog's queries into the model, and leaving out aloud what it cannot say. What
does not: tables and columns (`postgresql_catalog.py`).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from jivs_pipeline.core.model import Check, ForeignKey, Index, IndexPart, Key, LeftOut, Need, PartKind
from jivs_pipeline.core.names import qualified
from jivs_pipeline.infra.sources.postgresql_objects import Objects
from jivs_pipeline.infra.sources.postgresql_spelling import Texts, quoted

__all__ = ["LATER", "Constraint", "Reader", "constraints_of", "indexes_of"]

_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}

LATER = "this version does not carry it"


@dataclass(slots=True)
class Reader:
    """What was read so far; one per catalog."""

    schema: str
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    objects: Objects = field(default_factory=Objects)
    texts: Texts = field(default_factory=dict[tuple[str, int, int], str])
    """Of the expressions that name objects; all others are as they were read."""
    needs: Mapping[int, tuple[str | None, list[str]]] = field(
        default_factory=dict[int, tuple[str | None, list[str]]]
    )
    """Part of a table -> what it uses that only the source has, and extensions that it uses."""
    extensions: defaultdict[str, list[Need]] = field(
        default_factory=lambda: defaultdict[str, list[Need]](list)
    )
    """By table, what is carried if the target has them."""
    shared: frozenset[int] = frozenset()

    def leave(
        self, table: str, name: str, kind: str, reason: str, severity: Literal["lossy", "refused"] = "refused"
    ) -> None:
        """Note that a part of a table does not come along."""
        self.left_out.append(
            LeftOut(f"{qualified(self.schema, table)}.{name}", kind, reason, table, severity)
        )

    def needed(self, table: str, name: str, kind: PartKind, oid: int | None) -> bool:
        """Whether the part uses something that only the source has; if so, it is left out here."""
        thing, extensions = self.needs.get(oid or 0, (None, []))
        if thing is not None:
            self.leave(table, name, kind, f"it uses {thing}, which is not carried")
        else:
            self.extensions[table] += [Need(kind, name, extension) for extension in extensions]
        return thing is not None

    def extended(self, oid: int) -> bool:
        """Whether a part uses something of an extension, as an index does with the operators of its access method."""
        return bool(self.needs.get(oid, (None, []))[1])

    def collation(self, table: str, name: str, kind: str, collation: str | None) -> str | None:
        """How the target may call it: bare if it is of the schema. One of another schema is left out aloud."""
        if collation is None or collation.startswith("pg_catalog."):
            return collation
        own = {bare: quoted(bare) for bare_kind, bare in self._made if bare_kind == "collation"}
        for schema in (quoted(self.schema), self.schema):
            bare = collation.removeprefix(f"{schema}.")
            if bare != collation and (found := own.get(bare, bare)) in own.values():
                return found
        self.leave(
            table, name, kind, f"collation {collation} is not carried; the target's default is used", "lossy"
        )
        return None

    @property
    def _made(self) -> set[tuple[str, str]]:
        return {(o.kind, o.name) for o in self.objects.made}


class Constraint(NamedTuple):
    """A line of `-- name: constraints` without its table."""

    oid: int
    name: str
    kind: str
    deferrable: bool
    deferred: bool
    valid: bool
    no_inherit: bool
    comment: str | None
    columns: list[str]
    include: list[str]
    nulls_not_distinct: bool
    target_schema: str | None
    target_table: str | None
    target_columns: list[str]
    on_delete: str
    on_update: str
    match: str
    delete_columns: list[str]
    expression: str | None
    enforced: bool
    period: bool


def constraints_of(reader: Reader, table: str, rows: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """Fields of `Table`."""
    kept = [c for c in itertools.starmap(Constraint, rows) if not _left(reader, table, c)]
    return {
        "primary_key": next((_key(c) for c in kept if c.kind == "p"), None),
        "unique_keys": tuple(_key(c) for c in kept if c.kind == "u"),
        "foreign_keys": tuple(_reference(c) for c in kept if c.kind == "f"),
        "checks": tuple(
            Check(
                c.name, reader.texts.get(("check", c.oid, 0), c.expression), c.valid, c.no_inherit, c.comment
            )
            for c in kept
            if c.kind == "c" and c.expression
        ),
    }


def _left(reader: Reader, table: str, c: Constraint) -> bool:
    """Whether a constraint is not carried; if so, it is left out here."""
    if c.kind == "n":
        # Which columns are NOT NULL is said by the columns, with a name; a missing validation and the rest are not carried.
        if not c.valid:
            reader.leave(table, c.name, "not-null constraint", "it is not validated in the source", "lossy")
        if c.comment:
            reader.leave(table, c.name, "comment", "comments on NOT NULL are not carried", "lossy")
        if c.no_inherit:
            reader.leave(table, c.name, "not-null constraint", "children inherit it in the target", "lossy")
        return True
    if c.kind == "x":
        if (reason := reader.objects.problems.get(("exclusion constraint", f"{table}.{c.name}"))) is None:
            return True  # it is one of the objects
        reader.leave(table, c.name, "exclusion constraint", reason)
    elif c.period:
        reader.leave(table, c.name, "temporal constraint", LATER)
    elif not c.enforced:
        reader.leave(table, c.name, "constraint", "it is not enforced in the source")
    elif c.kind != "c":
        return False
    else:
        return reader.needed(table, c.name, "check constraint", c.oid)
    return True


def _key(c: Constraint) -> Key:
    return Key(
        name=c.name,
        columns=tuple(c.columns),
        deferrable=c.deferrable,
        initially_deferred=c.deferred,
        nulls_not_distinct=c.nulls_not_distinct,
        include=tuple(c.include),
        comment=c.comment,
    )


def _reference(c: Constraint) -> ForeignKey:
    on_delete = _ACTIONS[c.on_delete]
    if c.delete_columns:
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in c.delete_columns)
        on_delete = f"{on_delete} ({quoted})"
    return ForeignKey(
        name=c.name,
        columns=tuple(c.columns),
        target_schema=c.target_schema or "",
        target_table=c.target_table or "",
        target_columns=tuple(c.target_columns),
        on_delete=on_delete,
        on_update=_ACTIONS[c.on_update],
        match_full=c.match == "f",
        deferrable=c.deferrable,
        initially_deferred=c.deferred,
        valid=c.valid,
        comment=c.comment,
    )


def indexes_of(
    reader: Reader,
    table: str,
    rows: Iterable[tuple[Any, ...]],
    parts: Mapping[int, Sequence[tuple[Any, ...]]],
) -> Iterable[Index]:
    """Indexes of a table that are not a key's."""
    for oid, name, unique, method, own_method, valid, predicate, not_distinct, options, comment in rows:
        if not valid:
            reader.leave(table, name, "index", "it is invalid in the source")
        elif not own_method and not reader.extended(oid):
            reader.leave(table, name, "index", f"its access method {method} is not PostgreSQL's own")
        elif not reader.needed(table, name, "index", oid):
            lines = list(itertools.starmap(_PartLine, parts[oid]))
            yield Index(
                name=name,
                parts=tuple(
                    _index_part(reader, table, name, p, reader.texts.get(("part", oid, number)))
                    for number, p in enumerate(lines, 1)
                    if not p.included
                ),
                unique=unique,
                method=method,
                predicate=reader.texts.get(("predicate", oid, 0), predicate),
                include=tuple(p.column for p in lines if p.included and p.column),
                nulls_not_distinct=not_distinct,
                with_options=tuple(options),
                comment=comment,
            )


class _PartLine(NamedTuple):
    """A line of `-- name: index_parts` without its index."""

    included: bool
    column: str | None
    expression: str | None
    descending: bool
    nulls_first: bool
    collation: str | None
    opclass: str | None


def _index_part(reader: Reader, table: str, index: str, line: _PartLine, expression: str | None) -> IndexPart:
    return IndexPart(
        column=line.column,
        expression=expression or line.expression,
        descending=line.descending,
        nulls_first=None if line.nulls_first == line.descending else line.nulls_first,
        collation=reader.collation(table, index, "index", line.collation),
        opclass=line.opclass,
    )
