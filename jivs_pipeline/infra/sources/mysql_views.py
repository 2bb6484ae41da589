"""Views of MySQL as PostgreSQL's, where they surely have the same rows.

What belongs here: queries, as sqlglot parses them, and their writing. What does not: single expressions
(`mysql_view_values`), reading the catalog (`mysql_objects`).

sqlglot reads, and only what is listed here is written: an unknown word, or one that PostgreSQL means otherwise, is the
reason why a view stays behind. sqlglot's own writer would translate nearly all of them, and some of those silently
into something else: it divides integers, compares texts byte by byte and groups by what is not named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from jivs_pipeline.core.names import fits_identifier
from jivs_pipeline.infra.sources.mysql_expressions import UntranslatableError
from jivs_pipeline.infra.sources.mysql_view_kinds import (
    Kind,
    Node,
    Scope,
    Value,
    identifier,
    only,
    refuse,
    same_kind,
)
from jivs_pipeline.infra.sources.mysql_view_values import Values

__all__ = ["Relation", "View", "translate"]


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view that a view may read: its columns, and the primary key of a table."""

    columns: Mapping[str, Value]
    key: tuple[str, ...] = ()


@dataclass(slots=True)
class View:
    """A translated view: the query, and which columns of which relations it uses."""

    query: str = ""
    columns: dict[str, Value] = field(default_factory=dict[str, Value])
    uses: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    relations: set[str] = field(default_factory=set[str])


def translate(definition: str, schema: str, relations: Mapping[str, Relation]) -> View:
    """A view by its definition, as `information_schema` has it: every name is qualified there.

    Raises:
        UntranslatableError: PostgreSQL does not surely mean the same.
    """
    try:
        parsed = sqlglot.parse_one(definition, read="mysql")
    except SqlglotError:
        raise UntranslatableError("its query is not understood") from None
    writer = _Writer(schema, relations)
    query, columns = writer.query(parsed, None)
    writer.found.query, writer.found.columns = query, columns
    return writer.found


class _Writer:
    def __init__(self, schema: str, relations: Mapping[str, Relation]) -> None:
        self._schema = schema
        self._relations = relations
        self.found = View()
        self._values = Values(self._subquery, self._uses)

    def _uses(self, relation: str, column: str) -> None:
        self.found.uses.add((relation, column))

    def _subquery(self, node: Node, scope: Scope, *, exists: bool) -> tuple[str, list[Value]]:
        if exists:
            # MySQL writes it there itself.
            node.set("limit", None)
        query, columns = self.query(node, scope)
        return query, list(columns.values())

    def query(self, node: Node, outer: Scope | None) -> tuple[str, dict[str, Value]]:
        """A query, and the columns that it has."""
        if isinstance(node, exp.Select):
            return self._select(node, outer)
        if isinstance(node, exp.Union) and not isinstance(node, exp.Except | exp.Intersect):
            return self._union(node, outer)
        if isinstance(node, exp.Subquery):
            only(node, "this")
            query, columns = self.query(node.this, outer)
            return f"({query})", columns
        raise refuse(node)

    def _union(self, node: exp.Union, outer: Scope | None) -> tuple[str, dict[str, Value]]:
        only(node, "this", "expression", "distinct")
        left, columns = self.query(node.this, outer)
        right, others = self.query(node.expression, outer)
        if len(columns) != len(others):
            raise UntranslatableError("its UNION has unequal columns")
        both = [same_kind("UNION", [a, b]) for a, b in zip(columns.values(), others.values(), strict=True)]
        if node.args.get("distinct"):
            for value in both:
                value.check_grouped("UNION without ALL")
        word = "UNION" if node.args.get("distinct") else "UNION ALL"
        return f"{left} {word} {right}", dict(zip(columns, both, strict=True))

    def _select(self, node: exp.Select, outer: Scope | None) -> tuple[str, dict[str, Value]]:
        only(
            node,
            "expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "distinct",
        )  # fmt: skip
        scope = Scope(outer)
        source = ""
        if (begin := node.args.get("from_")) is not None:
            source = f" FROM {self._from(begin.this, scope)}{self._joins(node, scope)}"
        columns: dict[str, Value] = {}
        listed: list[str] = []
        for number, item in enumerate(node.expressions):
            name, value = item.alias_or_name, self._values.value(item.unalias(), scope).settled
            if not name or name in columns:
                name = f"column {number}"  # of a query in an expression, which nobody names
            if not fits_identifier(name):
                raise UntranslatableError("it has a column whose name is longer than 63 bytes")
            columns[name] = value
            listed.append(f"{value.sql} AS {identifier(name)}")
        _check_grouping(node)
        if node.args.get("distinct"):
            only(node.args["distinct"])
            for value in columns.values():
                value.check_grouped("DISTINCT")
        parts = [f"SELECT {'DISTINCT ' if node.args.get('distinct') else ''}{', '.join(listed)}{source}"]
        if (where := node.args.get("where")) is not None:
            parts.append(f"WHERE {self._values.truth(where.this, scope)}")
        if (group := node.args.get("group")) is not None:
            only(group, "expressions")
            by = [self._values.value(e, scope) for e in group.expressions]
            for value in by:
                value.check_grouped("GROUP BY")
            parts.append(f"GROUP BY {', '.join(value.sql for value in by)}")
        if (having := node.args.get("having")) is not None:
            parts.append(f"HAVING {self._values.truth(having.this, scope)}")
        parts += self._ordered(node, scope, columns)
        return " ".join(parts), {
            name: Value(identifier(name), v.kind, v.text, v.members, v.scale) for name, v in columns.items()
        }

    def _ordered(self, node: exp.Select, scope: Scope, columns: Mapping[str, Value]) -> Iterable[str]:
        order: list[str] = []
        names: set[str] = set()
        for item in node.args["order"].expressions if node.args.get("order") else ():
            only(item, "this", "desc", "nulls_first")
            value = self._order_value(item.this, scope, columns)
            if value.kind not in {
                Kind.INTEGER,
                Kind.DECIMAL,
                Kind.DOUBLE,
                Kind.DATE,
                Kind.DATETIME,
                Kind.MOMENT,
            }:
                raise UntranslatableError("ORDER BY of texts or other values that PostgreSQL sorts otherwise")
            if isinstance(item.this, exp.Column):
                names.add(item.this.name)
            # MySQL takes NULL for the smallest value.
            order.append(f"{value.sql} {'DESC NULLS LAST' if item.args.get('desc') else 'ASC NULLS FIRST'}")
        if order:
            yield f"ORDER BY {', '.join(order)}"
        limit, offset = node.args.get("limit"), node.args.get("offset")
        if limit is None and offset is None:
            return
        if not self._decides(node, names):
            raise UntranslatableError(
                "LIMIT whose ORDER BY does not say which rows they are (it lacks the primary key)"
            )
        for word, part in (("LIMIT", limit), ("OFFSET", offset)):
            if part is not None:
                only(part, "expression")
                yield f"{word} {_count(part.expression)}"

    def _order_value(self, node: Node, scope: Scope, columns: Mapping[str, Value]) -> Value:
        if isinstance(node, exp.Literal) and not node.is_string and int(node.this) <= len(columns):
            name = list(columns)[int(node.this) - 1]
            return Value(identifier(name), columns[name].kind)
        if isinstance(node, exp.Column) and not node.table and node.name in columns:
            return Value(identifier(node.name), columns[node.name].kind)
        return self._values.value(node, scope)

    def _decides(self, node: exp.Select, names: set[str]) -> bool:
        """Whether the order is by the primary key of the only table."""
        begin = node.args.get("from_")
        table = begin.this if begin else None
        if not isinstance(table, exp.Table) or table.args.get("joins") or node.args.get("joins"):
            return False
        if node.args.get("group") or node.args.get("distinct"):
            return False
        relation = self._relations.get(table.name)
        return relation is not None and bool(relation.key) and names.issuperset(relation.key)

    # ── FROM ────────────────────────────────────────────────────────────────────────────────────────────

    def _from(self, node: Node, scope: Scope) -> str:
        if isinstance(node, exp.Table):
            only(node, "this", "db", "alias", "joins")
            return self._table(node, scope) + self._joins(node, scope)
        if (
            isinstance(node, exp.Subquery)
            and isinstance(node.this, exp.Table | exp.Subquery)
            and not node.alias
        ):
            only(node, "this", "joins")
            return f"({self._from(node.this, scope)}){self._joins(node, scope)}"
        if isinstance(node, exp.Subquery) and node.alias:
            only(node, "this", "alias", "joins")
            query, columns = self.query(node.this, None)
            scope.add(node.alias, {n: (None, v) for n, v in columns.items()})
            return f"({query}) AS {identifier(node.alias)}{self._joins(node, scope)}"
        raise refuse(node)

    def _table(self, node: exp.Table, scope: Scope) -> str:
        name = node.name
        if node.db not in {"", self._schema}:
            raise UntranslatableError(f"it reads {node.db}.{name} of another database")
        if (relation := self._relations.get(name)) is None:
            raise UntranslatableError(f"it reads {name}, which is not carried")
        self.found.relations.add(name)
        alias = node.alias or name
        scope.add(alias, {c: (name, v) for c, v in relation.columns.items()})
        return identifier(name) if alias == name else f"{identifier(name)} AS {identifier(alias)}"

    def _joins(self, node: Node, scope: Scope) -> str:
        written = ""
        for join in node.args.get("joins") or ():
            only(join, "this", "side", "kind", "on")
            side, kind = join.side.upper(), join.kind.upper()
            if side not in {"", "LEFT", "RIGHT"} or kind not in {"", "INNER", "CROSS", "OUTER"}:
                raise UntranslatableError(f"a join of kind {side} {kind}")
            there = self._from(join.this, scope)
            if (on := join.args.get("on")) is None:
                written += f" CROSS JOIN {there}"
            else:
                written += f" {side or 'INNER'} JOIN {there} ON {self._values.truth(on, scope)}"
        return written


def _count(node: Node) -> int:
    if not isinstance(node, exp.Literal) or node.is_string or not str(node.this).isdigit():
        raise refuse(node)
    return int(node.this)


def _check_grouping(node: exp.Select) -> None:
    """Every column outside of an aggregate has to be grouped by: MySQL may take any row's otherwise."""
    group = node.args.get("group")
    outputs: Sequence[Node] = [e.unalias() for e in node.expressions]
    if (having := node.args.get("having")) is not None:
        outputs = [*outputs, having.this]
    aggregates = any(_outside(e, exp.Subquery, lambda n: isinstance(n, exp.AggFunc)) for e in outputs)
    if group is None and not aggregates:
        return
    by = {e.sql() for e in group.expressions} if group else set[str]()

    def loose(part: Node) -> bool:
        return isinstance(part, exp.Column) and part.sql() not in by

    for output in outputs:
        if output.sql() not in by and _outside(output, exp.AggFunc, loose, by):
            raise UntranslatableError(
                "GROUP BY without some of its columns: any row of a group may be taken for them"
            )


def _outside(
    node: Node,
    skipped: type,
    wanted: Callable[[Node], bool],
    whole: Iterable[str] = (),
) -> bool:
    """Whether there is a part that is wanted, not looking into what is skipped."""
    if wanted(node):
        return True
    if isinstance(node, skipped) or node.sql() in whole:
        return False
    return any(_outside(child, skipped, wanted, whole) for child in node.iter_expressions())
