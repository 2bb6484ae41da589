"""Reads a `.sql` file of named blocks (`-- name: verb`), so that queries live as SQL that psql can run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

__all__ = ["load_blocks"]

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def load_blocks(package: str, file: str) -> Mapping[str, LiteralString]:
    """Name -> statement. Parameters are written `%(name)s`, as psycopg takes them."""
    text = files(package).joinpath(file).read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return {
        name: cast("LiteralString", body.strip()) for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }
