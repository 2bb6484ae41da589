"""Keeps passwords out of log records: a filter on the root logger's handlers and on new records."""

from __future__ import annotations

import logging

from jivs_pipeline.core.connections import redact

__all__ = ["RedactionFilter", "redact_logs"]


class RedactionFilter(logging.Filter):
    """Rewrites a record whose text holds the password of a URL or connection string."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always lets the record pass, redacted."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # Arguments that do not suit their message: logging reports that itself, and must not stop the caller.
            return True
        if (clean := redact(text)) != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_text is None:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        # A handler without this filter may have written the text before.
        record.exc_text = redact(record.exc_text) if record.exc_text else record.exc_text
        record.stack_info = redact(record.stack_info) if record.stack_info else record.stack_info
        return True


def redact_logs(logger: logging.Logger) -> None:
    """Put the filter on a logger and its handlers, once."""
    for owner in (logger, *logger.handlers):
        if not any(isinstance(f, RedactionFilter) for f in owner.filters):
            owner.addFilter(RedactionFilter())
