"""Keeps passwords out of log records: a filter on the root logger's handlers and on new records."""

from __future__ import annotations

import logging

from jivs_pipeline.core.connections import redact

__all__ = ["RedactionFilter", "redact_logs"]


class RedactionFilter(logging.Filter):
    """Rewrites a record whose text holds the password of a URL or connection string."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always lets the record pass, redacted."""
        text = record.getMessage()
        if (clean := redact(text)) != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_text is None:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


def redact_logs(logger: logging.Logger) -> None:
    """Put the filter on a logger and its handlers, once."""
    for owner in (logger, *logger.handlers):
        if not any(isinstance(f, RedactionFilter) for f in owner.filters):
            owner.addFilter(RedactionFilter())
