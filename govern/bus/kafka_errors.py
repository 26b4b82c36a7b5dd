"""aiokafka's errors, and its silence, as ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from aiokafka import errors
from aiokafka.errors import (
    BrokerResponseError,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidSessionTimeoutError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
    UnknownTopicOrPartitionError,
)

from govern.bus.protocol import BusError, Fenced, MemberRefused, MessageTooLarge, UnknownTopic


class TransactionAbortable(BrokerResponseError):  # type: ignore[misc]
    """The broker wants the transaction ended without effect; the next one may succeed."""

    errno = 120
    message = "TRANSACTION_ABORTABLE"
    description = "The transaction can only be aborted."


class FencedInstanceIdError(BrokerResponseError):  # type: ignore[misc]
    """A newer process has joined the group with this one's instance id."""

    errno = 82
    message = "FENCED_INSTANCE_ID"
    description = "The broker has the instance id under another member id."


#: What brokers answer that aiokafka's table (0.14) has no name for, which makes it UnknownError: its codes end at 79.
#: Brokers since 2.7 say 90 in a transaction (https://kafka.apache.org/protocol#protocol_error_codes) where older ones
#: said 47, InvalidProducerEpoch; 120 is said since 3.8.
NAMELESS: Final = {82: FencedInstanceIdError, 90: ProducerFenced, 120: TransactionAbortable}

for _code, _error in NAMELESS.items():
    errors.kafka_errors.setdefault(_code, _error)


@contextlib.asynccontextmanager
async def kafka_errors(what: str, *, timeout_s: float) -> AsyncIterator[None]:
    """Bound the block's time (aiokafka tries again for ever while the broker is away) and translate its errors.

    Args:
        what: the topic, group or transactional id that the block deals with.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise BusError(
            what,
            why=f"the broker has not answered for {timeout_s:.0f} s",
            fix="check that the broker runs and can be reached; the same call may then succeed",
        ) from error
    except (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping) as error:
        raise Fenced.holder(what) from error
    except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
        raise too_large(what, why="the broker takes no message of this size") from error
    except FencedInstanceIdError as error:
        raise MemberRefused.superseded(what, str(error.args[0])) from error
    except InvalidSessionTimeoutError as error:
        raise MemberRefused.session_timeout(what) from error
    except UnknownTopicOrPartitionError as error:
        raise UnknownTopic.named(what) from error
    except KafkaError as error:
        raise BusError(
            what,
            why=f"Kafka says: {error!r}",
            fix="check the broker's state and its log; the same call may succeed later",
        ) from error


def too_large(what: str, *, why: str) -> MessageTooLarge:
    return MessageTooLarge(what, why=why, fix="send less, or raise max.message.bytes of the topic and of this client")
