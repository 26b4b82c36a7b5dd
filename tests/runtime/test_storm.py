"""Rebalance storms: three workers, one of them killed at a time, a hundred times. Every verdict once, bit for bit.

On Kafka a kill costs the session time-out after which the group misses the member, so the suite has a few of them;
`make storm` has a hundred. `GOVERN_STORM_KILLS=1000` makes both longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from govern.bus import Bus, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.runtime.loader import load
from tests.runtime.conftest import PARTITIONS, Fitted, Make
from tests.runtime.test_worker import check, publish, until_committed

KILLS = {"embedded": 100, "kafka": 2}
if "GOVERN_STORM_KILLS" in os.environ:
    KILLS = dict.fromkeys(KILLS, int(os.environ["GOVERN_STORM_KILLS"]))
WORKERS = 3
DEADLINE_S = 60.0


class Storm:
    """The live workers, by process id."""

    def __init__(self, parent: subprocess.Popen[bytes]) -> None:
        self._parent = parent
        self.workers: list[int] = []

    async def start(self) -> None:
        into, out = _pipe(self._parent.stdin), _pipe(self._parent.stdout)
        into.write(b"start\n")
        into.flush()
        self.workers.append(int(await asyncio.to_thread(out.readline)))

    def kill(self, victim: int) -> None:
        os.kill(self.workers.pop(victim), signal.SIGKILL)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


@contextmanager
def storm(file: Path, bus_url: str, namespace: str, log: Path, placement: str = "") -> Iterator[Storm]:
    command = [sys.executable, "-m", "tests.runtime.storm_process", str(file), bus_url, namespace, placement]
    root = Path(__file__).parents[2]
    with log.open("wb") as err:
        parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, cwd=root)
    try:
        yield Storm(parent)
    finally:
        parent.kill()
        parent.communicate()


async def committed(bus: Bus, namespace: str) -> int:
    name = topic(namespace, "checkpoints")
    return sum([await bus.end_offset(Partition(name, number)) for number in range(PARTITIONS)])


@pytest.mark.e2e
@pytest.mark.timeout(300 + 6 * max(KILLS.values()))
async def test_a_storm_of_kills_and_rebalances_changes_no_bit(
    bus_url: str, unique: str, fitted: Fitted, make_inference: Make, tmp_path: Path
) -> None:
    chance = random.Random(23)
    kills, started = KILLS[bus_url.partition(":")[0]], time.monotonic()
    file = fitted.write(tmp_path / "pipeline", unique)
    async with open_bus(bus_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        with storm(file, bus_url, unique, tmp_path / "workers.log") as workers:
            for _ in range(WORKERS):
                await workers.start()
            sent = 0
            for number in range(kills):
                step = chance.randint(4, 30)
                before = await committed(bus, unique)
                await publish(bus, unique, make_inference, range(sent, sent + step), rows=3)
                sent += step
                # Every other kill falls on workers at work, the next one comes before the group has settled.
                if number % 2:
                    async with asyncio.timeout(DEADLINE_S):
                        while await committed(bus, unique) <= before:
                            await asyncio.sleep(0.01)
                await asyncio.sleep(chance.uniform(0, 0.1))
                workers.kill(chance.randrange(WORKERS))
                await workers.start()
            await until_committed(bus, unique, "govern-worker")
        expected = await check(bus, unique, load(file))
    taken = (tmp_path / "workers.log").read_text().count("partition taken")
    print(
        f"{bus_url.partition(':')[0]}: {kills} kills in {time.monotonic() - started:.0f} s, "
        f"partitions taken {taken} times; of {sent} inferences {len(expected.judgements)} verdicts, each once"
    )
