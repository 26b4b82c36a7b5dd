"""What capture costs: wrk against nginx, direct and through the proxy with capture on and a shipper at work.

    python -m tests.bench.capture [--seconds 10]

The proxy has a core of its own; wrk, nginx and the shipper share the other one. Two runs each: about 500 requests a
second (50 connections that wait 50 to 150 ms between requests), and as many as 32 connections can get answered.
A table is printed and no time is asserted: the machine may be shared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from govern.mirror.folder import default_spool_dir
from govern.mirror.inspect import inspect_agents
from tests.services.process import Process, free_port, listening

PROXY_CORE: Final = "1"
OTHER_CORE: Final = "0"
BODY_BYTES: Final = 1024
PATH: Final = "/v2/models/income/infer"
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

NGINX: Final = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 1m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=1024; default_type application/json;
    location / {{ return 200 '{{"outputs":[{{"name":"p","shape":[1],"datatype":"FP64","data":[0.5]}}]}}'; }}
  }}
}}
"""

WRK: Final = """
wrk.method = "POST"
wrk.body = string.rep("x", {body})
wrk.headers["Content-Type"] = "application/json"
{delay}
function done(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout
  io.write(string.format('{{"requests":%d,"us":%d,"p50":%.1f,"p99":%.1f,"p999":%.1f,"errors":%d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9), bad))
end
"""
PACED: Final = "function delay() return math.random(50, 150) end"


class Run(NamedTuple):
    """One run of wrk; times in milliseconds, CPU in seconds."""

    n_requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    n_errors: int
    proxy_cpu_s: float
    shipper_cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, help="length of each run")
    seconds: int = parser.parse_args().seconds
    with setting() as (direct, proxied, proxy, shipper, metrics, spool_dir):
        runs = {
            (pace, way): load(port, pace, seconds, [proxy, shipper] if way == "proxied" else [])
            for pace in ("paced", "saturated")
            for way, port in (("direct", direct), ("proxied", proxied))
        }
        (agent,) = inspect_agents(spool_dir)
        wait_until_shipped(metrics, agent.counts.captured)
        report(runs)
        counts = agent.counts
        print(f"\nseen {counts.seen:,} = captured {counts.captured:,} + dropped {counts.dropped:,}; all are on the bus")


@contextlib.contextmanager
def setting() -> Iterator[tuple[int, int, Process, Process, str, Path]]:
    """nginx, the proxy and the shipper, pinned: ports, processes, address of the metrics, spool."""
    folder = Path(tempfile.mkdtemp(prefix="govern-bench-"))
    spool = Path(tempfile.mkdtemp(prefix="govern-bench-", dir=default_spool_dir().parent))
    direct, proxied, metrics = free_port(), free_port(), free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=direct))
    govern = [sys.executable, "-m", "govern.cli.main", "mirror"]
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.callback(shutil.rmtree, spool)

        def start(core: str, port: int, *command: str) -> Process:
            process = Process(["taskset", "-c", core, *command], log=folder / f"{port}.log")
            process.start(lambda _: listening(port))
            stack.callback(process.stop)
            return process

        start(OTHER_CORE, direct, "nginx", "-c", str(folder / "nginx.conf"))
        shipper = start(
            OTHER_CORE,
            metrics,
            *(*govern, "ship", "--bus", f"embedded://{folder}/bus.db", "--spool-dir", str(spool / "s")),
            *("--metrics-listen", f"127.0.0.1:{metrics}"),
        )
        proxy = start(
            PROXY_CORE,
            proxied,
            *(*govern, "proxy", "--listen", f"127.0.0.1:{proxied}", "--upstream", f"http://127.0.0.1:{direct}"),
            *("--spool-dir", str(spool / "s")),
        )
        yield direct, proxied, proxy, shipper, f"http://127.0.0.1:{metrics}/metrics", spool / "s"


def load(port: int, pace: str, seconds: int, watched: list[Process]) -> Run:
    """Run wrk; CPU is that of the watched processes meanwhile."""
    connections, delay = (50, PACED) if pace == "paced" else (32, "")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK.format(body=BODY_BYTES, delay=delay))
        script.flush()
        before = [cpu_s(process.pid) for process in watched]
        done = subprocess.run(
            [
                *("taskset", "-c", OTHER_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name),
                f"http://127.0.0.1:{port}{PATH}",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        spent = [cpu_s(process.pid) - then for process, then in zip(watched, before, strict=True)]
    found = json.loads(done.stdout[done.stdout.rindex("{") :])
    return Run(
        n_requests=found["requests"],
        per_s=found["requests"] / (found["us"] / 1e6),
        p50_ms=found["p50"] / 1000,
        p99_ms=found["p99"] / 1000,
        p999_ms=found["p999"] / 1000,
        n_errors=found["errors"],
        proxy_cpu_s=spent[0] if spent else 0.0,
        shipper_cpu_s=spent[1] if spent else 0.0,
    )


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def wait_until_shipped(metrics: str, count: int) -> None:
    deadline = time.monotonic() + 120
    shipped = 0.0
    while shipped < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {shipped:.0f} of {count} captured inferences reached the bus in two minutes")
        time.sleep(0.2)
        with urllib.request.urlopen(metrics) as answer:
            shipped = sum(
                float(line.split()[-1])
                for line in answer.read().decode().splitlines()
                if line.startswith("govern_capture_shipped_total{")
            )


def report(runs: dict[tuple[str, str], Run]) -> None:
    columns = ("", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "errors", "proxy CPU s/1000", "shipper CPU s/1000")
    print(("{:<18}" + "{:>19}" * 7).format(*columns))
    for (pace, way), run in runs.items():
        thousands = run.n_requests / 1000
        cells = [f"{run.per_s:,.0f}", f"{run.p50_ms:.3f}", f"{run.p99_ms:.3f}", f"{run.p999_ms:.3f}", f"{run.n_errors}"]
        if way == "proxied":
            cells += [f"{run.proxy_cpu_s / thousands:.3f}", f"{run.shipper_cpu_s / thousands:.3f}"]
        else:
            cells += ["", ""]
        print(("{:<18}" + "{:>19}" * 7).format(f"{pace}, {way}", *cells))
    slow, through = runs["paced", "direct"], runs["paced", "proxied"]
    print(
        f"\nadded at about 500 requests/s: p50 {through.p50_ms - slow.p50_ms:+.3f} ms, "
        f"p99 {through.p99_ms - slow.p99_ms:+.3f} ms, p99.9 {through.p999_ms - slow.p999_ms:+.3f} ms"
    )
    full, kept = runs["saturated", "direct"], runs["saturated", "proxied"]
    print(f"throughput kept at saturation: {kept.per_s / full.per_s:.1%} of nginx alone")


if __name__ == "__main__":
    main()
