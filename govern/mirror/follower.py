"""Following the spool for one bus: its own place, its own transactions, its own back-off.

Records and the place after them are published in one transaction; on each connection the places are read back. So
whatever dies, and whenever, a record is on the bus once, and an agent's records are there in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from govern.bus.protocol import Bus, BusError, Transactor
from govern.errors import ConfigError
from govern.mirror.agents import Agent, Agents
from govern.mirror.captured import Captured
from govern.mirror.folder import SegmentPath
from govern.mirror.inspect import count_records
from govern.mirror.leaving import Leaving
from govern.mirror.publisher import Publisher
from govern.mirror.standing import Standing
from govern.mirror.tail import Piece, Tail

_log: Final = logging.getLogger(__name__)

#: One transaction carries at most this much: a few MB in memory, tens of ms on the bus.
_BATCH_RECORDS: Final = 2000
_BATCH_BYTES: Final = 8 * 1024 * 1024
#: One agent's share of it before the next agent gets its turn.
_PIECE_BYTES: Final = 512 * 1024
#: After a small batch: wait for more, so that slow traffic costs ten transactions a second, not hundreds. Each takes
#: this process as long as some 50 records do, on cores that it shares with the traffic.
_GATHER_S: Final = 0.1
_SMALL_BATCH: Final = 200
#: Polling while nothing comes, from the shortest to the longest wait: five looks a second cost nothing to speak of.
_IDLE_MIN_S: Final = 0.01
_IDLE_MAX_S: Final = 0.2
#: Waits between attempts to reach the bus, doubled each time, each shortened at random by up to a half, so that the
#: shippers of many pods do not come back at the same moment.
_BACK_OFF_MIN_S: Final = 0.2
_BACK_OFF_MAX_S: Final = 10.0


class Settled(NamedTuple):
    """What a round came to.

    Attributes:
        sent: records that are on the bus since.
        lost: of which agent how many records cannot be had.
    """

    sent: list[Captured]
    lost: list[tuple[Agent, int]]


class Follower:
    """Carries one spool to one bus.

    Args:
        open_bus: makes a new connection; called again after each loss.
        known: how far the bus was known to be with each agent; what the bus says itself counts if it is more.
        persistent: whether to go on trying when the bus refuses for good, too, because others depend on this process.
        before_round: called before each transaction.
        after_round: called after each; returns nothing, and may retire agents that all are through with.

    Attributes:
        idle: nothing was left in the last round, and nothing more is to come.
        spent: dead agents of which nothing is left for this bus.
        n_sent: records put on the bus by this run.
        n_lost: records that this run found lost.
    """

    def __init__(
        self,
        agents: Agents,
        leaving: Leaving,
        publisher: Publisher,
        *,
        open_bus: Callable[[], Bus],
        after_round: Callable[[Follower, Settled], None],
        before_round: Callable[[Publisher, Bus, Transactor], Awaitable[None]] | None = None,
        known: Mapping[str, Standing] | None = None,
        persistent: bool = False,
    ) -> None:
        self.publisher = publisher
        self.idle = False
        self.spent: set[str] = set()
        self.n_sent = 0
        self.n_lost = 0
        self._agents = agents
        self._leaving = leaving
        self._open_bus = open_bus
        self._after_round = after_round
        self._before_round = before_round
        self._persistent = persistent
        self._standings: dict[str, Standing] = dict(known or {})
        self._tails: dict[str, Tail] = {}
        self._gone: list[str] = []

    @property
    def name(self) -> str:
        return self.publisher.outlet.name

    def standing(self, agent: str) -> Standing:
        """How far the bus is with an agent, as far as is known."""
        return self._standings.get(agent, Standing())

    def standings(self) -> dict[str, Standing]:
        """The same of every agent."""
        return dict(self._standings)

    def needs(self, segment: SegmentPath) -> bool:
        return segment.number >= self.standing(segment.agent).position.segment

    def pending(self) -> int:
        """Records that lie in the spool and are not known to be on the bus."""
        self._agents.find()
        return sum(
            count_records(segment.path, self.standing(segment.agent).position.next_seq)
            for segment in self._agents.segments()
            if self._agents.get(segment.agent) is not None
        )

    def let_go(self, segment: SegmentPath) -> None:
        """A segment that is needed is no more: what was not read of it is lost."""
        tail = self._tails.get(segment.agent)
        if tail is not None and tail.position.segment == segment.number:
            tail.close()

    def retire(self, agent: str) -> None:
        """Nothing of an agent is left: its place is taken back in the next round."""
        if agent in self._tails:
            self._tails.pop(agent).close()
        if self._standings.pop(agent, None) is not None:
            self._gone.append(agent)
        self.spent.discard(agent)

    async def run(self, stop: asyncio.Event, *, until_agents_end: bool, others_idle: Callable[[], bool]) -> None:
        """Ship until `stop` is set, and then what is there or, with `until_agents_end`, comes until the agents end.

        Args:
            others_idle: whether all who follow the spool are idle: until then something may be left to take back.

        Raises:
            BusError, ConfigError: the bus refuses for good.
        """
        back_off_s = _BACK_OFF_MIN_S
        while True:
            began = time.monotonic()
            try:
                async with self._open_bus() as bus:
                    await self._ship(bus, stop, until_agents_end=until_agents_end, others_idle=others_idle)
                    return
            except (BusError, ConfigError, OSError) as error:
                lasting = isinstance(error, ConfigError) or (isinstance(error, BusError) and not error.retriable)
                if lasting and not self._persistent:
                    raise
                where = f" to {self.name}" if self.name else ""
                _log.warning("nothing can be shipped%s now, records wait in the spool: %s", where, error)
                self.idle = False
            finally:
                self._forget_tails()
            if time.monotonic() - began > _BACK_OFF_MAX_S:
                back_off_s = _BACK_OFF_MIN_S  # it had worked for a while
            await asyncio.sleep(back_off_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            back_off_s = min(2 * back_off_s, _BACK_OFF_MAX_S)

    async def _ship(
        self, bus: Bus, stop: asyncio.Event, *, until_agents_end: bool, others_idle: Callable[[], bool]
    ) -> None:
        """Ship over one connection."""
        await self.publisher.ensure_topics(bus)
        transactor = await bus.transactor(self.publisher.transactional_id)
        try:
            await self._restore(bus, transactor)
            idle_s = _IDLE_MIN_S
            while True:
                if self._before_round is not None:
                    await self._before_round(self.publisher, bus, transactor)
                n_read = await self._round(transactor)
                if stop.is_set():
                    alive = until_agents_end and any(agent.alive() for agent in self._agents)
                    self.idle = not n_read and not alive
                    if self.idle and others_idle() and not self._gone:
                        return
                    await asyncio.sleep(_GATHER_S)
                elif n_read < _SMALL_BATCH:
                    idle_s = _GATHER_S if n_read else min(2 * idle_s, _IDLE_MAX_S)
                    await _set_within(stop, idle_s)
        finally:
            await transactor.close()

    async def _restore(self, bus: Bus, transactor: Transactor) -> None:
        """Begin where the bus says that we were; take back the places of agents of which nothing is left."""
        on_bus, ours = await self.publisher.standings(bus)
        present = self._agents.names()
        for name, standing in on_bus.items():
            if name in present and standing.position.next_seq >= self.standing(name).position.next_seq:
                self._standings[name] = standing
        await self.publisher.take_back(transactor, sorted(ours - present))

    async def _round(self, transactor: Transactor) -> int:
        """Publish one batch; the number of records read."""
        gone = list(self._gone)
        await self.publisher.take_back(transactor, gone)
        self._gone = [name for name in self._gone if name not in gone]
        self._agents.find()
        batch, spent = self._collect()
        moved: dict[str, Standing] = {}
        sent: list[Captured] = []
        n_read = 0
        for agent, piece in batch:
            going = self.publisher.going(piece.records)
            before = moved.get(agent.name) or self.standing(agent.name)
            moved[agent.name] = Standing(
                position=piece.position,
                sent=before.sent + len(going),
                filtered=before.filtered + len(piece.records) - len(going),
            )
            sent += going
            n_read += len(piece.records)
        lost = [
            (agent, moved[name].position.corrupt - self.standing(name).position.corrupt)
            for name, agent in {agent.name: agent for agent, _ in batch}.items()
        ]
        lost = [(agent, count) for agent, count in lost if count]
        if n_read or lost:
            await self.publisher.publish(transactor, sent, moved)
        self._standings.update(moved)
        self.spent = {agent.name for agent in spent}
        self.n_sent += len(sent)
        self.n_lost += sum(count for _, count in lost)
        self._after_round(self, Settled(sent, lost))
        return n_read

    def _collect(self) -> tuple[list[tuple[Agent, Piece]], list[Agent]]:
        """What to publish next, each agent in its turn, and the dead agents of which nothing is left to publish."""
        batch: list[tuple[Agent, Piece]] = []
        spent: list[Agent] = []
        n_records = n_bytes = 0
        unread = list(self._agents)
        random.shuffle(unread)  # so that no agent is always the last one of a full batch
        while unread and n_records < _BATCH_RECORDS and n_bytes < _BATCH_BYTES:
            for agent in list(unread):
                dead = not agent.alive()
                tail = self._tail(agent)
                piece = tail.read(max_bytes=_PIECE_BYTES, dead=dead)
                if piece is None:
                    unread.remove(agent)
                    if dead:
                        spent.append(agent)
                        batch += self._lost_with(agent, tail)
                    continue
                tail.position = piece.position
                batch.append((agent, piece))
                n_records += len(piece.records)
                n_bytes += piece.n_bytes
        return batch, spent

    def _lost_with(self, agent: Agent, tail: Tail) -> list[tuple[Agent, Piece]]:
        """What a dead agent had captured, and nobody can read any more."""
        position = tail.position
        lost = agent.counts(at_least=position.next_seq).captured - position.next_seq
        if not lost:
            return []
        _log.error("agent %s: its last %d records are lost", agent.name, lost)
        tail.position = msgspec.structs.replace(
            position, next_seq=position.next_seq + lost, corrupt=position.corrupt + lost
        )
        return [(agent, Piece([], tail.position, 0))]

    def _tail(self, agent: Agent) -> Tail:
        if agent.name not in self._tails:
            position = self.standing(agent.name).position
            self._tails[agent.name] = Tail(agent.name, self._agents.folders, position, self._leaving)
        return self._tails[agent.name]

    def _forget_tails(self) -> None:
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()


async def _set_within(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event, at most so long. Not with `wait_for`, which swallows a cancellation that comes with it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
