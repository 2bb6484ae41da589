"""The staging area on a real disk: whole files or none, and nobody else's business."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from jivs_pipeline.core.errors import DataError, ExitCode, ResourceError, TransientError
from jivs_pipeline.core.names import short_hash
from jivs_pipeline.infra.failpoints import arm
from jivs_pipeline.infra.staging import Staging

KEY, GENERATION, NAME = "sakila", "g1", "film-0.copy"


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "deep" / "staging"


@pytest.fixture
def staging(root):
    area = Staging(root)
    area.prepare(KEY, GENERATION)
    yield area
    arm(None)


def put(
    staging: Staging, content: bytes = b"rows" * 1000, name: str = NAME, generation: str = GENERATION
) -> str:
    with staging.writing(KEY, generation, name) as file:
        for start in range(0, len(content), 700):
            file.write(content[start : start + 700])
    assert file.bytes == len(content)
    return file.digest


def get(staging: Staging, digest: str, name: str = NAME) -> bytes:
    return b"".join(staging.pieces(KEY, GENERATION, name, digest))


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (5 << 20) + 1])
def test_what_is_written_is_read(staging, size):
    content = os.urandom(size)
    digest = put(staging, content)
    assert get(staging, digest) == content
    assert staging.has(KEY, GENERATION, NAME, size)
    staging.check(KEY, GENERATION, NAME, digest)


def test_all_kinds_of_bytes_are_pieces(staging):
    with staging.writing(KEY, GENERATION, NAME) as file:
        assert [file.write(b"ab"), file.write(bytearray(b"cd")), file.write(memoryview(b"xefx")[1:3])] == [
            2,
            2,
            2,
        ]
    assert get(staging, file.digest) == b"abcdef"


def test_arrow_writes_into_a_staged_file_and_its_own_close_does_not_end_it(staging):
    with staging.writing(KEY, GENERATION, NAME) as file:
        with pa.ipc.new_file(file, pa.schema([("a", pa.int64())])) as writer:
            writer.write_batch(pa.record_batch({"a": [1, 2]}))
        assert not file.closed
    staging.check(KEY, GENERATION, NAME, file.digest)
    assert pa.ipc.open_file(staging.path(KEY, GENERATION, NAME)).read_all().to_pydict() == {"a": [1, 2]}


def test_files_and_directories_are_the_owners_alone(staging, root):
    put(staging)
    assert mode(root) == 0o700
    assert {mode(p) for p in root.rglob("*") if p.is_dir()} == {0o700}
    assert mode(staging.path(KEY, GENERATION, NAME)) == 0o600


def test_directories_that_were_too_open_are_closed(root):
    directory = Staging(root).path(KEY, GENERATION, NAME).parent
    directory.mkdir(parents=True)
    for path in (directory, directory.parent):
        path.chmod(0o755)
    Staging(root).prepare(KEY, GENERATION)
    assert mode(directory) == mode(directory.parent) == 0o700


def test_names_of_migrations_do_not_reach_the_disk(staging, root):
    area = Staging(root)
    area.prepare("../../escape", GENERATION)
    assert sorted(p.name for p in root.iterdir()) == sorted([short_hash(KEY), short_hash("../../escape")])


@pytest.mark.parametrize("error", [ValueError("bug"), DataError("bad"), KeyboardInterrupt()])
def test_a_file_that_was_not_finished_is_not_there(staging, root, error):
    def write() -> None:
        with staging.writing(KEY, GENERATION, NAME) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert files(root) == []


@pytest.mark.parametrize("place", ["before_staging_sync", "before_staging_rename"])
def test_an_error_before_the_rename_leaves_the_old_file_whole(staging, root, place):
    digest = put(staging, b"old")
    arm(f"{place}:error")
    with pytest.raises(TransientError):
        put(staging, b"new")
    assert get(staging, digest) == b"old"
    assert len(files(root)) == 1


def test_a_file_is_on_disk_before_it_has_its_name_and_the_directory_after(staging, monkeypatch):
    path = staging.path(KEY, GENERATION, NAME)
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (
            synced.append(("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file", path.exists())),
            fsync(fd),
        ),
    )
    put(staging)
    assert synced == [("file", False), ("directory", True)]


def test_killed_before_the_rename_the_file_is_not_there(staging, root):
    code = (
        "import sys; from pathlib import Path; from jivs_pipeline.infra.staging import Staging; from jivs_pipeline.infra.failpoints import arm\n"
        "arm('before_staging_rename:kill')\n"
        f"with Staging(Path(sys.argv[1])).writing({KEY!r}, {GENERATION!r}, {NAME!r}) as file: file.write(b'x')"
    )
    assert subprocess.run([sys.executable, "-c", code, root], check=False).returncode == -9
    assert not staging.has(KEY, GENERATION, NAME, 1)
    assert len(files(root)) == 1  # the temporary one, which goes with the generation
    staging.discard(KEY, 1)
    assert files(root) == []


# Damage


@pytest.mark.parametrize("where", [0, 2000, 3999])
def test_one_changed_byte_is_noticed(staging, where):
    digest = put(staging)
    path = staging.path(KEY, GENERATION, NAME)
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    assert staging.has(KEY, GENERATION, NAME, len(content))
    with pytest.raises(DataError, match="damaged"):
        staging.check(KEY, GENERATION, NAME, digest)
    with pytest.raises(DataError, match=NAME):
        get(staging, digest)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda _: b"", lambda c: c + b"x"])
def test_a_file_that_is_shorter_or_longer_is_noticed(staging, change):
    digest = put(staging)
    path = staging.path(KEY, GENERATION, NAME)
    path.write_bytes(change(path.read_bytes()))
    assert not staging.has(KEY, GENERATION, NAME, 4000)
    with pytest.raises(DataError, match="damaged"):
        staging.check(KEY, GENERATION, NAME, digest)


def test_a_file_that_is_gone_is_an_error(staging):
    digest = put(staging)
    staging.path(KEY, GENERATION, NAME).unlink()
    assert not staging.has(KEY, GENERATION, NAME, 4000)
    with pytest.raises(ResourceError):
        staging.check(KEY, GENERATION, NAME, digest)


def test_a_link_in_the_place_of_a_file_is_not_read(staging, tmp_path):
    digest = put(staging)
    path = staging.path(KEY, GENERATION, NAME)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResourceError):
        get(staging, digest)


def test_a_link_in_the_place_of_a_file_is_replaced_and_its_target_left_alone(staging, tmp_path):
    (victim := tmp_path / "victim").write_bytes(b"mine")
    staging.path(KEY, GENERATION, NAME).symlink_to(victim)
    digest = put(staging)
    assert victim.read_bytes() == b"mine"
    assert get(staging, digest) == b"rows" * 1000


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(staging, tmp_path):
    (victim := tmp_path / "victim").write_bytes(b"mine")
    staging.path(KEY, GENERATION, NAME).with_name(f".{NAME}.{os.getpid()}").symlink_to(victim)
    with pytest.raises(ResourceError):
        put(staging)
    assert victim.read_bytes() == b"mine"


# Trouble


def test_a_full_disk_is_one_sentence_and_leaves_nothing(staging, root):
    code = (
        "import resource, sys; from pathlib import Path; from jivs_pipeline.core.errors import ResourceError; from jivs_pipeline.infra.staging import Staging\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        f"    with Staging(Path(sys.argv[1])).writing({KEY!r}, {GENERATION!r}, {NAME!r}) as file:\n"
        "        for _ in range(int(sys.argv[2])): file.write(b'x' * 1000)\n"
        "except ResourceError as error: print(error, type(error.__cause__).__name__)\n"
    )
    # Below a mebibyte the buffer breaks at the end, above it in the middle.
    for pieces in ("200", "3000"):
        ended = subprocess.run(
            [sys.executable, "-c", code, root, pieces], capture_output=True, text=True, check=True
        )
        assert str(root) in ended.stdout
        assert "JIVS_STAGING_URL" in ended.stdout
        assert "OSError" in ended.stdout
        assert ended.stderr == ""
        assert files(root) == []


def test_a_file_in_the_place_of_the_area_is_a_resource_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ResourceError) as caught:
            Staging(place).prepare(KEY, GENERATION)
        assert caught.value.exit_code is ExitCode.FAILED
        assert str(place) in caught.value.message


def test_an_area_that_was_not_prepared_is_a_resource_error(root):
    with pytest.raises(ResourceError):
        put(Staging(root))


def test_room_is_told_before_the_area_exists(root):
    assert not root.exists()
    disk = os.statvfs(root.parent.parent)
    assert 0 < Staging(root).free_bytes() <= disk.f_blocks * disk.f_frsize


@pytest.mark.parametrize(
    ("total", "free", "ours"),
    [(100 << 30, 80 << 30, (80 << 30) - (64 << 20)), (200 << 20, 11 << 20, 1 << 20), (200 << 20, 9 << 20, 0)],
)
def test_some_room_is_left_to_others(root, monkeypatch, total, free, ours):
    """The embedded servers are on the same disk, and do not survive a full one."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(total, total - free, free))
    assert Staging(root).free_bytes() == ours


# Removal


def test_discarding_leaves_one_generation_or_nothing(staging, root):
    put(staging)
    staging.prepare(KEY, "g2")
    put(staging, generation="g2")
    staging.prepare("other", GENERATION)
    staging.discard(KEY, 1, keep={"g2"})
    assert files(root) == [f"{short_hash(KEY)}/g2/{NAME}"]
    staging.discard(KEY, 1)
    assert [p.name for p in root.iterdir()] == [short_hash("other")]
    staging.discard(KEY, 1)


def test_discarding_does_not_follow_links(staging, root, tmp_path):
    (precious := tmp_path / "precious").mkdir()
    (precious / "file").write_text("x")
    (root / short_hash(KEY) / "g3").symlink_to(precious)
    staging.discard(KEY, 1)
    assert (precious / "file").exists()


def test_a_stale_run_does_not_remove_what_its_successor_staged(staging, root):
    for generation in ("0000000001-a", "0000000002-b"):
        staging.prepare(KEY, generation)
        with staging.writing(KEY, generation, "f") as file:
            file.write(b"x")
    staging.discard(KEY, 1)
    assert not staging.has(KEY, "0000000001-a", "f", 1)
    assert staging.has(KEY, "0000000002-b", "f", 1)
    staging.discard(KEY, 2)
    assert not any(root.iterdir())
