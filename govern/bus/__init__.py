"""The bus: topics, consumer groups and transactions, on Apache Kafka or in one SQLite file."""

from govern.bus.protocol import (
    Bus,
    Message,
    Outgoing,
    Partition,
    Subscription,
    TopicSpec,
    Transaction,
    Transactor,
)
from govern.bus.url import open_bus

__all__ = [
    "Bus",
    "Message",
    "Outgoing",
    "Partition",
    "Subscription",
    "TopicSpec",
    "Transaction",
    "Transactor",
    "open_bus",
]
