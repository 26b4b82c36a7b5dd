"""One run of a load generator, and what the watched processes took meanwhile."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.capturing import people
from tests.bench.capturing.setting import OTHER_CORE

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
SAMPLE_S: Final = 0.1

BODY: Final = '{{"inputs":[{{"name":"x","shape":[1],"datatype":"BYTES","data":["{value}"]}}]}}'
WRK: Final = """
local bodies = {%s}
local requests, asked = {}, 0
wrk.method = "POST"
wrk.body = bodies[1]
wrk.headers["Content-Type"] = "application/json"
if #bodies > 1 then
  function init()
    for i, body in ipairs(bodies) do requests[i] = wrk.format(nil, nil, nil, body) end
  end
  function request()
    asked = asked %% #requests + 1
    return requests[asked]
  end
end
function done(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout
  io.write(string.format('{"us":%%d,"requests":%%d,"errors":%%d,"latency":[', summary.duration, summary.requests, bad))
  for i = 1, #latency do
    local us, count = latency(i)
    io.write(string.format('%%s[%%d,%%d]', i > 1 and ',' or '', us, count))
  end
  io.write(']}')
end
"""
#: Of wrk, which saturates.
CONNECTIONS: Final = 32
PACED: Final = Path(__file__).with_name("paced.py")


class Payload(NamedTuple):
    path: str
    #: What is asked, in turn.
    bodies: Callable[[], list[str]]


def of_length(length: int) -> Callable[[], list[str]]:
    """One body, with one value so long."""
    return lambda: [BODY.format(value="x" * length)]


PAYLOADS: Final = {
    "1KB": Payload("/v2/models/small/infer", of_length(950)),
    "100KB": Payload("/v2/models/large/infer", of_length(102_330)),
    "SSE": Payload("/v1/chat/completions", of_length(950)),
    "ACS": Payload("/v2/models/employment/infer", people.bodies),
}


class Answers(NamedTuple):
    """What was seen in one run, or in several of the same kind."""

    #: Requests by latency in microseconds; wrk adds some that a slow answer kept it from sending, so they are more.
    latency: Counter[int]
    #: How long each run took, and how many requests it had.
    runs: tuple[tuple[float, int], ...]
    n_errors: int

    def __add__(self, other: object) -> Answers:
        if not isinstance(other, Answers):
            return NotImplemented
        return Answers(self.latency + other.latency, self.runs + other.runs, self.n_errors + other.n_errors)

    @property
    def n_requests(self) -> int:
        return sum(count for _, count in self.runs)

    @property
    def per_s(self) -> float:
        """The median of the runs: one that a stranger on the machine slowed down does not count."""
        return statistics.median(count / seconds for seconds, count in self.runs)

    def quantile_ms(self, share: float) -> float:
        """Of the latencies of all runs together."""
        wanted = share * self.latency.total()
        seen = 0
        for us, count in sorted(self.latency.items()):
            seen += count
            if seen >= wanted:
                return us / 1000
        raise SystemExit("no request was answered")


class Watch:
    """Samples the resident memory of processes, by name."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self.samples: dict[str, list[int]] = {name: [] for name in pids}

    def look(self) -> None:
        for name, pid in self._pids.items():
            self.samples[name].append(status_bytes(pid, "VmRSS"))


def load(port: int, payload: str, rate: int | None, seconds: float, watch: Watch) -> Answers:
    """Run the load generator, and watch as long as it runs.

    Args:
        rate: requests a second; without one wrk asks for all that the server can do.
    """
    path, bodies = PAYLOADS[payload].path, PAYLOADS[payload].bodies()
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script, tempfile.TemporaryFile("w+") as asked:
        script.write(WRK % ",".join(f"'{body}'" for body in bodies))
        script.flush()
        asked.write("\n".join(bodies))
        asked.seek(0)
        wrk = [
            *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", script.name),
            f"http://127.0.0.1:{port}{path}",
        ]
        paced = [sys.executable, str(PACED), str(port), path, str(rate), str(seconds)]
        running = subprocess.Popen(
            ["taskset", "-c", OTHER_CORE, *(paced if rate else wrk)],
            stdin=asked,
            stdout=subprocess.PIPE,
            text=True,
        )
        while True:  # it says nothing before it ends: the pipe does not fill
            watch.look()
            try:
                told, _ = running.communicate(timeout=SAMPLE_S)
                break
            except subprocess.TimeoutExpired:
                continue
    if running.returncode:
        raise SystemExit(f"the load generator failed with status {running.returncode}:\n{told}")
    found = json.loads(told[told.rindex("{") :])
    latency = Counter[int](dict(found["latency"]))
    return Answers(latency, ((found["us"] / 1e6, found["requests"]),), found["errors"])


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
