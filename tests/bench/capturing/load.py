"""One run of wrk, and what the watched processes took meanwhile."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.bench.capturing.setting import OTHER_CORE

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
SAMPLE_S: Final = 0.1

WRK: Final = """
wrk.method = "POST"
wrk.body = '{{"inputs":[{{"name":"x","shape":[1],"datatype":"BYTES","data":["' .. string.rep("x", {length}) .. '"]}}]}}'
wrk.headers["Content-Type"] = "application/json"
{delay}
function done(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout
  io.write(string.format('{{"requests":%d,"us":%d,"p50":%.1f,"p99":%.1f,"p999":%.1f,"errors":%d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9), bad))
end
"""
#: Paced: 50 connections that wait 100 ms on average, which makes about 500 requests a second.
CONNECTIONS: Final = {"paced": 50, "saturated": 32}
DELAY: Final = {"paced": "function delay() return math.random(50, 150) end", "saturated": ""}


class Payload(NamedTuple):
    path: str
    #: Of the one value in the request.
    length: int


PAYLOADS: Final = {
    "1KB": Payload("/v2/models/small/infer", 950),
    "100KB": Payload("/v2/models/large/infer", 102_330),
    "SSE": Payload("/v1/chat/completions", 950),
}


class Answers(NamedTuple):
    """What wrk saw; times in milliseconds."""

    n_requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    n_errors: int


class Memory(NamedTuple):
    """Resident memory of one process, mean of the first and of the last third of a run."""

    first_bytes: float
    last_bytes: float

    @property
    def growth(self) -> float:
        return self.last_bytes / self.first_bytes - 1


def load(port: int, payload: str, pace: str, seconds: int, watched: Sequence[int]) -> tuple[Answers, list[Memory]]:
    """Run wrk, and sample the memory of the watched processes as long as it runs."""
    path, length = PAYLOADS[payload]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK.format(length=length, delay=DELAY[pace]))
        script.flush()
        wrk = ["wrk", "-t1", f"-c{CONNECTIONS[pace]}", f"-d{seconds}s", "-s", script.name]
        running = subprocess.Popen(
            ["taskset", "-c", OTHER_CORE, *wrk, f"http://127.0.0.1:{port}{path}"], stdout=subprocess.PIPE, text=True
        )
        samples = []
        while running.poll() is None:
            samples.append([status_bytes(pid, "VmRSS") for pid in watched])
            time.sleep(SAMPLE_S)
        told, _ = running.communicate()
    if running.returncode:
        raise SystemExit(f"wrk failed with status {running.returncode}:\n{told}")
    return answers(json.loads(told[told.rindex("{") :])), [thirds(each) for each in zip(*samples, strict=True)]


def answers(found: dict[str, Any]) -> Answers:
    return Answers(
        n_requests=found["requests"],
        per_s=found["requests"] / (found["us"] / 1e6),
        p50_ms=found["p50"] / 1000,
        p99_ms=found["p99"] / 1000,
        p999_ms=found["p999"] / 1000,
        n_errors=found["errors"],
    )


def thirds(samples: Sequence[int]) -> Memory:
    third = max(1, len(samples) // 3)
    return Memory(sum(samples[:third]) / third, sum(samples[-third:]) / third)


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def status_bytes(pid: int, field: str) -> int:
    """A size in /proc/<pid>/status: VmRSS is what it takes now, VmHWM the most it took since `reset_peak`."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"/proc/{pid}/status has no {field}: the process has ended")
    return int(found[1]) * 1024


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): sets VmHWM to VmRSS
