"""A bus from its URL."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from govern.bus.kafka_access import KafkaAccess
from govern.bus.protocol import MAX_MESSAGE_BYTES, Bus
from govern.errors import ConfigError

#: Why a URL that holds a secret is refused.
NO_SECRETS: Final = "it holds a user or a password, which would show in process lists and logs"
#: How a query might name one.
_SECRETS: Final = frozenset({"password", "passwd", "pass", "secret", "token"})


def open_bus(
    url: str,
    *,
    client_id: str = "govern",
    message_bytes: int = MAX_MESSAGE_BYTES,
    instance_id: str | None = None,
    session_timeout_s: float | None = None,
) -> Bus:
    """The bus that a URL names: `kafka://host:port[,host:port...][?tls=true&...]` or `embedded:///absolute/file.db`.

    The connection is made when the bus is entered. What the query may say is in `govern.bus.kafka_access`.

    Args:
        message_bytes: the longest message to send to Kafka.
        instance_id: this process's name in the groups that it joins on Kafka, which it has again after a restart.
        session_timeout_s: after how long without a sign of life its partitions go to others; None = what the bus has.

    Raises:
        ConfigError: the URL names neither, or holds a password; a member's settings are wrong, or not for this bus.
    """
    _refuse_secrets(url, setting="bus URL")
    parts = urlsplit(url)
    if parts.scheme == "kafka" and parts.netloc:
        from govern.bus.kafka import KafkaBus
        from govern.bus.kafka_member import SESSION_TIMEOUT_S, KafkaMember

        bootstrap, access = kafka_of(url)
        member = KafkaMember(instance_id, SESSION_TIMEOUT_S if session_timeout_s is None else session_timeout_s)
        return KafkaBus(bootstrap, access=access, client_id=client_id, member=member, message_bytes=message_bytes)
    if parts.scheme == "embedded" and parts.path.startswith("/"):
        from govern.bus.embedded import EmbeddedBus

        if instance_id is not None or session_timeout_s is not None:
            raise ConfigError(
                "group instance id and session timeout",
                why="members of the embedded bus have neither",
                fix="leave them out, or use kafka://host:port",
            )
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
        ConfigError: it names no broker, holds a password, or its query is wrong.
    """
    _refuse_secrets(url, setting=setting)
    parts = urlsplit(url)
    if parts.scheme != "kafka" or not parts.netloc:
        raise ConfigError(setting, why="it is not kafka://host:port", fix="name a cluster: kafka://host:port")
    return parts.netloc, KafkaAccess.of_query(parts.query, setting=setting)


def holds_a_secret(url: str) -> bool:
    """Whether a URL holds a user before its host or a password in its query, which nothing may then show.

    It is looked at as text: a password with a slash in it makes another URL of what it stands in.
    """
    place, _, query = url.partition("?")
    if place.startswith("embedded:///"):
        place = ""  # a file's name may hold an @
    names = [name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)]
    return "@" in place or any("@" in name or name in _SECRETS for name in names)


def _refuse_secrets(url: str, *, setting: str) -> None:
    if holds_a_secret(url):
        raise ConfigError(
            setting, why=NO_SECRETS, fix="use kafka://host:port?sasl=SCRAM-SHA-512&user=...&password_file=..."
        )
