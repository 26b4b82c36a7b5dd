"""Calls a server at a rate of its own, whatever the server does: an open loop, unlike wrk's.

    python tests/bench/capturing/paced.py PORT PATH RATE SECONDS < BODIES

Each line is the body of a request; they are asked in turn. Requests are due at random times (a Poisson process of which
the number is given: callers do not agree with each other), and a request's latency counts from the moment that it was
due, so that a server that stalls is charged for every request that it kept waiting, also for those that could not be
sent meanwhile. Each has a connection to itself as long as it lasts; a new one is made when none is free. Standard
library only, one thread, no event loop: timers of milliseconds would be too coarse.
"""

from __future__ import annotations

import itertools
import json
import random
import select
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Final

#: The same arrivals in every run, so that what is compared is asked alike.
SEED: Final = 4
#: Connections that are open from the beginning: at 500 requests/s one is busy for a fraction of a millisecond.
N_CONNECTIONS: Final = 16
#: A request without an answer for so long is an error.
GIVE_UP_S: Final = 10.0
READ_BYTES: Final = 1 << 18


class Caller:
    """One connection, used for one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._answer = b""

    def ask(self, request: bytes, due: float) -> None:
        self.due = due
        self._answer = b""
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Read what is there; whether the response is whole.

        Raises:
            ConnectionError: it never will be, or it is none of status 200.
        """
        data = self.socket.recv(READ_BYTES)
        self._answer += data
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        if not data or (blank and not head.startswith(b"HTTP/1.1 200 ")):
            raise ConnectionError
        if not blank:
            return False
        head = head.lower()
        if b"\r\ntransfer-encoding: chunked" in head:
            return body.endswith(b"0\r\n\r\n")
        return len(body) >= int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])


def call(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> tuple[Counter[int], int]:
    """The number of requests by latency in microseconds, and how many failed."""
    rng = random.Random(SEED)
    asked = itertools.cycle(requests)
    free = [Caller(port) for _ in range(N_CONNECTIONS)]
    busy: dict[socket.socket, Caller] = {}
    took_us: Counter[int] = Counter()
    n_errors = 0
    began = time.perf_counter()
    arrivals = deque(sorted(began + rng.uniform(0, seconds) for _ in range(round(rate * seconds))))
    while arrivals or busy:
        now = time.perf_counter()
        if now > began + seconds + GIVE_UP_S:
            return took_us, n_errors + len(busy) + len(arrivals)
        while arrivals and arrivals[0] <= now:
            caller = free.pop() if free else Caller(port)
            caller.ask(next(asked), arrivals.popleft())
            busy[caller.socket] = caller
        wait_s = max(0.0, arrivals[0] - time.perf_counter()) if arrivals else GIVE_UP_S
        readable, _, _ = select.select(busy, [], [], wait_s)
        for each in readable:
            caller = busy[each]
            try:
                if not caller.answered():
                    continue
                took_us[round((time.perf_counter() - caller.due) * 1e6)] += 1
                free.append(caller)
            except ConnectionError:
                n_errors += 1
                caller.socket.close()
            del busy[each]
    return took_us, n_errors


def main() -> None:
    port, path, rate, seconds = sys.argv[1:]
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    bodies = sys.stdin.buffer.read().splitlines()
    requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    began = time.perf_counter()
    took_us, n_errors = call(int(port), requests, float(rate), float(seconds))
    taken_s = time.perf_counter() - began
    told = {"us": taken_s * 1e6, "requests": took_us.total(), "errors": n_errors, "latency": sorted(took_us.items())}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
