"""Every SQLSTATE has a meaning, and no message carries a row."""

from __future__ import annotations

import inspect

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import DiagnosticField

from jivs_pipeline.core.breaker import is_outage
from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import (
    ConnectionFailed,
    DataError,
    JivsError,
    NotReady,
    ResourceError,
    TerminalError,
    TransientError,
)
from jivs_pipeline.infra.postgresql_errors import connect_error, map_error, mapped

_CANARY = "canary-4111-1111"
_CONNECTION = parse_url("postgresql://ada:geheim-pw@db.example:5433/shop", "shop")

_STATES = sorted(
    {
        c.sqlstate
        for _, c in inspect.getmembers(errors, inspect.isclass)
        if issubclass(c, psycopg.Error) and c.sqlstate
    }
)

# What each class means, and the states in it that mean something else. A class that is not here fails the test:
# whoever adds one decides.
_CLASSES: dict[str, type[JivsError]] = {
    "02": TerminalError,
    "03": TerminalError,
    "08": TransientError,
    "09": TerminalError,
    "0A": TerminalError,
    "0B": TerminalError,
    "0F": TerminalError,
    "0L": TerminalError,
    "0P": TerminalError,
    "0Z": TerminalError,
    "10": TerminalError,
    "20": TerminalError,
    "21": DataError,
    "22": DataError,
    "23": DataError,
    "24": TerminalError,
    "25": TerminalError,
    "26": TerminalError,
    "27": TerminalError,
    "28": ConnectionFailed,
    "2B": TerminalError,
    "2D": TerminalError,
    "2F": TerminalError,
    "34": TerminalError,
    "38": TerminalError,
    "39": TerminalError,
    "3B": TerminalError,
    "3D": ConnectionFailed,
    "3F": TerminalError,
    "40": TerminalError,
    "42": TerminalError,
    "44": DataError,
    "53": ResourceError,
    "54": TerminalError,
    "55": TerminalError,
    "57": TerminalError,
    "58": ResourceError,
    "72": TerminalError,
    "F0": TerminalError,
    "HV": TerminalError,
    "P0": TerminalError,
    "XX": TerminalError,
}
_STATES_APART: dict[str, type[JivsError]] = {
    "25006": ResourceError,
    "25P03": TransientError,
    "25P04": TransientError,
    "40001": TransientError,
    "40002": DataError,
    "40003": TransientError,
    "40P01": TransientError,
    "42501": ResourceError,
    "53300": TransientError,
    "54000": DataError,
    "55006": TransientError,
    "55P03": TransientError,
    "57014": TransientError,
    "57P01": TransientError,
    "57P02": TransientError,
    "57P03": NotReady,
    "57P05": TransientError,
    "XX001": ResourceError,
    "XX002": ResourceError,
}


def _server_error(state: str, **fields: str) -> psycopg.Error:
    """As psycopg makes it from a server's message."""
    values = {DiagnosticField[name.upper()]: text.encode() for name, text in fields.items()}
    values[DiagnosticField.SQLSTATE] = state.encode()
    kind = errors._sqlcodes.get(state, errors.DatabaseError)
    return kind(fields.get("message_primary", "?"), info=values)


@pytest.mark.parametrize("state", _STATES)
def test_every_state_of_psycopg_has_a_meaning(state: str):
    error = _server_error(state, message_primary="something")
    found = map_error(error, "shop")
    assert type(found) is _STATES_APART.get(state, _CLASSES[state[:2]])
    assert found.message.startswith("shop: ")
    assert found.message.endswith(f"[{state}]")


def test_the_table_has_no_state_that_psycopg_lacks():
    assert set(_STATES_APART) <= set(_STATES)
    assert set(_CLASSES) == {s[:2] for s in _STATES}


@pytest.mark.parametrize(
    "state", [s for s in _STATES if issubclass(type(map_error(_server_error(s), "x")), DataError)]
)
def test_data_errors_never_quote_a_value(state: str):
    error = _server_error(
        state,
        message_primary=f'invalid input: "{_CANARY}"',
        message_detail=f"Key (card)=({_CANARY}) already exists.",
        message_hint=_CANARY,
        context=f'COPY orders, line 7, column card: "{_CANARY}"',
        schema_name="public",
        table_name="orders",
        constraint_name="orders_pkey",
    )
    found = map_error(error, "public.orders")
    assert _CANARY not in str(found)
    assert _CANARY not in str(error), "the cause is printed by tracebacks"
    assert (found.table, found.column) == ("public.orders", "card")
    assert "line 7" in found.message
    assert "orders_pkey" in found.message


@pytest.mark.parametrize("state", ["P0001", "XX000", "38000", "HV000", "99999"])
def test_messages_of_functions_are_not_trusted(state: str):
    found = map_error(_server_error(state, message_primary=_CANARY, message_detail=_CANARY), "shop")
    assert type(found) is TerminalError
    if state != "99999":
        assert _CANARY not in str(found)


@pytest.mark.parametrize(
    ("context", "column", "line"),
    [
        ('COPY t, line 3, column a: "x"', "a", "3"),
        ("COPY t, line 3, column a: null input", "a", "3"),
        ('COPY t, line 3: "a, line 9, column secret: b"', None, "3"),
        ("COPY t, line 3", None, "3"),
        ('SQL function "f" statement 1\nCOPY t, line 12, column b: "x"', "b", "12"),
        ("SQL statement", None, None),
    ],
)
def test_a_copy_says_line_and_column(context: str, column: str | None, line: str | None):
    found = map_error(_server_error("22P02", context=context), "t")
    assert found.column == column
    assert (f"line {line} of" in found.message) is (line is not None)


def test_a_missing_privilege_says_of_what():
    found = map_error(_server_error("42501", message_primary="permission denied for table orders"), "shop")
    assert "permission denied for table orders" in found.message
    assert found.hint


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection"),
        psycopg.InterfaceError("the connection is closed"),
    ],
)
def test_a_lost_connection_is_transient(error: psycopg.Error):
    assert type(map_error(error, "shop")) is TransientError


def test_values_that_psycopg_refuses_are_not_quoted():
    error = psycopg.DataError(f"cannot dump {_CANARY!r}")
    found = map_error(error, "shop")
    assert type(found) is DataError
    assert _CANARY not in f"{found} {error}"


def test_wrong_use_of_the_driver_is_terminal():
    assert type(map_error(psycopg.ProgrammingError("no results"), "shop")) is TerminalError


def test_mapped_keeps_the_cause():
    cause = _server_error("40P01", message_primary="deadlock detected")
    with pytest.raises(TransientError) as caught, mapped("shop"):
        raise cause
    assert caught.value.__cause__ is cause


def test_mapped_leaves_our_own_errors_alone():
    own = DataError("mine")
    with pytest.raises(DataError) as caught, mapped("shop"):
        raise own
    assert caught.value is own


_REFUSALS = [
    ('FATAL:  password authentication failed for user "ada"', "user or password"),
    ("fe_sendauth: no password supplied", "asks for a password"),
    ('FATAL:  database "shop" does not exist', "no such database"),
    ('FATAL:  role "ada" does not exist', "does not know the user"),
    (
        'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "ada", database "shop", no encryption',
        "does not allow",
    ),
    ("server does not support SSL, but SSL was required", "TLS"),
    ("SSL error: certificate verify failed", "TLS"),
    ('FATAL:  permission denied for database "shop"', "does not let the user in"),
]
_UNREACHABLE = [
    ("connection refused", "cannot be reached"),
    ("could not translate host name to address", "unknown host name"),
    ("connection timeout expired", "does not answer"),
    ("something in Klingon", "something in Klingon"),
]


@pytest.mark.parametrize(("text", "sentence"), _REFUSALS)
@pytest.mark.parametrize("reconnect", [False, True])
def test_a_refused_connection_is_for_a_person(text: str, sentence: str, reconnect: bool):
    found = connect_error(psycopg.OperationalError(text), _CONNECTION, reconnect=reconnect)
    assert type(found) is ConnectionFailed
    assert sentence in found.message
    assert "'shop' at db.example:5433/shop" in found.message
    assert found.hint


@pytest.mark.parametrize(("text", "sentence"), _UNREACHABLE)
def test_an_unreachable_server_is_transient_once_it_was_there(text: str, sentence: str):
    error = psycopg.OperationalError(text)
    first = connect_error(error, _CONNECTION, reconnect=False)
    again = connect_error(error, _CONNECTION, reconnect=True)
    assert (type(first), type(again)) == (ConnectionFailed, NotReady)
    assert sentence in first.message
    assert is_outage(first)
    assert is_outage(again)


@pytest.mark.parametrize(
    "text", [*(text for text, _ in _REFUSALS), "FATAL:  Passwort-Authentifizierung fehlgeschlagen"]
)
def test_who_is_refused_by_a_server_knows_that_it_is_there(text: str):
    """Also in a language that we do not read; the circuit breaker does not count it."""
    assert not is_outage(connect_error(psycopg.OperationalError(text), _CONNECTION, reconnect=False))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("FATAL:  sorry, too many clients already", TransientError),
        ("FATAL:  the database system is starting up", NotReady),
        ("connection failed: server closed the connection unexpectedly", NotReady),
    ],
)
def test_a_full_server_is_transient_and_a_starting_one_is_waited_for(text: str, kind: type[JivsError]):
    assert type(connect_error(psycopg.OperationalError(text), _CONNECTION, reconnect=False)) is kind


def test_a_server_without_room_for_a_session_is_a_shortage():
    text = "FATAL:  could not write init file: No space left on device"
    error = connect_error(psycopg.OperationalError(text), _CONNECTION, reconnect=False)
    assert type(error) is ResourceError
    assert "disk is full" in error.message
    assert error.hint


def test_no_password_in_a_sentence():
    error = psycopg.OperationalError("bad: postgresql://ada:geheim-pw@db.example/shop password=geheim-pw")
    found = connect_error(error, _CONNECTION, reconnect=False)
    assert "geheim" not in str(found)
