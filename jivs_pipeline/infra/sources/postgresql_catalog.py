"""Reads a PostgreSQL catalog into `core.model`.

What belongs here: tables of one schema with all that hangs on them, and a name for everything that is not
carried. What does not: looking at rows (`postgresql.py`) and the queries (`postgresql_catalog.sql`).

Rule: what the model can say exactly goes into the model; what it cannot, or what needs an object that the
target does not have, becomes a `LeftOut` with its reason. Nothing is dropped without one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.model import (
    Catalog,
    Column,
    Identity,
    LeftOut,
    Table,
)
from jivs_pipeline.core.names import did_you_mean, qualified
from jivs_pipeline.infra.named_sql import load_blocks
from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.sources.postgresql_grants import read_grants, read_large_object_grants
from jivs_pipeline.infra.sources.postgresql_objects import Objects, read_objects
from jivs_pipeline.infra.sources.postgresql_parts import LATER, Constraint, Reader, constraints_of, indexes_of
from jivs_pipeline.infra.sources.postgresql_settings import read_settings
from jivs_pipeline.infra.sources.postgresql_spelling import Texts, spell

__all__ = ["SQL", "Numbered", "numbered", "read_catalog"]

SQL = load_blocks("jivs_pipeline.infra.sources", "postgresql_catalog.sql")

_NAMED = 10
_INTEGERS = {"smallint": 1 << 15, "integer": 1 << 31, "bigint": 1 << 63}

_REASONS = {
    "large objects": "they come along by themselves, if all tables do",
    "comment": "the schema's own is not carried",
    "compression": "it is lz4 in the source and the target's default is used",
    "column option": "PostgreSQL does not know it",
    "statistics target": "that of an index's column is not carried",
    "access method": "the target's table gets the server's default",
    "tablespace": "the target's default one is used",
    "disabled foreign keys": "they are checked in the target",
    "unlogged sequence": "it becomes a logged one",
    "inherited columns": "the target's table has them of its own as well, and keeps them when a parent drops one",
    "index": "it is invalid in the source, where not all partitions have it",
    "collation": "it is for another encoding",
    "event trigger": "it fires on changes of the whole database, and only superusers make one; make it again after the run",
    "text search parser": "it is written in C, and only superusers make one",
    "text search template": "it is written in C, and only superusers make one",
    "shell type": "it has no definition yet",
    "publication": "make it again when the target is to publish",
    "subscription": "make it again when the target is to subscribe",
    "default privileges": "what is made later does not get them; set them again",
}
_LOSSY = frozenset(
    {
        "access method",
        "column option",
        "comment",
        "compression",
        "default privileges",
        "disabled foreign keys",
        "inherited columns",
        "security label",
        "statistics target",
        "tablespace",
        "unlogged sequence",
    }
)
_OF_THE_DATABASE = frozenset({"event trigger", "large objects", "publication", "subscription"})
"""Kinds of what is in no schema."""


class Numbered(NamedTuple):
    """A column that numbers itself and its sequence; see `-- name: numbered`."""

    relation: int
    column: str
    schema: str
    sequence: str
    how: Literal["i", "a", "n", "o"]
    start: int
    increment: int
    minimum: int
    maximum: int
    cache: int
    cycle: bool
    oid: int
    readable: bool


def numbered(session: Session, tables: Sequence[int]) -> list[Numbered]:
    """The self-numbering columns of tables, given by OID; without those whose sequence belongs to another column."""
    return [n for n in _all_numbered(session, tables) if n.how != "o"]


def _all_numbered(session: Session, tables: Sequence[int]) -> list[Numbered]:
    return [Numbered(*row) for row in session.execute(SQL["numbered"], {"tables": list(tables)}).fetchall()]


def read_catalog(session: Session, schema: str) -> Catalog:
    """Tables of `schema`. The session has an open transaction, so that all queries see the same moment.

    Raises:
        ConfigError: there is no such schema.
    """
    schemas = [name for (name,) in session.execute(SQL["schemas"]).fetchall()]
    if schema not in schemas:
        raise ConfigError(
            f"The source has no schema {schema!r}",
            hint=did_you_mean(schema, schemas, "schemas of the source"),
        )
    reader = Reader(schema)
    names: dict[int, str] = {}
    found: list[tuple[int, str, bool, str | None, str | None, str | None]] = []
    for oid, name, unlogged, comment, root, storage, kind in session.execute(
        SQL["tables"], {"schema": schema}
    ).fetchall():
        if kind is None:
            names[oid] = name
            found.append((oid, name, unlogged, comment, root, storage))
        else:
            reason = "it belongs to an extension, which has to be installed in the target"
            reader.left_out.append(LeftOut(qualified(schema, name), kind, reason))
    tables = {"tables": list(names)}
    reader.shared = frozenset(oid for (oid,) in session.execute(SQL["shared_sequences"]).fetchall())
    sequences = {(n.relation, n.column): n for n in _all_numbered(session, list(names))}
    columns = _by_table(session.execute(SQL["columns"], tables).fetchall())
    types = {(oid, line[0]): line[1] for oid, lines in columns.items() for line in lines}
    own = [
        s.oid
        for place, s in sequences.items()
        if s.how != "i" and s.schema == schema and _numbers_itself(reader, types[place], s)
    ]
    reader.objects = _with_users_of_rows(read_objects(session, schema, names, own), columns)
    made_classes, made_oids = [c for c, _ in reader.objects.parts], [o for _, o in reader.objects.parts]
    needs = {**tables, "made_classes": made_classes, "made": made_oids}
    reader.needs = {
        oid: (thing, extensions) for oid, thing, extensions in session.execute(SQL["needs"], needs).fetchall()
    }
    constraints = _by_table(session.execute(SQL["constraints"], tables).fetchall())
    parts = _by_table(session.execute(SQL["index_parts"], tables).fetchall())
    lines = session.execute(SQL["indexes"], tables).fetchall()
    indexes = _by_table(line for line in lines if line[1] not in reader.objects.indexes)
    reader.texts = _spelled(session, reader, columns, constraints, indexes, parts)
    made = tuple(
        Table(
            schema=schema,
            name=name,
            columns=tuple(
                _column(reader, name, line, sequences.get((oid, line.name)))
                for line in itertools.starmap(_ColumnLine, columns[oid])
            ),
            indexes=tuple(indexes_of(reader, name, indexes[oid], parts)),
            comment=comment,
            unlogged=unlogged,
            uses_objects=oid in reader.objects.users,
            root=root,
            settings=(storage,) if storage else (),
            **constraints_of(reader, name, constraints[oid]),
        )
        for oid, name, unlogged, comment, root, storage in found
    )
    made = tuple(replace(t, needs=tuple(reader.extensions[t.name])) for t in made)
    by_name = {t.name: t for t in made}
    # These live on, as an identity's or under their own name.
    kept = {
        s.sequence
        for s in sequences.values()
        if s.schema == schema and by_name[names[s.relation]].column(s.column).identity is not None
    }
    carried = {(o.kind, o.name) for o in reader.objects.made}
    for kind, name, table in session.execute(SQL["others"], {"schema": schema}).fetchall():
        if (kind == "sequence" and name in kept) or (kind, name) in carried:
            continue
        if table is not None and table not in by_name:
            continue
        shown = name if kind in _OF_THE_DATABASE or name == schema else qualified(schema, name)
        severity: Literal["lossy", "refused"] = "lossy" if kind in _LOSSY else "refused"
        reason = reader.objects.problems.get((kind, name)) or _REASONS.get(kind, LATER)
        reader.left_out.append(LeftOut(shown, kind, reason, table, severity))
    told = {(o.kind, o.name) for o in reader.left_out}
    reader.left_out += [
        LeftOut(qualified(schema, name), kind, reason)
        for (kind, name), reason in reader.objects.problems.items()
        if not {(kind, name), (kind, qualified(schema, name))} & told
    ]
    large, too_many = read_large_object_grants(session)
    reader.left_out += [*too_many, *_not_asked_for(session, schema)]
    left_out = tuple(sorted(reader.left_out, key=lambda o: (o.name, o.kind)))
    extensions = tuple(name for (name,) in session.execute(SQL["extensions"]).fetchall())
    adopted = {s.sequence: (names[s.relation], s.column) for s in sequences.values() if s.sequence in kept}
    by_label = {(o.kind, o.name): o for o in reader.objects.made}
    objects = (
        *reader.objects.made,
        *read_settings(session, schema),
        *read_grants(session, schema, by_label, adopted),
        *large,
    )
    return Catalog(schema, made, left_out, objects, extensions)


def _with_users_of_rows(objects: Objects, columns: Mapping[int, Sequence[tuple[Any, ...]]]) -> Objects:
    """The objects, and tables whose columns are of other tables' row types among those that need some."""
    users = {
        t
        for t, lines in columns.items()
        if any(_ColumnLine(*line).type_oid in objects.rows for line in lines)
    }
    return replace(objects, types=objects.types.union(objects.rows), users=objects.users | users)


def _not_asked_for(session: Session, schema: str) -> list[LeftOut]:
    """One line for all other schemas: a migration is of one."""
    others = [name for (name,) in session.execute(SQL["other_schemas"], {"schema": schema}).fetchall()]
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    named = ", ".join(others[:_NAMED]) + more
    reason = f"a migration carries one schema; make one with source_schema for {named}, too"
    return [LeftOut(f"{len(others)} schema{'s' * (len(others) > 1)}", "not asked for", reason)] * bool(others)


def _spelled(
    session: Session,
    reader: Reader,
    columns: Mapping[int, Sequence[tuple[Any, ...]]],
    constraints: Mapping[int, Sequence[tuple[Any, ...]]],
    indexes: Mapping[int, Sequence[tuple[Any, ...]]],
    parts: Mapping[int, Sequence[tuple[Any, ...]]],
) -> Texts:
    """Types and expressions of the tables that use objects."""
    users = reader.objects.users
    if not users:
        return {}
    lines = [_ColumnLine(*line) for table in users for line in columns[table]]
    checks = [Constraint(*line) for table in users for line in constraints[table]]
    own = [line[0] for table in users for line in indexes[table]]
    return spell(
        session,
        reader.schema,
        types=[(line.type_oid, line.modifier) for line in lines if line.type_oid in reader.objects.types],
        parts=[(i, n) for i in own for n, part in enumerate(parts[i], 1) if not part[0] and part[1] is None],
        default=[line.default_oid for line in lines if line.default_oid is not None],
        check=[c.oid for c in checks if c.kind == "c"],
        predicate=own,
    )


def _by_table(rows: Iterable[tuple[Any, ...]]) -> defaultdict[int, list[tuple[Any, ...]]]:
    """The first column is what the rows belong to."""
    grouped: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for owner, *rest in rows:
        grouped[owner].append(tuple(rest))
    return grouped


class _ColumnLine(NamedTuple):
    """A line of `-- name: columns` without its table."""

    name: str
    type: str
    nullable: bool
    default_oid: int | None
    expression: str | None
    generated: str
    identity: str
    comment: str | None
    collation: str | None
    type_oid: int
    modifier: int
    extension: str | None
    required_by: str | None
    settings: list[str]


def _column(reader: Reader, table: str, line: _ColumnLine, sequence: Numbered | None) -> Column:
    identity = _identity(reader, table, line, sequence) if sequence else None
    default = generated = None
    expression = reader.texts.get(("default", line.default_oid or 0, 0), line.expression)
    if line.generated:
        if not reader.needed(table, line.name, "generated column", line.default_oid):
            generated = expression
        if line.generated == "v":
            reason = "it is virtual in the source and becomes stored"
            reader.leave(table, line.name, "generated column", reason, "lossy")
    elif (
        expression is not None
        and identity is None
        and not reader.needed(table, line.name, "default", line.default_oid)
    ):
        default = expression
    return Column(
        name=line.name,
        type=reader.texts.get(("type", line.type_oid, line.modifier), line.type),
        nullable=line.nullable,
        default=default,
        generated=generated,
        identity=identity,
        comment=line.comment,
        collation=reader.collation(table, line.name, "collation", line.collation),
        made=line.type_oid in reader.objects.types,
        rows_of=reader.objects.rows.get(line.type_oid),
        required_by=line.required_by,
        settings=tuple(line.settings),
        extension=line.extension,
        numbers_from=sequence.sequence
        if default is not None
        and line.type in _INTEGERS
        and sequence
        and sequence.oid in reader.objects.sequences
        else None,
    )


def _numbers_itself(reader: Reader, type_: str, sequence: Numbered) -> bool:
    """Whether a column with a sequence becomes one that numbers itself: nobody else takes numbers from there."""
    alone = sequence.how == "i" or (sequence.how != "o" and sequence.oid not in reader.shared)
    return type_ in _INTEGERS and alone


def _identity(reader: Reader, table: str, line: _ColumnLine, sequence: Numbered) -> Identity | None:
    """None leaves the default to be looked at like any other."""
    if not _numbers_itself(reader, line.type, sequence):
        return None
    size = _INTEGERS[line.type]
    if sequence.how == "n":
        reason = (
            f"the column takes its numbers from sequence {sequence.sequence}, which it owns in the target"
        )
        reader.leave(table, line.name, "sequence", reason, "lossy")
    up = sequence.increment > 0
    # A limit that the column's type sets anyway is not said: a bigint sequence may feed an integer column.
    lowest, highest = (1, size - 1) if up else (-size, -1)
    at_lowest = sequence.minimum == 1 if up else sequence.minimum <= lowest
    at_highest = sequence.maximum >= highest if up else sequence.maximum == -1
    return Identity(
        always=line.identity == "a",
        start=sequence.start,
        increment=sequence.increment,
        minimum=None if at_lowest else max(sequence.minimum, -size),
        maximum=None if at_highest else min(sequence.maximum, size - 1),
        cache=sequence.cache,
        cycle=sequence.cycle,
        sequence=None if sequence.how == "i" else sequence.sequence,
    )
