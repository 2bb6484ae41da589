"""Reads the spec file that a command was given.

What belongs here: the file. What does not: what a spec is (`core/spec.py`).
"""

from __future__ import annotations

from pathlib import Path

from jivs_pipeline.core.errors import SpecError
from jivs_pipeline.core.spec import MAX_SPEC_BYTES, Spec, parse_spec

__all__ = ["read_spec"]


def read_spec(path: Path) -> Spec:
    """A checked spec from a file.

    Raises:
        SpecError: the file or the spec is wrong.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SPEC_BYTES + 1)
    except OSError as error:
        raise SpecError(f"The spec {path} cannot be read: {error.strerror}", hint="Check the path") from None
    try:
        return parse_spec(content.decode())
    except UnicodeDecodeError:
        raise SpecError(f"The spec {path} is not UTF-8 text", hint="Save it as UTF-8") from None
