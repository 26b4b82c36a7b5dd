"""The shipper: carries what the agents of a spool captured to the bus, exactly once.

Records and the position after them are published in one transaction; on a start the positions are read back. So
whatever dies, and whenever, a record is on the bus once, and an agent's records are there in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from opentelemetry.trace import Tracer

from govern.bus.protocol import Bus, BusError, Transactor
from govern.errors import ArtifactError
from govern.mirror import folder
from govern.mirror.agent import AgentInfo, AgentView, Counts
from govern.mirror.cipher import needed_key
from govern.mirror.config import MirrorConfig
from govern.mirror.exported import CaptureMetrics
from govern.mirror.inspect import count_records
from govern.mirror.leaving import Leaving
from govern.mirror.publisher import Publisher, Stored
from govern.mirror.redaction.redactor import Redactor
from govern.mirror.spill import Spill
from govern.mirror.tail import Piece, Position, Tail
from govern.record import Inference

_log: Final = logging.getLogger(__name__)

#: One transaction carries at most this much: a few MB in memory, tens of ms on the bus.
_BATCH_RECORDS: Final = 2000
_BATCH_BYTES: Final = 8 * 1024 * 1024
#: One agent's share of it before the next agent gets its turn.
_PIECE_BYTES: Final = 512 * 1024
#: After a small batch: wait for more, so that slow traffic costs tens of transactions a second, not hundreds.
_GATHER_S: Final = 0.025
_SMALL_BATCH: Final = 200
#: Polling while nothing comes, from the shortest to the longest wait: five looks a second cost nothing to speak of.
_IDLE_MIN_S: Final = 0.01
_IDLE_MAX_S: Final = 0.2
#: How often the agents' counters are read: finer than any scrape.
_EXPORT_EVERY_S: Final = 0.5
#: Waits between attempts to reach the bus, doubled each time, each shortened at random by up to a half, so that the
#: shippers of many pods do not come back at the same moment.
_BACK_OFF_MIN_S: Final = 0.2
_BACK_OFF_MAX_S: Final = 10.0


class Drained(NamedTuple):
    """What became of what lay in a spool.

    Attributes:
        shipped: records that came onto the bus.
        waiting: records that still lie in the spool.
        lost: records that cannot be read back.
        alive: agents that are still writing.
    """

    shipped: int
    waiting: int
    lost: int
    alive: int


class _Agent:
    """An agent as the shipper knows it."""

    def __init__(self, name: str, view: AgentView | None, tail: Tail) -> None:
        self.view = view
        self.info = view.info if view is not None else AgentInfo(agent=name)
        self.tail = tail
        #: What is on the bus, of `tail.position`.
        self.committed = tail.position

    def counts(self) -> Counts:
        """Its counters; a record on the bus was captured, even if the agent died before it could count it."""
        counts = self.view.counts() if self.view is not None else Counts()
        return counts._replace(captured=max(counts.captured, self.committed.next_seq))

    @property
    def counted(self) -> bool:
        """Whether it has a part in the account of inferences."""
        return self.view is not None and self.info.stream == "inferences"

    def alive(self) -> bool:
        return self.view is not None and self.view.alive()

    def close(self) -> None:
        self.tail.close()
        if self.view is not None:
            self.view.close()


class Shipper:
    """Ships one spool.

    Args:
        open_bus: makes a new connection; called again after each loss.
        metrics: where to count.
        tracer: emits one span per capture when there is one.

    Raises:
        ConfigError: the rules of redaction need a key or a file that is missing or unusable.
    """

    def __init__(
        self,
        config: MirrorConfig,
        *,
        open_bus: Callable[[], Bus],
        metrics: CaptureMetrics,
        tracer: Tracer | None = None,
    ) -> None:
        self._config = config
        self._open_bus = open_bus
        self._metrics = metrics
        self._leaving = Leaving(config, Redactor(config.redaction, body_bytes=config.body_bytes))
        self._publisher = Publisher(config, self._leaving, tracer=tracer)
        disk = () if config.disk_dir is None else (config.disk_dir,)
        self._folders: tuple[Path, ...] = (config.spool_dir, *disk)
        self._agents: dict[str, _Agent] = {}
        self._stored: dict[str, Position] = {}
        self._spool_id = ""
        self._n_shipped = 0
        self._n_lost = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Ship until `stop` is set, then what the agents write until they end, for at most `drain_s`.

        Raises:
            Unavailable: the folders are not usable, or another shipper works on them.
            BusError: the bus refuses for good (topics with other settings, another holder of our id).
        """
        needed_key(self._config)
        await self._run(stop, until_agents_end=True)

    def apply(self, config: MirrorConfig) -> None:
        """Follow another configuration's redaction and fan-out from the next transaction on, and put that on record.

        Raises:
            ConfigError: the rules of redaction need a restart, or a key or a file that is missing or unusable.
        """
        self._publisher.apply(config)

    async def drain(self) -> Drained:
        """Ship what lies in the spool now, whether its agents live or not, for at most `drain_s`.

        Raises:
            Unavailable, BusError: as `run`.
        """
        stop = asyncio.Event()
        stop.set()
        return await self._run(stop, until_agents_end=False)

    async def _run(self, stop: asyncio.Event, *, until_agents_end: bool) -> Drained:
        with contextlib.ExitStack() as held:
            for each in self._folders:
                folder.make_private(each)
                held.callback(os.close, folder.take(each, by="shipper"))
            self._spool_id = folder.spool_id(self._config.spool_dir)
            try:
                async with asyncio.TaskGroup() as tasks:
                    beside = [tasks.create_task(self._spill()), tasks.create_task(self._export())]
                    try:
                        async with asyncio.timeout(None) as limit:
                            beside.append(tasks.create_task(self._limit(limit, stop)))
                            await self._keep_shipping(stop, until_agents_end=until_agents_end)
                    except TimeoutError:
                        _log.warning("stopped after drain_s; %d records wait in the spool", self._pending())
                    for task in beside:
                        task.cancel()
                alive = sum(agent.alive() for agent in self._agents.values())
                return Drained(self._n_shipped, self._pending(), self._n_lost, alive)
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from group  # the first cause ended the others
            finally:
                self._show()
                self._forget_agents()

    async def _limit(self, limit: asyncio.Timeout, stop: asyncio.Event) -> None:
        """Once `stop` is set there are `drain_s` left, whatever is being waited for then."""
        await stop.wait()
        limit.reschedule(asyncio.get_running_loop().time() + self._config.drain_s)

    async def _spill(self) -> None:
        config = self._config
        if config.disk_dir is not None:
            await Spill(
                config.spool_dir,
                config.disk_dir,
                self._leaving,
                spool_bytes=config.spool_bytes,
                disk_bytes=config.disk_bytes,
            ).run()

    async def _export(self) -> None:
        while True:
            self._find_agents()
            self._show()
            await asyncio.sleep(_EXPORT_EVERY_S)

    async def _keep_shipping(self, stop: asyncio.Event, *, until_agents_end: bool) -> None:
        back_off_s = _BACK_OFF_MIN_S
        while True:
            began = time.monotonic()
            try:
                async with self._open_bus() as bus:
                    await self._ship(bus, stop, until_agents_end=until_agents_end)
                    return
            except (BusError, OSError) as error:
                if isinstance(error, BusError) and not error.retriable:
                    raise
                _log.warning("nothing can be shipped now, records wait in the spool: %s", error)
            if time.monotonic() - began > _BACK_OFF_MAX_S:
                back_off_s = _BACK_OFF_MIN_S  # it had worked for a while
            await asyncio.sleep(back_off_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            back_off_s = min(2 * back_off_s, _BACK_OFF_MAX_S)

    async def _ship(self, bus: Bus, stop: asyncio.Event, *, until_agents_end: bool) -> None:
        """Ship over one connection."""
        await self._publisher.ensure_topics(bus)
        transactor = await bus.transactor(f"govern.shipper.{self._spool_id}")
        try:
            await self._restore(bus, transactor)
            idle_s = _IDLE_MIN_S
            while True:
                await self._publisher.take_over(bus, transactor)
                shipped = await self._round(transactor)
                if stop.is_set():
                    alive = until_agents_end and any(agent.alive() for agent in self._agents.values())
                    if not shipped and not alive:
                        return
                    await asyncio.sleep(_GATHER_S)
                elif shipped < _SMALL_BATCH:
                    idle_s = _GATHER_S if shipped else min(2 * idle_s, _IDLE_MAX_S)
                    await _set_within(stop, idle_s)
        finally:
            await transactor.close()

    async def _restore(self, bus: Bus, transactor: Transactor) -> None:
        """Begin where the bus says that we were; take back the positions of agents of which nothing is left."""
        stored = await self._publisher.stored(bus)
        self._forget_agents()
        self._stored = {name: entry.position for name, entry in stored.items()}
        present = {path.stem for path in folder.agents(self._config.spool_dir)}
        present |= {segment.agent for each in self._folders for segment in folder.segments(each)}
        await self._publisher.take_back(
            transactor,
            [name for name, entry in stored.items() if entry.spool == self._spool_id and name not in present],
        )

    async def _round(self, transactor: Transactor) -> int:
        """Publish one batch; the number of records in it."""
        self._find_agents()
        batch, spent = self._collect()
        records = [record for _, piece in batch for record in piece.records]
        if records:
            positions = {agent.info.agent: agent.tail.position for agent, _ in batch}
            places = {name: Stored(spool=self._spool_id, position=place) for name, place in positions.items()}
            await self._publisher.publish(transactor, records, places)
        for agent, _ in batch:
            corrupt = agent.tail.position.corrupt - agent.committed.corrupt
            if corrupt:
                self._lost(agent.info, corrupt)
            agent.committed = agent.tail.position
        if records:
            self._n_shipped += len(records)
            self._count(shipped=[record for record in records if isinstance(record, Inference)])
        self._delete_shipped()
        await self._publisher.take_back(transactor, self._retire(spent))
        return len(records)

    def _find_agents(self) -> None:
        for path in folder.agents(self._config.spool_dir):
            if path.stem not in self._agents:
                try:
                    view = AgentView(path)
                except FileNotFoundError:
                    continue
                except ArtifactError as error:
                    _log.error("%s", error)
                    continue
                self._add(path.stem, view)
        if self._config.disk_dir is not None:
            # Segments whose agent's file was lost with the memory of the machine.
            for segment in folder.segments(self._config.disk_dir):
                if segment.agent not in self._agents:
                    self._add(segment.agent, None)

    def _add(self, name: str, view: AgentView | None) -> None:
        self._agents[name] = _Agent(
            name, view, Tail(name, self._folders, self._stored.get(name, Position()), self._leaving)
        )

    def _collect(self) -> tuple[list[tuple[_Agent, Piece]], list[_Agent]]:
        """What to publish next, each agent in its turn, and the dead agents of which nothing is left to publish."""
        batch: list[tuple[_Agent, Piece]] = []
        spent: list[_Agent] = []
        n_records = n_bytes = 0
        unread = list(self._agents.values())
        random.shuffle(unread)  # so that no agent is always the last one of a full batch
        while unread and n_records < _BATCH_RECORDS and n_bytes < _BATCH_BYTES:
            for agent in list(unread):
                dead = not agent.alive()
                piece = agent.tail.read(max_bytes=_PIECE_BYTES, dead=dead)
                if piece is None:
                    unread.remove(agent)
                    if dead:
                        spent.append(agent)
                    continue
                agent.tail.position = piece.position
                batch.append((agent, piece))
                n_records += len(piece.records)
                n_bytes += piece.n_bytes
        return batch, spent

    def _delete_shipped(self) -> None:
        """Delete the segments before each agent's position."""
        for each in self._folders:
            for segment in folder.segments(each):
                agent = self._agents.get(segment.agent)
                if agent is not None and segment.number < agent.committed.segment:
                    segment.path.unlink(missing_ok=True)

    def _retire(self, spent: list[_Agent]) -> list[str]:
        """Remove what dead agents left, their counts remembered; returns whose positions are to be taken back.

        In this order: a crash in between repeats no record, as long as the positions go last.
        """
        gone: list[str] = []
        for agent in spent:
            name = agent.info.agent
            counts = agent.counts()
            if agent.view is not None:
                lost = counts.captured - agent.committed.next_seq
                if lost:
                    _log.error("agent %s: its last %d records are lost", name, lost)
                    self._lost(agent.info, lost)
                try:
                    if agent.counted:
                        self._metrics.retire(agent.info, counts)
                except OSError as error:
                    _log.warning("the counts of agent %s cannot be kept yet: %s", name, error)
                    continue
            for each in self._folders:
                for segment in folder.segments(each):
                    if segment.agent == name:
                        segment.path.unlink(missing_ok=True)
                for draft in folder.drafts(each, name):
                    draft.unlink(missing_ok=True)
            if agent.view is not None:
                agent.view.path.unlink(missing_ok=True)
            agent.close()
            self._leaving.forget(name)
            del self._agents[name]
            if agent.committed != Position():
                gone.append(name)
        return gone

    def _show(self) -> None:
        self._count()
        held = sum(folder.held_bytes(each) for each in self._folders)
        self._metrics.held(self._config.namespace, self._config.service, held)

    def _count(self, *, shipped: Sequence[Inference] = ()) -> None:
        agents = {name: (agent.info, agent.counts()) for name, agent in self._agents.items() if agent.counted}
        pending = {
            name: counts.captured - self._agents[name].committed.next_seq for name, (_, counts) in agents.items()
        }
        self._metrics.update(agents, pending, shipped=shipped)

    def _lost(self, info: AgentInfo, count: int) -> None:
        self._n_lost += count
        self._metrics.corrupt(info, count)

    def _pending(self) -> int:
        """Records that lie in the spool and are not known to be on the bus."""
        self._find_agents()
        return sum(
            count_records(segment.path, self._agents[segment.agent].committed.next_seq)
            for each in self._folders
            for segment in folder.segments(each)
            if segment.agent in self._agents
        )

    def _forget_agents(self) -> None:
        for agent in self._agents.values():
            agent.close()
        self._agents.clear()


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for an event, at most so long; whether it is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    return event.is_set()
