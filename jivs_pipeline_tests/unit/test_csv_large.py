"""Large fields of CSV on the way into digests: groups of their own, and bytes in place of hex digits."""

from __future__ import annotations

import pyarrow as pa
import pytest

from jivs_pipeline.core.digest import Canon, Spelling
from jivs_pipeline.core.file_types import csv_type
from jivs_pipeline.core.plan import ColumnPlan, Lane, TablePlan, Wire
from jivs_pipeline.infra.chains import chain_digest
from jivs_pipeline.infra.sources.csv_scan import Dialect, Problems, scan
from jivs_pipeline.infra.sources.csv_types import spelled, speller
from jivs_pipeline.infra.sources.row_text import digest_of_texts

LARGE = 9 << 20


def test_large_records_are_groups_of_their_own() -> None:
    """Every record is in one group, where it was, and the groups follow each other in the text."""
    sizes = [3, LARGE, 1, 2, LARGE, LARGE, 5]
    records = [b'%d,"%b"\n' % (n, b"x" * size) for n, size in enumerate(sizes)]
    text = b"".join([*records[:3], b"too,many,fields\n", *records[3:]])
    pieces = (text[at : at + (1 << 20)] for at in range(0, len(text), 1 << 20))
    problems, at = Problems(), 0
    found: list[tuple[str, int, int]] = []
    for group in scan(pieces, Dialect(), 2, problems, "f", 1):
        assert group.rows == 1 or len(group.column(1).buffers()[2]) < LARGE
        lengths = [len(v) for v in group.column(1).to_pylist()]
        found += zip(group.column(0).to_pylist(), lengths, group.lines.tolist(), strict=True)
        assert group.data[group.first : group.end] == text[at : at + group.end - group.first]
        at += group.end - group.first
    assert at == len(text)
    assert found == [
        (str(n), size, line) for n, (size, line) in enumerate(zip(sizes, [1, 2, 3, 5, 6, 7, 8], strict=True))
    ]
    assert problems.reasons() == [
        "records with too many fields (2 are expected): 1 in all, first in line 4 of f"
    ]


@pytest.mark.parametrize("prefix", ["\\x", ""])
def test_large_bytes_have_the_digest_of_their_digits(prefix: str) -> None:
    digits = "00aBff" * (LARGE // 6)
    type_ = csv_type("bytea")
    assert type_ is not None
    bytea = speller(type_)
    fields = pa.array([prefix + digits, "\\xzz", None, "abc", "", prefix + "0f"], pa.string())
    found = spelled(fields, bytea)
    assert pa.types.is_binary(found.type)
    assert found.to_pylist() == [bytes.fromhex(digits), None, None, None, b"", b"\x0f"]
    small = pa.array([digits.lower(), None, None, None, "", "0f"], pa.string())
    assert chain_digest([found], [Canon.BYTES], 6) == chain_digest([small], [Canon.BYTES], 6)
    columns = (ColumnPlan(
        source="v", target="v", source_type="bytea", target_type="bytea", arrow="string", canon=Canon.BYTES,
    ),)  # fmt: skip
    table = TablePlan(
        source_schema="files", source_table="t", target_schema="public", target_table="t", columns=columns,
        lane=Lane.ARROW, wire=Wire.CSV, spelling=Spelling.CANONICAL,
    )  # fmt: skip
    assert digest_of_texts(table, [found], 6) == digest_of_texts(table, [small], 6)
    alone = spelled(fields.slice(0, 1), bytea)
    assert alone.to_pylist() == [bytes.fromhex(digits)]
