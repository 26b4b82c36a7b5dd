"""A real OTLP receiver: the OpenTelemetry Collector, built from `otel/` by Go. `python tests/services/otlp.py` runs it.

The collector receives and decodes what our exporter sends, and hands it on as OTLP JSON to a sink in this process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.services.process import Process, ServiceError, free_port, listening, require, wait_for_interrupt

CACHE = Path(__file__).parents[2] / ".cache" / "otel"
MODULE = Path(__file__).with_name("otel")
#: A batch leaves our exporter after 1 s; a shared machine may be slow.
SPANS_DEADLINE_S = 60.0

SETTINGS = """\
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{port}
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{sink}
    encoding: json
    compression: none
    sending_queue:
      enabled: false
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [otlp_http]
"""


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """A span as the collector read it. Ids are lower-case hex; `parent_id` is "" for a root."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, object]
    links: tuple[tuple[str, str], ...]
    resource: dict[str, object]


class OtlpReceiver:
    """One collector on 127.0.0.1. Use as a context manager."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="govern-otlp-"))
        self._sink = _Sink()
        settings = self.folder / "config.yaml"
        settings.write_text(SETTINGS.format(port=self.port, sink=self._sink.port))
        self._process = Process([str(collector()), "--config", str(settings)], log=self.folder / "collector.log")

    @property
    def endpoint(self) -> str:
        """Base URL for `tracer_provider(endpoint=...)`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._sink.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        self._process.start(lambda log: "Everything is ready" in log and listening(self.port))

    def stop(self) -> None:
        self._process.stop()

    def spans(self) -> list[ReceivedSpan]:
        """Every span received so far, in the order of arrival."""
        return [span for request in self._sink.requests() for span in _spans(request)]

    def wait_for(
        self, enough: Callable[[list[ReceivedSpan]], bool], *, deadline_s: float = SPANS_DEADLINE_S
    ) -> list[ReceivedSpan]:
        """The spans as soon as they are `enough`."""
        deadline = time.monotonic() + deadline_s
        while not enough(spans := self.spans()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {deadline_s:.0f} s the collector has {len(spans)} spans: {spans[:20]}")
            time.sleep(0.05)
        return spans


def collector() -> Path:
    """The collector's program; built once (about a minute on two cores), and again when its Go module changes."""
    sources = sorted(MODULE.iterdir())
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    program = CACHE / f"otelcol-{digest}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            building = CACHE / "building"
            go = require("go", package="golang-go", folders=["/usr/local/go/bin"])
            flags = ["-trimpath", "-ldflags=-s -w", "-o", str(building), "."]
            command = [go, "build", "-C", str(MODULE), *flags]
            # Not inside the checkout's version control, which a container may not be allowed to read.
            environment = {**os.environ, "GOFLAGS": "-buildvcs=false -mod=readonly"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise ServiceError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
            building.rename(program)
    return program


class _Sink:
    """Takes the collector's `POST /v1/traces` with JSON bodies."""

    def __init__(self) -> None:
        self._requests: list[dict[str, Any]] = []
        received = self._requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:
                """The collector's log is enough."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def requests(self) -> list[dict[str, Any]]:
        return self._requests[:]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _spans(request: dict[str, Any]) -> list[ReceivedSpan]:
    return [
        ReceivedSpan(
            name=span["name"],
            trace_id=span["traceId"],
            span_id=span["spanId"],
            parent_id=span.get("parentSpanId", ""),
            attributes=_attributes(span),
            links=tuple((link["traceId"], link["spanId"]) for link in span.get("links", [])),
            resource=_attributes(group["resource"]),
        )
        for group in request["resourceSpans"]
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]


def _attributes(owner: dict[str, Any]) -> dict[str, object]:
    return {pair["key"]: _value(pair["value"]) for pair in owner.get("attributes", [])}


def _value(value: dict[str, Any]) -> object:
    ((kind, held),) = value.items()
    match kind:
        case "intValue":
            return int(held)
        case "arrayValue":
            return [_value(item) for item in held.get("values", [])]
        case _:
            return held


def main() -> None:
    with OtlpReceiver(4318) as receiver:
        print(f"{receiver.endpoint} (Ctrl-C ends it and prints the spans)", flush=True)
        wait_for_interrupt()
        for span in receiver.spans():
            print(span)


if __name__ == "__main__":
    main()
