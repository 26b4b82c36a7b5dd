"""The small HTTP server that every process of govern runs for Prometheus and for its probes.

`GET /metrics` answers the text format, or OpenMetrics 1.0 with exemplars to a scraper that asks for it;
`GET /healthz` answers 200 "ok", or 503 and the reason.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from govern.errors import Unavailable

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: A peer that sends nothing for this long loses its thread.
_PEER_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class MetricsServer:
    """Where the server listens; `port` is the one chosen when 0 was asked for."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def _well() -> str | None:
    return None


@contextmanager
def serve_metrics(
    registry: CollectorRegistry, host: str = "127.0.0.1", port: int = 0, *, unwell: Callable[[], str | None] = _well
) -> Iterator[MetricsServer]:
    """Serve `registry` from threads of their own until the block ends.

    Args:
        host: the address to listen on; a pod that Prometheus scrapes wants "0.0.0.0".
        port: 0 takes a free one.
        unwell: called for each probe, on the server's thread: None, or the reason why the process is not healthy.

    Raises:
        Unavailable: the address cannot be listened on.
    """
    server = _listen(host, port, _application(registry, unwell))
    thread = threading.Thread(target=server.serve_forever, name="govern-metrics", daemon=True)
    thread.start()
    try:
        yield MetricsServer(host, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listen(host: str, port: int, application: WSGIApplication) -> WSGIServer:
    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True  # a scraper that hangs must not keep the process
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return make_server(host, port, application, Server, _Handler)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise Unavailable(
            f"metrics port {port} on {host} cannot be used",
            why="another process listens on it" if taken else str(error),
            fix="stop that process or choose another port with --metrics-port"
            if taken
            else "choose an address of this machine and a port that this user may open",
        ) from error


def _application(registry: CollectorRegistry, unwell: Callable[[], str | None]) -> WSGIApplication:
    metrics = make_wsgi_app(registry)

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        reason = unwell() if path == "/healthz" else f"no {path} here; try /metrics or /healthz"
        status = "200 OK" if reason is None else "503 Service Unavailable" if path == "/healthz" else "404 Not Found"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{reason or 'ok'}\n".encode()]

    return application


class _Handler(WSGIRequestHandler):
    timeout = _PEER_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""
