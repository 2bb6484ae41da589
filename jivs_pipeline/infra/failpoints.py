"""Named places where a test makes this process die, fail or wait. Free of cost when unset.

`JIVS_FAILPOINT=name:kill`, `name:error` or `name:sleep=5`; several with commas. A name may carry a
count, `name@3:kill`: the third time the place is passed.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter

from jivs_pipeline.core.errors import ConfigError, TransientError

__all__ = ["arm", "failpoint"]

_ACTION = re.compile(r"kill|error|sleep=\d+(\.\d+)?")

_armed: dict[tuple[str, int], str] = {}
_passed: Counter[str] = Counter()


def arm(text: str | None) -> None:
    """Set the failpoints of this process from the variable's text."""
    _armed.clear()
    _passed.clear()
    for part in filter(None, (text or "").split(",")):
        place, separator, action = part.partition(":")
        name, _, count = place.partition("@")
        if not separator or _ACTION.fullmatch(action) is None or not (count or "1").isdecimal():
            _armed.clear()
            raise ConfigError(
                f"JIVS_FAILPOINT {part!r} is not name:kill, name:error or name:sleep=SECONDS", hint="Unset it"
            )
        _armed[name, int(count or 1)] = action


def failpoint(name: str) -> None:
    """Pass the place called `name`."""
    if not _armed:
        return
    _passed[name] += 1
    action, _, argument = _armed.get((name, _passed[name]), "").partition("=")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "error":
        raise TransientError(f"Failpoint {name}")
    elif action == "sleep":
        time.sleep(float(argument))
