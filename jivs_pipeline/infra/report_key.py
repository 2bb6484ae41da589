"""The file with the key that a home's reports are signed with.

What belongs here: making it once, reading it. What does not: signing (`core/signature.py`) and `JIVS_REPORT_KEY`,
which goes before it (`runtime.py`).
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from jivs_pipeline.core.errors import ResourceError
from jivs_pipeline.core.signature import ReportKey

__all__ = ["made_key", "read_key"]

_INSTEAD = "Correct that, or set JIVS_REPORT_KEY"


def read_key(path: Path) -> ReportKey | None:
    """The key of this file, or None where there is no such file.

    Raises:
        ResourceError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResourceError(
            f"The report key {path} cannot be read: {error.strerror}", hint=_INSTEAD
        ) from error
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ResourceError(
            f"{path} holds no report key, which is 64 hexadecimal digits",
            hint="Put the right one back, or remove it: reports that it signed cannot be checked any more then",
        )
    return ReportKey(bytes.fromhex(text))


def made_key(path: Path) -> ReportKey:
    """The key of this file, made where there is none. Processes that make it at once all get the same.

    Raises:
        ResourceError: it can neither be read nor made.
    """
    if (there := read_key(path)) is not None:
        return there
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(path)
    except OSError as error:
        raise ResourceError(
            f"The report key {path} cannot be made: {error.strerror}", hint=_INSTEAD
        ) from error
    if (there := read_key(path)) is None:
        raise ResourceError(f"The report key {path} was removed as soon as it was made", hint=_INSTEAD)
    return there


def _make(path: Path) -> None:
    """A link and no rename: the first key stays, whoever else has made one meanwhile, and is whole when it appears."""
    handle, name = tempfile.mkstemp(prefix=".report-key-", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_hex(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # before anything is signed with it
    finally:
        os.close(directory)
