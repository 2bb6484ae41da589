"""Log records of ours as lines: text for people or JSON for machines, with the fields of the run, without passwords.

What belongs here: the form of a line, and where it goes. What does not: what is worth a line (whoever logs), and the fields
of a run (`engine/migrate.py` binds them).
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from jivs_pipeline.core.connections import redact
from jivs_pipeline.core.settings import LogFormat, LogLevel

__all__ = ["write_logs"]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FIRST = ("timestamp", "level", "event", "key", "run_id", "phase", "table", "chunk")
_Fields = MutableMapping[str, Any]


def write_logs(
    form: LogFormat, level: LogLevel, stream: TextIO | None = None, *, follow: bool = False
) -> None:
    """Write the records of all our modules, from now on.

    Args:
        form: `console`, or one JSON object per line.
        level: the least important that is written.
        stream: where to, if not to standard error.
        follow: whether to write to the log of a run's ops, where Dagster points standard error while they work. Who
            started `jivs run` at a terminal reads there.
    """
    logger = logging.getLogger("jivs_pipeline")
    logger.setLevel(level.upper())
    ours = next((h for h in logger.handlers if isinstance(h, _Handler)), None)
    if ours is None or stream is not None:
        if ours is not None:
            logger.removeHandler(ours)
        ours = _Handler(stream or (sys.stderr if follow else _standard_error()))
        logger.addHandler(ours)
    ours.setFormatter(_formatter(form, colors=ours.stream.isatty()))


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that it is found again."""


def _standard_error() -> TextIO:
    try:
        copy = os.dup(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return sys.stderr
    return os.fdopen(copy, "w", encoding="utf-8", errors="backslashreplace")


def _formatter(form: LogFormat, *, colors: bool) -> logging.Formatter:
    if form == "json":
        rendered: list[Processor] = [
            structlog.processors.format_exc_info,
            _redacted,
            _ordered,
            _as_message,
            structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
        ]
    else:
        rendered = [
            structlog.processors.format_exc_info,
            _redacted,
            _ordered,
            _one_line,
            structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, sort_keys=False),
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ExtraAdder(),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
    )


def _redacted(_logger: Any, _name: str, fields: _Fields) -> _Fields:
    return {name: redact(value) if isinstance(value, str) else value for name, value in fields.items()}


def _ordered(_logger: Any, _name: str, fields: _Fields) -> _Fields:
    return {name: fields[name] for name in dict.fromkeys((*_FIRST, *fields)) if name in fields}


def _as_message(_logger: Any, _name: str, fields: _Fields) -> _Fields:
    # An event is what the outbox has.
    return {"message" if name == "event" else name: value for name, value in fields.items()}


def _one_line(_logger: Any, _name: str, fields: _Fields) -> _Fields:
    """A table's name must not write a line of its own, or colour a terminal."""
    return {n: _shown(v) if isinstance(v, str) and n != "exception" else v for n, v in fields.items()}


def _shown(text: str) -> str:
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
