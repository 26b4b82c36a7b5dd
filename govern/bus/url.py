"""A bus from its URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from govern.bus.kafka_access import KafkaAccess
from govern.bus.protocol import MAX_MESSAGE_BYTES, Bus
from govern.errors import ConfigError


def open_bus(url: str, *, client_id: str = "govern", message_bytes: int = MAX_MESSAGE_BYTES) -> Bus:
    """The bus that a URL names: `kafka://host:port[,host:port...][?tls=true&...]` or `embedded:///absolute/file.db`.

    The connection is made when the bus is entered. What the query may say is in `govern.bus.kafka_access`.

    Args:
        message_bytes: the longest message to send to Kafka.

    Raises:
        ConfigError: the URL names neither.
    """
    parts = urlsplit(url)
    if parts.scheme == "kafka" and parts.netloc:
        from govern.bus.kafka import KafkaBus

        bootstrap, access = kafka_of(url)
        return KafkaBus(bootstrap, access=access, client_id=client_id, message_bytes=message_bytes)
    if parts.scheme == "embedded" and parts.path.startswith("/"):
        from govern.bus.embedded import EmbeddedBus

        return EmbeddedBus(Path(parts.path))
    raise ConfigError(
        f"bus URL {url!r}",
        why="it is neither kafka://host:port nor embedded:///absolute/file.db",
        fix="set GOVERN_BUS (or --bus) to one of the two forms",
    )


def kafka_of(url: str, *, setting: str = "bus URL") -> tuple[str, KafkaAccess]:
    """The brokers that a `kafka://` URL names, and how they are reached.

    Args:
        setting: what holds the URL, for errors.

    Raises:
        ConfigError: it names no broker, holds a user, or its query is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme != "kafka" or not parts.netloc:
        raise ConfigError(setting, why="it is not kafka://host:port", fix="name a cluster: kafka://host:port")
    if "@" in parts.netloc:
        raise ConfigError(
            setting,
            why="it holds a user before the host, and a password there would show in process lists",
            fix="use kafka://host:port?sasl=SCRAM-SHA-512&user=...&password_file=...",
        )
    return parts.netloc, KafkaAccess.of_query(parts.query, setting=setting)
