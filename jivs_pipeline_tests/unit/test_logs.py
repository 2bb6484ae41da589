"""Log records as lines: one each, with the fields of their run, without passwords."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.contextvars import bound_contextvars

from jivs_pipeline.engine.pool import Guard, run_all
from jivs_pipeline.infra.logs import write_logs

LOG = logging.getLogger("jivs_pipeline.somewhere")
SECRET = "postgresql://me:hunter2@host/db"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    logger = logging.getLogger("jivs_pipeline")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers, logger.level = handlers, level


def lines(form: Any = "json", level: Any = "info") -> io.StringIO:
    stream = io.StringIO()
    write_logs(form, level, stream)
    return stream


def parsed(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_which_run_it_is_of() -> None:
    stream = lines()
    with bound_contextvars(run_id="r1", key="shop", phase="load"):
        LOG.info("%d rows", 3, extra={"table": "public.t", "rows": 3})
    LOG.info("outside")
    inside, outside = parsed(stream)
    assert list(inside) == ["timestamp", "level", "message", "key", "run_id", "phase", "table", "rows"]
    assert inside["message"] == "3 rows"
    assert (inside["key"], inside["run_id"], inside["phase"], inside["rows"]) == ("shop", "r1", "load", 3)
    assert inside["timestamp"].endswith("Z")
    assert outside.keys() == {"timestamp", "level", "message"}


def test_threads_of_a_pool_log_for_the_run_that_started_them() -> None:
    stream = lines()

    def job(chunk: int) -> None:
        with bound_contextvars(chunk=chunk):
            LOG.info("done")

    with bound_contextvars(key="shop"):
        run_all([lambda n=n: job(n) for n in range(20)], 4, Guard())
    found = parsed(stream)
    assert {line["key"] for line in found} == {"shop"}
    assert sorted(line["chunk"] for line in found) == list(range(20))


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_password_in_the_message_the_fields_or_the_traceback(form: str) -> None:
    stream = lines(form)
    try:
        int(SECRET)
    except ValueError:
        LOG.exception("%s is wrong", SECRET, extra={"url": SECRET})
    text = stream.getvalue()
    assert "hunter2" not in text
    assert text.count("me:***@host") == 3
    assert "Traceback" in text


@settings(deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
@example("\x1b[31m", "\x1b")
def test_whatever_a_name_is_it_stays_one_line(message: str, name: str) -> None:
    as_json, as_text = lines("json"), io.StringIO()
    LOG.info("%s", message, extra={"table": name})
    write_logs("console", "info", as_text)
    LOG.info("%s", message, extra={"table": name})
    (line,) = as_json.getvalue().rstrip("\n").split("\n")
    assert json.loads(line)["message"] == message or "***" in line
    assert as_text.getvalue().count("\n") == 1
    assert "\x1b" not in as_text.getvalue()


def test_the_level_and_the_form_can_change_and_nothing_is_written_twice() -> None:
    stream = lines("json", "warning")
    LOG.info("not this")
    write_logs("json", "info")
    write_logs("json", "info")
    LOG.info("this")
    LOG.debug("not this")
    assert [line["message"] for line in parsed(stream)] == ["this"]
