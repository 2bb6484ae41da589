"""Oracle's driver as a connection that hands out text: its errors, its batches. No server: docs/drivers.md says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import oracledb
import pyarrow as pa
import pytest

from jivs_pipeline.core.connections import parse_url
from jivs_pipeline.core.errors import ConnectionFailed
from jivs_pipeline.infra.sources import oracle
from jivs_pipeline.infra.sources.odbc_link import OdbcError
from jivs_pipeline.infra.sources.oracle import OracleLink, open_oracle

URL = "oracle://scott:ti%40ger@127.0.0.1:1/shop"


class Connected:
    """What `oracledb.connect` gives."""

    version = "23.4.0"
    call_timeout = 0

    def __init__(self, error: str = "") -> None:
        self.error = error

    def fetch_df_batches(self, statement: str, *, size: int) -> Iterator[Any]:
        assert size == 10
        assert statement
        if self.error:
            raise oracledb.DatabaseError(self.error)
        columns = [
            pa.array(["a", None]),
            pa.array(["x" * 9, ""], pa.large_string()),
            pa.array([b"\0", b""], pa.large_binary()),
        ]
        yield pa.table(columns, names=["a", "a", "b"])

    def close(self) -> None:
        pass


def linked(monkeypatch: pytest.MonkeyPatch, error: str = "") -> tuple[OracleLink, dict[str, Any]]:
    given: dict[str, Any] = {}

    def connect(**settings: Any) -> Connected:
        given.update(settings)
        return Connected(error)

    monkeypatch.setattr(oracle.oracledb, "connect", connect)
    return OracleLink(parse_url(URL, "legacy"), 30), given


def test_where_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL's path is the service; the password is decoded, and a wait for an answer has an end."""
    link, given = linked(monkeypatch)
    assert (given["user"], given["password"], given["host"], given["port"]) == (
        "scott",
        "ti@ger",
        "127.0.0.1",
        1,
    )
    assert given["service_name"] == "shop"
    assert link._connection.call_timeout == 40 * 30 * 1000


def test_batches_are_texts_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large types become plain ones."""
    link, _ = linked(monkeypatch)
    (batch,) = link.stream("SELECT 1 FROM dual", 100, 10)
    assert batch.schema.types == [pa.string(), pa.string(), pa.binary()]
    assert batch.column(1).to_pylist() == ["x" * 9, ""]


@pytest.mark.parametrize(
    ("said", "state", "lost"),
    [
        ("ORA-01555: snapshot too old", "40001", False),
        ("ORA-00942: table or view does not exist", "42S02", False),
        ("ORA-03113: end-of-file on communication channel", "08S01", True),
        ("DPY-4024: call timeout of 1000 ms exceeded", "08S01", True),
        ("ORA-99999: 'a value'", "HY000", False),
    ],
)
def test_errors(monkeypatch: pytest.MonkeyPatch, said: str, state: str, *, lost: bool) -> None:
    """By number; a lost connection is known as one afterwards."""
    link, _ = linked(monkeypatch, said)
    with pytest.raises(OdbcError) as error:
        list(link.stream("SELECT 1 FROM dual", 100, 10))
    assert (error.value.state, link.lost) == (state, lost)


def test_nobody_is_there() -> None:
    """The real driver against a closed port: one sentence, no password."""
    with pytest.raises(ConnectionFailed) as error:
        open_oracle(parse_url(URL, "legacy"))
    assert "cannot be reached" in error.value.message
    assert "ger" not in str(error.value)
    assert error.value.outage
