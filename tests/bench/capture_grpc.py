"""What capture of gRPC costs: a Python server, called directly and through the proxy with capture on.

    python -m tests.bench.capture_grpc [--seconds 10] [--callers 2]

The proxy has a core of its own; server and callers share the other one. Two runs each: about 200 calls a second
(callers that wait between calls), and as many as 16 calls at a time can get answered. Callers and server are Python,
too, so saturation is theirs before it is the proxy's; what the proxy itself takes are its CPU seconds. A table is
printed and no time is asserted: the machine may be shared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import grpc

from govern.codecs.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from govern.mirror.folder import default_spool_dir
from govern.mirror.inspect import inspect_agents
from tests.bench.capturing.load import cpu_s
from tests.bench.capturing.setting import MEASURED_CORE, OTHER_CORE
from tests.services.process import Process, free_port, listening

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
#: About 1 KB on the wire.
VALUES: Final = 128
#: Calls at a time of all callers together, and the wait between the calls of each when paced.
CONCURRENT: Final = {"paced": 20, "saturated": 16}
PAUSE_S: Final = (0.05, 0.15)


class Run(NamedTuple):
    """One run of all callers; times in milliseconds, CPU in seconds."""

    n_calls: int
    per_s: float
    p50_ms: float
    p99_ms: float
    proxy_cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="length of each run")
    parser.add_argument("--callers", type=int, default=2, help="processes that call")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--call", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--pace", choices=CONCURRENT, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
    elif options.call:
        share = CONCURRENT[options.pace] // options.callers
        print(json.dumps(asyncio.run(call(options.call, share, options.pace, options.seconds))))
    else:
        measure(options.seconds, options.callers)


def measure(seconds: float, n_callers: int) -> None:
    with setting() as (direct, proxied, proxy, spool):
        runs = {
            (pace, way): load(port, pace, seconds, n_callers, proxy if way == "proxied" else None)
            for pace in CONCURRENT
            for way, port in (("direct", direct), ("proxied", proxied))
        }
        (agent,) = inspect_agents(spool)
        report(runs)
        counts = agent.counts
        print(f"\nseen {counts.seen:,} = captured {counts.captured:,} + dropped {counts.dropped:,}")


@contextlib.contextmanager
def setting() -> Iterator[tuple[int, int, Process, Path]]:
    """A server and the proxy, pinned: ports, the proxy's process, the spool."""
    folder = Path(tempfile.mkdtemp(prefix="govern-bench-", dir=default_spool_dir().parent))
    direct, proxied = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)

        def start(core: str, port: int, *command: str) -> Process:
            process = Process(["taskset", "-c", core, sys.executable, *command], log=folder / f"{port}.log")
            process.start(lambda _: listening(port))
            stack.callback(process.stop)
            return process

        start(OTHER_CORE, direct, *("-m", "tests.bench.capture_grpc", "--serve", str(direct)))
        proxy = start(
            MEASURED_CORE,
            proxied,
            *("-m", "govern.cli.main", "mirror", "grpc", "--listen", f"127.0.0.1:{proxied}"),
            *("--upstream", f"http://127.0.0.1:{direct}", "--spool-dir", str(folder / "spool")),
        )
        yield direct, proxied, proxy, folder / "spool"


async def serve(port: int) -> None:
    """Answer every ModelInfer with the same response."""
    answer = ModelInferResponse(model_name="income")
    answer.outputs.add(name="y", datatype="FP64", shape=[1, 1]).contents.fp64_contents.append(0.5)
    data = answer.SerializeToString()

    async def infer(_request: bytes, _context: object) -> bytes:
        return data

    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def call(port: int, concurrent: int, pace: str, seconds: float) -> list[float]:
    """Call for some seconds; the time that each call took, in milliseconds."""
    request = ModelInferRequest(model_name="income")
    request.inputs.add(name="x", datatype="FP64", shape=[1, VALUES]).contents.fp64_contents.extend(range(VALUES))
    data = request.SerializeToString()
    took_ms: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary(METHOD)
        end = time.monotonic() + seconds

        async def caller() -> None:
            while time.monotonic() < end:
                if pace == "paced":
                    await asyncio.sleep(random.uniform(*PAUSE_S))
                start = time.perf_counter()
                await infer(data)
                took_ms.append((time.perf_counter() - start) * 1000)

        await asyncio.gather(*(caller() for _ in range(concurrent)))
    return took_ms


def load(port: int, pace: str, seconds: float, n_callers: int, proxy: Process | None) -> Run:
    """Run the callers; CPU is that of the proxy meanwhile."""
    before = cpu_s(proxy.pid) if proxy else 0.0
    command = [
        *("taskset", "-c", OTHER_CORE, sys.executable, "-m", "tests.bench.capture_grpc", "--call", str(port)),
        *("--pace", pace, "--seconds", str(seconds), "--callers", str(n_callers)),
    ]
    callers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n_callers)]
    took_ms = [each for caller in callers for each in json.loads(caller.communicate()[0])]
    cuts = statistics.quantiles(took_ms, n=100)
    return Run(
        n_calls=len(took_ms),
        per_s=len(took_ms) / seconds,
        p50_ms=cuts[49],
        p99_ms=cuts[98],
        proxy_cpu_s=cpu_s(proxy.pid) - before if proxy else 0.0,
    )


def report(runs: dict[tuple[str, str], Run]) -> None:
    line = "{:<20}" + "{:>20}" * 4
    print(line.format("", "calls/s", "p50 ms", "p99 ms", "proxy CPU s/1000"))
    for (pace, way), run in runs.items():
        spent = f"{run.proxy_cpu_s / run.n_calls * 1000:.3f}" if way == "proxied" else ""
        print(line.format(f"{pace}, {way}", f"{run.per_s:,.0f}", f"{run.p50_ms:.3f}", f"{run.p99_ms:.3f}", spent))
    slow, through = runs["paced", "direct"], runs["paced", "proxied"]
    print(f"\nadded when paced: p50 {through.p50_ms - slow.p50_ms:+.3f} ms, p99 {through.p99_ms - slow.p99_ms:+.3f} ms")
    full, kept = runs["saturated", "direct"], runs["saturated", "proxied"]
    print(f"throughput kept at saturation: {kept.per_s / full.per_s:.1%} of the server alone")


if __name__ == "__main__":
    main()
