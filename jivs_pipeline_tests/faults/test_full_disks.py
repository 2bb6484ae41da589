"""Row 14: disks that are full, or fill up. One sentence, nothing lost, and the next run completes.

What belongs here: the disk of the staging area and that of the target. What does not: memory (`test_memory.py`).

Small disks are tmpfs, which root may mount. Where that is not allowed, a limit on the size of files, and one on the
server's temporary files, stand in for them; those rounds run everywhere.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from jivs_pipeline.core.errors import ResourceError
from jivs_pipeline_tests.acceptance.rows import tables_of
from jivs_pipeline_tests.faults.here import Going, Here, MakeHere
from jivs_pipeline_tests.faults.servers import OwnServer, directory_of_servers
from jivs_pipeline_tests.fix_faults import Round, rounds

pytestmark = pytest.mark.faults

_MIB = 1 << 20


@contextmanager
def _disk(directory: Path, size: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def _fill(directory: Path, *, leave: int = 0) -> Path:
    """Somebody else's file takes all but `leave` bytes."""
    filler = directory / "somebody-elses"
    with filler.open("wb") as file:
        while (free := shutil.disk_usage(directory).free - leave) > 0:
            # The run takes of it at the same moment; then there is less than was said.
            with suppress(OSError):
                size = os.fstat(file.fileno()).st_size
                os.posix_fallocate(file.fileno(), size, free)
                break
    return filler


def _refused(run: Going, one: Round) -> ResourceError:
    """The run must have ended by an error of this kind, in one sentence that says where and what to do."""
    assert not run.settled(60)
    error = run.error
    one.note(f"{error!r}")
    assert isinstance(error, ResourceError)
    assert (error.code, int(error.exit_code)) == ("resource", 1)
    assert "\n" not in error.message
    assert error.hint
    return error


def _staging_refused(here: Here, run: Going, one: Round) -> None:
    assert "staging area" in _refused(run, one).message
    assert not [path for path in here.staged if path.name.startswith(".")], "half a file"
    with psycopg.connect(here.target) as db:
        assert tables_of(db) == [], "the target was touched before all rows were staged"


@contextmanager
def _no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_files_cannot_grow(make_here: MakeHere, dialect: str) -> None:
    for one in rounds(14, quick=1, part=f"files {dialect}", full=3):
        with one:
            here = make_here(dialect)
            size = one.rng.randrange(0, 50_000)
            one.note(f"no file beyond {size} bytes")
            with _no_file_larger_than(size):
                _staging_refused(here, here.start(), one)
            here.complete()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_the_staging_disk_is_full(make_here: MakeHere, tmp_path: Path, when: str) -> None:
    for one in rounds(14, quick=1, part=f"staging {when}", full=6):
        with one, ExitStack() as stack:
            here = make_here(one.rng.choice(["sqlite", "postgresql"]))
            if os.geteuid() != 0:
                stack.enter_context(_no_file_larger_than(one.rng.randrange(50_000)))
                _staging_refused(here, here.start(), one)
                stack.close()
                here.complete()
                continue
            here.staging.mkdir()
            stack.enter_context(_disk(here.staging, 4 * _MIB))
            if when == "before":
                filler = _fill(here.staging, leave=one.rng.randrange(300_000))
                run = here.start()
            else:
                # That file is still in the writer's buffer when the disk fills up.
                number = one.rng.randint(1, 8)
                run = here.start(JIVS_FAILPOINT=f"before_staging_sync@{number}:sleep=0.5")
                while run.sleep(0.002) and len(here.staged) < number:
                    pass
                filler = _fill(here.staging)
                one.note(f"full when {len(here.staged)} files were there")
            _staging_refused(here, run, one)
            filler.unlink()
            here.complete()


def _server_refused(run: Going, one: Round) -> None:
    error = _refused(run, one)
    assert "disk is full" in error.message or "temp_file_limit" in error.message


@pytest.mark.timeout(3600)
def test_the_targets_disk_is_full(make_here: MakeHere, own_server: OwnServer) -> None:
    """It has room for a random part of the migration."""
    for one in rounds(14, quick=1, part="target", full=12):
        with one, ExitStack() as stack:
            if os.geteuid() != 0:
                _without_temporary_files(make_here, own_server, one)
                continue
            disk = directory_of_servers()
            stack.callback(shutil.rmtree, disk, ignore_errors=True)
            stack.enter_context(_disk(disk, 32 * _MIB))
            assert own_server.user is not None
            os.chown(disk, own_server.user.uid, own_server.user.gid)
            place = f"small_{one.number}"
            with psycopg.connect(own_server.url, autocommit=True) as admin:
                admin.execute(f"CREATE TABLESPACE {place} LOCATION '{disk}'".encode())
            here = make_here(
                one.rng.choice(["sqlite", "postgresql"]), target=own_server.database(f"TABLESPACE {place}")
            )
            room = one.rng.randrange(1_200_000)
            one.note(f"{room} bytes are free")
            filler = _fill(disk, leave=room)
            _server_refused(here.start(), one)
            filler.unlink()
            here.complete()
            own_server.drop(here.target)
            with psycopg.connect(own_server.url, autocommit=True) as admin:
                admin.execute(f"DROP TABLESPACE {place}".encode())


@pytest.mark.timeout(3600)
def test_the_target_has_no_room_to_sort(make_here: MakeHere, own_server: OwnServer) -> None:
    """Rows are in, and an index cannot be built."""
    for one in rounds(14, quick=1, part="sort", full=3):
        with one:
            _without_temporary_files(make_here, own_server, one)


def _without_temporary_files(make_here: MakeHere, own_server: OwnServer, one: Round) -> None:
    here = make_here(one.rng.choice(["sqlite", "postgresql"]), target=own_server.database())
    name = here.target.rpartition("/")[2]
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        for setting in ("maintenance_work_mem = '64kB'", "temp_file_limit = '16kB'"):
            admin.execute(f"ALTER DATABASE {name} SET {setting}".encode())
        _server_refused(here.start(), one)
        admin.execute(f"ALTER DATABASE {name} RESET temp_file_limit".encode())
    here.complete()
