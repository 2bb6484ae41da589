"""Reads what stands beside the tables of a PostgreSQL schema: types, functions, views, partitioned tables and so on.

What belongs here: which objects there are, what uses what, and which of them can be made again. What does not: the
statements that make them (`postgresql_makers.py`) and tables (`postgresql_catalog.py`).

Rule: an object is carried when everything that it uses is the server's own, a table of the schema, or carried itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jivs_pipeline.core.model import SchemaObject
from jivs_pipeline.infra.postgresql import Session
from jivs_pipeline.infra.sources.postgresql_facts import Found
from jivs_pipeline.infra.sources.postgresql_makers import make
from jivs_pipeline.infra.sources.postgresql_spelling import OBJECTS as SQL

__all__ = ["Objects", "read_objects"]

Node = tuple[int, int]
"""Class and oid."""

_OF_SEQUENCES = frozenset({"sequence", "owner of sequence"})
_RELATIONS, _TYPES = 1259, 1247
"""Oids of pg_class and pg_type, which are the same in every PostgreSQL."""


class _Edge(NamedTuple):
    """A line of `-- name: edges`."""

    user: Node
    used: Node | None
    column: str | None
    described: str | None
    extension: str | None = None


@dataclass(frozen=True, slots=True)
class Objects:
    """What was read.

    Attributes:
        made: in an order in which they can be made.
        parts: class and oid of everything that they are made of.
        types: oids of their types, with those of arrays.
        sequences: oids of their sequences.
        users: oids of the tables that need some of them.
        rows: oids of the types of tables' rows, with those of their arrays -> the table.
        indexes: oids of indexes of tables that are among them, or would be.
        problems: (kind, shown name) of those that cannot be made -> why.
    """

    made: tuple[SchemaObject, ...] = ()
    parts: Sequence[Node] = ()
    types: frozenset[int] = frozenset()
    sequences: frozenset[int] = frozenset()
    users: frozenset[int] = frozenset()
    rows: Mapping[int, str] = field(default_factory=dict[int, str])
    indexes: frozenset[int] = frozenset()
    problems: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])


def read_objects(
    session: Session, schema: str, tables: Mapping[int, str], own_sequences: Collection[int] = ()
) -> Objects:
    """Objects of a schema, in a transaction that is open.

    Args:
        tables: oid -> name of those that are carried.
        own_sequences: oids of those that come along with a column.
    """
    found = [Found(*row) for row in session.execute(SQL["objects"], {"schema": schema}).fetchall()]
    found = [f for f in found if f.kind not in _OF_SEQUENCES or f.oid not in own_sequences]
    nodes = {f.node: f for f in found}
    whole = [*nodes, *((_RELATIONS, oid) for oid in tables)]
    classes, oids = _columns(whole)
    members = session.execute(SQL["members"], {"classes": classes, "oids": oids}).fetchall()
    part_classes, parts, classes, oids = (
        map(list, zip(*members, strict=True)) if members else ([], [], [], [])
    )
    parameters = {"part_classes": part_classes, "parts": parts, "classes": classes, "oids": oids}
    edges = [
        _Edge(
            (a, b), None if d is None else (c, d), column, described, None if extension == "." else extension
        )
        for a, b, c, d, column, described, extension in session.execute(SQL["edges"], parameters).fetchall()
    ]
    is_table = {(_RELATIONS, oid) for oid in tables}
    first = _closure([e for e in edges if e.user in is_table and e.used in nodes], edges)
    problems = _problems(nodes, is_table, first, edges)
    carried = [f for f in found if f.node not in problems]
    order = _in_order([f.node for f in carried], [*edges, *_after_partitions(nodes, edges)])
    statements = make(session, schema, carried)
    made: list[SchemaObject] = []
    for node in order:
        one = nodes[node]
        mine = [e for e in edges if e.user == node]
        made.append(
            SchemaObject(
                kind=one.kind,
                name=one.shown,
                statements=statements[node].create,
                drop=statements[node].drop,
                before=node in first,
                needs=frozenset(
                    {(nodes[e.used].kind, nodes[e.used].shown) for e in mine if e.used in nodes}
                    | {("extension", e.extension) for e in mine if e.extension}
                    | {*statements[node].given}
                ),
                uses=frozenset((tables[e.used[1]], e.column) for e in mine if e.used and e.used in is_table),
                roots=frozenset(one.roots),
                sequences=statements[node].sequences,
            )
        )
    own = {f.node for f in carried}
    return Objects(
        made=tuple(made),
        # Also tables, whose rows may be values of others' columns.
        parts=[(c, o) for c, o, n, m in members if (n, m) in own or (n == _RELATIONS and m in tables)],
        types=frozenset(o for c, o, n, m in members if c == _TYPES and (n, m) in own),
        sequences=frozenset(f.oid for f in carried if f.kind == "sequence"),
        users=frozenset(e.user[1] for e in edges if e.user in is_table and e.used in own),
        rows={o: tables[m] for c, o, n, m in members if c == _TYPES and n == _RELATIONS and m in tables},
        indexes=frozenset(f.oid for f in found if f.kind == "index"),
        problems={(nodes[n].kind, nodes[n].shown): why for n, why in problems.items()},
    )


def _columns(nodes: Iterable[Node]) -> tuple[list[int], list[int]]:
    listed = list(nodes)
    return [c for c, _ in listed], [o for _, o in listed]


def _problems(
    nodes: Mapping[Node, Found], tables: set[Node], first: set[Node], edges: Sequence[_Edge]
) -> dict[Node, str]:
    """Why objects cannot be made; what uses such a one cannot either. `first`: what tables need."""
    problems = {n: f.problem for n, f in nodes.items() if f.problem}
    for edge in edges:
        if edge.user in nodes and edge.user not in problems:
            if edge.used is None and edge.extension is None:
                problems[edge.user] = f"it uses {edge.described}, which is not carried"
            elif edge.user in first and edge.used in tables:
                problems[edge.user] = "a table needs it, and it needs a table"
    while True:
        more = {
            e.user: f"it uses {nodes[e.used].kind} {nodes[e.used].shown}, which is not carried"
            for e in edges
            if e.user in nodes and e.user not in problems and e.used in nodes and e.used in problems
        }
        if not more:
            return problems
        problems |= more


def _closure(start: Sequence[_Edge], edges: Sequence[_Edge]) -> set[Node]:
    """Everything that the users of `start` need, directly or not."""
    reached: set[Node] = set()
    uses = _by_user(edges)
    waiting = [e.used for e in start if e.used is not None]
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += uses.get(node, ())
    return reached


def _by_user(edges: Sequence[_Edge]) -> Mapping[Node, Sequence[Node]]:
    uses: defaultdict[Node, list[Node]] = defaultdict(list)
    for edge in edges:
        if edge.used is not None:
            uses[edge.user].append(edge.used)
    return uses


def _after_partitions(nodes: Mapping[Node, Found], edges: Sequence[_Edge]) -> list[_Edge]:
    """What uses a partitioned table comes when it has all of its rows."""
    attached: defaultdict[Node, list[Node]] = defaultdict(list)
    for edge in edges:
        user, used = nodes.get(edge.user), nodes.get(edge.used) if edge.used else None
        if edge.used and user and used and user.kind == "partition" and used.name == user.relation:
            attached[edge.used].append(edge.user)
    return [
        _Edge(edge.user, partition, None, None)
        for edge in edges
        if edge.used and edge.user not in attached[edge.used]
        for partition in attached[edge.used]
    ]


def _in_order(nodes: Sequence[Node], edges: Sequence[_Edge]) -> list[Node]:
    """What is used comes first."""
    uses = _by_user(edges)
    needs = {n: sorted(set(uses.get(n, ()))) for n in nodes}
    ordered: dict[Node, None] = {}
    waiting: set[Node] = set()

    def visit(node: Node) -> None:
        if node in ordered or node in waiting or node not in needs:
            return
        waiting.add(node)
        for used in needs[node]:
            visit(used)
        ordered[node] = None

    for node in nodes:
        visit(node)
    return list(ordered)
