"""Hands the small handle of a migration from op to op as a JSON file; never data, never pickle.

Files are named by Dagster's own identifier of an output: names made of step key and output name gave
silent corruption when two runs shared them.
"""

import json
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg

__all__ = ["HandleIOManager", "handles_directory", "remove_old_handles"]


def handles_directory(root: Path) -> Path:
    """Where handles are kept in an instance's directory."""
    return root / "handles"


def remove_old_handles(root: Path, before: datetime) -> int:
    """Remove handles that were written before; one that is missing is no loss. Returns how many."""
    removed = 0
    for path in handles_directory(root).glob("*"):
        with suppress(FileNotFoundError):  # somebody else is at it
            if path.stat().st_mtime < before.timestamp():
                path.unlink()
                removed += 1
    return removed


class HandleIOManager(dg.IOManager):
    """Stores JSON objects below `root`.

    Args:
        root: directory, made when missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, context: dg.OutputContext) -> Path:
        identifier = "/".join(context.get_identifier())
        return self._root / f"{sha256(identifier.encode()).hexdigest()}.json"

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the handle, atomically."""
        path = self._path(context)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(obj))
        temporary.replace(path)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the handle of the op before, of this run or of the run that is re-executed.

        Empty where that op has left none: a run may begin at any op, and finds in the databases what is missing.
        """
        if context.upstream_output is None:
            raise dg.DagsterInvariantViolationError("a handle comes from an op")
        try:
            return json.loads(self._path(context.upstream_output).read_text())
        except (dg.DagsterInvariantViolationError, FileNotFoundError):
            # Dagster knows of no run that has executed that op.
            return {}
