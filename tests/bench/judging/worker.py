"""A worker that tells, a line of JSON for each commit, what it has done so far: `worker.py BUS NAMESPACE FILE...`."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from govern.bus import open_bus
from govern.runtime import garbage
from govern.runtime.loader import load
from govern.runtime.report import Reporter
from govern.runtime.task import Effects
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics


class Telling(Reporter):
    """A `Reporter` that also writes down when the metrics of which events were set."""

    def committed(self, namespace: str, effects: Effects, now_ns: int) -> None:
        super().committed(namespace, effects, now_ns)
        said: dict[str, Any] = {
            "at_s": time.monotonic(),
            "unix_ns": time.time_ns(),
            "requests": len(effects.observed),
            "verdicts": len(effects.judgements),
            "dead": len(effects.dead_letters),
            "cpu_s": time.process_time(),
            "rss_kb": resident_kb(),
            "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "events_ns": [inference.t_response for _, inference in effects.observed],
            "windows_ns": [one.verdict.window.t_last for one in effects.judgements],
        }
        print(json.dumps(said), flush=True)


def resident_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def main(url: str, namespace: str, files: list[str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    pipelines = [loaded for file in files for loaded in load(Path(file))]
    garbage.settle()
    async with open_bus(url, client_id="govern-worker") as bus:
        reporter = Telling(Metrics(CollectorRegistry()))
        await Worker(bus=bus, namespace=namespace, pipelines=pipelines, reporter=reporter).run(stop)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
