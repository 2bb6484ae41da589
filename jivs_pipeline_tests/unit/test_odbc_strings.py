"""odbc:// URLs: what they may say, what is refused, and what of them is ever shown."""

from __future__ import annotations

import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import ConfigError
from jivs_pipeline.core.odbc_strings import connection_string
from jivs_pipeline.infra.sources.odbc_open import attributes_of

URL = "odbc://me:s%3Becr%7Det@/?driver=PostgreSQL%20Unicode&server=db.example.org&port=5433&database=shop"


def test_a_driver_with_its_server() -> None:
    """Where it is, is known; who gets in is not in any text of the connection."""
    connection = parse_url(URL)
    assert (connection.dialect, connection.name, connection.place) == (
        "odbc",
        "shop",
        "db.example.org:5433/shop",
    )
    assert attributes_of(connection) == {
        "DSN": "", "Driver": "PostgreSQL Unicode", "Server": "db.example.org", "Port": "5433", "Database": "shop",
        "UID": "me", "PWD": "s;ecr}et",
    }  # fmt: skip
    assert "ecr" not in repr(connection)
    assert connection.fingerprint == parse_url(URL.replace("me:s", "you:x")).fingerprint
    assert connection.fingerprint != parse_url(URL.replace("5433", "5434")).fingerprint


def test_a_data_source() -> None:
    """Its name is in nothing that is shown."""
    connection = parse_url("odbc://?dsn=Prod%20Shop")
    assert attributes_of(connection) == {"DSN": "Prod Shop", "Driver": "", "UID": "", "PWD": ""}
    assert "rod" not in connection.place + connection.name
    assert parse_url("odbc://?DSN=other").fingerprint != connection.fingerprint


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("odbc://?driver=X&dsn=Y", "either a dsn or a driver"),
        ("odbc://?server=x", "either a dsn or a driver"),
        ("odbc://?driver=/tmp/evil.so&server=x", "by its file"),
        ("odbc://me:pw@host/?driver=X", "names a host"),
        ("odbc://?driver=X&filedsn=/etc/passwd", "unknown parameter 'filedsn'"),
        ("odbc://?driver=X&pwd=geheim", "unknown parameter 'pwd'"),
        ("odbc://?dsn=a&DSN=b", "same parameter twice"),
        ("odbc://?driver=X&LoadExt=/tmp/x.so", "unknown parameter 'LoadExt'"),
        ("odbc://?driver=X&initstmt=DROP", "unknown parameter 'initstmt'"),
        ("mssql://sa:pw@host/shop?driver=/tmp/x.so", "by its file"),
        ("mssql://sa:pw@host/shop?nix=1", "unknown parameter 'nix'"),
    ],
)  # fmt: skip
def test_refused(url: str, problem: str) -> None:
    """One sentence, without the secret."""
    with pytest.raises(ConfigError) as error:
        parse_url(url)
    assert problem in str(error.value)
    assert "geheim" not in str(error.value)


def test_a_value_cannot_begin_another_keyword() -> None:
    """Plain values stand as they are, which psqlODBC needs of numbers; all others in braces."""
    values = {"Driver": "My Driver", "Port": "1", "PWD": "a;Port=2;{b}+%", "UID": ""}
    assert connection_string(values) == "Driver=My Driver;Port=1;PWD={a;Port=2;{b}}+%};"
