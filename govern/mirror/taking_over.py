"""New rules of a shipper that runs: followed once it is on the main bus that they are followed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from govern.bus.protocol import Bus, BusError, Transactor
from govern.bus.topics import topic
from govern.codecs.cloudevents import to_message
from govern.ids import uuid7
from govern.mirror.cipher import refuse_without_restart
from govern.mirror.config import MirrorConfig
from govern.mirror.fan_out import FanOut
from govern.mirror.leaving import Leaving
from govern.mirror.publisher import Publisher, outlet_of
from govern.mirror.redaction.redactor import Redactor
from govern.mirror.reload import digest
from govern.record import SCHEMA_VERSION, ConfigChange

_log: Final = logging.getLogger(__name__)


class _Rules(NamedTuple):
    """What is to be followed from the next transaction on."""

    redactor: Redactor
    fan_out: FanOut
    digest: str
    config: MirrorConfig


class TakingOver:
    """The rules in force, and those that are to take their place.

    Args:
        follow: called with the configuration whose rules are in force now.

    Attributes:
        refuses: whether the newest rules are refused, by whoever read them or by the bus.
    """

    def __init__(
        self, config: MirrorConfig, leaving: Leaving, *, source: str, follow: Callable[[MirrorConfig], None]
    ) -> None:
        self._config = config
        self._leaving = leaving
        self._source = source
        self._follow = follow
        self._changes = topic(config.namespace, "config")
        self._digest = digest(config)
        self._wanted: _Rules | None = None
        self.refuses = False

    def apply(self, config: MirrorConfig) -> None:
        """Want another configuration's rules.

        Raises:
            ConfigError: the rules of redaction need a restart, or a key or a file that is missing or unusable.
        """
        refuse_without_restart(self._config, config)
        for destination in config.destinations:
            outlet_of(destination, config)
        redactor = Redactor(config.redaction, body_bytes=config.body_bytes)
        self._wanted = _Rules(redactor, FanOut(config.fan_out), digest(config), config)

    async def before_round(self, publisher: Publisher, bus: Bus, transactor: Transactor) -> None:
        """Take over what is wanted, if anything.

        Raises:
            BusError: one that may not come again; the rules stay wanted.
        """
        rules = self._wanted
        if rules is None:
            return
        try:
            await publisher.ensure_topics(bus, rules.fan_out)
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
            namespace=self._config.namespace,
            subject=f"capture/{self._config.service}",
            action="changed",
            digest=rules.digest,
            actor=self._source,
            t_change=time.time_ns(),
            detail=f"instead of {self._digest}",
        )
        async with transactor.transaction() as transaction:
            await transaction.publish(self._changes, [to_message(change, source=self._source)])
        self._leaving.redactor, publisher.fan_out, self._digest = rules.redactor, rules.fan_out, rules.digest
        self._follow(rules.config)
        _log.warning("new rules are in force: %s", rules.digest)
        if self._wanted is rules:
            self._wanted = None
