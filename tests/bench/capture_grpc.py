"""What capture of gRPC costs: nginx answers V2 calls, asked directly and through the proxy with capture on.

    python -m tests.bench.capture_grpc [--seconds 3] [--repeats 4] [--only WORD] [--markdown]

The proxy has a core of its own; nginx and h2load, both in C so that they do not dominate, share the other one. Direct
and proxied take turns: at 100 calls a second, one at a time, since h2load's clock ticks every 10 ms and more would come
in bunches; and at saturation, over few connections with many calls at a time and over one. What is measured is the
relay and the recording: there is no shipper, and once the spool is full records are dropped and counted, so it is large
enough for all calls. A table is printed and no time is asserted: the machine may be shared.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from govern.codecs.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from govern.mirror.folder import default_spool_dir
from govern.mirror.inspect import inspect_agents
from tests.bench.capturing.load import cpu_s, status_bytes
from tests.bench.capturing.setting import MEASURED_CORE, OTHER_CORE
from tests.bench.capturing.table import Table, circumstances, told
from tests.services.process import Process, free_port, listening, require

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
#: About 1 KB on the wire.
VALUES: Final = 128
SHARES: Final = (0.5, 0.99, 0.999)
#: Room for all that some tens of seconds of calls leave behind.
SPOOL_BYTES: Final = 2 * 1024 * 1024 * 1024
CPU_MS: Final = 150.0

#: nginx answers a call with a file and trailers; the inner server takes GET only.
NGINX: Final = """
user root; worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 1m; default_type application/grpc;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream inner {{ server 127.0.0.1:{inner}; keepalive 64; }}
  server {{ listen 127.0.0.1:{inner}; root {folder}; }}
  server {{
    listen 127.0.0.1:{port} http2; add_trailer grpc-status 0;
    location / {{
      rewrite .* /answer break; proxy_method GET; proxy_pass http://inner; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_pass_request_body off; proxy_set_header Content-Length "";
    }}
  }}
}}
"""


class Shape(NamedTuple):
    name: str
    connections: int
    #: Calls at a time on each connection.
    concurrent: int
    #: Calls a second; without one, all that the server can do.
    rate: int | None = None


SHAPES: Final = (
    Shape("100/s", 1, 1, rate=100),
    Shape("saturated, 8 x 4", 8, 4),
    Shape("saturated, 1 x 16", 1, 16),
)


class Run(NamedTuple):
    per_s: float
    #: Of all calls, sorted.
    took_us: list[int]
    #: Of the proxy.
    cpu_s: float


class Setting(NamedTuple):
    direct: int
    proxied: int
    proxy: Process
    folder: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3, help="length of each turn")
    parser.add_argument("--repeats", type=int, default=4, help="turns that each of a pair takes")
    parser.add_argument("--only", default="", metavar="WORD", help="as '100/s' or 'saturated'")
    parser.add_argument("--markdown", action="store_true", help="as docs/capture/performance.md has it")
    options = parser.parse_args()
    circumstances("tests.bench.capture_grpc", h2load="--version", nginx="-v")
    with setting() as at:
        table = Table("", *COLUMNS, markdown=options.markdown)
        shapes = [shape for shape in SHAPES if options.only in shape.name]
        lines = [line for shape in shapes for line in measured(at, table, shape, options.seconds, options.repeats)]
        peak_mb = status_bytes(at.proxy.pid, "VmHWM") / 2**20
        (agent,) = inspect_agents(at.folder / "spool")
    lines.append(f"peak memory of the proxy {peak_mb:.1f} MB")
    lines.append(f"seen {agent.counts.seen:,} = captured {agent.counts.captured:,} + dropped {agent.counts.dropped:,}")
    told(iter(lines), markdown=options.markdown)


@contextlib.contextmanager
def setting() -> Iterator[Setting]:
    """nginx and the proxy, pinned."""
    for program, package in (("h2load", "nghttp2-client"), ("taskset", "util-linux")):
        require(program, package=package)
    nginx = require("nginx", package="nginx-light", folders=["/usr/sbin"])
    folder = Path(tempfile.mkdtemp(prefix="govern-bench-", dir=default_spool_dir().parent))
    direct, inner, proxied = free_port(), free_port(), free_port()
    request = ModelInferRequest(model_name="income")
    request.inputs.add(name="x", datatype="FP64", shape=[1, VALUES]).contents.fp64_contents.extend(range(VALUES))
    answer = ModelInferResponse(model_name="income")
    answer.outputs.add(name="y", datatype="FP64", shape=[1, 1]).contents.fp64_contents.append(0.5)
    (folder / "request").write_bytes(framed(request.SerializeToString()))
    (folder / "answer").write_bytes(framed(answer.SerializeToString()))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=direct, inner=inner))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)

        def start(core: str, port: int, *command: str) -> Process:
            process = Process(["taskset", "-c", core, *command], log=folder / f"{port}.log")
            process.start(lambda _: listening(port))
            stack.callback(process.stop)
            return process

        start(OTHER_CORE, direct, nginx, "-c", str(folder / "nginx.conf"))
        proxy = start(
            MEASURED_CORE,
            proxied,
            *("env", f"PYTHONPATH={Path(__file__).parents[2]}", f"GOVERN_MIRROR_SPOOL_BYTES={SPOOL_BYTES}"),
            *(sys.executable, "-m", "govern.cli.main", "mirror", "grpc", "--listen", f"127.0.0.1:{proxied}"),
            *("--upstream", f"http://127.0.0.1:{direct}", "--spool-dir", str(folder / "spool")),
        )
        yield Setting(direct, proxied, proxy, folder)


def framed(message: bytes) -> bytes:
    """A message behind its prefix, as it is on the wire."""
    return b"\0" + len(message).to_bytes(4, "big") + message


COLUMNS: Final = ("calls/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU ms/1000")


def measured(at: Setting, table: Table, shape: Shape, seconds: int, repeats: int) -> Iterator[str]:
    """Print the rows of a shape, direct and proxied; what follows from them."""
    turns = [tuple(load(at, port, shape, seconds) for port in (at.direct, at.proxied)) for _ in range(repeats)]
    direct, proxied = zip(*turns, strict=True)
    cpu_ms = 1e6 * sum(each.cpu_s for each in proxied) / sum(len(each.took_us) for each in proxied)
    for way, runs, cpu in (("direct", direct, ""), ("proxied", proxied, f"{cpu_ms:.0f}")):
        per_s = statistics.median(each.per_s for each in runs)
        latencies = (f"{quantile_ms(runs, share):.3f}" for share in SHARES)
        table.row(f"{way} {shape.name}", f"{per_s:,.0f}", *latencies, cpu)
    if shape.rate:
        p50, p99, p999 = (quantile_ms(proxied, share) - quantile_ms(direct, share) for share in SHARES)
        yield f"{shape.name}: added p50 {p50:+.3f} ms, p99 {p99:+.3f} ms, p99.9 {p999:+.3f} ms"
        return
    ratios = [mine.per_s / other.per_s for mine, other in zip(proxied, direct, strict=True)]
    spread = f"turns {min(ratios):.1%} to {max(ratios):.1%}"
    met = "yes" if cpu_ms <= CPU_MS else "no"
    yield f"{shape.name}: throughput kept {statistics.median(ratios):.1%} of direct, {spread}"
    yield f"{shape.name}: CPU of the proxy per 1,000 calls {cpu_ms:.0f} ms (<= {CPU_MS:.0f} ms: {met})"


def quantile_ms(runs: Sequence[Run], share: float) -> float:
    """Of the latencies of all runs together."""
    took_us = sorted(each for run in runs for each in run.took_us)
    return took_us[min(int(share * len(took_us)), len(took_us) - 1)] / 1000


def load(at: Setting, port: int, shape: Shape, seconds: int) -> Run:
    before = cpu_s(at.proxy.pid)
    calls = at.folder / "calls"
    calls.unlink(missing_ok=True)  # h2load would append
    ran = subprocess.run(
        [
            *("taskset", "-c", OTHER_CORE, "h2load", "-D", str(seconds)),
            *(f"-c{shape.connections}", f"-m{shape.concurrent}", f"--log-file={calls}"),
            *([f"--rps={shape.rate}"] if shape.rate else []),
            *("-d", str(at.folder / "request"), "-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://127.0.0.1:{port}{METHOD}",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", ran)
    if found is None or int(found[1]) == 0 or int(found[2]) or int(found[3]):
        raise SystemExit(f"calls failed:\n{ran}")
    took_us = [int(line.split()[2]) for line in calls.read_text().splitlines()]
    return Run(int(found[1]) / seconds, took_us, cpu_s(at.proxy.pid) - before)


if __name__ == "__main__":
    main()
