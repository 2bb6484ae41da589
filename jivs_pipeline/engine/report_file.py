"""The report as a signed file: a page, or the document itself as JSON.

What belongs here: writing it whole or not at all, and checking one. What does not: what is on the page (`report.py`)
and how it is signed (`core/signature.py`).
"""

from __future__ import annotations

import html
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jivs_pipeline.core.errors import ConfigError, JivsError, MismatchError, ResourceError
from jivs_pipeline.core.signature import ALGORITHM, HTML, JSON, Judgement, ReportKey
from jivs_pipeline.engine.report import render_report
from jivs_pipeline.engine.verdict import Document

__all__ = ["check_report", "pending_report", "write_report"]

_FACT = re.compile(r'<meta name="jivs-(key|status)" content="([^"]*)"/>')


def write_report(document: Document, path: Path, key: ReportKey) -> None:
    """Write the signed report to `path`, readable by its owner only; a crash leaves the old file or the new one.

    A name that ends in `.json` gets the document, every other one the page.

    Raises:
        ResourceError: the directory is missing, full or not ours to write, or `path` is no ordinary file.
    """
    signed = _signed(document, key, as_json=path.suffix.lower() == ".json")
    if path.exists() and not path.is_file():
        # A rename would replace the device or pipe itself: `--out /dev/stdout` as root.
        raise _unwritable(path, "it is not an ordinary file")
    try:
        _replace(path, signed)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error


@contextmanager
def pending_report(document: Document, path: Path, key: Callable[[], ReportKey]) -> Generator[str | None]:
    """Write the page beside `path` and put it there when the block has ended well.

    Args:
        key: finds the key that it is signed with.

    Yields:
        Its path, or None where it cannot be written: a full disk must not decide how a migration ends.
    """
    beside = path.with_name(f".{path.stem}-{secrets.token_hex(4)}.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_report({**document, "report": str(path)}, beside, key())
    except (OSError, JivsError):
        yield None
        return
    try:
        yield str(path)
        with suppress(OSError):
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def check_report(path: Path, key: ReportKey) -> dict[str, Any]:
    """What an unchanged report is: report, key, status, algorithm, signed_with.

    Raises:
        MismatchError: it is not as it was signed.
        ConfigError: it cannot be read, is unsigned, or was signed with another key.
    """
    signed = _read(path)
    found = key.judge(signed)
    if found.judgement is Judgement.CHANGED:
        raise MismatchError(
            f"{path} was changed after it was signed",
            hint="Do not trust it; write it anew with: jivs report KEY --out FILE",
        )
    if found.judgement is Judgement.UNSIGNED:
        raise ConfigError(
            f"{path} has no signature of a report",
            hint="Give a file that jivs report has written, with its last line",
        )
    if found.judgement is Judgement.OTHER_KEY:
        raise ConfigError(
            f"{path} was signed with the key {found.key_id}, and the key here is {key.id}",
            hint="Set JIVS_REPORT_KEY or JIVS_HOME to those of the process that wrote it",
        )
    migration, status = _facts(signed)
    return {
        "report": str(path), "key": migration, "status": status, "algorithm": ALGORITHM, "signed_with": key.id,
    }  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is not an ordinary file", hint="Give a report")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="Give a report that is there"
        ) from error


def _facts(signed: bytes) -> tuple[str, str]:
    """Key and status; of bytes that are known to be ours."""
    text = signed.decode()
    if text.startswith("{"):
        document = json.loads(text)
        return document["key"], document["status"]
    facts = {name: html.unescape(value) for name, value in _FACT.findall(text)[:2]}
    return facts["key"], facts["status"]


def _signed(document: Document, key: ReportKey, *, as_json: bool) -> bytes:
    if not as_json:
        return key.sign(render_report(document).encode(), HTML)
    # The signature is the object's last member, and its closing brace is in the signature's line.
    text = json.dumps(dict(document), default=str, indent=1).removesuffix("\n}")
    return key.sign(f"{text},\n".encode(), JSON)


def _unwritable(path: Path, reason: str) -> ResourceError:
    return ResourceError(
        f"The report cannot be written to {path}: {reason}", hint="Give another place for it"
    )


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".report-", suffix=".tmp", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # the rename itself
    finally:
        os.close(directory)
