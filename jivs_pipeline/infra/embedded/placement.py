"""Where the servers' data is, and who owns it.

What belongs here: choosing, making and checking the data directory of a home. What does not: what the
servers put in there.

An ordinary user has it in `<home>/embedded/data`. PostgreSQL refuses to run as root; root's servers run as
another user, for whom the control directory is closed. Their data is in `<home>/embedded-data` when that
user can get there (it then moves and stays with the home), else in SYSTEM_ROOT.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from jivs_pipeline.core.errors import ConflictError, ResourceError, TerminalError
from jivs_pipeline.infra.embedded.binaries import SYSTEM_ROOT, prepare_system_root
from jivs_pipeline.infra.embedded.layout import Kept, Layout
from jivs_pipeline.infra.embedded.locks import try_lock_directory
from jivs_pipeline.infra.embedded.process import ServerUser, can_use, server_user, stop_strays

__all__ = ["Placement", "data_of", "place", "remove_data"]


@dataclass(frozen=True, slots=True)
class Placement:
    """`lock` is a descriptor that keeps a second supervisor (of a copied home) away from the data."""

    data: Path
    user: ServerUser | None
    kept: Kept
    lock: int


def place(layout: Layout) -> Placement:
    """Find the data directory of a home, or choose and make it, 0700 and owned by the servers' user.

    Raises:
        TerminalError: the data, or the passwords to it, are gone.
        ResourceError: it belongs to somebody else or is out of the servers' user's reach.
        ConflictError: another home uses it.
        OSError: it cannot be made.
    """
    user = server_user()
    kept = layout.read_kept()
    if kept is None:
        # Recorded before it is made: nothing is ever made that no home knows of.
        kept = Kept(secrets.token_urlsafe(24), secrets.token_urlsafe(24), _choose(layout, user))
        layout.write(layout.kept, kept)
    data = data_of(layout, kept)
    if data.parent == SYSTEM_ROOT:
        prepare_system_root()
    if not data.exists():
        if kept.initialised:
            raise TerminalError(
                f"the data of the embedded servers, {data}, is gone",
                hint=f"Bring it back, or remove {layout.control} to start with empty databases",
            )
        data.mkdir(mode=0o700)
        if user is not None:
            os.chown(data, user.uid, user.gid, follow_symlinks=False)
    owner = _owner(data, user)
    if not can_use(owner, (data, os.R_OK | os.W_OK | os.X_OK)):
        raise ResourceError(
            f"the servers' user {owner.name if owner else os.geteuid()} cannot use {data}",
            hint="Give it back its directory, or remove what closes the way to it",
        )
    lock = try_lock_directory(data)
    if lock is None:
        raise ConflictError(
            f"the data of the embedded servers, {data}, is in use by another home",
            hint=f"{layout.home} seems to be a copy: remove {layout.control} to give it servers of its own",
        )
    return Placement(data, owner, kept, lock)


def data_of(layout: Layout, kept: Kept) -> Path:
    """The data directory that `kept` names."""
    return Path(os.path.normpath(layout.control / kept.data))


def remove_data(layout: Layout) -> None:
    """Delete a home's data directory, if it has one.

    Raises:
        ConflictError: it may be another home's, of which this one is a copy.
        OSError: it cannot be deleted.
    """
    kept = layout.read_kept()
    data = data_of(layout, kept) if kept else None
    if data is None or not data.exists():
        return
    is_another = data.parent == SYSTEM_ROOT and not data.name.startswith(_name_of(layout))
    lock = None if is_another else try_lock_directory(data)
    if lock is None:
        raise ConflictError(
            f"{data} may be the data of another home, of which {layout.home} is a moved or copied one",
            hint="Remove it by hand if it is not",
        )
    try:
        # A server that took no signal when its supervisor died would work on in what is deleted.
        for directory, program in ((data / "postgres", "postgres"), (data / "valkey", "valkey-server")):
            if directory.exists():
                stop_strays(directory, program)
        shutil.rmtree(data)
    finally:
        os.close(lock)


def _name_of(layout: Layout) -> str:
    return hashlib.sha256(os.fsencode(layout.home)).hexdigest()[:16]


def _choose(layout: Layout, user: ServerUser | None) -> str:
    if user is None:
        chosen = "data"
    elif can_use(user, (layout.home, os.X_OK)):
        chosen = "../embedded-data"
    else:
        chosen = str(SYSTEM_ROOT / _name_of(layout))
        if os.path.lexists(chosen):
            # Of a home that was here before and was removed, or moved and still uses it: not ours to judge.
            chosen += f"-{secrets.token_hex(4)}"
        return chosen
    if (found := Path(os.path.normpath(layout.control / chosen))).exists():
        raise TerminalError(
            f"{found} has data of embedded servers, but their passwords, {layout.kept}, are gone",
            hint=f"Bring that file back, or remove {found} to start with empty databases",
        )
    return chosen


def _owner(data: Path, user: ServerUser | None) -> ServerUser | None:
    """The user to run as: who owns the data (a user jivs may have been created since), or we ourselves."""
    found = data.lstat()
    if not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077:
        raise ResourceError(f"{data} is not a directory closed to other users", hint="Make it one: chmod 700")
    if user is None or found.st_uid == user.uid:
        if user is None and found.st_uid != os.geteuid():
            raise ResourceError(f"{data} belongs to another user", hint="Use another JIVS_HOME")
        return user
    try:
        name = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        name = str(found.st_uid)
    if found.st_uid == 0:
        raise ResourceError(f"{data} belongs to root, as whom PostgreSQL does not run", hint="Give it back")
    return ServerUser(name, found.st_uid, found.st_gid)
