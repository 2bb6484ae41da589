"""Statements that make partitioned tables, inheritance, sequences and constraints again, from a PostgreSQL catalog.

What belongs here: what ties relations together. What does not: tables that hold rows, which are carried as tables
(`postgresql_catalog.py`), and all other objects (`postgresql_makers.py`).

A partitioned table is made empty, when its partitions hold their rows; each of them is attached by an object of its own.
The server then finds their keys and indexes and makes them parts of the table's own.
"""

from __future__ import annotations

from typing import Any

from jivs_pipeline.infra.sources.postgresql_facts import Facts, Found, Made, literal
from jivs_pipeline.infra.sources.postgresql_spelling import quoted

__all__ = ["RELATIONS", "block"]

_IDENTITIES = {"a": "ALWAYS", "d": "BY DEFAULT"}


def block(body: str) -> str:
    """Several statements as one, with conditions."""
    return f"DO {literal(f'BEGIN {body} END')}"


def _sequence(one: Found, facts: Facts) -> Made:
    type_, *_ = facts.one("sequences", one.oid)
    create = (
        f"CREATE SEQUENCE {quoted(one.name)} AS {facts.text('type', type_, -1)} {_options(one.oid, facts)}"
    )
    named = literal(quoted(one.name))
    return Made((create,), f"DROP SEQUENCE {quoted(one.name)}", sequences=(named,))


def _options(sequence: int, facts: Facts) -> str:
    _, start, increment, minimum, maximum, cache, cycle = facts.one("sequences", sequence)
    return (
        f"START WITH {start} INCREMENT BY {increment} MINVALUE {minimum} MAXVALUE {maximum} CACHE {cache}"
        f"{' CYCLE' if cycle else ''}"
    )


def _owner(one: Found, facts: Facts) -> Made:
    [column] = facts.one("sequence_owners", one.oid)
    sequence = quoted(one.name)
    return Made(
        (f"ALTER SEQUENCE {sequence} OWNED BY {quoted(one.relation or '')}.{quoted(column)}",),
        f"ALTER SEQUENCE IF EXISTS {sequence} OWNED BY NONE",
    )


def _partitioned(one: Found, facts: Facts) -> Made:
    name = quoted(one.name)
    columns, after = [], []
    for line in facts.all("partitioned_columns", one.oid):
        column, more = _partitioned_column(name, line, facts)
        columns.append(column)
        after += more
    create = f"CREATE TABLE {name} ({', '.join(columns)}) PARTITION BY {facts.text('partition key', one.oid)}"
    for constraint, called, comment in facts.all("partitioned_constraints", one.oid):
        after.append(
            f"ALTER TABLE {name} ADD CONSTRAINT {quoted(called)} {facts.text('constraint', constraint)}"
        )
        if comment is not None:
            after.append(f"COMMENT ON CONSTRAINT {quoted(called)} ON {name} IS {literal(comment)}")
    for index, called, comment in facts.all("partitioned_indexes", one.oid):
        # The server says ONLY, which would leave the partitions' indexes alone.
        after.append(facts.text("index", index).replace(" ON ONLY ", " ON ", 1))
        if comment is not None:
            after.append(f"COMMENT ON INDEX {quoted(called)} IS {literal(comment)}")
    sequences = tuple(
        f"pg_catalog.pg_get_serial_sequence({literal(name)}, {literal(line[0])})"
        for line in facts.all("partitioned_columns", one.oid)
        if line[8] is not None
    )
    return Made((create, *after), _drop_partitioned(one.name), sequences=sequences)


def _partitioned_column(table: str, line: tuple[Any, ...], facts: Facts) -> tuple[str, list[str]]:
    """Its definition, and what is to be said of it when the table is there."""
    column, type_, mod, required, collation, default, generated, identity, sequence, comment, target = line
    parts, after = [quoted(column), facts.text("type", type_, mod)], list[str]()
    parts[1] += facts.collation(collation or "")
    if generated:
        parts.append(f"GENERATED ALWAYS AS ({facts.text('default', default)}) STORED")
    elif identity and sequence is not None:
        parts.append(f"GENERATED {_IDENTITIES[identity]} AS IDENTITY ({_options(sequence, facts)})")
    elif default is not None:
        parts.append(f"DEFAULT {facts.text('default', default)}")
    if required:
        parts.append("NOT NULL")
    if target is not None:
        after.append(f"ALTER TABLE ONLY {table} ALTER COLUMN {quoted(column)} SET STATISTICS {target}")
    if comment is not None:
        after.append(f"COMMENT ON COLUMN {table}.{quoted(column)} IS {literal(comment)}")
    return " ".join(parts), after


def _foreign(one: Found, facts: Facts) -> Made:
    """A table of another server, which the target has to know by the same name. Its rows stay there."""
    name = quoted(one.name)
    server, options = facts.one("foreign_tables", one.oid)
    columns, after = [], []
    for line in facts.all("partitioned_columns", one.oid):
        column, more = _partitioned_column(name, line, facts)
        columns.append(column)
        after += more
    having = f" OPTIONS ({', '.join(options)})" if options else ""
    after += [
        f"ALTER FOREIGN TABLE {name} ALTER COLUMN {quoted(column)} OPTIONS ({', '.join(options)})"
        for column, options in facts.all("foreign_columns", one.oid)
    ]
    for constraint, called, comment in facts.all("partitioned_constraints", one.oid):
        after.append(
            f"ALTER FOREIGN TABLE {name} ADD CONSTRAINT {quoted(called)} {facts.text('constraint', constraint)}"
        )
        if comment is not None:
            after.append(f"COMMENT ON CONSTRAINT {quoted(called)} ON {name} IS {literal(comment)}")
    create = f"CREATE FOREIGN TABLE {name} ({', '.join(columns)}) SERVER {quoted(server)}{having}"
    return Made((create, *after), f"DROP FOREIGN TABLE {name}", (("foreign server", server),))


def _index(one: Found, facts: Facts) -> Made:
    return Made((facts.text("index", one.oid),), f"DROP INDEX {quoted(one.name)}")


def _publication(one: Found, facts: Facts) -> Made:
    of_schema, changes, by_root, generated = facts.one("publications", one.oid)
    tables: list[str] = []
    for table, columns in facts.all("publication_tables", one.oid):
        chosen = f" ({', '.join(map(quoted, columns))})" if columns else ""
        tables.append(f"ONLY {quoted(table)}{chosen}")
    listed = [f"TABLE {', '.join(tables)}"] if tables else []
    # Whoever makes objects looks for names in the target's schema.
    listed += ["TABLES IN SCHEMA CURRENT_SCHEMA"] if of_schema else []
    options = [f"publish = {literal(changes)}"]
    options += ["publish_via_partition_root = true"] if by_root else []
    options += ["publish_generated_columns = stored"] if generated else []
    name = f"PUBLICATION {quoted(one.name)}"
    given = (("right", "SUPERUSER"),) if of_schema else ()
    return Made(
        (f"CREATE {name} FOR {', '.join(listed)} WITH ({', '.join(options)})",), f"DROP {name}", given
    )


def _drop_partitioned(name: str) -> str:
    """Dropping it would drop its partitions, and those that are still attached are not ours."""
    parts = f"FROM pg_catalog.pg_inherits WHERE inhparent = to_regclass({literal(quoted(name))})"
    return block(
        f"IF EXISTS (SELECT {parts}) THEN"
        " RAISE EXCEPTION USING ERRCODE = 'dependent_objects_still_exist', MESSAGE = 'it has partitions',"
        f" DETAIL = (SELECT pg_catalog.string_agg(inhrelid::regclass || ' is attached to it', '; ') {parts}); END IF;"
        f" DROP TABLE IF EXISTS {quoted(name)};"
    )


def _partition(one: Found, facts: Facts) -> Made:
    parent, name = one.relation or "", one.name
    return Made(
        (f"ALTER TABLE {quoted(parent)} ATTACH PARTITION {quoted(name)} {facts.text('bound', one.oid)}",),
        block(_tied(name, parent, f"ALTER TABLE {quoted(parent)} DETACH PARTITION {quoted(name)}")),
    )


def _inheritance(one: Found, facts: Facts) -> Made:
    parents = [parent for (parent,) in facts.all("parents", one.oid)]
    drops = [
        _tied(one.name, parent, f"ALTER TABLE {quoted(one.name)} NO INHERIT {quoted(parent)}")
        for parent in parents
    ]
    return Made(
        tuple(f"ALTER TABLE {quoted(one.name)} INHERIT {quoted(parent)}" for parent in parents),
        block(" ".join(drops)),
    )


def _tied(name: str, parent: str, statement: str) -> str:
    return (
        f"IF EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid = to_regclass({literal(quoted(name))})"
        f" AND inhparent = to_regclass({literal(quoted(parent))})) THEN {statement}; END IF;"
    )


def _constraint(one: Found, facts: Facts) -> Made:
    relation, name = quoted(one.relation or ""), quoted(one.name)
    create = f"ALTER TABLE {relation} ADD CONSTRAINT {name} {facts.text('constraint', one.oid)}"
    return Made((create,), f"ALTER TABLE IF EXISTS {relation} DROP CONSTRAINT IF EXISTS {name}")


RELATIONS = {
    "exclusion constraint": _constraint,
    "foreign key": _constraint,
    "foreign table": _foreign,
    "index": _index,
    "inheritance": _inheritance,
    "owner of sequence": _owner,
    "partition": _partition,
    "partitioned table": _partitioned,
    "publication": _publication,
    "sequence": _sequence,
}
