"""What a shipper puts on the bus: records, their copies for further topics and its place after them, all or nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from opentelemetry.trace import Span, Tracer

from govern.bus.protocol import Bus, BusError, Outgoing, Partition, Transactor
from govern.bus.topics import needed, topic
from govern.codecs.cloudevents import to_message
from govern.ids import uuid7
from govern.mirror.captured import Captured, CapturedFeedback
from govern.mirror.cipher import refuse_without_restart
from govern.mirror.config import MirrorConfig
from govern.mirror.fan_out import FanOut
from govern.mirror.leaving import Leaving
from govern.mirror.messages import Messages
from govern.mirror.redaction.redactor import Redactor
from govern.mirror.reload import digest
from govern.mirror.tail import Position
from govern.record import SCHEMA_VERSION, ConfigChange, Inference

_log: Final = logging.getLogger(__name__)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the positions topic; its key is the agent."""

    spool: str
    position: Position


class _Rules(NamedTuple):
    """What is to be followed from the next transaction on."""

    redactor: Redactor
    fan_out: FanOut
    digest: str


class Publisher:
    """Publishes what left one spool, by the rules in force.

    Args:
        leaving: takes the rules of redaction over with the others.
        tracer: emits one span per capture when there is one.
    """

    def __init__(self, config: MirrorConfig, leaving: Leaving, *, tracer: Tracer | None) -> None:
        self._config = config
        self._leaving = leaving
        self._source = f"/govern/mirror/{config.pod}"
        self._messages = Messages(self._source, tracer)
        self._fan_out = FanOut(config.fan_out)
        self._inferences = topic(config.namespace, "inferences")
        self._feedback = topic(config.namespace, "feedback")
        self._positions = topic(config.namespace, "positions")
        self._changes = topic(config.namespace, "config")
        self._rules_digest = digest(config)
        self._wanted: _Rules | None = None

    def apply(self, config: MirrorConfig) -> None:
        """Want another configuration's rules.

        Raises:
            ConfigError: the rules of redaction need a restart, or a key or a file that is missing or unusable.
        """
        refuse_without_restart(self._config, config)
        redactor = Redactor(config.redaction, body_bytes=config.body_bytes)
        self._wanted = _Rules(redactor, FanOut(config.fan_out), digest(config))

    async def ensure_topics(self, bus: Bus) -> None:
        """
        Raises:
            BusError: one is there with other settings, or the bus fails.
        """
        await self._ensure_topics(bus, self._fan_out)

    async def take_over(self, bus: Bus, transactor: Transactor) -> None:
        """Follow the rules that are wanted, if any, once it is on the bus that they are followed.

        Raises:
            BusError: one that may not come again; the rules stay wanted.
        """
        rules = self._wanted
        if rules is None:
            return
        try:
            await self._ensure_topics(bus, rules.fan_out)
        except BusError as error:
            if error.retriable:
                raise
            self._wanted = None
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
            detail=f"instead of {self._rules_digest}",
        )
        async with transactor.transaction() as transaction:
            await transaction.publish(self._changes, [to_message(change, source=self._source)])
        self._leaving.redactor, self._fan_out, self._rules_digest = rules
        _log.warning("new rules are in force: %s", rules.digest)
        if self._wanted is rules:
            self._wanted = None

    async def stored(self, bus: Bus) -> dict[str, Stored]:
        """The places that are on the bus, by agent; of every spool of the namespace."""
        table = await bus.read_table(Partition(self._positions, 0))
        # Keys with a slash belong to those who read other streams; an agent's name has none.
        return {
            key.decode(): msgspec.json.decode(value, type=Stored) for key, value in table.items() if b"/" not in key
        }

    async def take_back(self, transactor: Transactor, agents: Sequence[str]) -> None:
        """Remove the places of agents of which nothing is left."""
        if agents:
            async with transactor.transaction() as transaction:
                await transaction.publish(self._positions, [Outgoing(key=name.encode(), value=None) for name in agents])

    async def publish(self, transactor: Transactor, records: Sequence[Captured], places: Mapping[str, Stored]) -> None:
        """Publish records, and the places after them by agent."""
        messages: list[Outgoing] = []
        feedback: list[Outgoing] = []
        beside: dict[str, list[Outgoing]] = {}
        spans: list[tuple[Span, Inference]] = []
        for record in records:
            if isinstance(record, CapturedFeedback):
                feedback.append(self._messages.of_feedback(record.feedback))
                continue
            message, span = self._messages.of(record)
            messages.append(message)
            for name in self._fan_out.topics(record):
                beside.setdefault(name, []).append(message)
            if span is not None:
                spans.append((span, record))
        positions = [Outgoing(key=name.encode(), value=msgspec.json.encode(stored)) for name, stored in places.items()]
        async with transactor.transaction() as transaction:
            await transaction.publish(self._inferences, messages)
            if feedback:
                await transaction.publish(self._feedback, feedback)
            for topic_, copies in beside.items():
                await transaction.publish(topic_, copies)
            await transaction.publish(self._positions, positions)
        for span, record in spans:
            span.end(end_time=record.t_response)

    async def _ensure_topics(self, bus: Bus, fan_out: FanOut) -> None:
        await bus.ensure_topics(
            needed(
                self._config.namespace,
                ("inferences", "feedback", "positions", "config"),
                message_bytes=self._config.message_bytes,
                beside=fan_out.specs,
            )
        )
