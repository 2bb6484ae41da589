"""Sources that can tell bad rows from good ones: what they take out is exactly what is missing from the rest."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from jivs_pipeline.core.plan import Chunk, ChunkBy, Sifted, TablePlan
from jivs_pipeline.core.ports import Snapshot
from jivs_pipeline.core.quarantine import BadRow
from jivs_pipeline_tests.sqlite_files import make_file, plan_of, source_of


def _sift(snapshot: Snapshot, table: TablePlan, chunk: Chunk) -> tuple[list[BadRow], Sifted]:
    bad = list(snapshot.bad_rows(table, chunk))  # type: ignore[attr-defined]
    return bad, Sifted(**chunk.model_dump(), without=tuple(b.position for b in bad))


@pytest.mark.parametrize("layout", ["", "WITHOUT ROWID"])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_sqlite_without_its_bad_rows(tmp_path: Path, layout: str, encoding: str) -> None:
    """Two libraries read past the same rows, in any chunk, and one row alone is found again by its position."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    key = "PRIMARY KEY (a, b)" if layout else "UNIQUE (a, b)"
    script = f"PRAGMA encoding = '{encoding}'; CREATE TABLE t (a TEXT, b INTEGER, n INTEGER, s TEXT, {key}) {layout};"
    source = make_file(tmp_path / "t.db", script)
    rows = [(rng.choice("abc"), i, i, f"text {i}") for i in range(3000)]
    wrong = {i: rng.choice(["n", "s"]) for i in rng.sample(range(3000), 40)} | {0: "n", 2999: "s"}
    with closing(sqlite3.connect(source)) as database:
        for a, b, n, s in rows:
            bad = wrong.get(b)
            database.execute(
                "INSERT INTO t VALUES (?, ?, ?, ?)",
                (a, b, "x" if bad == "n" else n, "a\0" if bad == "s" else s),
            )
        database.commit()
    opened = source_of(source, batch_bytes=1000)
    plan = plan_of(opened, "t", chunk_bytes=10_000)
    survey = opened.survey(
        opened.catalog(None).tables[0], opened.catalog(None).tables[0].columns, None, 10_000
    )
    assert survey.tolerated is not None
    assert survey.tolerated.rows == len(wrong)
    plan = plan.model_copy(update={"columns": survey.tolerated.columns, "wire": survey.tolerated.wire})
    assert len(plan.chunks) > 3
    found: Counter[int] = Counter()
    taken: dict[int, str | None] = {}
    with opened.snapshot(1) as snapshot:
        for chunk in plan.chunks:
            bad, rest = _sift(snapshot, plan, chunk)
            taken |= {int(b.row["b"]): b.column for b in bad}
            batches = list(snapshot.batches(plan, rest))
            arrived = [row for batch in batches for row in batch.column("b").to_pylist()]
            assert snapshot.digest(plan, rest).rows == len(arrived) == snapshot.count(plan, rest)
            found.update(arrived)
            if bad:
                alone = Sifted(**chunk.model_dump(), only=(bad[-1].position,))
                assert snapshot.count(plan, alone) == 1
                assert list(snapshot.bad_rows(plan, alone)) == bad[-1:]
    assert taken == wrong
    assert found == Counter(set(range(3000)) - set(wrong))


def test_a_row_is_addressed_or_stays_refused(tmp_path: Path) -> None:
    """Where columns hide every name of the rowid, nobody could leave a row out."""
    script = "CREATE TABLE t (rowid TEXT, oid TEXT, _rowid_ TEXT, n INTEGER);"
    source = source_of(
        make_file(tmp_path / "t.db", script, {"t": [("a", "b", "c", "x"), ("a", "b", "c", 1)]})
    )
    table = source.catalog(None).tables[0]
    survey = source.survey(table, table.columns, None, 1 << 20)
    assert survey.refused
    assert survey.tolerated is None
    plan = plan_of(source, "t")
    assert plan.chunk_by is ChunkBy.WHOLE
    with source.snapshot(1) as snapshot:
        assert list(snapshot.bad_rows(plan, plan.chunks[0])) == []
