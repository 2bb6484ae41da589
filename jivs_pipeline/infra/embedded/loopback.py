"""The loopback interface, which a new network namespace (`unshare -n`) has, but switched off.

What belongs here: seeing that, and switching it on where we may. What does not: any other interface.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys

from jivs_pipeline.core.errors import ResourceError

__all__ = ["ensure_loopback"]

_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1
_REQUEST = "16sh14x"


def ensure_loopback() -> None:
    """Make 127.0.0.1 reachable.

    Raises:
        ResourceError: the interface is down and we may not switch it on.
    """
    if not sys.platform.startswith("linux"):
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            answer = fcntl.ioctl(handle, _SIOCGIFFLAGS, struct.pack(_REQUEST, b"lo", 0))
        except OSError:
            return  # no interface called lo: somebody else's arrangement, which connecting will judge
        flags = struct.unpack(_REQUEST, answer)[1]
        if flags & _IFF_UP:
            return
        try:
            fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack(_REQUEST, b"lo", flags | _IFF_UP))
        except OSError as error:
            raise ResourceError(
                "The loopback interface is down, so the embedded servers could not be reached",
                hint="Switch it on: ip link set lo up",
            ) from error
