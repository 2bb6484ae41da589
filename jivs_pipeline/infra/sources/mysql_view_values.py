"""Expressions of MySQL's views as PostgreSQL's, where they surely have the same values.

What belongs here: writing expressions. What does not: kinds of values (`mysql_view_kinds`), queries (`mysql_views`).

Texts are carried and joined together, and hardly ever compared: MySQL's collations ignore case, accents and blanks at
the end, and PostgreSQL does not. ENUMs are compared with their members, which are spelled exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Protocol

from sqlglot import exp

from jivs_pipeline.infra.sources.mysql_expressions import UntranslatableError, sql_text
from jivs_pipeline.infra.sources.mysql_view_kinds import (
    NUMBERS,
    Kind,
    Node,
    Scope,
    Value,
    identifier,
    is_exact,
    only,
    refuse,
    same_kind,
)

__all__ = ["Values"]

_SCALE = 30  # digits behind the point that MySQL keeps of a product
_UNITS = {"DAY", "WEEK", "MONTH", "YEAR"}
_CLOCK = {"HOUR", "MINUTE", "SECOND"}
_FORMAT = {"%Y": "YYYY", "%m": "MM", "%d": "DD", "%H": "HH24", "%M": "MI", "%S": "SS"}
"""By strftime's letters, which sqlglot makes of MySQL's."""
_PLAIN = re.compile(r"[^\\\x00-\x1f]*")


class _Subquery(Protocol):
    def __call__(self, node: Node, scope: Scope, *, exists: bool) -> tuple[str, list[Value]]: ...


class Values:
    """Writes expressions; `subquery` writes queries in them, `uses` is told each column."""

    def __init__(self, subquery: _Subquery, uses: Callable[[str, str], None]) -> None:
        self._subquery = subquery
        self._uses = uses

    # ── conditions ──────────────────────────────────────────────────────────────────────────────────────

    def truth(self, node: Node, scope: Scope) -> str:
        """An expression as a condition."""
        value = self.value(node, scope)
        if value.kind is Kind.TRUTH:
            return value.sql
        if value.kind in NUMBERS:
            return f"{_number(value).sql} <> 0"
        raise UntranslatableError(f"a {value.kind} as a condition")

    def _compared(self, node: Node, left: Value, right: Value) -> str:
        """Both sides of a comparison and what is between them."""
        signs = {
            exp.EQ: "=",
            exp.NEQ: "<>",
            exp.LT: "<",
            exp.LTE: "<=",
            exp.GT: ">",
            exp.GTE: ">=",
            exp.In: "=",
        }
        sign = "IS NOT DISTINCT FROM" if isinstance(node, exp.NullSafeEQ) else signs.get(type(node))
        if sign is None:
            raise refuse(node)
        kinds = {left.kind, right.kind}
        if kinds <= NUMBERS:
            return f"{_number(left).sql} {sign} {_number(right).sql}"
        if kinds <= {Kind.DATE, Kind.DATETIME} or kinds == {Kind.MOMENT}:
            return f"{left.sql} {sign} {right.sql}"
        if Kind.LITERAL in kinds and kinds & {Kind.DATE, Kind.DATETIME}:
            return f"{_dated(left)} {sign} {_dated(right)}"
        equal = sign in {"=", "<>", "IS NOT DISTINCT FROM"}
        if kinds == {Kind.ENUM, Kind.LITERAL} and equal:
            enum, literal = (left, right) if left.kind is Kind.ENUM else (right, left)
            if literal.text in enum.members:
                return f"{enum.sql} {sign} {literal.sql}"
        if kinds <= {Kind.TEXT, Kind.LITERAL} and equal:
            collation = left.text if left.kind is Kind.TEXT else right.text
            if collation.endswith("_bin") and (Kind.LITERAL in kinds or left.text == right.text):
                # These ignore blanks at the end, if anything.
                trim = "{}" if is_exact(collation) else "rtrim({}, ' ')"
                return f"{trim.format(left.sql)} {sign} {trim.format(right.sql)}"
        if kinds & {Kind.TEXT, Kind.ENUM}:
            raise UntranslatableError("it compares texts, which MySQL does by a collation")
        raise UntranslatableError(f"it compares a {left.kind} with a {right.kind}")

    # ── values ──────────────────────────────────────────────────────────────────────────────────────────

    def value(self, node: Node, scope: Scope) -> Value:
        """An expression of any kind.

        Raises:
            UntranslatableError: PostgreSQL does not surely mean the same.
        """
        match node:
            case exp.Paren():
                inner = self.value(node.this, scope)
                return replace(inner, sql=f"({inner.sql})", column=False)
            case exp.Column():
                return self._column(node, scope)
            case exp.Literal() | exp.Introducer() | exp.Null() | exp.Boolean():
                return _literal(node)
            case exp.Neg():
                number = _number(self.value(node.this, scope))
                return replace(number, sql=f"-({number.sql})", column=False)
            case exp.Subquery() | exp.Exists() | exp.In() | exp.Between() | exp.Is() | exp.Not() | exp.Like():
                return self._condition(node, scope)
            case exp.And() | exp.Or():
                word = "AND" if isinstance(node, exp.And) else "OR"
                left, right = self.truth(node.this, scope), self.truth(node.expression, scope)
                return Value(f"(({left}) {word} ({right}))", Kind.TRUTH)
            case exp.EQ() | exp.NEQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE() | exp.NullSafeEQ():
                left, right = self.value(node.this, scope), self.value(node.expression, scope)
                return Value(self._compared(node, left, right), Kind.TRUTH)
            case exp.Add() | exp.Sub() | exp.Mul():
                return self._arithmetic(node, scope)
            case exp.Case() | exp.If() | exp.Coalesce():
                return self._choice(node, scope)
            case exp.AggFunc():
                return self._aggregate(node, scope)
            case _:
                return self._function(node, scope)

    def _column(self, node: exp.Column, scope: Scope) -> Value:
        found = scope.find(node.table, node.name)
        if found is None:
            raise UntranslatableError(
                f"its column {node.name} is not carried, or comes from outside of its query"
            )
        relation, value = found
        if relation is not None:
            self._uses(relation, node.name)
        return replace(value, sql=f"{identifier(node.table)}.{identifier(node.name)}")

    def _condition(self, node: Node, scope: Scope) -> Value:
        match node:
            case exp.Subquery():
                only(node, "this")
                query, columns = self._subquery(node.this, scope, exists=False)
                if len(columns) != 1:
                    raise refuse(node)
                return replace(columns[0], sql=f"({query})", column=False)
            case exp.Exists():
                inner = node.this.this if isinstance(node.this, exp.Subquery) else node.this
                return Value(f"EXISTS ({self._subquery(inner, scope, exists=True)[0]})", Kind.TRUTH)
            case exp.In():
                return self._in(node, scope)
            case exp.Between():
                only(node, "this", "low", "high")
                value = self.value(node.this, scope)
                low = self._compared(exp.GTE(), value, self.value(node.args["low"], scope))
                high = self._compared(exp.LTE(), value, self.value(node.args["high"], scope))
                return Value(f"({low} AND {high})", Kind.TRUTH)
            case exp.Is() if isinstance(node.expression, exp.Null):
                return Value(f"({self.value(node.this, scope).sql}) IS NULL", Kind.TRUTH)
            case exp.Not():
                return Value(f"NOT ({self.truth(node.this, scope)})", Kind.TRUTH)
            case exp.Like():
                return self._like(node, scope)
            case _:
                raise refuse(node)

    def _in(self, node: exp.In, scope: Scope) -> Value:
        only(node, "this", "expressions", "query")
        value = self.value(node.this, scope)
        if (query := node.args.get("query")) is not None:
            inner = query.this if isinstance(query, exp.Subquery) else query
            written, columns = self._subquery(inner, scope, exists=False)
            kinds = {value.kind, columns[0].kind}
            if len(columns) != 1 or not (kinds <= NUMBERS - {Kind.FLAG, Kind.TRUTH} or kinds == {Kind.DATE}):
                raise UntranslatableError("IN of values that PostgreSQL may not compare alike")
            return Value(f"{value.sql} IN ({written})", Kind.TRUTH)
        each = [self._compared(node, value, self.value(e, scope)) for e in node.expressions]
        return Value(f"({' OR '.join(each)})", Kind.TRUTH)

    def _like(self, node: exp.Like, scope: Scope) -> Value:
        value, pattern = self.value(node.this, scope), self.value(node.expression, scope)
        if value.kind is not Kind.TEXT or pattern.kind is not Kind.LITERAL or not value.text.endswith("_bin"):
            raise UntranslatableError("LIKE of texts, which MySQL compares by a collation")
        return Value(f"{value.sql} LIKE {pattern.sql}", Kind.TRUTH)

    def _arithmetic(self, node: Node, scope: Scope) -> Value:
        if isinstance(node.expression, exp.Interval):
            return self._moved(node, scope)
        left, right = (_number(self.value(n, scope)) for n in (node.this, node.expression))
        result = same_kind(node.key.upper(), [left, right])
        if isinstance(node, exp.Mul):
            result = replace(result, scale=left.scale + right.scale)
            if result.scale > _SCALE:
                raise UntranslatableError("a product with more digits than MySQL keeps")
        sign = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*"}[type(node)]
        return replace(result, sql=f"({_wide(left)} {sign} {_wide(right)})")

    def _moved(self, node: Node, scope: Scope) -> Value:
        """A date and an interval."""
        value, interval = self.value(node.this, scope), node.expression
        unit, count = str(interval.args.get("unit")).upper(), str(interval.this.this)
        timed = unit in _CLOCK and value.kind is Kind.DATETIME
        if (
            value.kind not in {Kind.DATE, Kind.DATETIME}
            or not (unit in _UNITS or timed)
            or not count.isdigit()
        ):
            raise refuse(interval)
        sign = "-" if isinstance(node, exp.Sub) else "+"
        moved = f"({value.sql} {sign} INTERVAL '{count} {unit.lower()}')"
        return Value(f"CAST({moved} AS date)" if value.kind is Kind.DATE else moved, value.kind)

    def _choice(self, node: Node, scope: Scope) -> Value:
        if isinstance(node, exp.Coalesce):
            values = [self.value(n, scope) for n in (node.this, *node.expressions)]
            result = same_kind("COALESCE", values)
            return replace(result, sql=f"COALESCE({', '.join(_branch(v, result) for v in values)})")
        if isinstance(node, exp.If):
            only(node, "this", "true", "false")
            branches, default = [node], node.args.get("false")
        else:
            only(node, "this", "ifs", "default")
            branches, default = node.args["ifs"], node.args.get("default")
        operand = self.value(node.this, scope) if isinstance(node, exp.Case) and node.this else None
        conditions = [
            self.truth(b.this, scope)
            if operand is None
            else self._compared(exp.EQ(), operand, self.value(b.this, scope))
            for b in branches
        ]
        values = [self.value(b.args["true"], scope) for b in branches]
        values.append(self.value(default, scope) if default is not None else Value("NULL", Kind.NULL))
        result = same_kind("CASE", values)
        when = " ".join(
            f"WHEN {c} THEN {_branch(v, result)}" for c, v in zip(conditions, values, strict=False)
        )
        return replace(result, sql=f"CASE {when} ELSE {_branch(values[-1], result)} END")

    def _aggregate(self, node: Node, scope: Scope) -> Value:
        distinct = isinstance(node.this, exp.Distinct)
        inner = node.this.expressions[0] if distinct and len(node.this.expressions) == 1 else node.this
        if isinstance(node, exp.Count):
            only(node, "this", "big_int")
            if isinstance(inner, exp.Star | exp.Literal) and not distinct:
                return Value("count(*)", Kind.INTEGER)
            value = self.value(inner, scope)
            if distinct:
                value.check_grouped("COUNT DISTINCT")
            return Value(f"count({'DISTINCT ' if distinct else ''}{value.settled.sql})", Kind.INTEGER)
        only(node, "this")
        value = self.value(inner, scope)
        if isinstance(node, exp.Sum) and value.kind in NUMBERS - {Kind.DOUBLE} and not distinct:
            return Value(f"sum({_number(value).sql})", Kind.DECIMAL, scale=value.scale)
        if isinstance(node, exp.Min | exp.Max) and not distinct:
            number = _number(value) if value.kind in NUMBERS else value
            if number.kind in NUMBERS or number.kind in {Kind.DATE, Kind.DATETIME, Kind.MOMENT}:
                return replace(number, sql=f"{node.key}({number.sql})", column=False)
        raise UntranslatableError(
            f"{node.key.upper()} of a {value.kind}, which PostgreSQL may not compute alike"
        )

    # ── functions ───────────────────────────────────────────────────────────────────────────────────────

    def _function(self, node: Node, scope: Scope) -> Value:
        match node:
            case exp.Concat():
                return self._joined(node, scope)
            case exp.Length():
                text = self._text(node.this, scope)
                if node.args.get("binary") and not text.text.startswith("utf8"):
                    raise UntranslatableError("LENGTH in bytes of another character set")
                name = "octet_length" if node.args.get("binary") else "char_length"
                return Value(f"{name}({text.sql})", Kind.INTEGER)
            case exp.Anonymous() if node.name.lower() == "octet_length" and len(node.expressions) == 1:
                return self._function(exp.Length(this=node.expressions[0], binary=True), scope)
            case exp.Left() | exp.Right():
                text, count = self._text(node.this, scope), _whole(node.expression, 0)
                return replace(text, sql=f"{node.key}({text.sql}, {count})", column=False)
            case exp.Substring():
                text, start = self._text(node.this, scope), _whole(node.args.get("start"), 1)
                length = node.args.get("length")
                more = f" FOR {_whole(length, 0)}" if length is not None else ""
                return replace(text, sql=f"substring({text.sql} FROM {start}{more})", column=False)
            case exp.Trim():
                only(node, "this")
                text = self._text(node.this, scope)
                return replace(text, sql=f"btrim({text.sql}, ' ')", column=False)
            case exp.Abs() | exp.Floor() | exp.Ceil() | exp.Round():
                return self._rounded(node, scope)
            case _:
                return self._calendar(node, scope)

    def _calendar(self, node: Node, scope: Scope) -> Value:
        match node:
            case exp.Year() | exp.Month() | exp.Day() | exp.DayOfMonth() | exp.Hour() | exp.Minute():
                part, dated = node.key.removesuffix("ofmonth"), self._date(node.this, scope)
                return Value(f"CAST(extract({part} FROM {dated.sql}) AS integer)", Kind.INTEGER)
            case exp.Cast() if node.to.this is exp.DataType.Type.DATE:
                return Value(f"CAST({self._date(node.this, scope).sql} AS date)", Kind.DATE)
            case exp.DateDiff():
                return self._days(node, scope)
            case exp.TimeToStr():
                return self._formatted(node, scope)
            case _:
                raise refuse(node)

    def _text(self, node: Node, scope: Scope) -> Value:
        value = self.value(node, scope)
        if value.kind is not Kind.TEXT:
            raise UntranslatableError(f"a {value.kind} as a text")
        return value

    def _joined(self, node: exp.Concat, scope: Scope) -> Value:
        parts = [self.value(n, scope) for n in node.expressions]
        for part in parts:
            # Other numbers may be printed with other digits.
            printed = part.kind is Kind.INTEGER or (part.kind is Kind.DECIMAL and part.column)
            if not printed and part.kind not in {Kind.TEXT, Kind.LITERAL, Kind.ENUM}:
                raise UntranslatableError(f"CONCAT of a {part.kind}")
        # Other than concat(), this is NULL as soon as one part is.
        return Value(f"({' || '.join(f'CAST({p.sql} AS text)' for p in parts)})", Kind.TEXT)

    def _rounded(self, node: Node, scope: Scope) -> Value:
        number = _number(self.value(node.this, scope))
        if number.kind is Kind.DOUBLE:
            raise UntranslatableError(f"{node.key.upper()} of a double")
        digits = node.args.get("decimals")
        scale = number.scale
        if isinstance(node, exp.Round):
            count = _whole(digits, 0) if digits is not None else 0
            return replace(
                number, sql=f"round(CAST({number.sql} AS numeric), {count})", scale=min(scale, count)
            )
        if digits is not None:
            raise refuse(node)
        name = {exp.Abs: "abs", exp.Floor: "floor", exp.Ceil: "ceil"}[type(node)]
        return replace(number, sql=f"{name}({number.sql})", scale=scale if name == "abs" else 0, column=False)

    def _date(self, node: Node, scope: Scope) -> Value:
        while isinstance(node, exp.TsOrDsToDate | exp.TsOrDsToTimestamp):
            node = node.this
        value = self.value(node, scope)
        if value.kind not in {Kind.DATE, Kind.DATETIME}:
            raise UntranslatableError(f"a {value.kind} as a date")
        return value

    def _days(self, node: exp.DateDiff, scope: Scope) -> Value:
        """Days between two dates, and since year 0, which sqlglot makes of TO_DAYS."""
        other = node.expression
        while isinstance(other, exp.TsOrDsToDate):
            other = other.this
        mine = f"CAST({self._date(node.this, scope).sql} AS date)"
        if isinstance(other, exp.Literal) and other.this == "0000-01-01":
            return Value(f"({mine} - DATE '0001-01-01' + 366)", Kind.INTEGER)
        return Value(f"({mine} - CAST({self._date(other, scope).sql} AS date))", Kind.INTEGER)

    def _formatted(self, node: exp.TimeToStr, scope: Scope) -> Value:
        value, format_ = self._date(node.this, scope), str(node.args["format"].this)
        words: list[str] = re.findall(r"%.|[^%]+", format_)
        if any(w not in _FORMAT and not re.fullmatch(r"[-/:. ]+", w) for w in words) or not words:
            raise UntranslatableError("DATE_FORMAT with other letters than %Y %m %d %H %i %s")
        return Value(
            f"to_char({value.sql}, {sql_text(''.join(_FORMAT.get(w, w) for w in words))})", Kind.TEXT
        )


def _literal(node: Any) -> Value:
    if isinstance(node, exp.Null):
        return Value("NULL", Kind.NULL)
    if isinstance(node, exp.Boolean):
        return Value("1" if node.this else "0", Kind.INTEGER)
    if isinstance(node, exp.Introducer):
        node = node.expression
    text = str(node.this)
    if node.is_string:
        if not _PLAIN.fullmatch(text):
            raise UntranslatableError("a text with a backslash or control character")
        return Value(sql_text(text), Kind.LITERAL, text)
    if re.fullmatch(r"\d+", text):
        return Value(text, Kind.INTEGER)
    if re.fullmatch(r"\d*\.\d+", text):
        return Value(text, Kind.DECIMAL, scale=len(text.partition(".")[2]))
    raise UntranslatableError(f"the number {text}")


def _number(value: Value) -> Value:
    if value.kind in {Kind.FLAG, Kind.TRUTH}:
        return Value(f"CAST(({value.sql}) AS integer)", Kind.INTEGER)
    if value.kind in NUMBERS:
        return value
    raise UntranslatableError(f"a {value.kind} as a number")


def _wide(value: Value) -> str:
    """MySQL computes in bigint."""
    return f"CAST({value.sql} AS bigint)" if value.kind is Kind.INTEGER else value.sql


def _branch(value: Value, result: Value) -> str:
    if result.kind in NUMBERS - {Kind.FLAG} and value.kind is not Kind.NULL:
        return _number(value).sql
    if result.kind is Kind.TEXT and value.kind is not Kind.NULL:
        return f"CAST({value.sql} AS text)"
    return value.sql


def _dated(value: Value) -> str:
    """A date, or a literal as one."""
    if value.kind is not Kind.LITERAL:
        return f"CAST({value.sql} AS timestamp)"
    with suppress(ValueError):
        if re.fullmatch(r"\d{4}-\d\d-\d\d", value.text):
            return f"TIMESTAMP '{date.fromisoformat(value.text).isoformat()}'"
        if re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?", value.text):
            datetime.fromisoformat(value.text[:19])
            return f"TIMESTAMP '{value.text}'"
    raise UntranslatableError(f"it compares a date with {value.text!r}, which is no day of the calendar")


def _whole(node: Node | None, least: int) -> int:
    if (
        isinstance(node, exp.Literal)
        and not node.is_string
        and str(node.this).isdigit()
        and int(node.this) >= least
    ):
        return int(node.this)
    raise UntranslatableError("a position or length that is no plain number")
