"""The servers of the benchmark, each pinned: model servers, proxies, one shipper, a broker.

What is measured has a core of its own; the model servers behind a proxy, the load generator, the shipper and the broker
share the other one. The broker would be on another machine: it runs in the scheduler's class `idle`, and last of all
sessions, so that it takes only what the others leave. The shipper would be a container of its own with a tenth of the
model server's CPU request: its session weighs as little. All capture goes into one spool.

Where other people's programs take turns with the servers, latencies are theirs as well. `chrt --rr 1` before the
command puts all but the broker and the shipper into the scheduler's real-time class, ahead of whatever else runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from govern.mirror.agent import Counts
from govern.mirror.folder import default_spool_dir
from govern.mirror.inspect import inspect_agents
from tests.services.kafka import Kafka
from tests.services.process import Process, free_port, listening, require

MEASURED_CORE: Final = "1"
OTHER_CORE: Final = "0"
TREE: Final = Path(__file__).parents[3]

#: 19 is the least that a session can weigh, some 1.5 % of an ordinary one; 10 is a tenth.
BROKER_NICE: Final = 19
SHIPPER_NICE: Final = 10

#: What one agent may keep in memory: half of the default, so that the runs without Kafka reach it sooner.
SPOOL_BYTES: Final = 64 * 1024 * 1024
#: What lies on disk while Kafka is away: little of an hour's traffic, so that its end is seen, too.
DISK_BYTES: Final = 256 * 1024 * 1024
#: The shipper backs off while Kafka is away, and then has full spools to carry, on a core that it shares.
SHIPPED_DEADLINE_S: Final = 300.0

#: The inner server answers what was read whole: nginx would answer a body of 100 KB before it has come, and wrk cannot
#: bear that.
NGINX: Final = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 1m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; default_type application/json;
  upstream inner {{ server 127.0.0.1:{inner}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{inner} backlog=1024;
    location / {{ return 200 '{answer}'; }}
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ return 200 '{answer}'; }}
    location /v2/models/large/ {{
      proxy_pass http://inner; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_pass_request_body off; proxy_set_header Content-Length "";
    }}
  }}
}}
"""
#: A hop without capture, to be compared with the proxy.
HOP: Final = """
worker_processes 1; daemon off; pid {folder}/hop.pid; error_log {folder}/hop-error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
ANSWER: Final = '{"outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.5]}]}'


class Server(NamedTuple):
    port: int
    process: Process


class Setting(NamedTuple):
    """All servers at work. `streaming` is the application behind `streaming_proxy`; `app` and `middleware` are the
    same application without and with capture."""

    nginx: Server
    hop: Server
    proxy: Server
    streaming: Server
    streaming_proxy: Server
    app: Server
    middleware: Server
    shipper: Server
    spool: Path
    kafka: Kafka | None

    def counts(self) -> Counts:
        """What all agents have counted so far."""
        return sum((agent.counts for agent in inspect_agents(self.spool)), Counts())

    def wait_until_shipped(self) -> None:
        """Return when all that was captured so far is on the bus."""
        deadline = time.monotonic() + SHIPPED_DEADLINE_S
        captured = self.counts().captured
        while (n_shipped := shipped(self.shipper.port)) < captured:
            if time.monotonic() > deadline:
                late = f"{SHIPPED_DEADLINE_S:.0f} s"
                raise SystemExit(
                    f"only {n_shipped:,.0f} of {captured:,} captured inferences are on the bus after {late}"
                )
            time.sleep(0.2)


@contextlib.contextmanager
def setting(*, embedded: bool) -> Iterator[Setting]:
    """Start everything; with `embedded`, the bus is a file."""
    for program, package in (("wrk", "wrk"), ("nginx", "nginx-light"), ("taskset", "util-linux")):
        require(program, package=package, folders=["/usr/sbin"])
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="govern-bench-")))
        memory = Path(tempfile.mkdtemp(prefix="govern-bench-", dir=default_spool_dir().parent))
        stack.callback(shutil.rmtree, memory)
        os.sched_setaffinity(0, {int(OTHER_CORE)})  # the broker inherits it
        with yielding():
            kafka = None if embedded else stack.enter_context(Kafka())
        if kafka is not None:
            gives_way(kafka.pid, BROKER_NICE)
        start = Starter(stack, folder, memory / "spool", f"embedded://{folder}/bus.db" if kafka is None else kafka.url)
        with yielding(os.SCHED_OTHER):
            shipper = start.shipper()
        gives_way(shipper.process.pid, SHIPPER_NICE)
        nginx, streaming = start.nginx(), start.app(OTHER_CORE, "bare")
        yield Setting(
            nginx=nginx,
            hop=start.hop(nginx.port),
            proxy=start.proxy(nginx.port),
            streaming=streaming,
            streaming_proxy=start.proxy(streaming.port),
            app=start.app(MEASURED_CORE, "bare"),
            middleware=start.app(MEASURED_CORE, "captured"),
            shipper=shipper,
            spool=memory / "spool",
            kafka=kafka,
        )


def gives_way(pid: int, nice: int) -> None:
    """Linux shares a processor between sessions first, and by class and niceness only within one (sched_autogroup in
    sched(7)); where it does not, this changes nothing."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


@contextlib.contextmanager
def yielding(policy: int = os.SCHED_IDLE) -> Iterator[None]:
    """What is started within takes only what all others leave."""
    usual, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, policy, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, usual, parameters)


class Starter:
    """Starts servers that share one configuration, and stops them with the stack."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, spool: Path, bus: str) -> None:
        self._stack = stack
        self._folder = folder
        self._environment = (
            f"PYTHONPATH={TREE}",
            # One model predicts on one core: threads that wait for each other would only spin.
            "OMP_NUM_THREADS=1",
            f"GOVERN_BUS={bus}",
            f"GOVERN_MIRROR_SPOOL_DIR={spool}",
            f"GOVERN_MIRROR_SPOOL_BYTES={SPOOL_BYTES}",
            f"GOVERN_MIRROR_DISK_DIR={folder}/disk",
            f"GOVERN_MIRROR_DISK_BYTES={DISK_BYTES}",
        )

    def nginx(self) -> Server:
        port, inner = free_port(), free_port()
        settings = NGINX.format(folder=self._folder, port=port, inner=inner, answer=ANSWER)
        return self._nginx(OTHER_CORE, port, settings)

    def hop(self, upstream: int) -> Server:
        port = free_port()
        return self._nginx(MEASURED_CORE, port, HOP.format(folder=self._folder, port=port, upstream=upstream))

    def app(self, core: str, factory: str) -> Server:
        port = free_port()
        serve = ["uvicorn", "--factory", f"tests.bench.capturing.app:{factory}", "--port", str(port)]
        return self._python(core, port, [*serve, "--no-access-log", "--log-level", "warning"])

    def proxy(self, upstream: int) -> Server:
        port = free_port()
        listen = ["--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{upstream}"]
        return self._python(MEASURED_CORE, port, ["govern.cli.main", "mirror", "proxy", *listen])

    def shipper(self) -> Server:
        port = free_port()
        listen = ["--metrics-listen", f"127.0.0.1:{port}"]
        return self._python(OTHER_CORE, port, ["govern.cli.main", "mirror", "ship", *listen])

    def _nginx(self, core: str, port: int, settings: str) -> Server:
        path = self._folder / f"nginx-{port}.conf"
        path.write_text(settings)
        return self._start(
            core, port, [require("nginx", package="nginx-light", folders=["/usr/sbin"]), "-c", str(path)]
        )

    def _python(self, core: str, port: int, module: Sequence[str]) -> Server:
        return self._start(core, port, ["env", *self._environment, sys.executable, "-m", *module])

    def _start(self, core: str, port: int, command: Sequence[str]) -> Server:
        process = Process(["taskset", "-c", core, *command], log=self._folder / f"{port}.log")
        process.start(lambda _: listening(port))
        self._stack.callback(process.stop)
        return Server(port, process)


def shipped(metrics_port: int) -> float:
    """How many inferences the shipper says are on the bus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("govern_capture_shipped_total{"))
