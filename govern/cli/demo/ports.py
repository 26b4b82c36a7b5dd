"""Free ports of this machine."""

from __future__ import annotations

import random
import socket
from typing import Final

from govern.errors import Unavailable

#: Below Linux's ephemeral range (32768 up): a port there may be taken at any moment as the source of a connection.
RANGE: Final = range(20_000, 32_000)
_TRIES: Final = 200


def free_ports(count: int) -> list[int]:
    """So many TCP ports of 127.0.0.1 that nobody listens on now.

    Raises:
        Unavailable: none is found.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(RANGE, _TRIES):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Unavailable(
        f"only {len(found)} of {count} ports are free",
        why=f"{_TRIES} ports of {RANGE.start}-{RANGE.stop} on 127.0.0.1 were tried",
        fix="end programs that listen there",
    )
