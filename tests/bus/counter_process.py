"""A process that runs a `Counter` until it is killed: `python -m tests.bus.counter_process URL IN OUT STATE GROUP`."""

from __future__ import annotations

import asyncio
import sys

from govern.bus import Bus, open_bus
from tests.bus.helpers import Counter

#: The shortest that the test broker allows: its group must notice soon that a member was killed.
SESSION_TIMEOUT_S = 2.0


def connect(url: str) -> Bus:
    if url.startswith("kafka://"):
        return open_bus(url, session_timeout_s=SESSION_TIMEOUT_S)
    return open_bus(url)


async def main(url: str, source: str, target: str, state: str, group: str) -> None:
    async with connect(url) as bus:
        counter = Counter(bus, source, target, state, group)
        await counter.start()
        while True:
            await counter.step(max_messages=7)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
