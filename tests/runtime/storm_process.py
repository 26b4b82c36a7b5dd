"""Workers by the dozen: imports and artifacts are loaded once, each `start` on stdin forks a process that works.

    python -m tests.runtime.storm_process PIPELINE_FILE BUS_URL NAMESPACE [PLACEMENT]

Answers each line with the new worker's process id. A worker that is killed is a real one: its own connections, its own
event loop, nothing shared with the others but the code. Its children end with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from govern.bus import open_bus
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.telemetry.logging import configure
from govern.telemetry.metrics import Metrics

#: Of Linux's <sys/prctl.h>: the signal that a process gets when its parent is gone.
PR_SET_PDEATHSIG = 1
#: On Kafka: how long a killed worker keeps its partitions from the others.
SESSION_TIMEOUT_S = 2.0


async def work(pipelines: list[LoadedPipeline], url: str, namespace: str, placement: str) -> None:
    session_timeout_s = SESSION_TIMEOUT_S if url.startswith("kafka:") else None
    async with open_bus(url, client_id="govern-worker", session_timeout_s=session_timeout_s) as bus:
        reporter = Reporter(Metrics(CollectorRegistry()))
        worker = Worker(bus=bus, namespace=namespace, pipelines=pipelines, reporter=reporter, placement=placement)
        await worker.run(asyncio.Event())


def main() -> None:
    file, url, namespace, placement = (*sys.argv[1:], "")[:4]
    configure(level="INFO", json=True)
    pipelines = load(Path(file), placement=placement)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    prctl = ctypes.CDLL(None).prctl
    while sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asyncio.run(work(pipelines, url, namespace, placement))
            return
        print(pid, flush=True)


if __name__ == "__main__":
    main()
