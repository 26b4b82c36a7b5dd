"""What goes onto one bus: records, their copies for further topics there and the place after them, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from opentelemetry.trace import Span, Tracer

from govern.bus.protocol import Bus, Outgoing, Partition, Transactor
from govern.bus.topics import Stream, needed, topic
from govern.mirror.captured import Captured, CapturedFeedback
from govern.mirror.config import MirrorConfig
from govern.mirror.destination import Destination
from govern.mirror.fan_out import FanOut, Filter
from govern.mirror.messages import Messages
from govern.mirror.redaction.redactor import Redactor
from govern.mirror.standing import Standing
from govern.record import Inference

#: Of its namespace a publisher needs these.
STREAMS: Final[tuple[Stream, ...]] = ("inferences", "feedback", "positions")


class _Stored(Standing, frozen=True, kw_only=True, omit_defaults=True):
    """A message of the positions topic; its key ends with the agent."""

    spool: str


@dataclass(frozen=True, slots=True)
class Outlet:
    """A bus and what goes there.

    Attributes:
        name: "" is the main bus, which the pod's account is of.
        streams: the topics of the namespace that are needed.
        wanted: which records go there; None = all.
        redactor: takes out more than the main rules did; None = nothing more.
    """

    name: str
    namespace: str
    message_bytes: int
    fan_out: FanOut
    streams: tuple[Stream, ...] = STREAMS
    wanted: Filter | None = None
    redactor: Redactor | None = None

    @property
    def key_prefix(self) -> str:
        """What keys in the positions topic begin with. The main bus's are the agents' names, which have no slash."""
        return f"to/{self.name}/" if self.name else ""


def main_outlet(config: MirrorConfig) -> Outlet:
    fan_out = FanOut(config.fan_out)
    return Outlet("", config.namespace, config.message_bytes, fan_out, streams=(*STREAMS, "config"))


def outlet_of(destination: Destination, config: MirrorConfig) -> Outlet:
    """
    Raises:
        ConfigError: the rules of redaction need a key or a file that is missing or unusable.
    """
    return Outlet(
        destination.name,
        destination.namespace or config.namespace,
        destination.message_bytes,
        FanOut(destination.fan_out),
        wanted=destination.filter,
        redactor=Redactor(destination.redaction, body_bytes=config.body_bytes),
    )


class Publisher:
    """Publishes what left one spool to one bus.

    Args:
        spool_id: the spool's own name.
        source: `ce_source` of the messages.
        tracer: emits one span per capture when there is one.

    Attributes:
        fan_out: further topics from the next transaction on; another one may take its place at any time.
    """

    def __init__(self, outlet: Outlet, *, spool_id: str, source: str, tracer: Tracer | None = None) -> None:
        self.outlet = outlet
        self.fan_out = outlet.fan_out
        self._spool_id = spool_id
        self._messages = Messages(source, tracer)
        self._inferences = topic(outlet.namespace, "inferences")
        self._feedback = topic(outlet.namespace, "feedback")
        self._positions = topic(outlet.namespace, "positions")

    @property
    def transactional_id(self) -> str:
        return f"govern.shipper.{self._spool_id}{f'.{self.outlet.name}' * bool(self.outlet.name)}"

    async def ensure_topics(self, bus: Bus) -> None:
        """
        Raises:
            BusError: one is there with other settings, or the bus fails.
        """
        outlet = self.outlet
        await bus.ensure_topics(
            needed(outlet.namespace, outlet.streams, message_bytes=outlet.message_bytes, beside=self.fan_out.specs)
        )

    async def standings(self, bus: Bus) -> tuple[dict[str, Standing], set[str]]:
        """What the bus says of each agent, and which of them are this spool's."""
        table = await bus.read_table(Partition(self._positions, 0))
        prefix = self.outlet.key_prefix
        # Further keys with a slash belong to those who read other streams, and to other destinations.
        found = {
            name: msgspec.json.decode(value, type=_Stored)
            for name, value in (
                (key.decode().removeprefix(prefix), value)
                for key, value in table.items()
                if key.decode().startswith(prefix)
            )
            if "/" not in name
        }
        return dict(found), {name for name, stored in found.items() if stored.spool == self._spool_id}

    async def take_back(self, transactor: Transactor, agents: Sequence[str]) -> None:
        """Remove the places of agents of which nothing is left."""
        if agents:
            async with transactor.transaction() as transaction:
                await transaction.publish(
                    self._positions, [Outgoing(key=self._key(name), value=None) for name in agents]
                )

    def going(self, records: Sequence[Captured]) -> list[Captured]:
        """Those that are for this bus."""
        wanted = self.outlet.wanted
        return list(records) if wanted is None else [record for record in records if wanted.fits(record)]

    async def publish(self, transactor: Transactor, records: Sequence[Captured], moved: Mapping[str, Standing]) -> None:
        """Publish records that are for this bus, and how far it is then with their agents."""
        messages: list[Outgoing] = []
        feedback: list[Outgoing] = []
        beside: dict[str, list[Outgoing]] = {}
        spans: list[tuple[Span, Inference]] = []
        redactor = self.outlet.redactor
        for captured in records:
            if isinstance(captured, CapturedFeedback):
                message = self._messages.of_feedback(
                    (captured if redactor is None else redactor.of_feedback(captured)).feedback.record
                )
                feedback.append(message)
            else:
                record = captured if redactor is None else redactor.of(captured)
                message, span = self._messages.of(record)
                messages.append(message)
                if span is not None:
                    spans.append((span, record))
            for name in self.fan_out.topics(captured):
                beside.setdefault(name, []).append(message)
        places = [Outgoing(key=self._key(name), value=self._stored(standing)) for name, standing in moved.items()]
        sent = {self._inferences: messages, self._feedback: feedback, **beside, self._positions: places}
        async with transactor.transaction() as transaction:
            for name, outgoing in sent.items():
                if outgoing:
                    await transaction.publish(name, outgoing)
        for span, record in spans:
            span.end(end_time=record.t_response)

    def _key(self, agent: str) -> bytes:
        return f"{self.outlet.key_prefix}{agent}".encode()

    def _stored(self, standing: Standing) -> bytes:
        return msgspec.json.encode(
            _Stored(spool=self._spool_id, position=standing.position, sent=standing.sent, filtered=standing.filtered)
        )
