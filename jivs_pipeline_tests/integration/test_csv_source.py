"""CSV as a source: the catalog, the survey, both readers. Real files, some of them damaged or changing."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jivs_pipeline.core.errors import ConfigError, ConnectionFailed, DataError, SpecError
from jivs_pipeline.core.model import Column
from jivs_pipeline.core.plan import Wire
from jivs_pipeline.infra.sources import csv_open
from jivs_pipeline.infra.sources.csv_files import CsvSource
from jivs_pipeline_tests.file_sources import (
    connection_to,
    csv_source,
    digest_of,
    expected,
    plan_of,
    read,
    refusals,
    rows_of,
    survey,
    write,
)
from jivs_pipeline_tests.row_hashes import reference

# ── what fields are ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 30])
def test_null_and_empty_text_are_two_things(tmp_path: Path, chunk_bytes: int) -> None:
    """An empty field is NULL, a quoted one is ''; nothing else is guessed."""
    source = csv_source(
        tmp_path, {"t.csv": 'id,v\n1,\n2,""\n3,NA\n4,NaN\n5,00123\n6,9007199254740993\n7,null'}
    )
    assert [v for _, v in read(source, "t", chunk_bytes)] == [
        None, "", "NA", "NaN", "00123", "9007199254740993", "null",
    ]  # fmt: skip


def test_one_column_has_empty_lines(tmp_path: Path) -> None:
    """An empty line is a row whose only field is NULL."""
    source = csv_source(tmp_path, {"t.csv": 'v\n\n""\na\n\n'})
    assert read(source, "t") == [(None,), ("",), ("a",), (None,)]
    assert survey(source, "t").rows == 4


_FIELD = st.one_of(
    st.none(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    st.text(st.sampled_from('ab",\n\r\\; \t'), max_size=6),
)


def _written(rows: list[list[str | None]], quoting: int) -> str:
    """CSV by a writer of our own: Python's cannot write NULL and '' apart."""
    lines: list[str] = []
    for number, row in enumerate(rows):
        fields: list[str] = []
        for value in row:
            plain = value is not None and value != "" and not set(value) & set('",\n\r')
            doubled = "" if value is None else value.replace('"', '""')
            quote = value is not None and not (plain and (number + quoting) % 2)
            fields.append(f'"{doubled}"' if quote else doubled)
        lines.append(",".join(fields))
    return "".join(line + ("\r\n" if quoting % 3 else "\n") for line in lines)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 4),
    data=st.data(),
    quoting=st.integers(0, 5),
    chunk_bytes=st.integers(1, 60),
    piece=st.integers(1, 40),
)
def test_both_readers_give_what_was_written(
    width: int, data: st.DataObject, quoting: int, chunk_bytes: int, piece: int
) -> None:
    """Any text, cut anywhere: pyarrow's rows, our scanner's digest and the count agree with the truth."""
    rows = data.draw(st.lists(st.lists(_FIELD, min_size=width, max_size=width), max_size=12))
    header = ",".join(f"c{n}" for n in range(width)) + "\n"
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_open.pieces, "__defaults__", (None, piece, "strict"))
        source = csv_source(Path(directory), {"t.csv": header + _written(rows, quoting)})
        seen = survey(source, "t", chunk_bytes)
        assert seen.refused == ()
        assert seen.rows == len(rows)
        assert read(source, "t", chunk_bytes) == [tuple(r) for r in rows]
        assert digest_of(source, "t", chunk_bytes) == expected(source, "t", rows)


@pytest.mark.parametrize(
    ("encoding", "bom", "option"),
    [
        ("utf-8", b"\xef\xbb\xbf", None), ("utf-16-le", b"\xff\xfe", None), ("utf-16-be", b"\xfe\xff", None),
        ("utf-16-le", b"", "utf-16-le"), ("cp1252", b"", "cp1252"), ("latin-1", b"", "latin1"),
        ("utf-16-le", b"\xff\xfe", "utf-16"),
    ],
)  # fmt: skip
def test_encodings(tmp_path: Path, encoding: str, bom: bytes, option: str | None) -> None:
    """By the mark at the beginning or by the schema file, in chunks that begin with a record."""
    last = "€uro" if encoding == "cp1252" else "ÿ" if encoding == "latin-1" else "🦆 漢"
    rows = [("ä", 'q"'), ("x\ny", last), ("", "é" * 40)]
    text = "köpf,b\n" + "".join('"{}","{}"\n'.format(a, b.replace('"', '""')) for a, b in rows)
    files: dict[str, bytes | str] = {"t.csv": bom + text.encode(encoding)}
    if option:
        files["schema.yaml"] = f"options: {{encoding: {option}}}"
    source = csv_source(tmp_path, files)
    for chunk_bytes in (1, 20, 1 << 30):
        assert read(source, "t", chunk_bytes) == rows
        assert digest_of(source, "t", chunk_bytes) == expected(source, "t", [list(r) for r in rows])
    assert len(plan_of(source, "t", 1).chunks) == 3
    assert plan_of(source, "t").columns[0].source == "köpf"


def test_options_of_the_schema_file(tmp_path: Path) -> None:
    """Delimiter, quote, texts for NULL and no header; a .tsv has tabs without being told."""
    source = csv_source(
        tmp_path,
        {
            "schema.yaml": """
                options: {delimiter: ";", nulls: ["NA", "-"]}
                tables:
                  bare: {options: {header: false, quote: null}, columns: {a: text, b: integer}}
                  tabs: {options: {delimiter: "\\t", quote: "'"}}
            """,
            "t.csv": 'a;b\n1;NA\n"NA";\n-;x,y\n',
            "bare.csv": '5" disk;1\n-;2\n',
            "tabs.tsv": "a\tb\n'it''s'\t\"\n",
        },
    )
    assert read(source, "t") == [("1", None), ("NA", ""), (None, "x,y")]
    assert read(source, "bare") == [('5" disk', "1"), (None, "2")]
    assert read(source, "tabs") == [("it's", '"')]


def test_a_tsv_and_gzip(tmp_path: Path) -> None:
    """A compressed file is one chunk: it can be read from its beginning only."""
    content = b"a\tb\n" + b"1\t2\n" * 1000
    source = csv_source(tmp_path, {"plain.tsv": content, "packed.tsv.gz": gzip.compress(content)})
    assert read(source, "plain", 100) == read(source, "packed", 100) == [("1", "2")] * 1000
    assert digest_of(source, "plain", 100) == digest_of(source, "packed", 100)
    assert len(plan_of(source, "plain", 100).chunks) > 10
    assert len(plan_of(source, "packed", 100).chunks) == 1


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(os.urandom(100_000).hex().encode())
    source = csv_source(tmp_path, {"t.csv.gz": gzip.compress(b"a\n") + whole[: len(whole) // 2]})
    assert "t.csv.gz of connection 'legacy' is damaged" in refusals(source, "t")[0][1]


def test_a_directory_of_files_is_one_table(tmp_path: Path) -> None:
    """Equal headers are one table, in the order of names; others are refused."""
    source = csv_source(
        tmp_path,
        {
            "t/2.csv": "a,b\n3,4\n",
            "t/1.csv": "a,b\n1,2\n",
            "t/3.csv": "a,b\n",
            "u/1.csv": "a\n",
            "u/2.csv": "b\n",
        },
    )
    assert read(source, "t") == [("1", "2"), ("3", "4")]
    assert len(plan_of(source, "t").chunks) == 3
    (left,) = source.catalog(None).left_out
    assert (left.name, left.reason, left.holds_rows) == (
        "files.u",
        "u/2.csv: its header is not that of u/1.csv",
        True,
    )


def test_all_columns_may_be_dropped_but_one(tmp_path: Path) -> None:
    """A survey of some columns gives those, in any position."""
    source = csv_source(tmp_path, {"t.csv": "a,b,c\n1,2,3\n"})
    found = source.catalog(None).table("t")
    assert found is not None
    seen = source.survey(found, [found.column("c")], None, 1 << 20)
    plan = plan_of(source, "t").model_copy(update={"columns": seen.columns})
    with source.snapshot(1) as snapshot:
        assert rows_of(snapshot, plan) == [("3",)]
        assert snapshot.digest(plan, plan.chunks[0]) == reference([["3"]], [c.canon for c in plan.columns])


# ── what is no CSV ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,b\n1\n1,2,3\n\n", "too few fields (2 are expected): 2 in all, first in line 2 of t.csv"),
        (b"a,b\n1,2\n\n", "too few fields (2 are expected): 1 in all, first in line 3 of t.csv"),
        (b'a,b\n"x\ny",1\n1,2,3\n', "too many fields (2 are expected): 1 in all, first in line 4 of t.csv"),
        (b'a,b\n1,"2\n3,4\n', "a quote that is never closed: 1 in all, first in line 2 of t.csv"),
        (b'a\nx\n5" x\n', "a quote inside a field that is not quoted"),
        (b'a,b\n"x"y,1\n', "text after a closing quote: 1 in all, first in line 2 of t.csv"),
        (b'a,b\n "x",1\n', "a quote inside a field that is not quoted"),
        (b"a\nx\n\xff\xfe\nx\n\xff", "bytes that are not utf-8: 3 in all, first in line 3 of t.csv"),
        (
            b"a\nx\0y\nz\0\0\n",
            "NUL characters, which PostgreSQL's text cannot hold: 3 in all, first in line 2",
        ),
        (b"a\nx\ry\n", "a carriage return without a newline: 1 in all, first in line 2 of t.csv"),
        (b"a\nx\r", "a carriage return without a newline"),
    ],
)
def test_what_is_no_csv_is_refused_with_its_line(tmp_path: Path, content: bytes, reason: str) -> None:
    """pyarrow would read most of these without a word."""
    source = csv_source(tmp_path, {"t.csv": content, "good.csv": "a\n1\n"})
    assert any(reason in found for _, found in refusals(source, "t")), refusals(source, "t")
    assert refusals(source, "good") == []


@pytest.mark.parametrize(
    ("header", "shown"),
    [("a;b", '";"'), ("a\tb", '"\\t"'), ("a|b", '"|"'), ('"a,b"', '","'), ("a b", None), ("a;b,c", None)],
)
def test_what_looks_like_another_delimiter_is_said(tmp_path: Path, header: str, shown: str | None) -> None:
    """It is never guessed: one column is one column, whether the rows agree or not."""
    width = 2 if header == "a;b,c" else 1
    good, bad = (f"{header}\n" + ",".join(["x"] * n) + "\n" for n in (width, width + 1))
    source = csv_source(tmp_path, {"good.csv": good, "bad.csv": bad})
    hint = f"if that separates the fields, say so in schema.yaml: options: {{delimiter: {shown}}}"
    found = source.catalog(None).table("good")
    assert found is not None
    survey = source.survey(found, found.columns, None, 1 << 20)
    assert survey.refused == ()
    assert [r.reason.endswith(hint) for r in survey.lossy] == [True] * (shown is not None)
    ((_, reason),) = refusals(source, "bad")
    assert reason.startswith(
        f"records with too many fields ({width} {'is' if width == 1 else 'are'} expected): 1 in all"
    )
    assert reason.endswith(hint) == (shown is not None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty and has no header line"),
        (b"a,b,a\n", "its header has column 'a' twice"),
        (b"a,,c\n", "column 2 of its header has no name"),
        (b"a,b,\n", "column 3 of its header has no name"),
        (b"\xff,b\n", "its header is not utf-8"),
        (",".join(f"c{n}" for n in range(1601)).encode(), "1,601 columns"),
        (b'"a\n1\n', "never closed"),
        (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
    ],
)
def test_headers_that_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """The file is named, and its rows count as missed."""
    (left,) = csv_source(tmp_path, {"t.csv": content, "good.csv": "a\n"}).catalog(None).left_out
    assert left.name == "files.t"
    assert left.holds_rows
    assert left.reason.startswith("t.csv: ")
    assert reason in left.reason


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("[", "is not YAML"),
        ("tables: {u: {}}", "there is no file for table 'u'"),
        ("tables: {t: {columns: {z: text}}}", "names column 'z', which t.csv lacks"),
        ("tables: {t: {key: z}}", "names column 'z'"),
        ("tables: {t: {columns: {a: money}}}", "has the unknown type 'money'"),
        ("tables: {t: {columns: {a: {kind: text}}}}", "has the unknown key 'kind'"),
        ("options: {delimiter: ab}", "is not one ASCII character"),
        ("options: {encoding: utf-7}", "is not an encoding that can be read"),
        ("options: {escape: '\\'}", "asks for an escape character"),
        ("options: {header: 3}", "is neither true nor false"),
        ("options: {null: x}", "is not a mapping of names"),
        ("tables: {t: {options: {header: false}}}", "has header: false and no columns"),
    ],
)
def test_wrong_schema_files_are_bad_usage(tmp_path: Path, schema: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        csv_source(tmp_path, {"schema.yaml": schema, "t.csv": "a\n"})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        ("smallint", ["1", "-32768", "+007"], ["32768", "1.0", "", " 1", "1e2", "0x1", "١"]),
        ("bigint", ["9223372036854775807"], ["9223372036854775808", "9" * 5000]),
        ("numeric(4,2)", ["99.99", "-1.500", ".5", "1e1"], ["100", "1.001", "NaN", "1e999999", "Infinity"]),
        ("numeric", ["1e-1000", "9" * 100], ["1e131072", "1e-16384", "1,5"]),
        ("double precision", ["0.1", "-0", "1e308", "nan", "-Infinity"], ["1e400", "0.1000000000000000001", "1_0", "1e-400"]),
        ("real", ["0.1", "16777216"], ["16777217", "1e39", "0.10000000149"]),
        ("boolean", ["T", "off", "0"], ["2", "tr", "wahr"]),
        ("date", ["2024-02-29", "0001-01-01"], ["2023-02-29", "0000-01-01", "2024-2-9", "29.02.2024"]),
        ("time", ["23:59:59.999999"], ["24:00:01", "1:00:00", "10:00", "00:00:00.0000001"]),
        ("timestamp", ["2024-02-29T00:00:00.1"], ["2024-02-30 00:00:00", "2024-01-01", "2024-01-01 00:00:00Z"]),
        ("timestamptz", ["2024-01-01 00:00:00+0130"], ["2024-01-01 00:00:00", "0001-01-01 00:00:00+05"]),
        ("uuid", ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], ["A0EEBC99", "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"]),
        ("json", ['{"a": 1e999}', "[1, null]"], ["{", "NaN", "{'a': 1}", "[" * 100_000]),
        ("bytea", ["\\x00ff", "", "AB"], ["abc", "0x00", "\\xg0"]),
        ("varchar(2)", ["äö", ""], ["abc"]),
    ],
)  # fmt: skip
def test_typed_fields_convert_exactly_or_are_counted(
    tmp_path: Path, type_: str, good: list[str], bad: list[str]
) -> None:
    """Line and column are named; text that only PostgreSQL's leniency would take is refused."""
    quoted = ['"{}"'.format(v.replace('"', '""')) for v in [*good, *bad]]
    files = {
        "schema.yaml": f"tables: {{t: {{columns: {{v: '{type_}'}}}}, g: {{columns: {{v: '{type_}'}}}}}}",
        "t.csv": "\n".join(["v", *quoted]),
        "g.csv": "\n".join(["v", *quoted[: len(good)], "", ""]),
    }
    source = csv_source(tmp_path, files)
    assert refusals(source, "g") == []
    ((column, reason),) = refusals(source, "t")
    assert column == "v"
    assert f"{len(bad)} in all, first in line {2 + len(good)} of t.csv" in reason
    assert survey(source, "g").wire is Wire.CSV


def test_required_columns_and_keys(tmp_path: Path) -> None:
    """A NULL where none may be is refused before the load."""
    source = csv_source(
        tmp_path,
        {
            "schema.yaml": "tables: {t: {key: [a], columns: {b: {nullable: false}}}}",
            "t.csv": 'a,b\n1,\n,2\n"",3\n',
        },
    )
    found = source.catalog(None).table("t")
    assert found is not None
    assert found.columns == (Column("a", "text", nullable=False), Column("b", "text", nullable=False))
    assert found.primary_key is not None
    assert found.primary_key.columns == ("a",)
    said = "NULLs, which this column may not hold: 1 in all, first in line"
    assert refusals(source, "t") == [("a", f"{said} 3 of t.csv"), ("b", f"{said} 2 of t.csv")]


# ── the directory ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("make", "said"), [(None, "does not exist"), ("file", "is not a directory"), ("empty", "has no .csv")]
)
def test_directories_that_are_none(tmp_path: Path, make: str | None, said: str) -> None:
    path = tmp_path / "d"
    if make == "file":
        path.write_text("")
    elif make == "empty":
        path.mkdir()
    with pytest.raises(ConnectionFailed, match=said) as caught:
        CsvSource(connection_to(path))
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_what_may_not_be_read_is_said() -> None:
    """Root may read everything, and so is somebody else here for a moment."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        source = csv_source(Path(directory), {"t.csv": "a\n1\n", "u.csv": "a\n"})
        (Path(directory) / "t.csv").chmod(0)
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            (left,) = CsvSource(connection_to(Path(directory))).catalog(None).left_out
            assert "t.csv of connection 'legacy' cannot be read: Permission denied" in left.reason
            assert "cannot be read: Permission denied" in refusals(source, "t")[0][1]
        finally:
            os.seteuid(me)


def test_links_stay_inside(tmp_path: Path) -> None:
    """A link to another file of the directory is one; what leads out, or is a pipe, is refused."""
    outside = write(tmp_path / "outside", {"secret.csv": "a\n1\n", "d/x.csv": "a\n"})
    inside = write(tmp_path / "inside", {"t.csv": "a\n1\n"})
    (inside / "same.csv").symlink_to(inside / "t.csv")
    (inside / "out.csv").symlink_to(outside / "secret.csv")
    (inside / "dir").symlink_to(outside / "d")
    os.mkfifo(inside / "pipe.csv")
    source = CsvSource(connection_to(inside))
    assert read(source, "same") == [("1",)]
    reasons = {o.name: o.reason for o in source.catalog(None).left_out}
    assert "leads out" in reasons["files.out"]
    assert "leads out" in reasons["files.dir"]
    assert "no regular file" in reasons["files.pipe"]


def test_names_that_collide_and_other_files(tmp_path: Path) -> None:
    """Two files for one table are both refused; what is no CSV is a warning."""
    source = csv_source(
        tmp_path,
        {
            "a.csv": "x\n",
            "a.tsv": "x\n",
            "b.csv": "x\n",
            "b/1.csv": "x\n",
            "c.csv": "x\n",
            "notes.txt": "",
            ".hidden": "",
        },
    )
    left = {o.name: o.holds_rows for o in source.catalog(None).left_out}
    assert left == {"files.a": True, "files.b": True, "files.notes.txt": False}
    assert [t.name for t in source.catalog(None).tables] == ["c"]


def test_no_where_and_no_other_schema(tmp_path: Path) -> None:
    """Files have no SQL."""
    source = csv_source(tmp_path, {"t.csv": "a\n"})
    found = source.catalog("files").table("t")
    assert found is not None
    with pytest.raises(SpecError, match=r"rules\.t\.where"):
        source.survey(found, found.columns, "a = 1", 100)
    with pytest.raises(ConfigError, match="no schema 'public'"):
        source.catalog("public")


# ── files that change ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "change",
    [
        {"t/1.csv": "a,b\n1,3\n" * 2}, {"t/1.csv": "a,b\n1,2\n1,2\n1,2\n"}, {"t/1.csv": "b,a\n1,2\n1,2\n"},
        {"t/1.csv": "a,b\n"}, {"t/9.csv": "a,b\n"}, {"t/1.csv": "x\n"},
        {"schema.yaml": "options: {delimiter: ';'}"}, {"schema.yaml": "options: {nulls: '1'}"},
    ],
)  # fmt: skip
def test_a_file_that_changed_after_the_plan_is_refused(tmp_path: Path, change: dict[str, str]) -> None:
    """Other bytes, another header, a new file, another way to read it; size and time may be the same."""
    source = csv_source(tmp_path, {"t/1.csv": "a,b\n1,2\n1,2\n"})
    plan = plan_of(source, "t")
    before = (tmp_path / "t/1.csv").stat()
    write(tmp_path, change)
    os.utime(tmp_path / "t/1.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    with source.snapshot(1) as snapshot:
        for look in (lambda: rows_of(snapshot, plan), lambda: snapshot.digest(plan, plan.chunks[0]),
                     lambda: snapshot.count(plan, plan.chunks[0])):  # fmt: skip
            with pytest.raises(DataError, match="changed after the plan was made"):
                look()


def test_a_file_that_changed_behind_the_rows_that_are_read(tmp_path: Path) -> None:
    """They cannot be told from others: the chunk fails at its end. Sooner: pyarrow may have read all of it ahead."""
    line = b"x" * 99 + b"\n"
    source = csv_source(tmp_path, {"t.csv": b"a\n" + line * 700_000})
    plan = plan_of(source, "t")
    with source.snapshot(1) as snapshot:
        with (tmp_path / "t.csv").open("r+b") as file:
            file.seek(-50, io.SEEK_END)
            file.write(b"y")
        batches = snapshot.batches(plan, plan.chunks[-1])
        assert next(batches).num_rows > 0
        with pytest.raises(DataError, match="its bytes are others"):
            list(batches)


# ── size ────────────────────────────────────────────────────────────────────────────────────────────────


def test_records_larger_than_a_block(tmp_path: Path) -> None:
    """pyarrow refuses a record that is longer than its block; the block grows and no row is doubled."""
    values = ["a", "b" * 9_000_000, "c", 'd"\n' * 7_000_000, "e"]
    quoted = ['"{}"'.format(v.replace('"', '""')) for v in values]
    source = csv_source(tmp_path, {"t.csv": "n,v\n" + "".join(f"{n},{v}\n" for n, v in enumerate(quoted))})
    assert read(source, "t") == [(str(n), v) for n, v in enumerate(values)]
    assert digest_of(source, "t") == expected(source, "t", [[str(n), v] for n, v in enumerate(values)])


def test_1600_columns(tmp_path: Path) -> None:
    rows = [[str(n) if n % 3 else None for n in range(1600)]] * 3
    text = (
        ",".join(f"c{n}" for n in range(1600))
        + "\n"
        + "".join(",".join(v or "" for v in r) + "\n" for r in rows)
    )
    source = csv_source(tmp_path, {"t.csv": text})
    assert read(source, "t") == [tuple(r) for r in rows]
    assert digest_of(source, "t") == expected(source, "t", rows)


def test_batches_are_of_the_plans_types(tmp_path: Path) -> None:
    """Strings, under the target's names."""
    source = csv_source(tmp_path, {"t.csv": "a\n1\n"})
    plan = plan_of(source, "t")
    with source.snapshot(1) as snapshot:
        (batch,) = snapshot.batches(plan, plan.chunks[0])
    assert batch.schema == pa.schema([("a", pa.string())])
