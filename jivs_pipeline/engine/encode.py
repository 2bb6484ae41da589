"""Arrow files into the bytes that COPY takes.

What belongs here: the two encoders, binary (pgpq) and CSV (pyarrow). What does not: choosing between
them, which is the source's type gate (`Wire` in the plan).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
from pgpq import ArrowToPostgresBinaryEncoder

from jivs_pipeline.core.plan import Wire
from jivs_pipeline.core.ports import Piece

__all__ = ["encode", "encode_batches"]


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
    # Quoted text and unquoted NULLs ("needed" quotes every string) are what tells '' from NULL in COPY.
    options = pacsv.WriteOptions(include_header=False, quoting_style="needed")
    for batch in batches:
        sink = pa.BufferOutputStream()
        pacsv.write_csv(batch, sink, options)
        yield memoryview(sink.getvalue())
