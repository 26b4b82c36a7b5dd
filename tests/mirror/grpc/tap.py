"""A tap in a TCP line: it passes the bytes on, and keeps them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.mirror.conftest import DEADLINE_S


class Tap:
    """Listens on a port of its own and relays each connection to another port."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        #: What each connection's caller and its server sent, by connection, in the order of their coming.
        self.sent: list[tuple[bytearray, bytearray]] = []
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                caller, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._to), timeout=DEADLINE_S)
                self._ends += [caller, server]
                there, back = bytearray(), bytearray()
                self.sent.append((there, back))
                for source, sink, kept in ((caller, server, there), (server, caller, back)):
                    source.settimeout(DEADLINE_S)
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._threads.append(threading.Thread(target=_pass_on, args=(source, sink, kept)))
                    self._threads[-1].start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)
        for end in self._ends:
            end.close()


def _pass_on(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            kept += data
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tap(port: int) -> Iterator[Tap]:
    """A tap in front of a port."""
    one = Tap(port)
    try:
        yield one
    finally:
        one.close()
