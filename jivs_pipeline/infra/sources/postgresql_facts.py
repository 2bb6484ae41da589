"""What statements that make a PostgreSQL schema's objects again are put together from, read from its catalog.

What belongs here: asking, once for all objects. What does not: the statements (`postgresql_makers.py` and
`postgresql_relations.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.sources.postgresql_spelling import OBJECTS as SQL
from jivs_pipeline.infra.sources.postgresql_spelling import Texts, quoted, spell

__all__ = ["Facts", "Found", "Made", "literal", "read_facts"]

Lines = dict[int, list[tuple[Any, ...]]]
"""Lines of a query by the oid that they begin with, without it."""

_ASKED = {
    "enums": ("enum",),
    "domains": ("domain",),
    "domain_checks": ("domain",),
    "composites": ("composite type",),
    "ranges": ("range type",),
    "aggregates": ("aggregate",),
    "views": ("view", "materialized view"),
    "view_indexes": ("materialized view",),
    "view_defaults": ("view",),
    "comments_inside": ("view", "materialized view", "composite type", "domain"),
    "statistics_targets": ("statistics object",),
    "trigger_states": ("trigger",),
    "trigger_clones": ("trigger",),
    "rule_states": ("rule",),
    "policies": ("policy",),
    "casts": ("cast",),
    "collations": ("collation",),
    "conversions": ("conversion",),
    "operators": ("operator",),
    "operator_classes": ("operator class",),
    "class_operators": ("operator class", "operator family"),
    "class_functions": ("operator class", "operator family"),
    "foreign_tables": ("foreign table",),
    "foreign_columns": ("foreign table",),
    "publications": ("publication",),
    "publication_tables": ("publication",),
    "dictionaries": ("text search dictionary",),
    "parsers": ("text search configuration",),
    "mappings": ("text search configuration",),
    "sequences": ("sequence",),
    "sequence_owners": ("owner of sequence",),
    "partitioned_columns": ("partitioned table", "foreign table"),
    "partitioned_constraints": ("partitioned table", "foreign table"),
    "partitioned_indexes": ("partitioned table",),
    "parents": ("inheritance",),
}
"""Query -> kinds of the objects that it is asked for."""


class Found(NamedTuple):
    """A line of `-- name: objects`."""

    class_: int
    oid: int
    kind: str
    shown: str
    name: str
    relation: str | None
    comment: str | None
    problem: str | None
    roots: list[str]

    @property
    def node(self) -> tuple[int, int]:
        """What tells it from all others."""
        return self.class_, self.oid


class Made(NamedTuple):
    """What makes an object and what drops it, (kind, name) of what it needs of the target's server, and SQL for the names
    of its sequences.
    """

    create: tuple[str, ...]
    drop: str
    given: tuple[tuple[str, str], ...] = ()
    sequences: tuple[str, ...] = ()


@dataclass(slots=True)
class Facts:
    """Everything that the statements are put together from."""

    schema: str
    texts: Texts
    lines: dict[str, Lines]

    def text(self, what: str, oid: int, number: int = 0) -> str:
        """What the server writes, without its end."""
        return self.texts[what, oid, number].rstrip().rstrip(";")

    def collation(self, spelled: str) -> str:
        """A collation's name, which stands bare if it is the schema's own; empty for none."""
        for schema in (quoted(self.schema), self.schema):
            spelled = spelled.removeprefix(f"{schema}.")
        return f" COLLATE {spelled}" if spelled else ""

    def all(self, block: str, oid: int) -> list[tuple[Any, ...]]:
        """What a query says of an object."""
        return self.lines[block].get(oid, [])

    def one(self, block: str, oid: int) -> tuple[Any, ...]:
        """The one line that a query says of an object."""
        return self.all(block, oid)[0]


def literal(text: str) -> str:
    """As a string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def read_facts(session: Session, schema: str, found: Sequence[Found]) -> Facts:
    """Ask for everything about the objects; the transaction is open."""

    def oids(*kinds: str) -> list[int]:
        return [f.oid for f in found if f.kind in kinds]

    lines = {block: _lines(session, schema, block, oids(*kinds)) for block, kinds in _ASKED.items()}

    def each(block: str) -> list[tuple[Any, ...]]:
        return [line for group in lines[block].values() for line in group]

    columns = each("partitioned_columns")
    identities = [line[8] for line in columns if line[8] is not None]
    lines["sequences"] |= _lines(session, schema, "sequences", identities)
    aggregates, operators = each("aggregates"), each("operators")
    texts = spell(
        session,
        schema,
        types=[
            *((base, mod) for base, mod, *_ in each("domains")),
            *((type_, mod) for _, type_, mod, _ in each("composites")),
            *((subtype, -1) for subtype, *_ in each("ranges")),
            *((type_, -1) for line in aggregates for type_ in (line[2], line[11]) if type_),
            *((type_, -1) for line in operators for type_ in line[:2] if type_),
            *((line[1], line[2]) for line in columns),
            *((line[0], -1) for line in each("sequences")),
            *((type_, -1) for line in each("casts") for type_ in line[:2]),
            *((type_, -1) for line in each("operator_classes") for type_ in line[2:4] if type_),
            *((type_, -1) for line in each("class_operators") for type_ in line[2:4] if type_),
            *((type_, -1) for line in each("class_functions") for type_ in line[2:4] if type_),
        ],
        view=oids("view", "materialized view"),
        function=oids("function", "procedure"),
        arguments=[
            *oids("function", "procedure", "aggregate"),
            *(line[2] for line in each("casts") if line[2]),
            *(line[1] for line in each("class_functions")),
        ],
        procedure=[
            *(p for line in aggregates for p in (line[1], *line[3:5], *line[9:11], line[12]) if p),
            *(p for line in operators for p in (line[2], *line[5:7]) if p),
            *(line[3] for line in each("conversions")),
            *(line[3] for line in each("ranges") if line[3]),
            *(line[2] for line in each("casts") if line[2]),
            *(line[1] for line in each("class_functions")),
        ],
        constraint=[
            *(line[0] for line in each("domain_checks")),
            *(line[0] for line in each("partitioned_constraints")),
            *oids("exclusion constraint", "foreign key"),
        ],
        trigger=oids("trigger"),
        rule=oids("rule"),
        statistics=oids("statistics object"),
        index=[
            *(line[0] for line in (*each("view_indexes"), *each("partitioned_indexes"))),
            *oids("index"),
        ],
        domain_default=oids("domain"),
        default=[
            *(line[5] for line in columns if line[5] is not None),
            *(line[1] for line in each("view_defaults")),
        ],
        partition_key=oids("partitioned table"),
        bound=oids("partition"),
        policy_using=oids("policy"),
        policy_check=oids("policy"),
    )
    return Facts(schema, texts, lines)


def _lines(session: Session, schema: str, block: str, oids: Sequence[int]) -> Lines:
    grouped: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    if oids:
        for oid, *rest in session.execute(SQL[block], {"oids": list(oids), "schema": schema}).fetchall():
            grouped[oid].append(tuple(rest))
    return grouped
