"""Rules: what may be asked for, what comes out of a batch, and what a bad row is told to be."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.digest import Canon, Spelling
from jivs_pipeline.core.errors import ConfigError, DataError, JivsError, SpecError
from jivs_pipeline.core.model import Key, Table
from jivs_pipeline.core.plan import ColumnPlan, Lane, TablePlan, Wire
from jivs_pipeline.core.ports import Refined
from jivs_pipeline.core.spec import TableRule
from jivs_pipeline.infra.rules.book import RuleBook
from jivs_pipeline.infra.rules.python_rule import PythonRules
from jivs_pipeline.infra.rules.texts import from_text
from jivs_pipeline.infra.sources.sqlite_values import numeric_text

KEY = b"0123456789abcdef"
TYPES = {
    "id": "integer", "name": "varchar(20)", "born": "date", "price": "numeric(10,2)", "rate": "double precision",
    "at": "timestamp", "raw": "bytea", "ok": "boolean", "Tags": "text[]", "total": "numeric",
}  # fmt: skip
ROW = {
    "id": "7", "name": "Ann", "born": "2024-02-29", "price": "1.50", "rate": "0.1", "at": "2024-01-02 03:04:05.5",
    "raw": "\\x00ff", "ok": "true", "Tags": "{a,b}", "total": "1e3",
}  # fmt: skip


def plan(required: tuple[str, ...] = ("id",)) -> TablePlan:
    columns = tuple(
        ColumnPlan(
            source=n, target=n, source_type=t, target_type=t, arrow="string", canon=Canon.TEXT, nullable=n not in required
        )
        for n, t in TYPES.items()
    )  # fmt: skip
    return TablePlan(
        source_schema="s", source_table="t", target_schema="public", target_table="t", columns=columns,
        lane=Lane.ARROW, wire=Wire.CSV, spelling=Spelling.CANONICAL,
        definition=Table("public", "t", (), primary_key=Key("t_pkey", ("id",))),
    )  # fmt: skip


def book(directory: Path | None = None, seconds: float = 20, key: bytes | None = KEY) -> RuleBook:
    return RuleBook(PythonRules(directory, seconds), key)


def refine(
    rule: Mapping[str, Any], *rows: Mapping[str, str | None], rules: RuleBook | None = None
) -> tuple[TablePlan, Refined]:
    rules = rules or book()
    table = rules.compile(plan(), TableRule.model_validate(rule), {})
    assert table.rules is not None
    table = table.model_copy(update={"definition": plan().definition})
    given_rows = [{**ROW, **row} for row in rows] or [ROW]
    names = [c.source for c in table.rules.read]
    batch = pa.RecordBatch.from_arrays(
        [pa.array([r[n] for r in given_rows], pa.string()) for n in names], names=names
    )
    with rules.refiner(table) as refiner:
        return table, refiner.refine(batch)


def value(expression: str, target: str = "name", **row: str | None) -> tuple[str, Any]:
    """Type and text of what an expression gives for a row."""
    table, refined = refine({"columns": {target: {"expression": expression}}}, row)
    assert not refined.bad, refined.bad
    type_ = next(c.target_type for c in table.columns if c.target == target)
    return type_, refined.batch.column(target)[0].as_py()


@pytest.mark.parametrize(
    "expression,type_,text",
    [
        ("upper(name)", "varchar(20)", "ANN"),
        ("id + 1", "integer", "8"),
        ("id::BIGINT * 3000000000", "bigint", "21000000000"),
        ("price * 2", "numeric(18,2)", "3.00"),
        ("rate + 0", "double precision", "0.1"),
        ("born + 1", "date", "2024-03-01"),
        ('"at" + INTERVAL 1 HOUR', "timestamp", "2024-01-02 04:04:05.5"),
        ("year(born)", "bigint", "2024"),
        ("raw || '\\xAA'::BLOB", "bytea", "\\x00ffaa"),
        ("NOT ok", "boolean", "false"),
        ("\"Tags\" || '!'", "text", "{a,b}!"),
        ("tags || total", "text", "{a,b}1e3"),
        ("CASE WHEN id > 5 THEN 'big' ELSE 'small' END", "varchar(20)", "big"),
        ("list_transform([1, 2], lambda x: x + 1)[2]", "integer", "3"),
        ("strftime(\"at\", '%d.%m.%Y')", "varchar(20)", "02.01.2024"),
        ("md5(name)[:5]", "varchar(20)", hashlib.md5(b"Ann").hexdigest()[:5]),
    ],
)  # fmt: skip
def test_an_expression_gives_a_type_and_its_text(expression, type_, text):
    target = {
        "varchar(20)": "name",
        "date": "born",
        "timestamp": "at",
        "boolean": "ok",
        "double precision": "rate",
        "bytea": "raw",
    }
    assert value(expression, target.get(type_, "made")) == (type_, text)


@pytest.mark.parametrize(
    "expression,said",
    [
        ("random()", "does not depend on the row alone"),
        ("now()", "does not depend on the row alone"),
        ("current_date", "does not depend on the row alone"),
        ("uuid()", "does not depend on the row alone"),
        ("age(born)", "does not depend on the row alone"),
        ("nextval('x')", "does not depend on the row alone"),
        ("getvariable('x')", "does not depend on the row alone"),
        ("count(*)", "does not depend on the row alone"),
        ("sum(id)", "does not depend on the row alone"),
        ("row_number() OVER ()", "a window function"),
        ("(SELECT 1)", "a subquery"),
        ("name IN (SELECT 'a')", "a subquery"),
        ("$1", "a parameter"),
        ("unknown_column", "there is no column"),
        ("no_such_function(name)", "does not exist"),
        ("name +", "syntax error"),
        ("[name]", "CAST it"),
        ("NULL", "CAST it"),
        ("read_text('/etc/passwd')", "does not depend on the row alone"),
        ("(SELECT content FROM read_text('/etc/passwd'))", "a subquery"),
    ],
)
def test_what_is_no_function_of_the_row_is_refused(expression, said):
    with pytest.raises(SpecError) as caught:
        refine({"columns": {"name": {"expression": expression}}})
    told = f"{caught.value.message} {caught.value.hint}"
    assert said in told
    assert "rules.t.columns.name" in told


def test_a_row_whose_expression_fails_is_bad_and_the_others_go_on():
    rows = [{"id": str(n), "name": "x" if n in {3, 70} else str(n)} for n in range(100)]
    _, refined = refine(
        {"columns": {"name": {"expression": "CAST(name AS INTEGER)", "type": "integer"}}}, *rows
    )
    assert [(b.key, b.column, b.value) for b in refined.bad] == [
        ({"id": "3"}, "name", "x"),
        ({"id": "70"}, "name", "x"),
    ]
    assert all("'x'" not in b.reason for b in refined.bad)
    assert refined.batch.num_rows == refined.digest.rows == 98
    assert refined.source.rows == 100
    assert refined.batch.column("id").to_pylist() == [str(n) for n in range(100) if n not in {3, 70}]


@pytest.mark.parametrize(
    "type_,good,bad",
    [
        ("integer", "12", "12.5"),
        ("numeric(4,2)", "12.50", "12.505"),
        ("date", "2024-02-29", "2023-02-29"),
        ("boolean", "yes", "maybe"),
        ("uuid", "0c1f8e9e-5a3a-4a58-8c3f-0d9e6e3f0b11", "0c1f8e9e"),
        ("varchar(3)", "abc", "abcd"),
        ("timestamp", "2024-01-01 10:00:00", "2024-01-01 25:00:00"),
        ("json", '{"a": 1}', "{a: 1}"),
    ],
)
def test_a_type_takes_exact_values_only(type_, good, bad):
    table, refined = refine(
        {"columns": {"name": {"type": type_}}}, {"name": good}, {"name": bad}, {"name": None}
    )
    assert next(c.target_type for c in table.columns if c.target == "name") == type_
    assert refined.batch.column("name").to_pylist() == [good, None]
    assert [b.reason for b in refined.bad] == [f"its value after the rules is no {type_}"]


def test_null_in_a_required_column_is_bad():
    _, refined = refine({"columns": {"id": {"expression": "nullif(id, 7)"}}}, {"id": "7"}, {"id": "8"})
    assert [b.reason for b in refined.bad] == ["is NULL after the rules, and the column is NOT NULL"]
    assert refined.batch.column("id").to_pylist() == ["8"]


def test_default_stands_for_null_and_is_counted():
    _, refined = refine(
        {"columns": {"name": {"default": "?"}, "price": {"default": 0}, "ok": {"default": False}}},
        {"name": None, "price": None, "ok": None},
        {},
    )
    assert refined.batch.column("name").to_pylist() == ["?", "Ann"]
    assert refined.batch.column("price").to_pylist() == ["0.00", "1.50"]
    assert refined.batch.column("ok").to_pylist() == ["false", "true"]
    assert {k: v for k, v in refined.changed.items() if v} == {
        "name: default": 1,
        "price: default": 1,
        "ok: default": 1,
    }
    with pytest.raises(SpecError, match="no value of type DECIMAL"):
        refine({"columns": {"price": {"default": "a lot"}}})


def test_masks():
    masks = {
        "name": {"mask": "sha256"},
        "price": {"mask": "hmac"},
        "born": {"mask": "redact"},
        "at": {"mask": "null"},
    }
    table, refined = refine({"columns": masks}, {}, {"name": None, "born": None})
    got = {c.target: refined.batch.column(c.target).to_pylist() for c in table.columns}
    assert got["name"] == [hashlib.sha256(b"Ann").hexdigest(), None]
    assert got["price"] == [hmac.digest(KEY, b"1.50", "sha256").hex()] * 2
    assert got["born"] == ["[redacted]", None]
    assert got["at"] == [None, None]
    types = {c.target: c.target_type for c in table.columns}
    assert (types["name"], types["price"], types["born"], types["at"]) == (
        "text",
        "text",
        "text",
        "timestamp",
    )
    assert refined.changed["price: mask"] == 2
    with pytest.raises(ConfigError, match="needs a key"):
        refine({"columns": masks}, rules=book(key=None))


@given(
    st.binary(min_size=16, max_size=200),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
)
def test_hmac_is_that_of_rfc_2104(key, text):
    _, refined = refine({"columns": {"Tags": {"mask": "hmac"}}}, {"Tags": text}, rules=book(key=key))
    assert refined.batch.column("Tags")[0].as_py() == hmac.digest(key, text.encode(), "sha256").hex()


def test_what_is_masked_is_not_shown_of_a_bad_row():
    rule = {"columns": {"name": {"expression": "CAST(CAST(name AS INTEGER) AS VARCHAR)", "mask": "sha256"}}}
    _, refined = refine(rule, {"name": "secret"})
    assert [(b.key, b.value) for b in refined.bad] == [({"id": "7"}, "[masked]")]
    assert "secret" not in repr(refined.bad)


def test_expressions_may_use_a_dropped_column():
    table, refined = refine({"columns": {"name": {"drop": True}, "label": {"expression": "name || id"}}})
    assert "name" not in [c.target for c in table.columns]
    assert refined.batch.column("label")[0].as_py() == "Ann7"
    assert table.rules is not None
    assert "name" in [c.source for c in table.rules.read]
    without, _ = refine({"columns": {"name": {"drop": True}, "label": {"expression": "id"}}})
    assert without.rules is not None
    assert "name" not in [c.source for c in without.rules.read], "what nothing uses is not read"


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


# Duplicates


@pytest.mark.parametrize(
    "order,kept",
    [
        (None, ["a", "c", "e", "f"]),
        ("born DESC", ["b", "c", "e", "f"]),
        ("length(name), born", ["a", "c", "e", "f"]),
    ],
)
def test_dedupe_keeps_the_first(order, kept, tmp_path):
    rows = [
        {"id": "1", "name": "a", "born": "2024-01-01"}, {"id": "1", "name": "b", "born": "2024-01-02"},
        {"id": "2", "name": "c", "born": None}, {"id": "1", "name": "d", "born": None},
        {"id": None, "name": "e"}, {"id": None, "name": "f"},
    ]  # fmt: skip
    table = book().compile(
        plan(()), TableRule.model_validate({"dedupe": {"key": ["id"], "order": order}}), {}
    )
    assert table.rules is not None
    names = [c.source for c in table.rules.read]
    full = [{**ROW, **row} for row in rows]
    batches = [
        (chunk, pa.RecordBatch.from_pylist([{n: r[n] for n in names} for r in part], schema=pa.schema([(n, pa.string()) for n in names])))
        for chunk, part in ((0, full[:1]), (0, full[1:3]), (1, full[3:]))
    ]  # fmt: skip
    dropped = book().duplicates(table, batches, tmp_path)
    left: list[str | None] = []
    places = {0: 0, 1: 0}
    for chunk, batch in batches:
        for row in batch.to_pylist():
            if places[chunk] not in dropped.get(chunk, ()):
                left.append(row["name"])
            places[chunk] += 1
    assert left == kept


# Python


FUNCTIONS = """
import os, sys, time
import pyarrow as pa
import pyarrow.compute as pc

def clean(batch):
    print("nobody sees this")
    return batch.set_column(batch.schema.get_field_index("name"), "name", pc.utf8_upper(batch.column("name")))

def few(batch):
    return batch.filter(pc.greater(batch.column("id"), 7))

def more(batch):
    return batch.append_column("extra", pa.array([1] * batch.num_rows, pa.int64()))

def less(batch):
    return batch.select(["id"])

def raises(batch):
    raise ValueError("secret")

def nothing(batch):
    return None

def slow(batch):
    if batch.num_rows:
        time.sleep(60)
    return batch

def leaves(batch):
    if batch.num_rows:
        os._exit(3)
    return batch

def environment(batch):
    found = [" ".join(k for k in os.environ if "JIVS" in k)] * batch.num_rows
    return batch.set_column(1, "name", pa.array(found, pa.string()))

def untyped(batch):
    return batch.set_column(1, "name", pa.array(["x"] * batch.num_rows))
"""


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    (tmp_path / "my_rules.py").write_text(FUNCTIONS)
    return tmp_path


def through(
    function: str, functions: Path, *rows: Mapping[str, str | None], seconds: float = 20, **rule: Any
) -> Refined:
    return refine({"python": f"my_rules:{function}", **rule}, *rows, rules=book(functions, seconds))[1]


def test_python_changes_batches_before_other_rules(functions):
    refined = through("clean", functions, columns={"name": {"expression": "name || '!'"}})
    assert refined.batch.column("name")[0].as_py() == "ANN!"
    same = {n: refined.batch.column(n)[0].as_py() for n in ROW if n != "name"}
    assert same == {**{k: v for k, v in ROW.items() if k != "name"}}
    assert through("few", functions, {"id": "7"}, {"id": "8"}).batch.column("id").to_pylist() == ["8"]
    assert through("few", functions, {"id": "7"}, {"id": "8"}).changed["rows: python"] == 1
    assert through("more", functions).batch.column("extra")[0].as_py() == "1"


@pytest.mark.parametrize(
    "function,error,said",
    [
        ("raises", SpecError, "raised ValueError"),
        ("nothing", SpecError, "returned NoneType instead of"),
        ("less", SpecError, "gives back no column 'name'"),
        ("untyped", SpecError, "without a type for a batch of no rows"),
        ("absent", SpecError, "defines no function 'absent'"),
        ("slow", DataError, "took longer than 2 s"),
        ("leaves", DataError, "has ended its process"),
    ],
)
def test_what_python_does_wrong_is_said_without_values(function, error, said, functions):
    with pytest.raises(error) as caught:
        through(function, functions, seconds=2)
    assert said in caught.value.message
    assert "secret" not in repr(caught.value)


def test_python_knows_nothing_of_ours(functions, monkeypatch):
    monkeypatch.setenv("JIVS_CONNECTION_A", "postgresql://u:p@h/d")
    assert through("environment", functions).batch.column("name")[0].as_py() == ""


def test_python_comes_from_its_directory_only(functions, tmp_path):
    outside = tmp_path / "inside"
    outside.mkdir()
    (outside / "my_rules.py").symlink_to(functions / "my_rules.py")
    for directory, said in (
        (None, "JIVS_PYTHON_RULES is not set"),
        (outside, "is not there"),
        (tmp_path / "no", "is not there"),
    ):
        with pytest.raises(JivsError) as caught:
            refine({"python": "my_rules:clean"}, rules=book(directory))
        assert said in caught.value.message


_WRITTEN = st.one_of(
    st.text("01.-9e", max_size=5),
    st.decimals(allow_nan=True).map(str),
    st.sampled_from(["-0", "-0.00", "NaN", "1é"]),
)


@given(st.lists(st.none() | _WRITTEN, max_size=6))
def test_decimals_are_spelled_if_all_are_plain(texts: list[str | None]) -> None:
    plain = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)
    column = ColumnPlan(
        source="n",
        target="n",
        source_type="numeric",
        target_type="numeric",
        arrow="string",
        canon=Canon.NUMERIC,
    )
    array = pa.array(["gone", *texts], pa.string()).slice(1)
    if all(t is None or plain.fullmatch(t) for t in texts):
        found = from_text(array, column, checked=True).canon.to_pylist()
        assert found == [None if t is None else numeric_text(t) for t in texts]
    elif any(t is not None and not _is_number(t) for t in texts):
        assert None in from_text(array, column, checked=True).canon.to_pylist()


def _is_number(text: str) -> bool:
    try:
        Decimal(text)
    except InvalidOperation:
        return False
    return True
