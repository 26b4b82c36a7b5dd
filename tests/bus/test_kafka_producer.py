"""Writing to Kafka, as far as no broker is needed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced

from govern.bus.kafka_producer import KafkaProducer, KafkaTransactor
from tests.mirror.conftest import DEADLINE_S


async def _one(topic: str) -> int:
    return 1


def _fenced(producer: AIOKafkaProducer) -> None:
    producer._txn_manager.fatal_error(ProducerFenced())


def _refused_then_fenced(producer: AIOKafkaProducer) -> None:
    producer._txn_manager.error_transaction(ValueError("refused"))
    producer._txn_manager.fatal_error(ProducerFenced())


@pytest.mark.parametrize("fails", [_fenced, _refused_then_fenced])
async def test_a_transaction_given_up_leaves_no_error_that_asyncio_logs(
    fails: Callable[[AIOKafkaProducer], None],
) -> None:
    """asyncio tells its handler of a future whose exception nobody took, when the future is collected."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    producer = AIOKafkaProducer(transactional_id="guard.0")
    producer._txn_manager.set_pid_and_epoch(1, 0)  # what the broker answers first
    transactor = KafkaTransactor(
        KafkaProducer(producer, _one, name="kafka", timeout_s=DEADLINE_S, message_bytes=1000), "guard.0"
    )

    async def work() -> None:
        async with transactor.transaction():
            fails(producer)
            await asyncio.sleep(0)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await work()
    await asyncio.sleep(0)
    producer._txn_manager._transaction_waiter = None
    gc.collect()
    assert told == []
