"""Packets of MySQL's protocol, cut by many rows at once, against a reading of one byte after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

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
    columns = cut(data, packets(data, 0, 1000, len(data)), width)
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


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
    assert packets(whole[:there], 0, 1000, len(whole)).tolist() == [end for end in ends if end <= there]


@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [None, b"", b"\0", b"\0\0\0\1", b"\xff\0\0\2\0\0", b"x" * 249, b"x" * 253, b"y" * 509]
            ),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 255),
    st.sampled_from([b"", b"x" * 65_530, b"x" * 70_000]),
)
def test_many_packets_are_found_whatever_is_in_them(
    rows: list[list[bytes | None]], number: int, longest: bytes
) -> None:
    """Zeros, numbers that begin anew, lengths of which a byte is 0, and a row that is too long to be guessed."""
    many = [*rows * 20, [longest, None, b""], *rows * 20]
    sizes = [len(row_packet(row)) for row in many]
    data = bytearray(b"".join(row_packet(row, number + n) for n, row in enumerate(many)))
    bounds = [0, *accumulate(sizes)]
    assert packets(data, 0, 10_000, len(data)).tolist() == bounds
    assert packets(data, bounds[7], 100, len(data)).tolist() == bounds[7:108]
    assert packets(data[:-1], 0, 10_000, len(data)).tolist() == bounds[:-1]
    assert packets(data + b"\0\0", 0, 10_000, len(data) + 9).tolist() == bounds


def test_what_looks_like_a_packet_is_none() -> None:
    """Values that are rows themselves, each numbered like the row that it is in."""
    rows = [[row_packet([b"a", b"b"], number) * 3, b"-" * 30] for number in range(300)]
    assert found_in(sent(rows), 2) == [tuple(row) for row in rows]


def test_packets_up_to_a_number_or_a_size() -> None:
    """The one that reaches the size is still among them; one that is larger comes alone."""
    data = sent([(b"x" * 5,)] * 10)
    assert packets(data, 0, 3, 1000).tolist() == [0, 10, 20, 30]
    assert packets(data, 0, 1000, 20).tolist() == [0, 10, 20]
    assert packets(data, 0, 1000, 21).tolist() == [0, 10, 20, 30]
    assert packets(data, 50, 1000, 1).tolist() == [50, 60]


@given(TABLES, st.data())
def test_a_row_of_another_length_is_no_row(rows: list[list[bytes | None]], data: st.DataObject) -> None:
    """Whether there is one column more than there should be, or one less."""
    width = len(rows[0]) + data.draw(st.sampled_from([-1, 1]))
    broken = sent(rows)
    bounds = packets(broken, 0, 1000, len(broken))
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
