"""Arrow files into the bytes that COPY takes.

What belongs here: the two encoders, binary (pgpq) and CSV (pyarrow). What does not: choosing between
them, which is the source's type gate (`Wire` in the plan).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
from pgpq import ArrowToPostgresBinaryEncoder

from jivs_pipeline.core.plan import Wire
from jivs_pipeline.core.ports import Piece

__all__ = ["encode"]


def encode(path: Path, wire: Wire) -> Iterator[Piece]:
    """The record batches of an Arrow IPC file as a COPY stream, one piece per batch."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        yield from (_binary if wire is Wire.BINARY else _csv)(reader)


def _binary(reader: pa.RecordBatchFileReader) -> Iterator[Piece]:
    encoder = ArrowToPostgresBinaryEncoder(reader.schema)
    yield encoder.write_header()
    for position in range(reader.num_record_batches):
        yield encoder.write_batch(reader.get_batch(position))
    yield encoder.finish()


def _csv(reader: pa.RecordBatchFileReader) -> Iterator[Piece]:
    # Quoted text and unquoted NULLs ("needed" quotes every string) are what tells '' from NULL in COPY.
    options = pacsv.WriteOptions(include_header=False, quoting_style="needed")
    for position in range(reader.num_record_batches):
        sink = pa.BufferOutputStream()
        pacsv.write_csv(reader.get_batch(position), sink, options)
        yield memoryview(sink.getvalue())
