"""How many messages per second each bus carries: `python -m tests.bench.bus [--messages 100000]`."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import uuid
from pathlib import Path

from govern.bus import Bus, Outgoing, TopicSpec, open_bus
from tests.services.kafka import Kafka

BATCH = 500
#: About the size of a small inference: 2 KiB would be a row of 30 features in V2 JSON.
VALUE_BYTES = 512


async def measure(bus: Bus, count: int) -> dict[str, float]:
    """Messages per second, published in batches; in transactions with their offsets; and read by a group."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    plain, transacted = f"{name}.plain", f"{name}.transacted"
    await bus.ensure_topics([TopicSpec(name=plain, partitions=4), TopicSpec(name=transacted, partitions=4)])
    batches = [
        [
            Outgoing(key=f"key-{n % 40}".encode(), value=bytes(VALUE_BYTES), headers=(("ce_id", b"0"),))
            for n in range(BATCH)
        ]
        for _ in range(count // BATCH)
    ]
    rates = {}

    started = time.perf_counter()
    for batch in batches:
        await bus.publish(plain, batch)
    rates["publish"] = count / (time.perf_counter() - started)

    transactor = await bus.transactor(name)
    started = time.perf_counter()
    for batch in batches:
        async with transactor.transaction() as transaction:
            await transaction.publish(transacted, batch)
    rates["transact"] = count / (time.perf_counter() - started)
    await transactor.close()

    subscription = await bus.subscribe([plain], name)
    while not (seen := len(await subscription.poll())):
        pass
    started = time.perf_counter()
    first = seen
    while seen < count:
        seen += len(await subscription.poll())
    rates["read"] = (count - first) / (time.perf_counter() - started)
    await subscription.close()
    return rates


async def run(url: str, count: int) -> dict[str, float]:
    async with open_bus(url) as bus:
        return await measure(bus, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    count = parser.parse_args().messages
    with tempfile.TemporaryDirectory() as folder, Kafka() as kafka:
        embedded = asyncio.run(run(f"embedded://{Path(folder) / 'bus.db'}", count))
        on_kafka = asyncio.run(run(kafka.url, count))
    print(f"{count} messages of {VALUE_BYTES} bytes in batches of {BATCH}, per second:")
    for what, rate in embedded.items():
        print(f"{what:9} embedded {rate:10,.0f}   kafka {on_kafka[what]:10,.0f}   ratio {rate / on_kafka[what]:.1f}")


if __name__ == "__main__":
    main()
