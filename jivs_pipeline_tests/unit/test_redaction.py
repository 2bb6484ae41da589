"""Passwords of URLs and connection strings stay out of every text."""

from __future__ import annotations

import io
import json
import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.connections import redact
from jivs_pipeline.infra.redaction import RedactionFilter, redact_logs

# Long enough not to occur by chance in what surrounds it.
raw = st.from_regex(r"[!-~]{3,20}", fullmatch=True).map(lambda text: f"hunter2{text}hunter2")
around = st.text(alphabet="abc ,.()\n", max_size=10)


@given(
    raw,
    st.sampled_from(["postgresql", "POSTGRESQL", "postgresql+psycopg", "mysql", "redis"]),
    st.sampled_from(["", "me", "me@x"]),
    around,
    around,
)
def test_no_password_of_a_url_survives_whatever_is_in_it(password, scheme, user, before, after):
    for text in (password, quote(password, safe="")):
        assert "hunter2" not in redact(f"{before}{scheme}://{user}:{text}@host:5432/db{after}")


@given(
    st.from_regex(r"[^\s&]{3,20}", fullmatch=True).map(lambda t: f"hunter2{t}hunter2"),
    st.sampled_from(["password", "PWD", "sslpassword", "PGPASSWORD", "passwd"]),
)
def test_no_bare_password_parameter_survives(password, name):
    if '"' not in password:
        assert "hunter2" not in redact(f"host=h {name}={password} dbname=d")
        assert "hunter2" not in redact(f"postgresql://h/d?{name}={password}&x=y")


@given(st.text(max_size=20).map(lambda t: f"hunter2 {t} hunter2"))
def test_no_quoted_password_of_a_connection_string_survives(password):
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    text = redact(f"host=h password = '{quoted}' dbname=d")
    assert "hunter2" not in text
    assert text.endswith("dbname=d")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("redis://:p@h", "redis://:***@h"),
        ("postgresql://u:p@ss@h/d", "postgresql://u:***@h/d"),
        ("from postgresql://u:p@h/d to mysql://v:q@i/e", "from postgresql://u:***@h/d to mysql://v:***@i/e"),
        ("DRIVER=x;PWD={a;b c};UID=u", "DRIVER=x;PWD=***;UID=u"),
        ("connect(**{'password': 'a b', 'host': 'h'})", "connect(**{'password': ***, 'host': 'h'})"),
        ('password="a b" host=h', "password=*** host=h"),
    ],
)
def test_the_rest_of_the_text_stays(text, clean):
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "u"',
        "postgresql://u@h:5432/d",
        "postgresql://h:5432/d",
        "See https://example.org:443/x: it is there",
        "no password: the server asks for one",
        "12:30 @ noon",
    ],
)
def test_text_without_a_password_stays_as_it_is(text):
    assert redact(text) == text


def test_a_json_document_stays_one():
    document = {
        "error": {"code": "x", "message": "password=hunter2", "hint": "postgresql://u:hunter2@h/d"},
        "list": ["pwd=hunter2"],
    }
    text = redact(json.dumps(document))
    assert "hunter2" not in text
    assert json.loads(text)["error"]["code"] == "x"


@pytest.fixture
def logger():
    stream = io.StringIO()
    logger = logging.Logger("test")  # noqa: LOG001 - one of its own per test
    logger.addHandler(handler := logging.StreamHandler(stream))
    handler.setFormatter(logging.Formatter("%(message)s"))
    redact_logs(logger)
    return logger, stream


URL = "postgresql://u:hunter2@h/d"


def test_messages_and_their_arguments_are_redacted(logger):
    log, stream = logger
    log.warning(f"cannot reach {URL}")
    log.warning("cannot reach %s after %d s", URL, 3)
    assert (
        stream.getvalue()
        == "cannot reach postgresql://u:***@h/d\ncannot reach postgresql://u:***@h/d after 3 s\n"
    )


def test_tracebacks_and_stacks_are_redacted(logger):
    log, stream = logger
    try:
        int(URL)
    except ValueError:
        log.exception("failed", stack_info=True)
    assert "hunter2" not in stream.getvalue()
    assert "'postgresql://u:***@h/d'" in stream.getvalue()


def test_a_traceback_that_another_handler_wrote_before_is_redacted(logger):
    log, stream = logger
    try:
        int(URL)
    except ValueError as error:
        record = log.makeRecord(
            "x", logging.ERROR, "f", 1, "failed", (), (ValueError, error, error.__traceback__)
        )
    logging.Formatter().format(record)
    assert "hunter2" in (record.exc_text or "")
    log.handle(record)
    assert "hunter2" not in stream.getvalue()


def test_a_message_that_does_not_suit_its_arguments_does_not_stop_the_caller(logger, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log, stream = logger
    log.warning("%d rows", "many")
    log.warning("%(a)s", {"b": 1})
    log.warning("next")
    assert stream.getvalue() == "next\n"


def test_harmless_records_keep_their_arguments(logger):
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%d rows", (3,), None)
    assert RedactionFilter().filter(record)
    assert record.args == (3,)


def test_records_of_other_loggers_are_redacted_by_the_handlers_and_filters_are_put_once(logger):
    log, stream = logger
    redact_logs(log)
    assert len(log.filters) == len(log.handlers[0].filters) == 1
    child = logging.Logger("child")  # noqa: LOG001
    child.parent = log
    child.warning(URL)
    assert stream.getvalue() == "postgresql://u:***@h/d\n"
