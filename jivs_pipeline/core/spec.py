"""The migration spec: what a user asks for, as frozen pydantic models with a published JSON Schema.

What belongs here: the keys of CONTRACT.md, their checks, and the one sentence for each mistake.
What does not: anything that needs the source's catalog (that is the plan's).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from jivs_pipeline.core.connections import holds_password
from jivs_pipeline.core.cron import Cron
from jivs_pipeline.core.errors import SpecError
from jivs_pipeline.core.names import (
    did_you_mean,
    fits_identifier,
    is_connection_name,
    is_migration_key,
    is_reserved_schema,
)
from jivs_pipeline.core.sqltext import fragment_problem

__all__ = ["MAX_SPEC_BYTES", "ColumnRule", "Spec", "TableRule", "json_schema", "parse_spec", "require_no_url"]

_NAME_IT = "Write the name of a connection; its URL belongs into JIVS_CONNECTION_<NAME> or connections.yaml"

MAX_SPEC_BYTES = 1 << 20
"""A larger spec, as text or after YAML aliases are expanded, is refused."""


def _identifier(text: str) -> str:
    if not fits_identifier(text):
        raise ValueError(f"{text[:80]!r} is not a PostgreSQL name: it needs 1 to 63 bytes and no NUL")
    return text


def _fragment(text: str) -> str:
    if problem := fragment_problem(text):
        raise ValueError(f"{problem}; it must be one SQL expression")
    return text


def _key(text: str) -> str:
    if not is_migration_key(text):
        raise ValueError("a key has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit")
    return text


def _connection(text: str) -> str:
    if not is_connection_name(text):
        raise ValueError(
            "a connection name has 1 to 63 of a-z, 0-9, _ and -; a URL does not belong in a spec"
        )
    return text


def _target_schema(text: str) -> str:
    if is_reserved_schema(text):
        raise ValueError(f"{text!r} is reserved; choose another schema")
    return _identifier(text)


def _schedule(text: str) -> str:
    Cron.parse(text)
    return " ".join(text.split())


Identifier = Annotated[str, AfterValidator(_identifier)]
Fragment = Annotated[str, AfterValidator(_fragment)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LookupRule(_Model):
    """The value of another table's row whose key this row names."""

    table: str = Field(description="Source table, which is part of the migration")
    key: str = Field(description="Its column that is compared")
    value: str = Field(description="Its column that is taken")
    by: str | None = Field(
        default=None, description="Column of this table that names the key; default: the same column"
    )


class ColumnRule(_Model):
    """What happens to one column, in this order: lookup, expression, default, type, mask."""

    rename: Identifier | None = None
    drop: bool = False
    type: Fragment | None = Field(default=None, description="PostgreSQL type of the target column")
    lookup: LookupRule | None = None
    expression: Fragment | None = Field(default=None, description="DuckDB SQL over the columns of the row")
    default: bool | int | float | str | None = Field(default=None, description="In the place of NULL")
    mask: Literal["sha256", "redact", "null", "hmac"] | None = None

    @model_validator(mode="after")
    def _drop_stands_alone(self) -> Self:
        if self.drop and (self.rename or self.changes):
            raise ValueError("a dropped column can have no other rule")
        return self

    @property
    def changes(self) -> bool:
        """Whether values become others."""
        return bool(self.lookup or self.expression or self.type or self.mask) or self.default is not None


class DedupeRule(_Model):
    """Rows that are alike in some columns become one: the first in `order`, else the first that is read."""

    key: tuple[str, ...] = Field(min_length=1)
    order: Fragment | None = Field(default=None, description="DuckDB SQL; may end with DESC")


class TableRule(_Model):
    """What happens to one source table."""

    rename: Identifier | None = None
    where: Fragment | None = Field(default=None, description="Filter in the source's SQL")
    load: Literal["copy", "upsert"] = "copy"
    columns: Mapping[str, ColumnRule] = Field(default_factory=dict[str, ColumnRule])
    python: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    dedupe: DedupeRule | None = None
    watermark: str | None = Field(
        default=None,
        description="Column that grows with each change of a row; type: incremental looks there first",
    )

    @property
    def changes(self) -> bool:
        """Whether rows or values become others between reading and loading."""
        return bool(self.python or self.dedupe) or any(c.changes for c in self.columns.values())


class Reference(_Model):
    """The columns of another table of the migration that values must be in."""

    table: str
    columns: tuple[str, ...] = Field(min_length=1)


_ROWS = frozenset({"data_type", "business", "completeness", "format", "constraints"})


class ValidationRule(_Model):
    """One check on the rows as they will be loaded, before the target is touched. Names are those of the target.

    What it does not say is taken from the table: its keys, references, required columns and types.
    """

    kind: Literal[
        "schema",
        "data_type",
        "constraints",
        "referential",
        "business",
        "completeness",
        "uniqueness",
        "format",
    ]
    table: str
    name: str | None = Field(default=None, min_length=1, max_length=100)
    column: str | None = None
    columns: tuple[str, ...] = ()
    expression: Fragment | None = Field(default=None, description="DuckDB SQL that no row makes false")
    pattern: str | None = Field(default=None, description="Regular expression (RE2) for the whole value")
    type: str | None = Field(default=None, description="PostgreSQL type that every value is one of")
    references: Reference | None = None
    at_least: float = Field(default=1.0, gt=0, le=1, description="Share of rows that must pass")
    severity: Literal["critical", "major", "minor"] = "major"
    quarantine: bool = Field(default=False, description="Rows that do not pass are quarantined")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.kind == "business" and self.expression is None:
            raise ValueError("kind business needs expression")
        if self.kind == "format" and self.expression is None and (self.pattern is None or not self.named):
            raise ValueError("kind format needs column and pattern, or expression")
        if self.expression is not None and self.kind in {"schema", "uniqueness", "referential"}:
            raise ValueError(
                f"kind {self.kind} takes no expression; columns and references say what it is about"
            )
        if self.quarantine and (
            self.kind not in _ROWS or (self.kind == "constraints" and not self.expression)
        ):
            raise ValueError(f"kind {self.kind} looks at more than one row, so none can be quarantined by it")
        if self.references is not None and (
            not self.named or len(self.references.columns) != len(self.named)
        ):
            raise ValueError("references needs as many columns as the check names with column or columns")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that it is about."""
        return self.columns or ((self.column,) if self.column else ())

    @property
    def label(self) -> str:
        """What it is called: its name, or what it is."""
        return self.name or " ".join(
            filter(None, (self.kind, self.table, ", ".join(self.named), self.expression))
        )


class TableFilter(_Model):
    """Shell patterns on bare table names; `[` escapes as `[[]`."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def takes(self, *names: str) -> bool:
        """Whether something that goes by one or more names is part of the migration."""

        def named(patterns: Iterable[str]) -> bool:
            return any(fnmatchcase(name, p) for name in names for p in patterns)

        return named(self.include) and not named(self.exclude)


class Quarantine(_Model):
    """Budget of rejected rows per table; 0 = the first bad row fails that table."""

    max_rows: int = Field(default=0, ge=0)


class Limits(_Model):
    """What the source can bear, of all migrations that read it together."""

    source_rows_per_second: int | None = Field(default=None, gt=0)
    source_bytes_per_second: int | None = Field(default=None, gt=0)
    source_connections: int = Field(default=4, gt=0, le=64)


class Spec(_Model):
    """A migration as its user wants it. See CONTRACT.md for each key."""

    key: Annotated[str, AfterValidator(_key)]
    source: Annotated[str, AfterValidator(_connection)]
    target: Annotated[str, AfterValidator(_connection)]
    type: Literal["full", "incremental"] = "full"
    source_schema: Identifier | None = None
    target_schema: Annotated[str, AfterValidator(_target_schema)] = "public"
    tables: TableFilter = TableFilter()
    on_existing: Literal["fail", "replace", "truncate", "append"] = "fail"
    grants: bool = Field(
        default=False,
        description="PostgreSQL to PostgreSQL: rights come along, for roles that the target has",
    )
    large_objects: bool | None = Field(
        default=None,
        description="PostgreSQL to PostgreSQL: whether those of the database come along; unsaid, they do when all tables do",
    )
    rules: Mapping[str, TableRule] = Field(default_factory=dict[str, TableRule])
    validation: tuple[ValidationRule, ...] = ()
    strict: bool = Field(
        default=False, description="Every validation that fails stops, not critical ones only"
    )
    quarantine: Quarantine = Quarantine()
    verify: Literal["count", "digest", "rows"] = "digest"
    on_failure: Literal["keep", "rollback"] = "keep"
    on_update: Literal["warn", "trigger"] = Field(
        default="warn", description="What becomes of MySQL's ON UPDATE CURRENT_TIMESTAMP"
    )
    parallelism: int = Field(default=2, ge=1, le=64)
    chunk_bytes: int = Field(default=64 << 20, ge=1 << 16, le=4 << 30)
    staging: Literal["disk", "none"] = "disk"
    limits: Limits = Limits()
    schedule: Annotated[str, AfterValidator(_schedule)] | None = Field(
        default=None, description="Loaded anew at these times: cron with five fields, in UTC"
    )

    @model_validator(mode="after")
    def _schedule_can_load_again(self) -> Self:
        if self.schedule is not None and self.on_existing == "fail" and self.type == "full":
            raise ValueError(
                "a schedule loads tables again that are there, and on_existing is fail;"
                " set it to replace, truncate or append"
            )
        return self

    @model_validator(mode="after")
    def _incremental_stands_alone(self) -> Self:
        if self.type == "full":
            return self
        if self.on_existing != "fail":
            raise ValueError("type: incremental changes the tables that are there; leave out on_existing")
        if table := next((t for t, rule in self.rules.items() if rule.load == "upsert"), None):
            raise ValueError(
                f"type: incremental compares whole rows; leave out rules.{table}.load, or use type: full"
            )
        return self

    @model_validator(mode="after")
    def _names_stay_apart(self) -> Self:
        seen: dict[str, str] = {}
        for table, rule in self.rules.items():
            if rule.rename is not None and (other := seen.setdefault(rule.rename, table)) != table:
                raise ValueError(f"rules: tables {other!r} and {table!r} are both renamed to {rule.rename!r}")
            columns: dict[str, str] = {}
            for column, change in rule.columns.items():
                if change.rename and (twin := columns.setdefault(change.rename, column)) != column:
                    raise ValueError(
                        f"rules.{table}: columns {twin!r} and {column!r} are both renamed to {change.rename!r}"
                    )
        return self

    @property
    def hash(self) -> str:
        """Digest of the meaning, not of the text: same spec, same hash. When it is loaded does not change what is."""
        # Nor does a key that came later, as long as nobody uses it: what is completed stays so over an upgrade.
        later = {"grants": self.grants, "large_objects": self.large_objects is not None}
        unsaid = {"schedule", *(key for key, used in later.items() if not used)}
        said = self.model_dump(mode="json", exclude=unsaid)
        for rule in said["rules"].values():
            if rule["watermark"] is None:
                del rule["watermark"]
        body = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(body.encode()).hexdigest()

    def rule(self, table: str) -> TableRule:
        """The rule of a source table, or the one that changes nothing."""
        return self.rules.get(table, TableRule())


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types only: `no`, `on` and dates stay text, as a user who writes a name expects."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Not PyYAML's patterns: they take 1:30 as 90, 010 as 8, and 0x_ or 5,000 digits, which then cannot be converted.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|[-+]?\.inf$|\.nan$"),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


_MAX_DEPTH = 50
_OPENERS = (
    yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken, yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken
)  # fmt: skip
_CLOSERS = (yaml.BlockEndToken, yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)


def _expanded_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Characters of the node with every alias written out; a self-reference counts as too large."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = MAX_SPEC_BYTES + 1
    if isinstance(node, yaml.MappingNode):
        size = sum(_expanded_size(k, sizes) + _expanded_size(v, sizes) for k, v in node.value)
    elif isinstance(node, yaml.SequenceNode):
        size = sum(_expanded_size(child, sizes) for child in node.value)
    else:
        size = len(str(node.value))
    sizes[id(node)] = size + 1
    return size + 1


def _check_nodes(node: yaml.Node, where: str, seen: set[int]) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[Hashable] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise SpecError(f"{where}: a key must be plain text", hint="Write key: value")
            key.value = _whole(key.value, where)
            if key.value in keys:
                raise SpecError(f"{where}: the key {key.value!r} stands twice", hint="Keep one of the two")
            keys.add(key.value)
            key.tag = "tag:yaml.org,2002:str"
            _check_nodes(value, f"{where}.{key.value}" if where != "The spec" else key.value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_nodes(child, where, seen)
    else:
        node.value = _whole(node.value, where)


def _whole(text: str, where: str) -> str:
    """JSON writes characters beyond U+FFFF as two escapes, which YAML takes for two characters."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise SpecError(
            f"{where} holds half of a surrogate pair", hint="Write the character itself"
        ) from None


def _check_tokens(text: str) -> None:
    depth = 0
    for token in yaml.scan(text, Loader=_Loader):
        if isinstance(token, yaml.TagToken):
            raise SpecError("The spec uses a YAML tag", hint="Remove the ! tags; plain values are enough")
        depth += isinstance(token, _OPENERS) - isinstance(token, _CLOSERS)
        # The scanner's time grows with the square of the depth: a mebibyte of brackets would take hours.
        if depth > _MAX_DEPTH:
            raise SpecError("The spec is nested too deeply", hint="Flatten it")


def _load(text: str) -> object:
    if len(text.encode(errors="replace")) > MAX_SPEC_BYTES:
        raise SpecError("The spec is larger than 1 MiB", hint="Use table patterns instead of long lists")
    try:
        _check_tokens(text)
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None
        if _expanded_size(node, {}) > MAX_SPEC_BYTES:
            raise SpecError("The spec's YAML aliases expand beyond 1 MiB", hint="Write the values out")
        _check_nodes(node, "The spec", set())
        loader = _Loader("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "its text"
        problem = getattr(error, "problem", None) or "it is not YAML or JSON"
        raise SpecError(
            f"The spec cannot be read at {where}: {problem}", hint="Correct the YAML there"
        ) from None
    except RecursionError:
        raise SpecError("The spec is nested too deeply", hint="Flatten it") from None


def parse_spec(content: str | Mapping[str, Any]) -> Spec:
    """A checked spec from YAML or JSON text, or from an already parsed mapping.

    Raises:
        SpecError: one sentence for the first mistake, with the nearest valid key where one is near.
    """
    value = _load(content) if isinstance(content, str) else content
    if not isinstance(value, Mapping):
        raise SpecError("The spec is not a mapping", hint="Begin with key: NAME, source: NAME, target: NAME")
    try:
        return Spec.model_validate(value)
    except ValidationError as error:
        raise _sentence(error) from None


def require_no_url(content: object) -> None:
    """Refuse what may hold a secret, before it is written down anywhere.

    Args:
        content: what is meant to be a spec, not yet checked.

    Raises:
        SpecError: a connection is not a name, or there is a URL with a password. The sentence repeats none of it.
    """
    if not isinstance(content, Mapping):
        return
    for end in ("source", "target"):
        name = content.get(end)
        if name is not None and not (isinstance(name, str) and is_connection_name(name)):
            raise SpecError(f"The spec's {end!r} is not the name of a connection", hint=_NAME_IT)
    if holds_password(json.dumps(content, ensure_ascii=False, default=str)):
        raise SpecError("The spec holds a URL with a password", hint=_NAME_IT)


def _model_at(path: tuple[str | int, ...]) -> type[BaseModel]:
    """The model whose key is wrong at `path`, for the list of valid names."""
    models: dict[str, type[BaseModel]] = {
        "tables": TableFilter,
        "validation": ValidationRule,
        "quarantine": Quarantine,
        "limits": Limits,
    }
    if not path:
        return Spec
    if path[0] == "rules":
        if "lookup" in path[4:]:
            return LookupRule
        inside: dict[str, type[BaseModel]] = {"columns": ColumnRule, "dedupe": DedupeRule}
        return next((inside[str(part)] for part in path[2:3] if part in inside), TableRule)
    if path[0] == "validation" and "references" in path:
        return Reference
    return models.get(str(path[0]), Spec)


def _sentence(error: ValidationError) -> SpecError:
    errors = error.errors()
    # An unknown key is the likeliest cause of a missing one next to it, so it is named first.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    path = tuple(first["loc"])
    where = ".".join(str(part) for part in path)
    if first["type"] == "extra_forbidden":
        parent = ".".join(str(part) for part in path[:-1])
        return SpecError(
            f"The spec has the unknown key {str(path[-1])!r}" + (f" in {parent}" if parent else ""),
            hint=did_you_mean(str(path[-1]), _model_at(path[:-1]).model_fields, "valid keys"),
        )
    if first["type"] == "missing":
        return SpecError(f"The spec lacks the key {where!r}", hint=f"Add {where}: …")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in {"tuple_type", "model_type", "mapping_type"}:
        # Pydantic names our classes here, which mean nothing to a user.
        message = "a list is needed" if first["type"] == "tuple_type" else "a mapping is needed"
    if not where:
        return SpecError(f"The spec is wrong: {message}", hint="Correct it and run again")
    hint = "Correct it and run again"
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        expected = (
            str(first.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
        )
        hint = did_you_mean(first["input"], expected, "valid values")
    return SpecError(f"The spec's {where!r} is wrong: {message[0].lower()}{message[1:]}", hint=hint)


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of the spec; `docs/spec.schema.json` is this, checked by a test."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
