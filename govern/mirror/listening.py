"""Addresses of the ways in, and listening on them."""

from __future__ import annotations

import errno
import socket
from typing import Final

from govern.errors import Unavailable

#: Connections that may wait to be accepted: a burst of clients after a restart.
BACKLOG: Final = 2048


def split_address(value: str) -> tuple[str, int]:
    """host and port of `host:port` or `[v6]:port`."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("give host:port, the port being 0 to 65535")
    return host.strip("[]"), int(port)


def listen_on(address: str) -> socket.socket:
    """A socket that listens.

    Raises:
        Unavailable: the address cannot be listened on.
    """
    host, port = split_address(address)
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
        )
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise Unavailable(
            f"cannot listen on {address}",
            why="another process listens on that port" if taken else str(error),
            fix="stop that process, or choose another port with --listen (port 0 takes a free one)"
            if taken
            else "choose an address of this machine, and a port that this user may open, with --listen",
        ) from error
