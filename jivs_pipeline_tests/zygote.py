"""A process that has imported what its children need, and forks one for each request.

What belongs here: forking, signals, exit codes. What does not: what a child does (`warm.py`, `faults/zygote.py`), or the
other end of the socket (`fix_zygote.py`).

The zygote has one thread and nothing open, so that its children are as good as new processes; they die with it, and it
ends when its socket does. Requests and answers are lines of JSON on the inherited socket: `{"child": {…}}` answers
`{"pid": …}`, `{"pid": …, "signal": …}` answers nothing, and a child's end is told by `{"pid": …, "code": …}`. Signals go
through the zygote because only the parent knows that a pid has not been given away.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

_PR_SET_PDEATHSIG = 1


def serve() -> dict[str, Any]:
    """Answer requests until the other side is gone. Returns in each child, with its request.

    A request has the files `out` and `err` for what the child prints, and its `environment`.
    """
    requests = socket.socket(fileno=int(sys.argv[1]))
    gc.collect()
    gc.freeze()
    wakes, waker = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(waker, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    children: set[int] = set()
    waiting = b""
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    selector.register(wakes, selectors.EVENT_READ)
    while True:
        selector.select()
        with suppress(BlockingIOError):
            os.read(wakes, 4096)
        for pid in list(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                children.discard(pid)
                _answer(requests, {"pid": pid, "code": os.waitstatus_to_exitcode(status)})
        try:
            received = requests.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        if not received:
            os._exit(0)
        *lines, waiting = (waiting + received).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "signal" in request:
                if request["pid"] in children:
                    os.kill(request["pid"], request["signal"])
                continue
            zygote = os.getpid()
            if not (pid := os.fork()):
                selector.close()
                requests.close()
                for end in (wakes, waker):
                    os.close(end)
                _be_a_process(request["child"], zygote)
                return request["child"]
            children.add(pid)
            _answer(requests, {"pid": pid})


def _answer(requests: socket.socket, answer: dict[str, int]) -> None:
    requests.sendall(json.dumps(answer).encode() + b"\n")


def _be_a_process(request: dict[str, Any], zygote: int) -> None:
    """Leave nothing of the zygote's in a child but what it has imported."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != zygote:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
