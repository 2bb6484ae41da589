"""Python rules: functions of the user's, batch in and batch out, in a process of their own with a time limit.

What belongs here: finding the function, the process and its pipes. What does not: what it runs (`python_worker.py`).

A function is defined in a file directly under `JIVS_PYTHON_RULES` (no link, so that nothing else can be meant). Its
process is given no environment of ours: it knows neither URLs nor keys.
"""

from __future__ import annotations

import ast
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self, cast

from jivs_pipeline.core.errors import ConfigError, DataError, SpecError
from jivs_pipeline.infra.rules.duck import as_arrow, calculator, quoted

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PythonRules", "RuleProcess"]

_LENGTH = struct.Struct(">Q")
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True, slots=True)
class PythonRules:
    """Where functions may be, and how long one may take for a batch (seconds)."""

    directory: Path | None = None
    seconds: float = 30.0

    def started(self, name: str) -> RuleProcess:
        """The process of a function, `module:function`.

        Raises:
            ConfigError: the environment allows no functions.
            SpecError: there is no such function.
        """
        if self.directory is None:
            raise ConfigError(
                f"The python rule {name} may not run: JIVS_PYTHON_RULES is not set",
                hint="Set it to the directory that its file is in",
            )
        module, _, function = name.partition(":")
        path = self.directory / f"{module.replace('.', '/')}.py"
        if self.directory.is_symlink() or path.is_symlink() or not path.is_file():
            raise SpecError(
                f"The python rule {name} is not there: no file {path}", hint="A link does not count"
            )
        if not path.resolve().is_relative_to(self.directory.resolve()):
            raise SpecError(
                f"The python rule {name} is outside of {self.directory}", hint="Move its file there"
            )
        if function not in _defined(path):
            raise SpecError(
                f"{path} defines no function {function!r}", hint="Define it with def at the file's top level"
            )
        return RuleProcess(name, self.directory, path, function, self.seconds)

    def returns(self, name: str, given: Mapping[str, str], place: str) -> dict[str, str]:
        """DuckDB's types of the columns that a function gives back, found with a batch of no rows.

        Args:
            given: DuckDB's types of those that it is given.

        Raises:
            SpecError: it does not take the columns, or gives back something else.
        """
        import pyarrow as pa

        with calculator() as connection, self.started(name) as process:
            columns = ", ".join(f"CAST(NULL AS {t}) AS {quoted(n)}" for n, t in given.items())
            empty = as_arrow(connection, f"SELECT {columns} LIMIT 0")
            try:
                answer = process.apply(_batch(empty))
            except DataError as error:
                raise SpecError(
                    f"{place}, given a batch of no rows: {error.message}", hint=error.hint
                ) from None
            connection.register("answer", pa.Table.from_batches([answer]))
            if untyped := next((field.name for field in answer.schema if pa.types.is_null(field.type)), None):
                raise SpecError(
                    f"{place} gives back column {untyped!r} without a type for a batch of no rows",
                    hint="Name the type of its array: pa.array(values, pa.string())",
                )
            return {str(row[0]): str(row[1]) for row in connection.execute("DESCRIBE answer").fetchall()}


def _batch(table: Any) -> pa.RecordBatch:
    import pyarrow as pa

    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _defined(path: Path) -> set[str]:
    """Names of the functions at a file's top level; nothing of it is run."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise SpecError(f"{path} is no Python: {error}", hint="Correct the file") from None
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


class RuleProcess:
    """A function in a process of its own. Used by one thread at a time; as a context manager it ends with the block."""

    def __init__(self, name: str, directory: Path, path: Path, function: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        worker = Path(__file__).with_name("python_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(worker), str(directory), str(path), function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k in _KEPT},
            cwd=directory,
            start_new_session=True,
        )
        os.set_blocking(self._pipe(self._process.stdin).fileno(), False)
        os.set_blocking(self._pipe(self._process.stdout).fileno(), False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and what it has started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            self._pipe(pipe).close()

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """What the function makes of a batch.

        Raises:
            DataError: it raised, gave back something else, ended, or took too long.
        """
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        body = sink.getvalue().to_pybytes()
        answer = self._exchange(_LENGTH.pack(len(body)) + body)
        if answer[:1] == b"!":
            raise self._failed(answer[1:].decode(errors="replace"))
        with pa.ipc.open_stream(pa.BufferReader(answer[1:])) as reader:
            return _batch(reader.read_all())

    def _failed(self, what: str) -> DataError:
        return DataError(f"The python rule {self._name} {what}", hint="Correct the function and run again")

    def _pipe(self, pipe: IO[bytes] | None) -> IO[bytes]:
        return cast("IO[bytes]", pipe)

    def _exchange(self, sent: bytes) -> bytes:
        """Send a message and read the answer, both with an eye on the clock."""
        until = time.monotonic() + self._seconds
        left, got = memoryview(sent), bytearray()
        into, out = self._pipe(self._process.stdin), self._pipe(self._process.stdout)
        with selectors.DefaultSelector() as both:
            both.register(out, selectors.EVENT_READ)
            both.register(into, selectors.EVENT_WRITE)
            while len(got) < _LENGTH.size or len(got) < _LENGTH.size + _LENGTH.unpack_from(got)[0]:
                ready = both.select(max(0.0, until - time.monotonic()))
                if not ready:
                    self.close()
                    raise self._failed(f"took longer than {self._seconds:g} s for a batch")
                for key, _ in ready:
                    if key.fileobj is into:
                        left = left[self._wrote(into, left) :]
                        if not left:
                            both.unregister(into)
                    elif not (piece := os.read(out.fileno(), 1 << 20)):
                        raise self._failed("has ended its process")
                    else:
                        got += piece
        return bytes(got[_LENGTH.size :])

    def _wrote(self, into: IO[bytes], left: memoryview) -> int:
        try:
            return os.write(into.fileno(), left[: 1 << 20])
        except BrokenPipeError:
            raise self._failed("has ended its process") from None
