"""What a fleet of pipelines over as many models costs one worker, compared with one pipeline over one model.

    python -m tests.bench.fleet [--models 1000] [--requests 20000] [--markdown]

Each pipeline has a tabular-drift and an isolation-forest step over 20 features and is loaded for itself; all of them
hold the same fitted detectors, which the bus therefore holds once. The same requests of one row go to all models in
turn, or to the one; each model's windows are of 20 rows. Both runs are a process of their own on the embedded bus.

*apply* checks, loads and publishes all pipelines; *start* is from an empty cache to a worker that could poll;
*instances/s* counts from then until all is committed; *change-over* is what the worker itself does to take over one
pipeline whose window changed, loading it not included, and *in force* is from its `apply` to the worker's word on the
config topic.

A table is printed and no time is asserted: the machine may be shared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from govern.bus import Bus, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.record import ConfigChange, decode
from govern.runtime import garbage
from govern.runtime.fleet.fleet import Fleet
from govern.runtime.fleet.follower import Follower
from govern.runtime.fleet.pack import Packed, pack
from govern.runtime.fleet.shelf import shelf
from govern.runtime.loader import load_documented
from govern.runtime.report import Reporter
from govern.runtime.task import Effects
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.bench.capturing.table import Table, circumstances, told
from tests.bench.judging import stream
from tests.bench.judging.worker import resident_kb

NAMESPACE: Final = "bench"
FEATURES: Final = 20
WINDOW: Final = 20
PARTITIONS: Final = 4
BATCH: Final = 500
#: Without an end for so long, a run has failed.
DEADLINE_S: Final = 1800.0


class Counting(Reporter):
    """A `Reporter` that knows how many inferences were committed."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self.requests = 0

    def committed(self, namespace: str, effects: Effects, now_ns: int) -> None:
        super().committed(namespace, effects, now_ns)
        self.requests += len(effects.observed)


class Timed(Worker):
    """A `Worker` that knows how long its last change-over took."""

    change_over_s = 0.0

    async def _change_over(self) -> None:
        began_s = time.monotonic()
        await super()._change_over()
        self.change_over_s = time.monotonic() - began_s


def packed(files: Sequence[Path]) -> list[Packed]:
    return [pack(one) for file in files for one in load_documented(file)]


async def measure(models: int, requests: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "pipelines"
        stream.fit(folder, FEATURES)
        files = stream.pipelines(folder, NAMESPACE, models=models, window=WINDOW)
        async with open_bus(f"embedded://{name}/bus.db") as bus:
            await bus.ensure_topics(specs(NAMESPACE, partitions=PARTITIONS))
            fleet = Fleet(bus, NAMESPACE, actor="bench")
            began_s = time.monotonic()
            await fleet.apply(packed(files))
            found = {"apply_s": time.monotonic() - began_s}
            await publish(bus, requests, models)
            with shelf(Path(name) / "cache") as cache:
                return found | await run(bus, Follower(bus, NAMESPACE, cache), fleet, files[0], requests)


async def publish(bus: Bus, requests: int, models: int) -> None:
    made = stream.exchanges(FEATURES, 1)
    for first in range(0, requests, BATCH):
        count = min(BATCH, requests - first)
        messages = list(stream.messages(NAMESPACE, made, count=count, models=models, first=first))
        await bus.publish(topic(NAMESPACE, "inferences"), messages)


async def run(bus: Bus, follower: Follower, fleet: Fleet, changing: Path, requests: int) -> dict[str, float]:
    before_kb = resident_kb()
    began_s = time.monotonic()
    pipelines = (await follower.start()).pipelines
    start_s = time.monotonic() - began_s
    loaded_kb = resident_kb() - before_kb
    garbage.settle()
    reporter = Counting(Metrics(CollectorRegistry()))
    worker = Timed(bus=bus, namespace=NAMESPACE, pipelines=pipelines, reporter=reporter)
    stop = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        began_s = time.monotonic()
        group.create_task(worker.run(stop))
        while reporter.requests < requests:
            await asyncio.sleep(0.01)
        judged_s = time.monotonic() - began_s
        changing.write_text(changing.read_text().replace(f"size: {WINDOW}", f"size: {2 * WINDOW}"))
        changed = packed([changing])
        async with follower.following(lambda found: worker.take_over(found.pipelines)):
            began_s = time.monotonic()
            await fleet.apply(changed)
            while not await said_changed(bus):
                await asyncio.sleep(0.01)
            in_force_s = time.monotonic() - began_s
            while not worker.change_over_s:
                await asyncio.sleep(0.01)
        stop.set()
    return {
        "start_s": start_s,
        "loaded_mb": loaded_kb / 1024,
        "rate": requests / judged_s,
        "change_over_s": worker.change_over_s,
        "in_force_s": in_force_s,
        "rss_mb": resident_kb() / 1024,
    }


async def said_changed(bus: Bus) -> bool:
    """Whether the worker has put on record that it runs the changed pipeline."""
    place = Partition(topic(NAMESPACE, "config"), 0)
    newest = await bus.read(place, max(0, await bus.end_offset(place) - 1))
    said = [decode(ConfigChange, message.value or b"") for message in newest]
    return any((one.action, one.actor) == ("changed", "/govern/worker") for one in said)


def child(models: int, requests: int) -> dict[str, float]:
    words = ["--child", "--models", str(models), "--requests", str(requests)]
    command = [sys.executable, "-m", "tests.bench.fleet", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        logging.disable(logging.INFO)
        print(json.dumps(asyncio.run(measure(options.models, options.requests))))
        return
    circumstances("tests.bench.fleet")
    print()
    titles = ("apply s", "start s", "instances/s", "change-over s", "in force s", "loaded MB", "RSS MB")
    table = Table("pipelines", *titles, markdown=options.markdown)
    runs = {}
    for models in (1, options.models):
        one = runs[models] = child(models, options.requests)
        cells = (one["apply_s"], one["start_s"], one["rate"], one["change_over_s"], one["in_force_s"])
        shown = [f"{cell:,.2f}" if cell < 1000 else f"{cell:,.0f}" for cell in cells]
        table.row(f"{models:,}", *shown, f"{one['loaded_mb']:,.0f}", f"{one['rss_mb']:,.0f}")
    share = runs[options.models]["rate"] / runs[1]["rate"]
    told(iter([f"{options.models:,} pipelines judge {share:.2f} of what one does"]), markdown=options.markdown)


if __name__ == "__main__":
    main()
