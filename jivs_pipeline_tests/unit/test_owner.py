"""Whether the process that holds a lock is proved dead."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jivs_pipeline.infra.owner import is_dead, this_process

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a death is proved by /proc")


@pytest.fixture
def me():
    return this_process()


def test_this_process_lives(me):
    assert me.pid == os.getpid()
    assert not is_dead(me.boot_id, me.pid, me.process_start)
    assert this_process().owner != me.owner
    assert this_process().process_start == me.process_start


def test_another_process_of_the_same_id_is_not_the_one_that_held(me):
    assert is_dead(me.boot_id, me.pid, "1")


def test_a_process_that_ended_is_dead_and_so_is_a_zombie(me):
    # A name with brackets and spaces must not confuse the reader of /proc.
    child = subprocess.Popen([sys.executable, "-c", "open('/proc/self/comm', 'w').write(') 1 (x'); print(open('/proc/self/stat').read(), flush=True); input()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout is not None
    assert child.stdin is not None
    start = child.stdout.readline().rpartition(")")[2].split()[19]
    assert not is_dead(me.boot_id, child.pid, start)
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(me.boot_id, child.pid, start)
    child.stdout.close()
    child.wait()
    assert is_dead(me.boot_id, child.pid, start)


def test_nothing_is_proved_about_another_machine_or_boot(me):
    assert not is_dead("other", me.pid, "1")
    assert not is_dead("unknown-1", me.pid, "1")


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EACCES, errno.ENOMEM])
def test_a_process_that_cannot_be_looked_at_is_not_proved_dead(me, error, monkeypatch):
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "stat":
            raise OSError(error, os.strerror(error))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert not is_dead(me.boot_id, me.pid, "1")


def test_a_process_that_the_kernel_hides_from_us_is_not_proved_dead(me, monkeypatch):
    # /proc mounted with hidepid shows nothing of other users; a signal is still refused, not unknown.
    def hidden(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", hidden)
    assert not is_dead(me.boot_id, me.pid, "1")
