"""Names: what may be called what, and the nearest valid name for a wrong one.

What belongs here: checks on migration keys, connection names and PostgreSQL identifiers.
What does not: quoting (only `psycopg.sql` quotes).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "MAX_IDENTIFIER_BYTES",
    "did_you_mean",
    "fits_identifier",
    "is_connection_name",
    "is_migration_key",
    "is_reserved_schema",
    "key_from_names",
    "name_from_text",
    "qualified",
    "short_hash",
]

MAX_IDENTIFIER_BYTES = 63
"""PostgreSQL's NAMEDATALEN - 1; longer names are cut silently by the server, so we never send one."""

_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_UNSAFE = re.compile(r"[^a-z0-9_-]+")


def is_migration_key(text: str) -> bool:
    """Whether `text` is a migration key of the contract."""
    return _KEY.fullmatch(text) is not None


def is_connection_name(text: str) -> bool:
    """Connection names follow the rule of keys, so that one environment variable names each."""
    return _KEY.fullmatch(text) is not None


def fits_identifier(name: str) -> bool:
    """Whether PostgreSQL keeps `name` as it is: 1 to 63 bytes of UTF-8 and no NUL."""
    return 0 < len(name.encode()) <= MAX_IDENTIFIER_BYTES and "\0" not in name


def is_reserved_schema(name: str) -> bool:
    """Schemas no migration may write to: ours and the server's."""
    return name.startswith(("jivs", "pg_")) or name == "information_schema"


def qualified(schema: str, table: str) -> str:
    """`schema.table` as the documents print it: unquoted, for people and for keys of dictionaries."""
    return f"{schema}.{table}"


def short_hash(*parts: str, length: int = 16) -> str:
    """Hex digest of the parts; stable across machines. Used for file and lock names."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]


def name_from_text(text: str, default: str) -> str:
    """A valid connection name made from free text such as a database or file name."""
    name = _UNSAFE.sub("-", text.lower()).strip("-_")[:MAX_IDENTIFIER_BYTES]
    return name if is_connection_name(name) else default


def key_from_names(source: str, target: str) -> str:
    """The key of a run without a spec, derived from both connection names."""
    key = f"{source}-to-{target}"
    return key if is_migration_key(key) else f"{key[:50]}-{short_hash(source, target, length=12)}"


def did_you_mean(wrong: str, valid: Iterable[str], what: str = "valid names") -> str:
    """A hint that names the nearest valid name, or lists a few when none is near."""
    names = sorted(set(valid))
    if near := get_close_matches(wrong.lower(), [n.lower() for n in names], n=1, cutoff=0.6):
        return f"Did you mean {next(n for n in names if n.lower() == near[0])!r}?"
    if not names:
        return f"There are no {what}"
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"The {what} are: {listed}"
