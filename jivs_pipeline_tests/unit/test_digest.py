"""Digests add up, and are stored without loss."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.core.digest import Digest

halves = st.integers(-(2**63), 2**63 - 1)
sums = st.integers(-(2**100), 2**100)
digests = st.builds(Digest, st.integers(0, 2**40), sums, sums)


@given(digests, digests, digests)
def test_digests_add_in_any_order_and_grouping(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert sum([a, b, c], Digest()) == a + b + c
    assert a + Digest() == a


@given(digests)
def test_a_stored_digest_comes_back(digest):
    assert Digest.parse(digest.stored()) == digest


@given(st.integers(0, 9), halves, halves, halves)
def test_a_changed_row_changes_the_digest(rows, high, low, other):
    before = Digest(rows, high, low) + Digest(1, 1, other)
    assert (before == Digest(rows, high, low) + Digest(1, 1, low)) == (other == low)


def test_equal_rows_do_not_cancel_each_other():
    row = Digest(1, 5, -7)
    assert row + row == Digest(2, 10, -14)
    assert (row + row).hex != Digest().hex


@given(digests)
def test_hex_is_32_digits(digest):
    assert len(digest.hex) == 32
    assert int(digest.hex, 16) == ((digest.high % 2**64) << 64) + digest.low % 2**64


def test_hex_is_high_before_low():
    assert Digest(1, 1, -1).hex == "0000000000000001ffffffffffffffff"


@pytest.mark.parametrize("text", ["", "1", "1:2", "1:2:3:4", "a:b:c"])
def test_other_text_is_no_digest(text):
    with pytest.raises(ValueError):
        Digest.parse(text)
