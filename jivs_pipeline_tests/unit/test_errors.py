"""The error tree: codes, exit codes, documents."""

from __future__ import annotations

import pytest

from jivs_pipeline.core import errors
from jivs_pipeline.core.errors import JivsError, TerminalError, TransientError

EXPECTED = {
    "JivsError": ("error", 1, False),
    "TerminalError": ("failed", 1, False),
    "TransientError": ("transient", 1, True),
    "NotReady": ("not_ready", 1, True),
    "Crowded": ("crowded", 1, True),
    "BreakerOpen": ("breaker", 1, True),
    "SnapshotLost": ("snapshot", 1, True),
    "ConfigError": ("usage", 2, False),
    "SpecError": ("spec", 2, False),
    "ConnectionFailed": ("connection", 2, False),
    "ConflictError": ("conflict", 3, False),
    "NoSlot": ("slots", 3, True),
    "FencedError": ("fenced", 3, False),
    "RefusedError": ("refused", 1, False),
    "DataError": ("data", 1, False),
    "ResourceError": ("resource", 1, False),
    "MismatchError": ("mismatch", 4, False),
    "CancelledRun": ("cancelled", 130, False),
    "PausedRun": ("paused", 130, False),
    "InterruptedRun": ("interrupted", 130, False),
}


def tree(root: type[JivsError]) -> list[type[JivsError]]:
    return [root, *(c for child in root.__subclasses__() for c in tree(child))]


def public() -> list[type[JivsError]]:
    return [e for e in tree(JivsError) if e.__module__ == errors.__name__]


def test_every_error_of_the_tree_is_public_and_in_this_table():
    assert {e.__name__ for e in public()} == set(EXPECTED)
    assert set(EXPECTED) | {"ExitCode"} == set(errors.__all__)


@pytest.mark.parametrize("error", public(), ids=lambda e: e.__name__)
def test_every_error_has_its_code_exit_code_and_temper(error):
    assert (error.code, error.exit_code, error.transient) == EXPECTED[error.__name__]


def test_codes_tell_all_errors_apart():
    assert len({e.code for e in public()}) == len(public())


def test_no_error_is_both_transient_and_terminal():
    assert not [e for e in public() if issubclass(e, TerminalError) and issubclass(e, TransientError)]


def test_the_document_has_code_message_and_hint():
    error = errors.SpecError("The spec lacks the key 'key'", hint="Add it", table="t", column="c")
    assert error.document() == {
        "error": {"code": "spec", "message": "The spec lacks the key 'key'", "hint": "Add it"}
    }
    assert (error.table, error.column) == ("t", "c")


def test_the_text_is_one_sentence_and_the_hint():
    assert str(errors.DataError("Row 3 is bad", hint="Repair it")) == "Row 3 is bad. Repair it"
    assert str(errors.DataError("Row 3 is bad")) == "Row 3 is bad"
