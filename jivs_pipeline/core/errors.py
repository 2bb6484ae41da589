"""The one error tree. What belongs here: errors that a user can see. What does not: driver errors,
which are mapped to these at the boundary (`infra/*_errors.py`), with `__cause__` kept.

An error is one sentence (what is wrong, where) and a hint (what to do); `code` is its stable name in
`{"error": {"code", "message", "hint"}}` and `exit_code` the number of CONTRACT.md. `transient` says
whether trying the same thing again can help; the policy that acts on it lives with the retries.
"""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import ClassVar, Self

__all__ = [
    "BreakerOpen",
    "CancelledRun",
    "ConfigError",
    "ConflictError",
    "ConnectionFailed",
    "Crowded",
    "DataError",
    "ExitCode",
    "FencedError",
    "InterruptedRun",
    "JivsError",
    "MismatchError",
    "NoSlot",
    "NotReady",
    "PausedRun",
    "RefusedError",
    "ResourceError",
    "SnapshotLost",
    "SpecError",
    "TerminalError",
    "TransientError",
]


class ExitCode(IntEnum):
    """Exit codes of the `jivs` command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CONFLICT = 3
    MISMATCH = 4
    INTERRUPTED = 130


class JivsError(Exception):
    """Root of the tree.

    Args:
        message: one sentence without a final stop: what is wrong and where. Never a URL or a row value.
        hint: what the user can do about it, or empty.
        table: the target or source table concerned, if one is.
        column: the column concerned, if one is.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    transient: ClassVar[bool] = False

    def __init__(
        self, message: str, *, hint: str = "", table: str | None = None, column: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.table = table
        self.column = column

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def document(self) -> dict[str, dict[str, str]]:
        """The error document of the contract."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


class TerminalError(JivsError):
    """Trying again without a change by a person cannot help."""

    code = "failed"


class TransientError(JivsError):
    """A fault of the moment: a cut connection, a deadlock, a server that restarts."""

    code = "transient"
    transient = True
    until: datetime | None = None
    """Where trying it again before some time is in vain: that time."""


class NotReady(TransientError):
    """A server that is starting, or was there and cannot be reached now: it is waited for, which is no attempt at work."""

    code = "not_ready"
    patience_seconds: float | None = None
    """How long it is waited for; None for as long as the run waits for any server."""


class Crowded(NotReady):
    """As many connections are open as may be; the next is opened when one of them is closed."""

    code = "crowded"

    def __init__(self, message: str, *, hint: str = "", patience_seconds: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.patience_seconds = patience_seconds


class BreakerOpen(TransientError):
    """The endpoint has failed too often of late and is left alone for now: another run may help, another attempt not."""

    code = "breaker"

    def __init__(self, message: str, *, hint: str = "", until: datetime | None = None) -> None:
        super().__init__(message, hint=hint)
        self.until = until
        """When it is tried again."""


class SnapshotLost(TransientError):
    """The view that rows were read from is gone: the same chunk can only be read as part of a new extraction."""

    code = "snapshot"


class ConfigError(TerminalError):
    """Bad usage, setting or connection; nothing was touched."""

    code = "usage"
    exit_code = ExitCode.USAGE


class SpecError(ConfigError):
    """The migration spec is wrong."""

    code = "spec"


class ConnectionFailed(ConfigError):
    """A source or target did not let us in before anything was touched (wrong password, down, missing file)."""

    code = "connection"
    outage = False
    """Whether nobody answered, or not in time; the name, the password and the database may well be right then."""

    @classmethod
    def unanswered(cls, message: str, *, hint: str) -> Self:
        """The endpoint may be down: a failure to its circuit breaker."""
        error = cls(message, hint=hint)
        error.outage = True
        return error


class ConflictError(JivsError):
    """Another run holds this migration, or its state does not allow the change."""

    code = "conflict"
    exit_code = ExitCode.CONFLICT
    held = False
    """Whether it is a holder that is in the way, who may go, and not a state."""

    @classmethod
    def held_by(cls, key: str, pid: int, host: str, since: str, run_id: str) -> Self:
        """Somebody holds the migration: who, since when, and what to do."""
        error = cls(
            f"Migration {key!r} is held by process {pid} on {host} since {since} (run {run_id})",
            hint=f"Wait for it, or stop it with: jivs pause {key}",
        )
        error.held = True
        return error


class NoSlot(ConflictError):
    """As many migrations run as may run at once: another one may begin when one of them ends."""

    code = "slots"
    transient = True
    held = True

    def __init__(self, limit: int, until: datetime) -> None:
        super().__init__(
            f"{limit} migrations run, which is the limit of all together",
            hint="Wait until one has ended, or queue it: jivs submit",
        )
        self.until = until
        """When it is worth another look."""


class FencedError(ConflictError):
    """This run was overtaken: a newer epoch owns the target. It has written nothing since."""

    code = "fenced"


class RefusedError(TerminalError):
    """Something cannot be carried exactly and was refused."""

    code = "refused"


class DataError(TerminalError):
    """A value or row that the target or a rule does not accept."""

    code = "data"


class ResourceError(TerminalError):
    """The machine ran out of something a person can provide: disk space, memory, permissions."""

    code = "resource"


class MismatchError(TerminalError):
    """Finished, but verification or validation found a difference."""

    code = "mismatch"
    exit_code = ExitCode.MISMATCH


class CancelledRun(JivsError):
    """The run was cancelled: what it loaded stays until it is resumed or rolled back, what it staged is gone."""

    code = "cancelled"
    exit_code = ExitCode.INTERRUPTED


class PausedRun(JivsError):
    """The run stopped at a chunk boundary because it was asked to pause; it can be resumed."""

    code = "paused"
    exit_code = ExitCode.INTERRUPTED


class InterruptedRun(JivsError):
    """The run was interrupted; it can be resumed."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED
