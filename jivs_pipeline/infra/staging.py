"""The staging area: chunk files between extraction and load.

What belongs here: writing a file so that it is whole or not there, checking it, removing it.
What does not: what is in it.

Names are hashes, files are opened without following links, and directories belong to us alone (0700),
since they hold other people's rows. A file counts only once the control database has its digest.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from jivs_pipeline.core.errors import DataError, ResourceError
from jivs_pipeline.core.names import short_hash
from jivs_pipeline.core.ports import Piece
from jivs_pipeline.infra.failpoints import failpoint

__all__ = ["StagedFile", "Staging"]

_READ_BYTES = 1 << 20
_OURS, _GENERATION = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9]{10}-[0-9a-f]+")
_ASIDE = ".swept-"
_RESERVE_BYTES, _RESERVE_SHARE = 64 << 20, 20
"""Left to others on the disk, such as the embedded servers, which do not survive a full one: that, or a 20th."""


class StagedFile:
    """A file being written: a sink for pieces or for Arrow's writer, that counts and hashes what passes."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=1 << 20)
        self._hash = xxhash.xxh3_128()
        self.bytes = 0

    def write(self, piece: Piece) -> int:
        """Append a piece."""
        self._hash.update(piece)
        size = self._file.write(piece)
        self.bytes += size
        return size

    def flush(self) -> None:
        """Hand the buffer to the operating system."""
        self._file.flush()

    @property
    def closed(self) -> bool:
        """Arrow's writers ask."""
        return self._file.closed

    @property
    def digest(self) -> str:
        """Hash of all bytes so far."""
        return self._hash.hexdigest()

    def sync_and_close(self) -> None:
        """The bytes are on disk when this returns."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def close(self) -> None:
        """Arrow's writers close their sink; the file is closed by `sync_and_close`."""

    def abandon(self) -> None:
        """Close without caring for the bytes."""
        with suppress(OSError):
            self._file.close()


class Staging:
    """Files of all migrations below one directory: `<hash of key>/<generation>/<name>`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _directory(self, key: str, generation: str) -> Path:
        return self._root / short_hash(key) / generation

    def prepare(self, key: str, generation: str) -> None:
        """Make the directory of one extraction.

        Raises:
            ResourceError: it cannot be made or written.
        """
        directory = self._directory(key, generation)
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            for made in (directory.parent, directory):
                made.mkdir(exist_ok=True, mode=0o700)
                if made.is_symlink():
                    raise NotADirectoryError(None, "a link is in the way", str(made))
                made.chmod(0o700)
        except OSError as error:
            raise self._trouble(error) from error

    def path(self, key: str, generation: str, name: str) -> Path:
        """Where a finished file is."""
        return self._directory(key, generation) / name

    @contextmanager
    def writing(self, key: str, generation: str, name: str) -> Iterator[StagedFile]:
        """Write a file: temporary name, fsync, rename, fsync of the directory. All of it or nothing.

        Raises:
            ResourceError: the disk is full or refuses.
        """
        path = self.path(key, generation, name)
        temporary = path.with_name(f".{name}.{os.getpid()}")
        file: StagedFile | None = None
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            file = StagedFile(os.open(temporary, flags, 0o600))
            yield file
            failpoint("before_staging_sync")
            file.sync_and_close()
            failpoint("before_staging_rename")
            temporary.rename(path)
            failpoint("after_staging_rename")
            _sync_directory(path.parent)
        except OSError as error:
            raise self._trouble(error) from error
        finally:
            if file is not None and not file.closed:
                file.abandon()
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def has(self, key: str, generation: str, name: str, size: int) -> bool:
        """Whether a finished file of that size is there."""
        try:
            return self.path(key, generation, name).stat().st_size == size
        except OSError:
            return False

    def remove(self, key: str, generation: str, name: str) -> None:
        """Remove one finished file, if it is there.

        Raises:
            ResourceError: it stays.
        """
        try:
            self.path(key, generation, name).unlink(missing_ok=True)
        except OSError as error:
            raise self._trouble(error) from error

    def check(self, key: str, generation: str, name: str, digest: str) -> None:
        """Read the file and compare its hash with the one that was recorded; see `pieces`."""
        for _ in self.pieces(key, generation, name, digest):
            pass

    def pieces(self, key: str, generation: str, name: str, digest: str) -> Iterator[bytes]:
        """The bytes of a finished file. The hash is compared at the end, before the reader can commit.

        Raises:
            DataError: the file is not what was written; the table has to be read again.
        """
        found = xxhash.xxh3_128()
        path = self.path(key, generation, name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                while piece := file.read(_READ_BYTES):
                    found.update(piece)
                    yield piece
        except OSError as error:
            raise self._trouble(error) from error
        if found.hexdigest() != digest:
            raise DataError(
                f"The staged file {path} is damaged",
                hint="Check the disk of the staging area, then run again",
            )

    def free_bytes(self) -> int:
        """Room on the disk of the staging area, without what is left to others."""
        place = self._root
        try:
            while not place.exists():
                place = place.parent
            usage = shutil.disk_usage(place)
            return max(0, usage.free - min(_RESERVE_BYTES, usage.total // _RESERVE_SHARE))
        except OSError as error:
            raise self._trouble(error) from error

    def discard(self, key: str, epoch: int, keep: Collection[str] = ()) -> None:
        """Remove the files of a migration, but for some generations. They hold row values, so it must not fail silently.

        Args:
            epoch: of who removes; generations of a higher one are a successor's and stay.

        Raises:
            ResourceError: something is left.
        """
        directory = self._root / short_hash(key)
        failpoint("before_discard")
        try:
            for generation in directory.iterdir() if directory.is_dir() else ():
                if generation.is_symlink() or not generation.is_dir():
                    generation.unlink()
                elif generation.name not in keep and _epoch_of(generation.name) <= epoch:
                    shutil.rmtree(generation)
                    failpoint("inside_discard")
            if not keep and directory.is_dir():
                with suppress(OSError):  # a successor's files are in there
                    directory.rmdir()
        except OSError as error:
            raise self._trouble(error) from error

    # Sweeping

    def left(self) -> list[str]:
        """Names of the directories of migrations; nothing else in the staging area is ours."""
        try:
            found = (
                [p for p in self._root.iterdir() if _OURS.fullmatch(p.name)] if self._root.is_dir() else []
            )
            return sorted(p.name for p in found if p.is_dir() and not p.is_symlink())
        except OSError as error:
            raise self._trouble(error) from error

    def untouched_since(self, name: str) -> float:
        """When something in a migration's directory was last written, as a Unix time."""
        try:
            inside = [p for p in (self._root / name).rglob("*") if not p.is_symlink()]
            return max(p.stat().st_mtime for p in (self._root / name, *inside))
        except FileNotFoundError:
            return time.time()  # somebody is removing it at this moment
        except OSError as error:
            raise self._trouble(error) from error

    def set_aside(self, name: str, epoch: int | None) -> bool:
        """Move a migration's files out of any run's sight, which takes no time; `remove_aside` removes them.

        Args:
            epoch: generations of a higher one stay; None moves all.

        Returns:
            Whether there were any.
        """
        directory, moved = self._root / name, False
        try:
            for generation in directory.iterdir() if directory.is_dir() else ():
                ours = _GENERATION.fullmatch(generation.name)
                if ours and (epoch is None or _epoch_of(generation.name) <= epoch):
                    with suppress(FileNotFoundError):  # another sweeper was faster
                        generation.rename(self._root / f"{_ASIDE}{uuid.uuid4().hex}")
                        moved = True
                    failpoint("inside_set_aside")
            with suppress(OSError):  # a run's files are in there
                directory.rmdir()
        except OSError as error:
            raise self._trouble(error) from error
        return moved

    def remove_aside(self) -> int:
        """Remove what was moved aside, now or by a sweeper that was killed. Returns how many extractions."""
        removed = 0
        try:
            for aside in self._root.glob(f"{_ASIDE}*"):
                failpoint("before_remove_aside")
                shutil.rmtree(aside, ignore_errors=True) if not aside.is_symlink() else aside.unlink()
                removed += not aside.exists()
        except OSError as error:
            raise self._trouble(error) from error
        return removed

    def _trouble(self, error: OSError) -> ResourceError:
        return ResourceError(
            f"The staging area {self._root} cannot be used: {error.strerror or error}",
            hint="Free space there or set JIVS_STAGING_URL, then run again",
        )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _epoch_of(generation: str) -> int:
    """The epoch that a generation's name begins with; 0 where it names none."""
    digits = generation.partition("-")[0]
    return int(digits) if digits.isdecimal() else 0
