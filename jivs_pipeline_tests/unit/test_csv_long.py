"""The reader of long records against Python's own, and where a text is cut around them."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jivs_pipeline.infra.sources.csv_long import Cutter, Stretch, fields_of, stretches
from jivs_pipeline.infra.sources.csv_scan import Dialect, Problems, scan

VALUES = st.text(st.sampled_from('ab",;\n\r\té漢🦆\\ '), max_size=12)
PLAIN = Dialect()


def _values(record: bytes, dialect: Dialect = PLAIN) -> list[str | None]:
    return [array[0].as_py() for array in fields_of(bytearray(record), dialect)]


@given(
    st.lists(VALUES, min_size=1, max_size=5), st.sampled_from(["\n", "\r\n", ""]), st.sampled_from(",;\t|")
)
def test_fields_are_those_that_python_reads(values: list[str], newline: str, delimiter: str) -> None:
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=newline).writerow(values)
    assert _values(written.getvalue().encode(), Dialect(delimiter)) == values


@given(st.lists(st.text(st.sampled_from("ab é漢🦆\\'"), max_size=5), min_size=1, max_size=6))
def test_fields_without_quotes(values: list[str]) -> None:
    for quote in ('"', None):
        found = _values(",".join(values).encode() + b"\n", Dialect(quote=quote))
        assert found == [v or None for v in values]


@pytest.mark.parametrize(
    ("record", "dialect", "expected"),
    [
        (b'NA,"NA",,""\n', Dialect(nulls=("", "NA")), [None, "NA", None, ""]),
        (b'"a",\r\n', PLAIN, ["a", None]),
        (b"a,b,", PLAIN, ["a", "b", None]),
        (b"\n", PLAIN, [None]),
        (b"", PLAIN, [None]),
        (b'"', Dialect(quote=None), ['"']),
        (b"'it''s','x'\n", Dialect(quote="'"), ["it's", "x"]),
        (b'"a\r\n","\r"\r\n', PLAIN, ["a\r\n", "\r"]),
    ],
)
def test_what_is_null_and_where_a_record_ends(
    record: bytes, dialect: Dialect, expected: list[str | None]
) -> None:
    assert _values(record, dialect) == expected


@pytest.mark.parametrize("record", [b'"a', b'"a"b,c\n', b'"a""\n'])
def test_what_is_no_record(record: bytes) -> None:
    with pytest.raises(ValueError, match="quote"):
        fields_of(bytearray(record), PLAIN)


@pytest.mark.parametrize("before", range(4))
def test_pairs_of_quotes_are_not_cut(before: int) -> None:
    """Around the end of a block, wherever the pairs begin."""
    value = "x" * ((1 << 20) - before) + '"' * 5 + "y" * (1 << 20) + '"'
    quoted = '"' + value.replace('"', '""') + '"\n'
    assert _values(quoted.encode()) == [value]


def test_a_value_is_not_copied() -> None:
    record = bytearray(b'"' + b"x" * 1_000_000 + b'"\n')
    before = pa.total_allocated_bytes()
    (array,) = fields_of(record, PLAIN)
    assert pa.total_allocated_bytes() == before
    assert len(array[0].as_py()) == 1_000_000


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 30), st.integers(1, 25))
def test_a_text_is_cut_around_its_long_records(sizes: list[int], longest: int, step: int) -> None:
    records = [b"x" * size + b"\n" for size in sizes]
    text = b"".join(records)

    def pieces() -> list[bytes]:
        return [text[at : at + step] for at in range(0, len(text), step)]

    cut = list(stretches(scan(pieces(), PLAIN, 1, Problems(), "f", 1), longest))
    assert [s.length for s in cut if s.long] == [len(r) for r in records if len(r) > longest]
    assert not any(not a.long and not b.long for a, b in pairwise(cut))
    cutter = Cutter(piece for piece in pieces())
    found = [bytes(cutter.whole(s.length)) if s.long else b"".join(cutter.pieces(s.length)) for s in cut]
    assert b"".join(found) == text
    assert Stretch(0, long=False) not in cut
