"""The rules that a publisher goes by: others are followed once it is on the bus that they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from govern.bus.protocol import Bus, BusError, Transactor
from govern.bus.topics import Stream, needed, topic
from govern.codecs.cloudevents import to_message
from govern.ids import uuid7
from govern.mirror.config import MirrorConfig
from govern.mirror.fan_out import FanOut
from govern.mirror.redaction.redactor import Redactor
from govern.mirror.reload import digest
from govern.record import SCHEMA_VERSION, ConfigChange

_log: Final = logging.getLogger(__name__)


class _Rules(NamedTuple):
    config: MirrorConfig
    redactor: Redactor
    fan_out: FanOut


class InForce:
    """The rules of one publisher, and those that are wanted in their place.

    Args:
        redactor: of `config`.
        streams: the topics of the namespace that the publisher needs, beside the one that changes are put on.
        subject: whose rules they are, as a `ConfigChange` says it.
        source: who the publisher is, likewise.

    Attributes:
        refuses: whether the newest rules are refused, by whoever read them or by the bus.
    """

    def __init__(
        self, config: MirrorConfig, redactor: Redactor, *, streams: Collection[Stream], subject: str, source: str
    ) -> None:
        self.refuses = False
        self._rules = _Rules(config, redactor, FanOut(config.fan_out))
        self._wanted: _Rules | None = None
        self._streams: tuple[Stream, ...] = (*streams, "config")
        self._subject = subject
        self._source = source

    @property
    def config(self) -> MirrorConfig:
        return self._rules.config

    @property
    def redactor(self) -> Redactor:
        return self._rules.redactor

    @property
    def fan_out(self) -> FanOut:
        return self._rules.fan_out

    def apply(self, config: MirrorConfig) -> None:
        """Want another configuration's rules.

        Raises:
            ConfigError: those of redaction need a key or a file that is missing or unusable.
        """
        self._wanted = _Rules(config, Redactor(config.redaction, body_bytes=config.body_bytes), FanOut(config.fan_out))

    async def ensure_topics(self, bus: Bus) -> None:
        """
        Raises:
            BusError: one is there with other settings, or the bus fails.
        """
        await self._ensure_topics(bus, self._rules)

    async def take_over(self, bus: Bus, transactor: Transactor, *, follow: Callable[[], None] = lambda: None) -> None:
        """Follow the rules that are wanted, if any, once it is on the bus that they are followed.

        Args:
            follow: called once they are in force.

        Raises:
            BusError: one that may not come again; the rules stay wanted.
        """
        rules = self._wanted
        if rules is None:
            return
        try:
            await self._ensure_topics(bus, rules)
        except BusError as error:
            if error.retriable:
                raise
            self._wanted = None
            self.refuses = True
            _log.error("the new rules are refused, those in force stay: %s", error)
            return
        change = ConfigChange(
            schema_version=SCHEMA_VERSION,
            id=uuid7(),
            namespace=rules.config.namespace,
            subject=self._subject,
            action="changed",
            digest=digest(rules.config),
            actor=self._source,
            t_change=time.time_ns(),
            detail=f"instead of {digest(self.config)}",
        )
        async with transactor.transaction() as transaction:
            await transaction.publish(
                topic(rules.config.namespace, "config"), [to_message(change, source=self._source)]
            )
        self._rules = rules
        follow()
        _log.warning("new rules are in force: %s", change.digest)
        if self._wanted is rules:
            self._wanted = None

    async def _ensure_topics(self, bus: Bus, rules: _Rules) -> None:
        config = rules.config
        await bus.ensure_topics(
            needed(config.namespace, self._streams, message_bytes=config.message_bytes, beside=rules.fan_out.specs)
        )
