"""How fast pipelines judge, and how fresh their verdicts are.

    python -m tests.bench.runtime [--instances 60000] [--only WORD ...] [--markdown]

Inferences with 20 features, in V2 JSON with a tensor for each, are judged by a tabular-drift and an isolation-forest
step. The workers have taken their places in the group and are stopped (SIGSTOP) while the stream is published; counted
is what they commit (verdicts, checkpoints and offsets together) from the moment at which they go on. Then one thing
grows at a time: features, window, models, partitions. *fresh* publishes 1,000 inferences a second as they happen; an
event's age is taken when the worker has set its metrics.

alibi-detect's TabularDrift and IForest are what it is compared to: MLServer serves them with its alibi-detect runtime,
and each is called once for each instance, as a graph of Seldon does. That needs `make .venv-peers-alibi/.ready`.

A table is printed and no time is asserted: the machine may be shared.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from govern.bus import Bus, open_bus
from govern.bus.topics import specs, topic
from tests.bench.capturing.table import Table, circumstances, told
from tests.bench.judging import stream
from tests.services.kafka import Kafka
from tests.services.process import Process, free_port, listening

ROOT: Final = Path(__file__).parents[2]
PEERS: Final = ROOT / ".venv-peers-alibi" / "bin"
WORKER: Final = "tests.bench.judging.worker"
FEATURES: Final = 20
#: Published in one go; of the paced stream, in a hundredth of a second.
BATCH: Final = 500
RATE: Final = 1_000
#: Requests that a worker is given at a time until it has taken its place in the group: some for each lane.
WARM: Final = 10 * stream.LANES
PACED_BATCH: Final = 10
#: Without a commit for so long, a run has failed.
DEADLINE_S: Final = 60.0
#: Requests of wrk to MLServer at a time, and how long it asks, seconds.
CONNECTIONS: Final = 8
ASKED_S: Final = 8
#: Both detectors in turn, so that half of the requests are instances judged.
WRK: Final = """
local bodies, asked = {%s}, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function request()
  asked = asked + 1
  local path = asked %% 2 == 0 and "/v2/models/drift/infer" or "/v2/models/outlier/infer"
  return wrk.format(nil, path, nil, bodies[math.floor(asked / 2) %% #bodies + 1])
end
function done(summary)
  local errors = summary.errors
  io.write(string.format('\\n{"requests":%%d,"us":%%d,"errors":%%d}', summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""

#: The targets of issue 5.
PER_S: Final = 20_000.0
TIMES: Final = 100.0
FRESH_P99_S: Final = 1.0


class Case(NamedTuple):
    """One run: what is judged by how many workers."""

    name: str
    bus: str = "kafka"
    rows: int = 1
    workers: int = 1
    features: int = FEATURES
    window: int = 1_000
    models: int = 1
    partitions: int = 4
    paced: bool = False


CASES: Final = (
    Case("kafka, rows 1, workers 1"),
    Case("kafka, rows 1, workers 2", workers=2),
    Case("kafka, rows 32, workers 1", rows=32),
    Case("kafka, rows 32, workers 2", rows=32, workers=2),
    Case("embedded, rows 1", bus="embedded"),
    Case("embedded, rows 32", bus="embedded", rows=32),
    *(Case(f"features {count}", features=count, rows=32) for count in (5, 100)),
    *(Case(f"window {size:,}", window=size, rows=32) for size in (100, 10_000)),
    *(Case(f"models {count}", models=count, rows=32) for count in (10, 100)),
    *(Case(f"partitions {count}", partitions=count, rows=32) for count in (1, 8)),
    Case("fresh, 1,000/s", paced=True),
)


class Commit(NamedTuple):
    """What a worker told of one commit; see `judging.worker`."""

    worker: int
    at_s: float
    unix_ns: int
    requests: int
    verdicts: int
    dead: int
    cpu_s: float
    rss_kb: int
    peak_kb: int
    events_ns: list[int]
    windows_ns: list[int]


class Run(NamedTuple):
    """What was committed of the stream, and where each worker stood when it began."""

    before: dict[int, Commit]
    began_s: float
    commits: list[Commit]
    rows: int

    @property
    def instances(self) -> int:
        return self.rows * sum(one.requests for one in self.commits)

    @property
    def per_s(self) -> float:
        return self.instances / (self.commits[-1].at_s - self.began_s)

    @property
    def per_cpu_s(self) -> float:
        """Instances for each second of a core that the workers took."""
        last = self.before | {one.worker: one for one in self.commits}
        return self.instances / sum(last[worker].cpu_s - before.cpu_s for worker, before in self.before.items())

    @property
    def peak_mb(self) -> float:
        return max(one.peak_kb for one in self.commits) / 1024

    def grown_mb(self) -> float:
        """Resident memory of the last quarter of the stream over that of the second."""
        sizes = [one.rss_kb for one in self.commits if one.worker == self.commits[-1].worker]
        quarter = max(1, len(sizes) // 4)
        return (statistics.median(sizes[-quarter:]) - statistics.median(sizes[quarter : 2 * quarter] or sizes)) / 1024

    def ages_s(self) -> tuple[list[float], list[float]]:
        """From event to metric, of the requests and of the last event of each window."""
        return (
            sorted((one.unix_ns - event) / 1e9 for one in self.commits for event in one.events_ns),
            sorted((one.unix_ns - event) / 1e9 for one in self.commits for event in one.windows_ns),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--instances", type=int, default=60_000, help="of each case; a third with 1 row")
    parser.add_argument("--seconds", type=int, default=12, help="of the paced stream")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="only cases whose name has all words")
    parser.add_argument("--no-mlserver", action="store_true", help="leave the comparison out")
    parser.add_argument("--markdown", action="store_true", help="as docs/runtime-performance.md has it")
    options = parser.parse_args()
    chosen = [case for case in CASES if all(word in f"{case.name} ".replace(",", "") for word in options.only)]
    if not chosen:
        parser.error(f"no case has all of: {' '.join(options.only)}")
    if not (options.no_mlserver or PEERS.exists()):
        parser.error("MLServer is not there: make .venv-peers-alibi/.ready, or give --no-mlserver")
    circumstances("tests.bench.runtime")
    with tempfile.TemporaryDirectory(prefix="govern-bench-") as name:
        folder = Path(name)
        theirs = None if options.no_mlserver else mlserver(folder / "mlserver")
        with contextlib.ExitStack() as stack:
            urls = {"embedded": f"embedded://{folder / 'bus.db'}"}
            if any(case.bus == "kafka" for case in chosen):
                urls["kafka"] = stack.enter_context(Kafka()).url
            table = Table("", *COLUMNS, markdown=options.markdown)
            if theirs is not None:
                table.row("MLServer, alibi-detect, 1 row", f"{theirs:,.0f}", *[""] * (len(COLUMNS) - 1))
            runs = {}
            for case in chosen:
                count = RATE * options.seconds if case.paced else options.instances // (1 if case.rows > 1 else 3)
                runs[case] = run = asyncio.run(measure(case, urls[case.bus], folder, count))
                table.row(case.name, *cells(case, run, theirs))
    told(derived(runs, theirs), markdown=options.markdown)


async def measure(case: Case, url: str, folder: Path, instances: int) -> Run:
    """Run one case in a namespace of its own."""
    namespace = f"bench-{uuid.uuid4().hex[:8]}"
    fitted = folder / f"features-{case.features}"
    if not fitted.exists():
        stream.fit(fitted, case.features)
    files = stream.pipelines(fitted, namespace, models=case.models, window=case.window)
    made = stream.exchanges(case.features, case.rows)
    requests = instances // case.rows
    async with open_bus(url, client_id="govern-bench") as bus, contextlib.AsyncExitStack() as stack:
        await bus.ensure_topics(specs(namespace, partitions=case.partitions))
        told_by: asyncio.Queue[Commit] = asyncio.Queue()
        pids = [
            await stack.enter_async_context(worker(number, url, namespace, files, told_by))
            for number in range(case.workers)
        ]
        before, first = await warmed_up(bus, namespace, made, case, told_by)
        numbers = range(first, first + requests)
        began_s = time.monotonic()
        pacing = None
        if case.paced:
            pacing = asyncio.create_task(pace(bus, namespace, made, case, numbers))
        else:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            await publish(bus, namespace, made, case, numbers)
            began_s = time.monotonic()
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        commits: list[Commit] = []
        while sum(one.requests for one in commits) < requests:
            commits.append(await asyncio.wait_for(told_by.get(), DEADLINE_S))
        if pacing is not None:
            await pacing
    if any(one.dead for one in commits):
        raise SystemExit(f"{case.name}: {sum(one.dead for one in commits)} dead letters")
    return Run(before, began_s, commits, case.rows)


async def warmed_up(
    bus: Bus, namespace: str, made: list[stream.Exchange], case: Case, told_by: asyncio.Queue[Commit]
) -> tuple[dict[int, Commit], int]:
    """Give the workers a little at a time until each has committed of it, and all of it is committed.

    Returns:
        The newest commit of each worker, and how many requests it took.
    """
    before: dict[int, Commit] = {}
    published = committed = 0
    deadline = time.monotonic() + DEADLINE_S
    while len(before) < case.workers or committed < published:
        if time.monotonic() > deadline:
            raise SystemExit(f"{case.name}: a worker got nothing in {DEADLINE_S:.0f} s")
        if committed == published:
            await publish(bus, namespace, made, case, range(published, published + WARM))
            published += WARM
        with contextlib.suppress(TimeoutError):
            commit = await asyncio.wait_for(told_by.get(), 1.0)
            before[commit.worker] = commit
            committed += commit.requests
    return before, published


async def publish(bus: Bus, namespace: str, made: list[stream.Exchange], case: Case, numbers: range) -> None:
    for start in numbers[::BATCH]:
        count = min(BATCH, numbers.stop - start)
        batch = stream.messages(namespace, made, count=count, models=case.models, first=start)
        await bus.publish(topic(namespace, "inferences"), list(batch))


async def pace(bus: Bus, namespace: str, made: list[stream.Exchange], case: Case, numbers: range) -> None:
    """Publish as if each just happened; what is late is late for the age of its events as well."""
    started = time.monotonic()
    for start in numbers[::PACED_BATCH]:
        due = started + (start - numbers.start) / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        batch = list(stream.messages(namespace, made, count=PACED_BATCH, models=case.models, first=start))
        await bus.publish(topic(namespace, "inferences"), batch)


@contextlib.asynccontextmanager
async def worker(
    number: int, url: str, namespace: str, files: Sequence[Path], told_by: asyncio.Queue[Commit]
) -> AsyncIterator[int]:
    """A worker process, as long as the block lasts: its id. Its commits come through the queue."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", WORKER, url, namespace, *map(str, files)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        limit=2**24,
    )
    assert process.stdout is not None

    async def listen(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            await told_by.put(Commit(worker=number, **json.loads(line)))

    listening_to = asyncio.create_task(listen(process.stdout))
    try:
        yield process.pid
    finally:
        process.terminate()
        await process.wait()
        await listening_to


def mlserver(folder: Path) -> float:
    """Instances a second that MLServer judges by both detectors, one instance in a request."""
    ports = [free_port() for _ in range(3)]
    program = Path(__file__).parent / "judging" / "mlserver_models.py"
    # Our own tree stays out of its path.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    folder.mkdir()
    command = [str(PEERS / "python"), str(program), str(folder), *map(str, ports)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    start = ["env", "-u", "PYTHONPATH", "-C", str(folder), "OMP_NUM_THREADS=1", str(PEERS / "mlserver"), "start"]
    server = Process([*start, str(folder)], log=folder / "mlserver.log")
    server.start(lambda log: listening(ports[0]) and all(f"Loaded model '{name}'" in log for name in MODELS))
    script = folder / "ask.lua"
    script.write_text(WRK % ",".join(f"'{body}'" for body in bodies()))
    try:
        ask = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ASKED_S}s", "-s", str(script), f"http://127.0.0.1:{ports[0]}"]
        said = subprocess.run(ask, check=True, capture_output=True, text=True).stdout
    finally:
        server.stop()
    counted = json.loads(said.splitlines()[-1])
    if counted["errors"] or not counted["requests"]:
        raise SystemExit(f"MLServer: {counted}")
    return float(counted["requests"]) / 2 / (counted["us"] / 1e6)


MODELS: Final = ("drift", "outlier")


def bodies() -> Iterator[str]:
    """One row in one tensor, a category as its code: the form that the runtime takes."""
    for row in stream.frame(stream.DIFFERENT, FEATURES, 2).matrix().tolist():
        tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP64", "data": row}
        yield json.dumps({"inputs": [tensor]})


COLUMNS: Final = ("instances/s", "per core", "x MLServer", "peak MB", "grown MB", "p50 s", "p99 s", "verdict p99 s")


def cells(case: Case, run: Run, theirs: float | None) -> list[str]:
    events, windows = run.ages_s()
    ages = [quantile(events, 0.5), quantile(events, 0.99), quantile(windows, 0.99)] if case.paced else []
    return [
        f"{run.per_s:,.0f}",
        f"{run.per_cpu_s:,.0f}",
        f"{run.per_s / theirs:,.0f}" if theirs else "",
        f"{run.peak_mb:.0f}",
        f"{run.grown_mb():+.1f}",
        *([f"{age:.3f}" for age in ages] or [""] * 3),
    ]


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def derived(runs: dict[Case, Run], theirs: float | None) -> Iterator[str]:
    """What the table says of the targets of issue 5; only of the cases that were run."""
    through_kafka = [run.per_s for case, run in runs.items() if case.bus == "kafka" and case.name.startswith("kafka")]
    if through_kafka:
        most = max(through_kafka)
        yield f"at most {most:,.0f} instances/s through Kafka: {met(most, PER_S)} {PER_S:,.0f}"
        if theirs:
            times = min(through_kafka) / theirs
            yield f"at least {times:,.0f} x MLServer: {met(times, TIMES)} {TIMES:,.0f} x"
    for case, run in runs.items():
        if case.paced:
            events, windows = run.ages_s()
            yield (
                f"{case.name}: event to metric p50 {quantile(events, 0.5):.3f} s, p99 {quantile(events, 0.99):.3f} s; "
                f"last event of a window to its verdict's metric p99 {quantile(windows, 0.99):.3f} s "
                f"({len(windows)} windows): {met(FRESH_P99_S, quantile(events, 0.99))} {FRESH_P99_S:.0f} s"
            )


def met(greater: float, less: float) -> str:
    return "reaches" if greater >= less else "does not reach"


if __name__ == "__main__":
    main()
