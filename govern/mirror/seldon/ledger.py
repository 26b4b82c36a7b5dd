"""What is on govern's bus: records, the places after them, and the reader's counts, always changed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from govern.bus.protocol import Bus, Outgoing, Partition, Transactor
from govern.bus.topics import topic
from govern.mirror.agent import Counts
from govern.mirror.in_force import InForce
from govern.mirror.join import Pair
from govern.mirror.messages import Messages
from govern.mirror.place import Stored
from govern.mirror.seldon.half import Half
from govern.mirror.seldon.inference import inference_of, is_kept
from govern.record import Inference


class Ledger:
    """The reader's side of the bus, for one holder of its transactional id.

    Args:
        table: the positions topic as it was when the id was taken.
        rules: those in force.
        agent: the reader's name. It is the same in every run, because the counts go on where they stood.
    """

    def __init__(
        self,
        bus: Bus,
        transactor: Transactor,
        table: Mapping[bytes, bytes],
        *,
        namespace: str,
        rules: InForce,
        agent: str,
        messages: Messages,
    ) -> None:
        self._bus = bus
        self._transactor = transactor
        self._rules = rules
        self._agent = agent
        self._messages = messages
        self._inferences = topic(namespace, "inferences")
        self._positions = topic(namespace, "positions")
        self._table = {key: value for key, value in table.items() if key.startswith(agent.encode())}
        stored = self._table.get(self._key())
        #: Whether no run of this reader has ever published anything.
        self.fresh = stored is None
        self.counts = Counts() if stored is None else Counts(*msgspec.json.decode(stored, type=tuple[int, int, int]))

    def stored(self, partition: Partition) -> Stored | None:
        """The place of a partition; None when it was never read."""
        value = self._table.get(self._key(partition))
        return None if value is None else msgspec.json.decode(value, type=Stored)

    async def take_over(self) -> None:
        """Follow the rules that are wanted, if any, once it is on the bus that they are followed.

        Raises:
            BusError: one that may not come again; the rules stay wanted.
        """
        await self._rules.take_over(self._bus, self._transactor)

    async def commit(
        self, pairs: Sequence[Pair[Half]], places: Mapping[Partition, Stored], lost: int
    ) -> tuple[list[Inference], list[Inference]]:
        """Publish the records of pairs and the places after them.

        Args:
            lost: halves that are in Seldon's topics no more, since the last commit.

        Returns:
            The records published, and those that sampling left out.
        """
        counts = self.counts._replace(dropped=self.counts.dropped + lost)
        records: list[Inference] = []
        left_out: list[Inference] = []
        for pair in pairs:
            record = inference_of(pair, agent=self._agent, seq=counts.captured, dropped=counts.dropped)
            if is_kept(record, pair.first):
                records.append(self._rules.redactor.of(record))
                counts = counts._replace(captured=counts.captured + 1)
            else:
                left_out.append(record)
                counts = counts._replace(sampled_out=counts.sampled_out + 1)
        moved = {self._key(tp): msgspec.json.encode(stored) for tp, stored in places.items()}
        moved[self._key()] = msgspec.json.encode((*counts,))
        outgoing = [self._messages.of(record) for record in records]
        beside = self._rules.fan_out.beside(
            (record, message) for record, (message, _) in zip(records, outgoing, strict=True)
        )
        async with self._transactor.transaction() as transaction:
            if outgoing:
                await transaction.publish(self._inferences, [message for message, _ in outgoing])
            for name, copies in beside.items():
                await transaction.publish(name, copies)
            await transaction.publish(self._positions, [Outgoing(key=key, value=value) for key, value in moved.items()])
        for record, (_, span) in zip(records, outgoing, strict=True):
            if span is not None:
                span.end(end_time=record.t_response)
        self._table.update(moved)
        self.counts, self.fresh = counts, False
        return records, left_out

    def _key(self, partition: Partition | None = None) -> bytes:
        """Under what key the positions topic keeps a partition's place, or the counts."""
        return (self._agent if partition is None else f"{self._agent}/{partition.topic}/{partition.partition}").encode()
