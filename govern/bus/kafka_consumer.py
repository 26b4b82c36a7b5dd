"""What the two users of aiokafka's consumer share."""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from govern.bus.protocol import Message

#: How long the broker may hold a fetch that finds nothing, milliseconds. A position that was moved meanwhile is
#: fetched from only after that.
FETCH_WAIT_MS: Final = 100

#: How long stopping may take, seconds.
_STOP_S: Final = 5.0


def message_of(record: ConsumerRecord) -> Message:
    return Message(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key or b"",
        value=record.value,
        headers=tuple((name, value) for name, value in record.headers),
    )


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Leave the group and close the connections, in bounded time and whatever state the broker is in.

    aiokafka's `stop` first finishes a rebalance, which may wait for other members; and while the broker is away it
    lets the cancellation of its own fetches escape.
    """
    try:
        async with asyncio.timeout(_STOP_S):
            await consumer.stop()
    except TimeoutError:
        coordinator = consumer._coordinator
        await coordinator._stop_heartbeat_task()
        await coordinator._stop_commit_offsets_refresh_task()
        await coordinator._maybe_leave_group()
        await _stop_fetching(consumer)
    except asyncio.CancelledError:
        await _stop_fetching(consumer)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # it was us who were cancelled
    finally:
        await consumer._client.close()


async def _stop_fetching(consumer: AIOKafkaConsumer) -> None:
    tasks = [consumer._fetcher._fetch_task, *consumer._fetcher._pending_tasks]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
