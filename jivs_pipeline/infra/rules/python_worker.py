"""The process of a python rule. It knows nothing of ours: it reads batches, calls a function and writes batches.

A message is eight bytes of length and an Arrow stream of one batch; an answer begins with "=" before such a stream or
with "!" before a sentence. What a function prints goes nowhere, for rows must not get into logs.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import sys
from typing import Any

import pyarrow as pa


def main(directory: str, path: str, function: str) -> None:
    """Serve until the other end closes."""
    answers, questions = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    sys.path.insert(0, directory)
    call: Any = None
    trouble = ""
    try:
        spec = importlib.util.spec_from_file_location("jivs_rule", path)
        if spec is None or spec.loader is None:
            trouble = "cannot be imported"
        else:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            call = getattr(module, function)
    except BaseException as error:  # noqa: BLE001 - whatever a user's file raises
        trouble = f"cannot be imported: {type(error).__name__}"
    while len(head := questions.read(8)) == 8:
        with pa.ipc.open_stream(questions.read(struct.unpack(">Q", head)[0])) as reader:
            batch = reader.read_next_batch()
        answer = b"!" + trouble.encode() if trouble else _answer(call, batch)
        answers.write(struct.pack(">Q", len(answer)) + answer)
        answers.flush()


def _answer(call: Any, batch: pa.RecordBatch) -> bytes:
    try:
        made = call(batch)
    except BaseException as error:  # noqa: BLE001 - whatever a user's function raises
        # Its text may hold values of rows.
        return f"!raised {type(error).__name__}".encode()
    if not isinstance(made, pa.RecordBatch):
        return f"!returned {type(made).__name__} instead of a pyarrow.RecordBatch".encode()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_batch(made)
    return b"=" + sink.getvalue().to_pybytes()


if __name__ == "__main__":
    main(*sys.argv[1:])
