"""What a survey of a PostgreSQL table sees: chunks that tile it, forms that carry it, rights that are missing."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from psycopg import sql

from jivs_pipeline.core.digest import Digest, Spelling
from jivs_pipeline.core.errors import SpecError, TerminalError
from jivs_pipeline.core.plan import ChunkBy, Lane, TablePlan, Wire
from jivs_pipeline.infra.sources import postgresql as module
from jivs_pipeline.infra.sources.postgresql import PostgresqlSource
from jivs_pipeline.infra.sources.postgresql_snapshot import chunk_predicate
from jivs_pipeline_tests.fix_postgresql import as_user
from jivs_pipeline_tests.integration.postgresql_source import (
    WHOLE,
    OpenSource,
    Run,
    read,
    survey_of,
    table_plan,
)


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ("k int", "i"),
        ("k bigint", "i * 1000000007::bigint"),
        ("k text", "CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'B' ELSE 'ä' END || md5(i::text)"),
        ('k text COLLATE "C"', "chr(65 + i % 60) || '''\\%_' || i"),
        ("k varchar(40)", "md5(i::text)"),
        ("k char(40)", "md5(i::text)"),
        ("k uuid", "md5(i::text)::uuid"),
        ("k bytea", "decode(md5(i::text), 'hex')"),
        ("k numeric", "CASE WHEN i = 7 THEN 'NaN' ELSE (i * 1.10)::numeric END"),
        ("k float8", "CASE i WHEN 7 THEN 'NaN' WHEN 8 THEN '-Infinity' ELSE i / 3.0 END"),
        (
            "k date",
            "CASE i WHEN 7 THEN 'infinity' WHEN 8 THEN '-infinity' ELSE date '0044-03-15 BC' + i * 400 END",
        ),
        ("k timestamptz", "timestamptz '2024-03-31 00:00:00.000001+01' + i * interval '7 min'"),
        ("k interval", "i * interval '1 day 00:00:00.1'"),
        ("k inet", "inet '10.0.0.0' + i"),
        ("k int[]", "ARRAY[i % 7, i]"),
        ("k int4range", "int4range(i, i + 5)"),
        ("k bit(16)", "i::bit(16)"),
        ("k name", "md5(i::text)::name"),
    ],
)
def test_chunks_by_key_tile_the_table(columns: str, key: str, run: Run, open_source: OpenSource):
    run(
        f"CREATE TABLE t ({columns} PRIMARY KEY, v text); INSERT INTO t SELECT {key}, i FROM generate_series(1, 3000) i"
    )
    source = open_source()
    plan = table_plan(source, "t", chunk_bytes=20_000)
    assert (plan.chunk_by, plan.chunk_columns, plan.rows) == (ChunkBy.KEY, ("k",), 3000)
    _check_tiling(source, plan, at_least=5)


def test_chunks_by_a_key_of_several_columns(run: Run, open_source: OpenSource):
    run("""
        CREATE TABLE t (a text, b int, c date, PRIMARY KEY (b, a));
        INSERT INTO t SELECT chr(65 + i % 26) || i, i % 26, now() FROM generate_series(1, 3000) i;
    """)
    source = open_source()
    plan = table_plan(source, "t", chunk_bytes=8192)
    assert plan.chunk_columns == ("b", "a")
    _check_tiling(source, plan, at_least=3)


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE t (k int NOT NULL UNIQUE, v text)",
        "CREATE TABLE t (k int NOT NULL, v text); CREATE UNIQUE INDEX ON t (k DESC)",
    ],
)
def test_a_unique_key_without_nulls_is_as_good(definition: str, run: Run, open_source: OpenSource):
    run(definition)
    run("INSERT INTO t SELECT i FROM generate_series(1, 3000) i")
    source = open_source()
    plan = table_plan(source, "t", chunk_bytes=8192)
    assert plan.chunk_columns == ("k",)
    _check_tiling(source, plan, at_least=5)


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE t (k int, v text)",
        "CREATE TABLE t (k int UNIQUE, v text)",
        "CREATE TABLE t (k int NOT NULL, v text); CREATE UNIQUE INDEX ON t (k) WHERE k <> 5",
        "CREATE TABLE t (k int NOT NULL, v text); CREATE UNIQUE INDEX ON t ((k + 1))",
        "CREATE TABLE t (k text NOT NULL, v text); CREATE UNIQUE INDEX ON t (k text_pattern_ops)",
    ],
)
def test_without_a_key_blocks_are_the_chunks(definition: str, run: Run, open_source: OpenSource):
    run(definition)
    run(
        "INSERT INTO t SELECT i, repeat('x', 40) FROM generate_series(1, 3000) i; DELETE FROM t WHERE k::int % 3 = 0"
    )
    source = open_source()
    plan = table_plan(source, "t", chunk_bytes=20_000)
    assert (plan.chunk_by, plan.chunk_columns) == (ChunkBy.CTID, ())
    _check_tiling(source, plan, at_least=5)


def test_the_planner_knows_how_few_rows_a_chunk_by_several_columns_has(run: Run, open_source: OpenSource):
    """Else it would look at the whole table for each."""
    run("""
        CREATE TABLE t (a int, b int, v text, PRIMARY KEY (a, b));
        INSERT INTO t SELECT i / 4, i % 4, repeat('x', 60) FROM generate_series(1, 100000) i; ANALYZE t;
    """)
    source = open_source()
    plan = table_plan(source, "t", chunk_bytes=1 << 19)
    assert plan.chunk_by is ChunkBy.KEY
    with source.snapshot(1) as snapshot, snapshot._reader(plan) as session:
        predicate = chunk_predicate(plan, plan.chunks[9])
        explain = sql.SQL("EXPLAIN (FORMAT json) SELECT * FROM ONLY public.t WHERE {}").format(predicate)
        ((found,),) = session.execute(explain).fetchall()
    # The planner takes a comparison of rows alone to choose a third of them.
    assert found[0]["Plan"]["Plan Rows"] < 3 * plan.rows / len(plan.chunks)
    _check_tiling(source, plan, at_least=15)


def test_a_large_heap_is_read_by_blocks_unless_its_key_is_one_integer(
    run: Run, open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
):
    run("""
        CREATE TABLE pairs (a int, b int, PRIMARY KEY (a, b)); INSERT INTO pairs SELECT i, i FROM generate_series(1, 9000) i;
        CREATE TABLE texts (k text PRIMARY KEY); INSERT INTO texts SELECT i FROM generate_series(1, 9000) i;
        CREATE TABLE numbers (k bigint PRIMARY KEY); INSERT INTO numbers SELECT i FROM generate_series(1, 9000) i;
    """)
    monkeypatch.setattr(module, "_SMALL_BYTES", 1 << 16)
    source = open_source()
    plans = [table_plan(source, name, chunk_bytes=30_000) for name in ("pairs", "texts", "numbers")]
    assert [p.chunk_by for p in plans] == [ChunkBy.CTID, ChunkBy.CTID, ChunkBy.KEY]
    for plan in plans:
        _check_tiling(source, plan, at_least=5)


def test_a_large_heap_in_random_order_is_read_by_blocks(
    run: Run, open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
):
    run("""
        CREATE TABLE scattered (k int PRIMARY KEY); INSERT INTO scattered
            SELECT i FROM generate_series(1, 9000) i ORDER BY md5(i::text);
        CREATE TABLE sorted (k int PRIMARY KEY); INSERT INTO sorted SELECT i FROM generate_series(1, 9000) i;
    """)
    monkeypatch.setattr(module, "_SCATTERED_BYTES", 1 << 16)
    source = open_source()
    plans = [table_plan(source, name, chunk_bytes=30_000) for name in ("scattered", "sorted")]
    assert [p.chunk_by for p in plans] == [ChunkBy.CTID, ChunkBy.KEY]
    for plan in plans:
        _check_tiling(source, plan, at_least=5)


def test_a_sample_is_enough_for_the_bounds(
    run: Run, open_source: OpenSource, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_FEWEST_BLOCKS", 60)
    monkeypatch.setattr(module, "_BLOCKS_PER_CHUNK", 5)
    run("CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t SELECT i FROM generate_series(1, 60000) i")
    source = open_source()
    plan = table_plan(source, "t", chunk_bytes=400_000)
    assert plan == table_plan(source, "t", chunk_bytes=400_000), "the same table gives the same plan"
    counts = _check_tiling(source, plan, at_least=5)
    assert max(counts) < 3 * min(counts)


def test_where_cuts_the_chunks_and_the_rows(run: Run, open_source: OpenSource):
    run(
        "CREATE TABLE t (k int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 3000) i"
    )
    source = open_source()
    plan = table_plan(source, "t", chunk_bytes=8192, where="k % 3 = 0 OR k = 1")
    assert plan.rows == 1001
    assert sum(_check_tiling(source, plan, at_least=5)) == 1001


def _check_tiling(source: PostgresqlSource, plan: TablePlan, *, at_least: int) -> list[int]:
    """Chunks meet, are ascending, and hold together every row once: COPY, digest and count agree on that."""
    assert len(plan.chunks) >= at_least
    assert (plan.chunks[0].lower, plan.chunks[-1].upper) == (None, None)
    assert [c.index for c in plan.chunks] == list(range(len(plan.chunks)))
    assert all(a.upper == b.lower is not None for a, b in zip(plan.chunks, plan.chunks[1:], strict=False))
    text = plan.model_copy(update={"wire": Wire.TEXT})
    with source.snapshot(1) as snapshot:
        counts = [snapshot.count(plan, c) for c in plan.chunks]
        rows = [read(snapshot, text, c).splitlines() for c in plan.chunks]
        total = sum((snapshot.digest(plan, c) for c in plan.chunks), Digest())
        assert [len(r) for r in rows] == counts
        assert sorted(line for r in rows for line in r) == sorted(read(snapshot, text).splitlines())
        assert total == snapshot.digest(plan, WHOLE)
        assert sum(counts) == total.rows == plan.rows
    assert all(counts)
    return counts


@pytest.mark.parametrize("definition", ["a int PRIMARY KEY", "a int", ""])
def test_an_empty_table_is_one_chunk(definition: str, run: Run, open_source: OpenSource):
    run(f"CREATE TABLE t ({definition})")
    source = open_source()
    plan = table_plan(source, "t")
    assert (plan.chunks, plan.rows) == ((WHOLE,), 0)
    with source.snapshot(1) as snapshot:
        assert len(read(snapshot, plan)) == 21  # header and trailer of the binary format
        assert snapshot.digest(plan, WHOLE) == Digest()


def test_rows_without_columns_are_rows(run: Run, open_source: OpenSource):
    run("CREATE TABLE t (); INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES")
    source = open_source()
    plan = table_plan(source, "t")
    with source.snapshot(1) as snapshot:
        assert snapshot.digest(plan, WHOLE).rows == snapshot.count(plan, WHOLE) == 2
        assert len(read(snapshot, plan)) == 21 + 2 * 2


def test_large_tables_are_estimated(run: Run, open_source: OpenSource, monkeypatch: pytest.MonkeyPatch):
    run("CREATE TABLE t (a int); INSERT INTO t SELECT i FROM generate_series(1, 50000) i; ANALYZE t")
    monkeypatch.setattr(module, "_EXACT_BYTES", 1 << 16)
    survey = survey_of(open_source(), "t")
    assert not survey.rows_exact
    assert 40_000 < survey.rows < 60_000


def test_bytes_count_the_toast(run: Run, open_source: OpenSource):
    run("""
        CREATE TABLE t (a int, b text); ALTER TABLE t ALTER b SET STORAGE EXTERNAL;
        INSERT INTO t SELECT i, repeat('x', 100000) FROM generate_series(1, 20) i;
    """)
    source = open_source()
    assert survey_of(source, "t").bytes > 2_000_000
    assert len(survey_of(source, "t", chunk_bytes=500_000).chunks) == 1, "one block cannot be cut"


@pytest.mark.parametrize(
    "column",
    [
        "other.mood",
        "other.mood[]",
        "other.positive",
        "other.pair",
        "other.span",
        "other.whole_row",
        "pg_catalog.pg_class",
        "pg_node_tree",
    ],
)
def test_types_that_the_target_lacks_are_refused(column: str, run: Run, open_source: OpenSource):
    run("""
        CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('sad'); CREATE DOMAIN other.positive AS int;
        CREATE TYPE other.pair AS (x int); CREATE TYPE other.span AS RANGE (subtype = float8);
        CREATE TABLE other.whole_row (a int);
    """)
    run(f"CREATE TABLE t (a int, b {column})")
    survey = survey_of(open_source(), "t")
    (refusal,) = survey.refused
    assert refusal.column == "b"
    assert "is neither PostgreSQL's own nor a type of the schema that is carried" in refusal.reason or (
        "pg_node_tree" in refusal.reason
    )


@pytest.mark.parametrize(
    ("types", "wire"),
    [
        ("int, text, numeric[], tstzrange, jsonb, oid, money, xml, pg_lsn, tid, cid", Wire.BINARY),
        ("regclass", Wire.TEXT),
        ("int, regrole[]", Wire.TEXT),
        ("regtype", Wire.TEXT),
        ("aclitem", Wire.TEXT),
        ("pg_snapshot, txid_snapshot, tsvector, jsonpath, int4multirange", Wire.BINARY),
        ("tsquery", Wire.TEXT),
        ("oidvector", Wire.TEXT),
        ("int2vector", Wire.TEXT),
    ],
)
def test_values_that_hold_numbers_of_objects_travel_as_text(
    types: str, wire: Wire, run: Run, open_source: OpenSource
):
    run("CREATE TABLE t (" + ", ".join(f"c{i} {t}" for i, t in enumerate(types.split(", "))) + ")")
    survey = survey_of(open_source(), "t")
    assert (survey.wire, survey.lane, survey.spelling) == (wire, Lane.COPY, Spelling.RECORD)


def test_a_regclass_arrives_by_name(run: Run, open_source: OpenSource):
    run("CREATE TABLE t (a regclass); INSERT INTO t VALUES ('t'), ('pg_class')")
    source = open_source()
    plan = table_plan(source, "t")
    with source.snapshot(1) as snapshot:
        assert read(snapshot, plan) == b"public.t\npg_class\n"


@pytest.fixture
def reader(database: str, run) -> Iterator[str]:
    """URL of a role that may connect and nothing else."""
    name = f"reader_{database[-8:]}"
    run(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    yield as_user(database, name, "pw")
    run(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_table_that_may_not_be_read_is_refused(reader: str, run: Run, open_source: OpenSource):
    role = str(urlsplit(reader).username)
    run(f"""
        CREATE TABLE secret (a int); CREATE TABLE open (a int); CREATE TABLE partly (a int, b int);
        CREATE TABLE numbers (a serial);
        CREATE TABLE hidden (a int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON hidden USING (a = 1);
        GRANT SELECT ON open, hidden, numbers TO {role}; GRANT SELECT (a) ON partly TO {role};
    """)
    source = open_source(reader)
    assert "permission denied for table secret" in survey_of(source, "secret").refused[0].reason
    assert survey_of(source, "secret").refused[0].column == ""
    assert survey_of(source, "open").refused == ()
    assert "permission denied" in survey_of(source, "partly").refused[0].reason
    assert "row-level security" in survey_of(source, "hidden").refused[0].reason
    with source.snapshot(1) as snapshot:
        granted = table_plan(source, "partly", only=["a"])
        assert snapshot.digest(granted, WHOLE).rows == 0
        assert len(read(snapshot, granted)) == 21
    (sequence,) = survey_of(source, "numbers").refused
    assert sequence.column == "a"
    assert "public.numbers_a_seq" in sequence.reason


def test_a_wrong_condition_is_the_specs_fault(run: Run, open_source: OpenSource):
    run("CREATE TABLE t (a int)")
    source = open_source()
    for where in ("b = 1", "a +", "a = 'x'", "a", "a = 1 OR", "now() > 1", "count(*) = 1"):
        with pytest.raises(SpecError, match=r"rules\.t\.where"):
            survey_of(source, "t", where)
    assert survey_of(source, "t", "a = 1").rows == 0, "the session is still good"


def test_a_condition_cannot_write(run: Run, open_source: OpenSource):
    run("""
        CREATE TABLE log (a int); CREATE TABLE t (a int); INSERT INTO t VALUES (1);
        CREATE FUNCTION spy(int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES ($1); RETURN true; END $$;
    """)
    source = open_source()
    with pytest.raises(TerminalError, match="read-only"):
        survey_of(source, "t", "public.spy(a)")
    with pytest.raises(TerminalError, match="read-write"):
        survey_of(source, "t", "set_config('transaction_read_only', 'off', false) = 'off' AND public.spy(a)")
    assert run("SELECT count(*) FROM log").fetchone() == (0,)
