"""A step in a process of its own that is killed at a failpoint; what belongs here: nothing else."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable

from jivs_pipeline.infra.failpoints import arm


def killed(place: str, act: Callable[[], object]) -> None:
    """Do it in a process that dies at the place, which it must pass. It opens its own connections."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of ours are not used in the child
        pid = os.fork()
    if pid == 0:
        try:
            os.environ["JIVS_FAILPOINT"] = f"{place}:kill"  # a runtime arms by its environment
            arm(f"{place}:kill")
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, f"{place} was not passed"
