"""Packets of MySQL's protocol, cut by many rows at once, against a reading of one byte after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.infra.sources.mysql_packets import HEAD, MalformedError, cut, packets

Row = Sequence[bytes | None]

SIZES = st.sampled_from([0, 1, 2, 249, 250, 251, 252, 253, 254, 255, 256, 1000, 65_535, 65_536, 70_000])
VALUES = (
    st.none()
    | st.binary(max_size=20)
    | st.builds(lambda size, byte: bytes([byte]) * size, SIZES, st.integers(0, 255))
)
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(VALUES, min_size=width, max_size=width), min_size=1, max_size=9)
)


def value_packet(value: bytes | None) -> bytes:
    """A value as the protocol's documentation says."""
    if value is None:
        return b"\xfb"
    if len(value) < 251:
        return bytes([len(value)]) + value
    if len(value) < 1 << 16:
        return b"\xfc" + len(value).to_bytes(2, "little") + value
    return b"\xfd" + len(value).to_bytes(3, "little") + value


def row_packet(row: Row, number: int = 0) -> bytes:
    """A row with its head."""
    payload = b"".join(map(value_packet, row))
    return len(payload).to_bytes(3, "little") + bytes([number % 256]) + payload


def sent(rows: Sequence[Row]) -> bytearray:
    """What the server sends."""
    return bytearray(b"".join(row_packet(row, number) for number, row in enumerate(rows)))


def found_in(data: bytearray, width: int) -> list[tuple[bytes | None, ...]]:
    """All rows."""
    bounds = np.array(packets(data, 0, 1000, len(data)), np.int64)
    return list(zip(*(column.to_pylist() for column in cut(data, bounds, width)), strict=True))


@given(TABLES)
def test_values_come_as_they_were_sent(rows: list[list[bytes | None]]) -> None:
    assert found_in(sent(rows), len(rows[0])) == [tuple(row) for row in rows]


def test_a_length_of_eight_bytes() -> None:
    """It is for values of 16 MiB and more, but nothing says that shorter ones do not have it."""
    payload = b"\xfe" + (3).to_bytes(8, "little") + b"abc" + b"\xfb"
    data = bytearray(len(payload).to_bytes(3, "little") + b"\0" + payload)
    assert found_in(data + sent([(b"d", b"e")]), 2) == [(b"abc", None), (b"d", b"e")]


@given(TABLES, st.data())
def test_what_is_not_all_there_is_waited_for(rows: list[list[bytes | None]], data: st.DataObject) -> None:
    """Only whole packets count, wherever the received bytes end."""
    whole = sent(rows)
    ends = [0]
    for number, row in enumerate(rows):
        ends.append(ends[-1] + len(row_packet(row, number)))
    there = data.draw(st.integers(0, len(whole)))
    assert packets(whole[:there], 0, 1000, len(whole)) == [end for end in ends if end <= there]


def test_packets_up_to_a_number_or_a_size() -> None:
    """The one that reaches the size is still among them; one that is larger comes alone."""
    data = sent([(b"x" * 5,)] * 10)
    assert packets(data, 0, 3, 1000) == [0, 10, 20, 30]
    assert packets(data, 0, 1000, 20) == [0, 10, 20]
    assert packets(data, 0, 1000, 21) == [0, 10, 20, 30]
    assert packets(data, 50, 1000, 1) == [50, 60]


@given(TABLES, st.data())
def test_a_row_of_another_length_is_no_row(rows: list[list[bytes | None]], data: st.DataObject) -> None:
    """Whether there is one column more than there should be, or one less."""
    width = len(rows[0]) + data.draw(st.sampled_from([-1, 1]))
    broken = sent(rows)
    bounds = np.array(packets(broken, 0, 1000, len(broken)), np.int64)
    if width == 0:
        width = len(rows[0]) + 1
    with pytest.raises(MalformedError):
        cut(broken, bounds, width)


@pytest.mark.parametrize(
    "length", [b"\xfe" + b"\xff" * 8, b"\xfe" + b"\xff" * 7 + b"\x7f", b"\xfd\xff\xff\xff", b"\x07", b"\x05"]
)
def test_lengths_that_lead_out_of_the_packet(length: bytes) -> None:
    payload = length + b"sixsix"
    data = bytearray(len(payload).to_bytes(3, "little") + b"\0" + payload)
    with pytest.raises(MalformedError):
        cut(data, np.array([0, HEAD + len(payload)], np.int64), 1)


def test_a_single_row_is_not_copied() -> None:
    """It may be a value of 100 MB."""
    data = sent([(b"x" * 300, None, b"y")])
    first, none, last = cut(data, np.array([0, len(data)], np.int64), 3)
    assert [first.to_pylist(), none.to_pylist(), last.to_pylist()] == [[b"x" * 300], [None], [b"y"]]
    assert first.buffers()[2].address == last.buffers()[2].address
