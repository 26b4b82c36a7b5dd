"""How fresh the verdicts of four pipelines are beside one that needs longer than its records come.

    python -m tests.bench.fairness [--seconds 12] [--hot-s 1.0]

One worker, one partition of the embedded bus, 200 inferences a second of five models in turn. The detector of the hot
pipeline computes for `--hot-s` more at each window of 20 instances: with 1.0, twice the time that there is. Each run is
told of what it had committed when its time was over; the age of a verdict counts from its window's last event.

A table is printed and no time is asserted: the machine may be shared.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from govern.bus import open_bus
from govern.bus.topics import specs, topic
from govern.detection import Detector, Scores
from govern.frame import Frame
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.report import Reporter
from govern.runtime.task import Effects
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.bench.capturing.table import Table, circumstances
from tests.bench.judging import stream

MODELS: Final = 5
WINDOW: Final = 20
RATE: Final = 200
FEATURES: Final = 20
NAMESPACE: Final = "bench"


class Hot:
    """A detector that computes for longer than it needs to."""

    def __init__(self, detector: Detector, seconds: float) -> None:
        self._detector = detector
        self._seconds = seconds

    def __getattr__(self, name: str) -> object:
        return getattr(self._detector, name)

    def score(self, window: Frame) -> Scores:
        end = time.thread_time() + self._seconds
        while time.thread_time() < end:
            pass
        return self._detector.score(window)


class Ages(Reporter):
    """The age of each verdict when it was committed, seconds, by pipeline."""

    def __init__(self) -> None:
        super().__init__(Metrics(CollectorRegistry()))
        self.ages_s: dict[str, list[float]] = defaultdict(list)

    def committed(self, namespace: str, effects: Effects, now_ns: int) -> None:
        super().committed(namespace, effects, now_ns)
        for one in effects.judgements:
            self.ages_s[one.verdict.pipeline].append((now_ns - one.verdict.window.t_last) / 1e9)


async def run(pipelines: list[LoadedPipeline], folder: Path, seconds: float) -> dict[str, list[float]]:
    made, ages, stop = stream.exchanges(FEATURES, 1), Ages(), asyncio.Event()
    async with open_bus(f"embedded://{folder / 'bus.db'}") as bus:
        await bus.ensure_topics(specs(NAMESPACE, partitions=1))
        worker = Worker(bus=bus, namespace=NAMESPACE, pipelines=pipelines, reporter=ages)
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            began = time.monotonic()
            sent = 0
            while (now := time.monotonic() - began) < seconds:
                count = int(now * RATE) - sent
                if count:
                    inferences = stream.messages(NAMESPACE, made, count=count, models=MODELS, first=sent)
                    await bus.publish(topic(NAMESPACE, "inferences"), list(inferences))
                    sent += count
                await asyncio.sleep(0.01)
            found = {name: list(each) for name, each in ages.ages_s.items()}
            stop.set()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each run")
    parser.add_argument("--hot-s", type=float, default=1.0, help="that the hot detector computes for each window")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args()
    circumstances("tests.bench.fairness")
    table = Table("", "fast p50 s", "fast p99 s", "fast", "hot", markdown=given.markdown)
    p99 = []
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept) / "pipelines"
        stream.fit(folder, FEATURES)
        files = stream.pipelines(folder, NAMESPACE, models=MODELS, window=WINDOW)
        calm = [loaded for file in files for loaded in load(file)]
        for detector in calm[0].detectors.values():
            detector.score(stream.frame(WINDOW, FEATURES, 3))  # whatever is compiled at the first call
        heated = {name: Hot(one, given.hot_s) if name == "drift" else one for name, one in calm[0].detectors.items()}
        hot = [replace(calm[0], detectors=heated), *calm[1:]]  # type: ignore[arg-type]
        for name, pipelines in (("none hot", calm), ("one hot", hot)):
            place = Path(kept) / name.replace(" ", "-")
            place.mkdir()
            ages = asyncio.run(run(pipelines, place, given.seconds))
            fast = sorted(age for one in pipelines[1:] for age in ages[one.plan.name])
            p99.append(statistics.quantiles(fast, n=100)[98])
            verdicts = len(ages.get(pipelines[0].plan.name, ()))
            table.row(name, f"{statistics.median(fast):.3f}", f"{p99[-1]:.3f}", f"{len(fast)}", f"{verdicts}")
    print(f"\np99 of the fast ones with a hot one, over that without: {p99[1] / p99[0]:.1f}")


if __name__ == "__main__":
    main()
