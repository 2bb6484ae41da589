"""The chain over arrays against plain Python; PostgreSQL's own is asked in `integration/test_digests.py`."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jivs_pipeline.core.digest import LONG, Canon, Digest
from jivs_pipeline.infra.chains import chain_digest, chain_digests, chain_hashes
from jivs_pipeline_tests.row_hashes import hashtextextended, reference

CANONS = [Canon.TEXT, Canon.INTEGER, Canon.BYTES]
TEXTS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
ROWS = st.lists(st.tuples(TEXTS, st.none() | st.integers().map(str), TEXTS), max_size=40)


def test_it_is_the_function_of_postgresql() -> None:
    """SELECT hashtextextended('PostgreSQL', 0), …('', 0), …('PostgreSQL', -1), … of PostgreSQL 15."""
    known = {
        (b"PostgreSQL", 0): -5770657681951818108,
        (b"", 0): -6939563903564495251,
        (b"PostgreSQL", -1): -4935271532116592678,
        (b"x" * 24, 7): 5607449594658846048,
    }
    assert {k: hashtextextended(k[0], k[1] % 2**64) for k in known} == {
        k: v % 2**64 for k, v in known.items()
    }


@given(ROWS)
@settings(deadline=None)
def test_every_row_is_hashed_as_plain_python_does(rows: list[tuple[str | None, ...]]) -> None:
    columns = [pa.array([row[n] for row in rows], pa.string()) for n in range(3)]
    assert chain_digest(columns, CANONS, len(rows)) == reference(rows, CANONS)
    expected = [reference([row], CANONS).high.to_bytes(8, signed=True) for row in rows]
    assert list(chain_hashes(columns, CANONS, len(rows))) == expected


@pytest.mark.parametrize("size", [LONG - 1, LONG, LONG + 1, 10 * LONG])
def test_long_texts(size: int) -> None:
    rows = [("x" * size, "1", None), (None, None, "é" * (size // 2)), ("short", "2", "")]
    columns = [pa.array([row[n] for row in rows], pa.string()) for n in range(3)]
    assert chain_digest(columns, CANONS, 3) == reference(rows, CANONS)


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
def test_slices_of_many_rows(type_: pa.DataType) -> None:
    """More rows than are hashed at once, and arrays that begin within their buffers."""
    texts = [None if n % 7 == 0 else "v" * (n % 50) + str(n) for n in range(40_000)]
    array = pa.array(texts, type_).slice(3, 39_000)
    whole = chain_digest([array, array], [Canon.TEXT, Canon.TEXT], 39_000)
    assert whole == reference([(t, t) for t in texts[3:39_003]], [Canon.TEXT, Canon.TEXT])


def test_no_columns_and_no_rows() -> None:
    assert chain_digest([], [], 5) == Digest(5, 0, 0)
    assert chain_digest([pa.array([], pa.string())], [Canon.TEXT], 0) == Digest()


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary()])
def test_bytes_may_stay_as_they_are(type_: pa.DataType) -> None:
    """Their text is their hex digits, also of a slice and of 100 MB."""
    values = [b"gone", b"\0\xff", None, b"", bytes(range(256)) * 20]
    texts = [None if v is None else v.hex() for v in values[1:]]
    column = pa.array(values, type_).slice(1)
    assert chain_digest([column], [Canon.BYTES], 4) == reference([(t,) for t in texts], [Canon.BYTES])


@pytest.mark.parametrize("type_", [pa.string(), pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 11, 12, 13, 23, 24, 25, 36, 64])
def test_texts_of_one_length(size: int, type_: pa.DataType) -> None:
    """They are read where they are, to the last byte of their buffer."""
    texts = [f"{n:0{size}d}"[:size] for n in range(50)]
    column = pa.array([t.encode() for t in texts], pa.binary()).cast(type_).slice(1)
    rows = [(t,) for t in texts[1:]]
    assert chain_digest([column], [Canon.INTEGER], 49) == reference(rows, [Canon.INTEGER])


def test_one_text_is_much_longer_than_the_others() -> None:
    texts = [*(f"{n}" for n in range(100)), "x" * 4000, None, "y" * 13]
    rows = [(t,) for t in texts]
    assert chain_digest([pa.array(texts)], [Canon.TEXT], 103) == reference(rows, [Canon.TEXT])


@given(ROWS, st.integers(0, 3))
@settings(deadline=None)
def test_two_digests_at_once_are_those_of_each(rows: list[tuple[str | None, ...]], alike: int) -> None:
    """Whatever they have in common, and where only the way of hashing differs."""
    columns = [pa.array([row[n] for row in rows], pa.string()) for n in range(3)]
    more = [*columns[:alike], *([pa.array(["x"] * len(rows), pa.string())] * (3 - alike))]
    for canons in (CANONS, [Canon.INTEGER] * 3):
        both = chain_digests(columns, more, CANONS, canons, len(rows))
        assert both == (chain_digest(columns, CANONS, len(rows)), chain_digest(more, canons, len(rows)))
