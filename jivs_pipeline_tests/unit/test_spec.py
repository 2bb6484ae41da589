"""The migration spec: its keys, its mistakes, and its published schema.

`python -m jivs_pipeline_tests.unit.test_spec` writes docs/spec.schema.json anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jivs_pipeline.core.errors import ExitCode, SpecError
from jivs_pipeline.core.spec import MAX_SPEC_BYTES, Spec, TableFilter, json_schema, parse_spec, require_no_url

BASE = "key: k\nsource: a\ntarget: b\n"
SCHEMA = Path(__file__).parents[2] / "docs" / "spec.schema.json"

# The example of CONTRACT.md.
CONTRACT = """
key: sakila-2026
source: legacy
target: warehouse
type: full
source_schema: sakila
target_schema: public
tables: {include: ["*"], exclude: ["tmp_*"]}
on_existing: fail
rules:
  customer:
    rename: clients
    where: "active = 1"
    load: copy
    columns:
      email:  {expression: "lower(email)"}
      ssn:    {mask: sha256}
      notes:  {drop: true}
      dob:    {type: date, rename: born_on}
    python: "my_rules:clean_customer"
validation:
  - {kind: business, table: clients, expression: "total >= 0", severity: critical}
quarantine: {max_rows: 0}
verify: digest
on_failure: keep
parallelism: 2
chunk_bytes: 67108864
staging: disk
limits: {source_rows_per_second: null, source_connections: 4}
"""


def mistake(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.hint
    return str(caught.value)


def test_the_contracts_example_is_a_spec():
    spec = parse_spec(CONTRACT)
    customer = spec.rule("customer")
    assert (spec.key, spec.source, spec.target, spec.source_schema) == (
        "sakila-2026",
        "legacy",
        "warehouse",
        "sakila",
    )
    assert (customer.rename, customer.where, customer.python) == (
        "clients",
        "active = 1",
        "my_rules:clean_customer",
    )
    assert customer.columns["email"].expression == "lower(email)"
    assert customer.columns["ssn"].mask == "sha256"
    assert customer.columns["notes"].drop
    assert (customer.columns["dob"].type, customer.columns["dob"].rename) == ("date", "born_on")
    assert spec.validation[0].severity == "critical"


def test_the_contracts_example_states_the_defaults():
    told, default = parse_spec(CONTRACT), parse_spec(BASE)
    for key in set(Spec.model_fields) - {
        "key",
        "source",
        "target",
        "source_schema",
        "tables",
        "rules",
        "validation",
    }:
        assert getattr(told, key) == getattr(default, key), key
    assert default.source_schema is None
    assert default.tables == TableFilter(include=("*",), exclude=())


def test_json_is_read_as_yaml_is():
    spec = parse_spec(CONTRACT)
    assert parse_spec(json.dumps(spec.model_dump(mode="json"))) == spec
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_json_may_escape_characters_beyond_the_basic_plane():
    body = json.dumps({"key": "k", "source": "a", "target": "b", "rules": {"😀": {"rename": "𝒳"}}})
    assert "\\ud83d" in body
    assert parse_spec(body).rule("😀").rename == "𝒳"
    assert "surrogate" in mistake(BASE + 'rules: {"\\ud83d": {rename: x}}')
    assert "surrogate" in mistake(BASE + 'source_schema: "\\ude00"')


def test_words_and_numbers_that_yaml_1_1_bends_stay_what_they_are():
    spec = parse_spec(
        BASE + "rules: {t: {columns: {no: {rename: on}, yes: {rename: 2020-01-01}, 12: {rename: off}}}}"
    )
    assert {c: r.rename for c, r in spec.rule("t").columns.items()} == {
        "no": "on",
        "yes": "2020-01-01",
        "12": "off",
    }
    assert parse_spec(BASE + "parallelism: 010").parallelism == 10
    assert parse_spec(BASE + "rules: {t: {where: 1:30}}").rule("t").where == "1:30"
    assert parse_spec(BASE + "rules: {t: {where: null}}").rule("t").where is None


# Keys and names


@pytest.mark.parametrize(
    ("text", "wrong", "near"),
    [
        ("paralelism: 2", "'paralelism'", "'parallelism'"),
        ("Verify: rows", "'Verify'", "'verify'"),
        ("tables: {includes: [a]}", "'includes' in tables", "'include'"),
        ("rules: {t: {renam: x}}", "'renam' in rules.t", "'rename'"),
        ("rules: {t: {columns: {c: {maks: null}}}}", "'maks' in rules.t.columns.c", "'mask'"),
        ("rules: {columns: {wher: x}}", "'wher' in rules.columns", "'where'"),
        (
            "validation: [{kind: business, table: t, expresion: x}]",
            "'expresion' in validation.0",
            "'expression'",
        ),
        ("quarantine: {maxrows: 1}", "'maxrows' in quarantine", "'max_rows'"),
        ("limits: {source_connection: 1}", "'source_connection' in limits", "'source_connections'"),
        ("<<: {verify: rows}", "'<<'", "valid keys are"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(text, wrong, near):
    sentence = mistake(BASE + text)
    assert f"unknown key {wrong}" in sentence
    assert near in sentence


def test_an_unknown_key_is_named_before_the_missing_one_that_it_may_have_meant():
    assert "'sorce'" in mistake("key: k\nsorce: a\ntarget: b\n")


@pytest.mark.parametrize("key", ["key", "source", "target"])
def test_a_missing_key_is_named(key):
    assert f"lacks the key '{key}'" in mistake(re.sub(rf"{key}: \w+\n", "", BASE))


@pytest.mark.parametrize("key", ["-a", "A", "a b", "a" * 64, "''", "a/b"])
def test_a_migration_key_is_checked(key):
    assert "'key'" in mistake(f"key: {key}\nsource: a\ntarget: b")


@pytest.mark.parametrize("end", ["source", "target"])
def test_a_url_does_not_belong_in_a_spec_and_is_not_repeated(end):
    sentence = mistake(BASE.replace(f"{end}: ", f"{end}: postgresql://u:hunter2@h/d#"))
    assert f"'{end}'" in sentence
    assert "hunter2" not in sentence


@pytest.mark.parametrize(
    "schema", ["jivs", "jivs_ledger", "jivsx", "pg_catalog", "pg_x", "information_schema"]
)
def test_reserved_target_schemas_are_refused(schema):
    assert "reserved" in mistake(BASE + f"target_schema: {schema}")
    # They can be read, though.
    assert parse_spec(BASE + f"source_schema: {schema}").source_schema == schema


@pytest.mark.parametrize(
    "text",
    [
        "target_schema: {}", "source_schema: {}", "rules: {{t: {{rename: {}}}}}", "rules: {{t: {{columns: {{c: {{rename: {}}}}}}}}}"
    ],
)  # fmt: skip
def test_names_over_63_bytes_are_refused(text):
    assert parse_spec(BASE + text.format("n" * 63))
    for name in ("n" * 64, "é" * 32, "''", '"a\\0"'):
        assert "63 bytes" in mistake(BASE + text.format(name))


def test_two_tables_renamed_to_one_are_refused():
    sentence = mistake(BASE + "rules: {a: {rename: x}, b: {rename: x}}")
    assert "'a'" in sentence
    assert "'b'" in sentence
    assert "'x'" in sentence
    assert parse_spec(BASE + "rules: {a: {rename: x}, b: {rename: X}}")


def test_two_columns_renamed_to_one_are_refused():
    assert "both renamed to 'x'" in mistake(BASE + "rules: {t: {columns: {a: {rename: x}, b: {rename: x}}}}")
    assert parse_spec(BASE + "rules: {t: {columns: {a: {rename: x}}}, u: {columns: {a: {rename: x}}}}")


@pytest.mark.parametrize(
    "text",
    [
        "rules: {{t: {{where: '{}'}}}}", "rules: {{t: {{columns: {{c: {{expression: '{}'}}}}}}}}",
        "rules: {{t: {{columns: {{c: {{type: '{}'}}}}}}}}", "validation: [{{kind: business, table: t, expression: '{}'}}]",
    ],
)  # fmt: skip
def test_stacked_statements_are_refused_wherever_sql_is_written(text):
    assert parse_spec(BASE + text.format("a"))
    assert "more than one statement" in mistake(BASE + text.format("1; drop table t"))
    assert "comment" in mistake(BASE + text.format("1 -- "))


@pytest.mark.parametrize("rule", ["os.system", "os:", ":f", "a b:c", "a:b.c", "a:b\\n", "../a:b", "1a:b"])
def test_a_python_rule_is_module_and_function(rule):
    assert "python" in mistake(BASE + f'rules: {{t: {{python: "{rule}"}}}}')
    assert parse_spec(BASE + "rules: {t: {python: 'pkg.rules:clean'}}")


@pytest.mark.parametrize("other", ["rename: x", "type: text", "expression: a", "mask: redact"])
def test_a_dropped_column_has_no_other_rule(other):
    assert "no other rule" in mistake(BASE + f"rules: {{t: {{columns: {{c: {{drop: true, {other}}}}}}}}}")


@pytest.mark.parametrize(
    ("text", "near"),
    [("verify: digset", "'digest'"), ("on_existing: replac", "'replace'"), ("type: increment", "'incremental'"), ("staging: disc", "'disk'"),
     ("on_failure: rolback", "'rollback'"), ("rules: {t: {load: upsrt}}", "'upsert'"), ("rules: {t: {columns: {c: {mask: sha265}}}}", "'sha256'")],
)  # fmt: skip
def test_a_wrong_choice_gets_the_nearest_one(text, near):
    assert f"Did you mean {near}" in mistake(BASE + text)


@pytest.mark.parametrize(
    "text",
    ["parallelism: 0", "parallelism: 65", "parallelism: 1.5", "parallelism: many", "parallelism: .inf", "chunk_bytes: 1", "chunk_bytes: 99999999999",
     "quarantine: {max_rows: -1}", "limits: {source_connections: 0}", "limits: {source_rows_per_second: 0}"],
)  # fmt: skip
def test_numbers_have_bounds(text):
    key = text.replace("{", "").split(":")[0]
    assert f"'{key}" in mistake(BASE + text)


@pytest.mark.parametrize(
    "kind",
    ["schema", "data_type", "constraints", "referential", "business", "completeness", "uniqueness", "format"],
)
def test_the_eight_kinds_of_validation_are_known(kind):
    more = {"business": ", expression: a > 0", "format": ", column: a, pattern: x+"}.get(kind, "")
    assert parse_spec(BASE + f"validation: [{{kind: {kind}, table: t{more}}}]").validation[0].kind == kind


@pytest.mark.parametrize(
    "check,said",
    [
        ("kind: business", "needs expression"),
        ("kind: format, column: a", "needs column and pattern"),
        ("kind: uniqueness, expression: a > 0", "takes no expression"),
        ("kind: referential, references: {table: p, columns: [id]}", "as many columns"),
        ("kind: uniqueness, column: a, quarantine: true", "more than one row"),
        ("kind: business, expression: a > 0, at_least: 2", "less than or equal to 1"),
    ],
)
def test_a_validation_that_says_too_little_or_too_much_is_refused(check, said):
    assert said in mistake(BASE + f"validation: [{{{check}, table: t}}]")


# What a text may do to its reader


def test_a_spec_over_one_mebibyte_is_refused():
    assert "larger than 1 MiB" in mistake(BASE + "# " + "x" * MAX_SPEC_BYTES)
    assert "larger than 1 MiB" in mistake(BASE + "# " + "é" * (MAX_SPEC_BYTES // 2))
    assert parse_spec(BASE + "# " + "x" * (MAX_SPEC_BYTES - len(BASE) - 2))


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system [id]", "!!str x", "!x y", "! x", "!!binary YQ=="]
)
def test_yaml_tags_are_refused(text):
    assert "tag" in mistake(BASE + f"source_schema: {text}")
    assert "tag" in mistake(BASE + f"? {text}\n: x")


def test_an_exclamation_mark_in_text_is_no_tag():
    assert parse_spec(BASE + "source_schema: 'a !b'").source_schema == "a !b"


def test_aliases_that_expand_beyond_one_mebibyte_are_refused_at_once():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases expand" in mistake("\n".join(lines))
    assert "aliases expand" in mistake("a: &a [*a]")
    assert "aliases expand" in mistake("a: &a {b: *a}")


def test_a_small_alias_is_fine():
    spec = parse_spec(BASE + "tables: {include: &x [a, b], exclude: *x}")
    assert spec.tables.exclude == ("a", "b")


def test_a_key_twice_is_refused():
    assert "'source' stands twice" in mistake(BASE + "source: c")
    assert "rules.t: the key 'rename' stands twice" in mistake(BASE + 'rules: {t: {rename: a, "rename": b}}')


@pytest.mark.parametrize("text", ["", "~", "[1]", "word", "- key: k", "3"])
def test_what_is_not_a_mapping_is_refused(text):
    assert "not a mapping" in mistake(text)


@pytest.mark.parametrize("text", ["[1]: 2", "{a: b}: c", "? [a]\n: b"])
def test_a_key_is_plain_text(text):
    assert "plain text" in mistake(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("key: [", "line 1"),
        (BASE + "\tx: 1", "line 4"),
        (BASE + "x: *y", "line 4, column 4"),
        ("a: b\n---\nc: d", "line 2"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(text, place):
    assert place in mistake(text)


@pytest.mark.parametrize("text", ["[", "{a: ", "- ", "[{a: "])
def test_deep_nesting_is_refused_before_it_costs_time(text):
    assert "nested too deeply" in mistake(text * (MAX_SPEC_BYTES // len(text)))
    assert "unknown key 'x'" in mistake(f"{BASE}x: {'[' * 40}{']' * 40}")
    assert "unknown key 'x'" in mistake(f"{BASE}x: [{'[], ' * 400}]")


PIECES = ["key", "source", "target", "rules", "tables", ": ", ":", " ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "!", "!!int ", "|\n", ">-\n",
          "'", '"', "\\", "\\ud800", "#", "%", "@", "`", "? ", "<<", "~", "---\n", "...", "0b_", "0x_", "1_", ".inf", "1:60", "9" * 5000, "2020-01-01", "\ud800", "\0",
          "\ufeff", "\x85", "=", "a", "on"]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=15).map("".join) | st.text(), st.booleans())
@example("parallelism: " + "1" * 5000, True)
@example("parallelism: 0b_", True)
@example("parallelism: 0x_", True)
@example("parallelism: 190:", True)
@example("rules: \ud800", True)
@example("parallelism: !!int x", True)
def test_no_text_raises_anything_but_a_spec_error(text, whole):
    try:
        parse_spec(BASE + text if whole else text)
    except SpecError as error:
        assert error.message and error.hint  # noqa: PT017, PT018 - most texts may be specs or not


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Spec.model_fields, "t", "columns", "where", "rename"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(Spec.model_fields)), documents))
def test_no_mapping_raises_anything_but_a_spec_error(mapping):
    try:
        parse_spec({"key": "k", "source": "a", "target": "b", **mapping})
    except SpecError as error:
        assert error.message and error.hint  # noqa: PT017, PT018


# What a spec says


def test_a_schedule():
    """Checked at once, spelled one way, and no part of what is migrated."""
    spec = parse_spec(BASE + "on_existing: replace\nschedule: ' 0  2 * * mon '")
    assert spec.schedule == "0 2 * * mon"
    assert spec.hash == parse_spec(BASE + "on_existing: replace").hash
    with pytest.raises(SpecError, match="'schedule' is wrong: '60' is no minute of a schedule"):
        parse_spec(BASE + "on_existing: replace\nschedule: 60 2 * * *")


def test_a_schedule_has_to_say_what_becomes_of_the_tables():
    with pytest.raises(SpecError, match="on_existing is fail; set it to replace, truncate or append"):
        parse_spec(BASE + "schedule: 0 2 * * *")


def test_the_hash_is_of_the_meaning():
    one = parse_spec(BASE + "verify: digest\nrules: {a: {where: x}, b: {where: y}}")
    two = parse_spec("# other text\n{target: b, source: a, key: k, rules: {b: {where: y}, a: {where: x}}}")
    assert one.hash == two.hash
    assert parse_spec(BASE + "verify: rows").hash != parse_spec(BASE).hash
    assert parse_spec(BASE + "grants: true").hash != parse_spec(BASE + "grants: false").hash
    assert parse_spec(BASE + "grants: false").hash == parse_spec(BASE).hash


def test_a_spec_does_not_change():
    with pytest.raises(ValidationError):
        parse_spec(BASE).key = "other"


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        (["*"], [], {"film", "tmp_film", "Film", "a[b]"}),
        (["*"], ["tmp_*"], {"film", "Film", "a[b]"}),
        (["film"], [], {"film"}),
        (["?ilm"], ["F*"], {"film"}),
        (["a[[]b]"], [], {"a[b]"}),
        ([], [], set()),
        (["film", "tmp_*"], ["*_film"], {"film"}),
    ],
)
def test_include_and_exclude_are_shell_patterns_that_mind_case(include, exclude, taken):
    chosen = parse_spec(
        {"key": "k", "source": "a", "target": "b", "tables": {"include": include, "exclude": exclude}}
    ).tables
    assert {t for t in ("film", "tmp_film", "Film", "a[b]") if chosen.takes(t)} == taken


def test_a_table_without_a_rule_has_the_one_that_changes_nothing():
    rule = parse_spec(BASE).rule("t")
    assert (rule.rename, rule.where, rule.columns, rule.load) == (None, None, {}, "copy")


# The published schema


def written() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def test_the_published_schema_is_current():
    current = SCHEMA.read_text(encoding="utf-8") if SCHEMA.exists() else ""
    assert current == written(), (
        "docs/spec.schema.json is old; renew it: .venv/bin/python -m jivs_pipeline_tests.unit.test_spec"
    )


def test_the_published_schema_refuses_unknown_keys_and_knows_all_others():
    schema = json_schema()
    models = [schema, *schema["$defs"].values()]
    assert all(m["additionalProperties"] is False for m in models)
    assert set(schema["properties"]) == set(Spec.model_fields)
    assert schema["required"] == ["key", "source", "target"]


@pytest.mark.parametrize(
    "content",
    [
        {"source": "postgresql://old.example/shop"},
        {"source": ["legacy"]},
        {"target": {"url": "x"}},
        {"target": "Legacy"},
        {"rules": {"t": {"where": "u = 'https://me:s3cret@old.example'"}}},
        {"any": ["deep", {"er": "mysql://me:s3cret@old.example"}]},
        {"any": "postgresql://old.example/shop?user=me&password=s3cret"},
    ],
)
def test_what_may_hold_a_secret_is_refused_before_it_is_stored(content: dict[str, object]) -> None:
    """With a sentence that repeats none of it."""
    with pytest.raises(SpecError) as refused:
        require_no_url({"key": "shop", **content})
    assert "JIVS_CONNECTION_<NAME>" in refused.value.hint
    for secret in ("s3cret", "old.example", "Legacy"):
        assert secret not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        "text",
        {"source": "legacy", "target": "warehouse"},
        {"source": None, "parallel": 2},
        {"rules": {"users": {"where": "password = 'x' AND home LIKE 'https://%' AND mail LIKE '%@%'"}}},
        {"rules": {"users": {"where": "home = 'https://old.example:8080/a?b=c'"}}},
    ],
)
def test_ordinary_text_is_no_secret(content: object) -> None:
    require_no_url(content)


if __name__ == "__main__":
    SCHEMA.write_text(written(), encoding="utf-8")
