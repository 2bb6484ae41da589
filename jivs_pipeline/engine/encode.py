"""Arrow files into the bytes that COPY takes.

What belongs here: the two encoders, binary (pgpq) and CSV (pyarrow). What does not: choosing between
them, which is the source's type gate (`Wire` in the plan).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from pgpq import ArrowToPostgresBinaryEncoder

from jivs_pipeline.core.plan import Wire
from jivs_pipeline.core.ports import Piece

__all__ = ["encode", "encode_batches"]

_LARGE = 1 << 23
_PIECE = 1 << 20


def encode(path: Path, wire: Wire) -> Iterator[Piece]:
    """The record batches of an Arrow IPC file as a COPY stream, one piece per batch."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        batches = (reader.get_batch(position) for position in range(reader.num_record_batches))
        yield from _encoded(reader.schema, batches, wire)


def encode_batches(batches: Sequence[pa.RecordBatch], wire: Wire) -> Iterator[Piece]:
    """The same of batches in memory, of which there is at least one."""
    return _encoded(batches[0].schema, batches, wire)


def _encoded(schema: pa.Schema, batches: Iterable[pa.RecordBatch], wire: Wire) -> Iterator[Piece]:
    return _binary(schema, batches) if wire is Wire.BINARY else _csv(batches)


def _binary(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Piece]:
    encoder = ArrowToPostgresBinaryEncoder(schema)
    yield encoder.write_header()
    for batch in batches:
        yield encoder.write_batch(batch)
    yield encoder.finish()


def _csv(batches: Iterable[pa.RecordBatch]) -> Iterator[Piece]:
    for batch in batches:
        if batch.num_rows == 1 and batch.nbytes > _LARGE:
            yield from _long_row(batch)
        else:
            yield _written(batch)


def _written(batch: pa.RecordBatch) -> memoryview:
    # Quoted text and unquoted NULLs ("needed" quotes every string) are what tells '' from NULL in COPY.
    options = pacsv.WriteOptions(include_header=False, quoting_style="needed")
    sink = pa.BufferOutputStream()
    pacsv.write_csv(batch, sink, options)
    return memoryview(sink.getvalue())


def _long_row(batch: pa.RecordBatch) -> Iterator[Piece]:
    """One row piece by piece, for pyarrow makes two copies and more of a text of 100 MB."""
    for number, column in enumerate(batch.columns):
        if number:
            yield b","
        if not pa.types.is_string(column.type) or column.null_count or column.nbytes <= _PIECE:
            yield bytes(_written(batch.select([number]))).removesuffix(b"\n")
            continue
        _, bounds, data = column.buffers()
        start, end = np.frombuffer(cast("Any", bounds), np.int32)[column.offset : column.offset + 2].tolist()
        text = memoryview(cast("Any", data))
        yield b'"'
        for at in range(start, end, _PIECE):
            yield bytes(text[at : min(at + _PIECE, end)]).replace(b'"', b'""')
        yield b'"'
    yield b"\n"
