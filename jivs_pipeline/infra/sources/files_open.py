"""Files of a directory that is a source: which there are, and opening them read-only.

What belongs here: listing, opening, what a file is that must not change. What does not: what is in a file
(`csv_files`, `parquet_files`).

A table is a file, or a subdirectory of files. Links are followed as long as they stay inside the directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from jivs_pipeline.core.connections import Connection
from jivs_pipeline.core.errors import ConnectionFailed, DataError, ResourceError
from jivs_pipeline.core.model import LeftOut
from jivs_pipeline.core.names import qualified

__all__ = ["SCHEMA", "Found", "Member", "changed", "list_tables", "opened", "unusable"]

SCHEMA = "files"
"""The only schema of a directory."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file: `name` is its path inside the directory, `path` where it really is."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Found:
    """What a directory holds: files by table, and what is not read."""

    tables: Mapping[str, tuple[Member, ...]]
    left_out: tuple[LeftOut, ...]


def unusable(name: str, kind: str, reason: str) -> LeftOut:
    """A table whose files cannot be read as one: its rows would be missed."""
    return LeftOut(qualified(SCHEMA, name), kind, reason, holds_rows=True)


def changed(connection: Connection, table: str, name: str, problem: str) -> DataError:
    """The error of a file that is not what the plan was made from."""
    return DataError(
        f"{name} of connection {connection.name!r} changed after the plan was made: {problem}",
        hint="Let nobody write the files, and run it again: a new plan is made",
        table=table,
    )


def _root(connection: Connection) -> Path:
    kind = connection.dialect.upper() if connection.dialect == "csv" else connection.dialect.capitalize()
    where = f"The {kind} directory of connection {connection.name!r} ({connection.place})"
    hint = f"Check the path in its URL: {connection.dialect}:///relative/dir/ or {connection.dialect}:////absolute/dir/"
    path = connection.path
    if path is None or not path.exists():
        raise ConnectionFailed(f"{where} does not exist", hint=hint)
    if not path.is_dir():
        raise ConnectionFailed(f"{where} is not a directory", hint=hint)
    return path


def _listed(connection: Connection, directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise ConnectionFailed(
            f"The directory {directory} of connection {connection.name!r} cannot be read: {error.strerror}",
            hint="Grant this user read and execute rights on it",
        ) from error


def _stem(name: str, endings: Sequence[str]) -> str | None:
    """The name without its ending; None for a file of another kind."""
    return next((name[: -len(e)] for e in endings if name.lower().endswith(e) and len(name) > len(e)), None)


class _Listing:
    """Files by table, as they are met; whatever keeps a table from being read is a reason."""

    def __init__(self, connection: Connection, endings: Sequence[str]) -> None:
        self._connection = connection
        self._endings = endings
        self._root = _root(connection)
        self._real = self._root.resolve()
        self.tables: dict[str, list[Member]] = {}
        self.reasons: dict[str, str] = {}
        self.others: list[LeftOut] = []

    def read(self, ignored: Sequence[str]) -> None:
        """Look at every entry of the directory."""
        for entry in _listed(self._connection, self._root):
            if entry.name in ignored:
                continue
            if entry.is_dir():
                self._directory(entry)
            elif (table := _stem(entry.name, self._endings)) is None:
                self.others.append(_other(entry.name))
            else:
                self._file(entry.name, table, entry, alone=True)

    def _refuse(self, table: str, reason: str) -> None:
        self.reasons.setdefault(table, reason)

    def _inside(self, entry: os.DirEntry[str]) -> bool:
        return Path(entry.path).resolve().is_relative_to(self._real)

    def _directory(self, entry: os.DirEntry[str]) -> None:
        table = entry.name
        if not self._inside(entry):
            self._refuse(table, f"{table} is a link that leads out of the directory")
            return
        if table in self.tables:
            self._refuse(table, f"several files or directories would become table {table!r}")
        for inner in _listed(self._connection, Path(entry.path)):
            name = f"{table}/{inner.name}"
            if inner.is_dir():
                self._refuse(table, f"{name} is a directory in a table's directory; partitions are not read")
            elif _stem(inner.name, self._endings) is not None:
                self._file(name, table, inner, alone=False)
            elif not inner.name.startswith("_"):
                self.others.append(_other(name))

    def _file(self, name: str, table: str, entry: os.DirEntry[str], *, alone: bool) -> None:
        path = Path(entry.path).resolve()
        if alone and table in self.tables:
            self._refuse(table, f"several files or directories would become table {table!r}")
        if not self._inside(entry):
            self._refuse(table, f"{name} is a link that leads out of the directory")
        elif not path.is_file():
            self._refuse(table, f"{name} is no regular file")
        else:
            self.tables.setdefault(table, []).append(Member(name, path))


def list_tables(connection: Connection, endings: Sequence[str], ignored: Sequence[str] = ()) -> Found:
    """Files of the connection's directory by table.

    Raises:
        ConnectionFailed: the directory is missing, unreadable or holds nothing of this kind.
    """
    listing = _Listing(connection, endings)
    listing.read(ignored)
    kept = {t: tuple(m) for t, m in listing.tables.items() if t not in listing.reasons}
    if not kept and not listing.reasons:
        raise ConnectionFailed(
            f"The directory {connection.place} of connection {connection.name!r} has no {' or '.join(endings)} files",
            hint="Check the path in its URL",
        )
    refused = [unusable(table, "file", reason) for table, reason in sorted(listing.reasons.items())]
    return Found(kept, (*refused, *listing.others))


def _other(name: str) -> LeftOut:
    return LeftOut(qualified(SCHEMA, name), "file", "its name has another ending", severity="lossy")


@contextmanager
def opened(connection: Connection, member: Member) -> Generator[BinaryIO]:
    """The file, read-only.

    Raises:
        DataError: it may not be read, is gone, or is something else by now.
    """
    try:
        # Not blocking: a pipe put in its place must not hold us up. The path was resolved, so a link now is new.
        number = os.open(member.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DataError(
            f"{member.name} of connection {connection.name!r} cannot be read: {error.strerror}",
            hint="Grant this user read access to the file",
        ) from error
    with os.fdopen(number, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise DataError(
                f"{member.name} of connection {connection.name!r} is no regular file", hint="Move it away"
            )
        try:
            yield file  # pyright: ignore[reportReturnType]
        except OSError as error:
            # pyarrow has an OSError without a number for contents that it cannot decode.
            if error.errno is None:
                raise
            raise ResourceError(
                f"{member.name} of connection {connection.name!r} cannot be read: {error.strerror or error}",
                hint="Check the disk that holds it",
            ) from error
