"""The shipper: carries what the agents of a spool captured to the main bus and to the destinations, exactly once each.

Every bus is followed for on its own (`follower`). A segment is deleted when all have it; what only a destination that
lags still needs is given up when there is no room (`surplus`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from opentelemetry.trace import Tracer

from govern.bus.protocol import Bus
from govern.mirror import folder
from govern.mirror.agent import AgentInfo, Counts
from govern.mirror.agents import Agent, Agents
from govern.mirror.cipher import needed_key
from govern.mirror.config import MirrorConfig
from govern.mirror.destination import Destination
from govern.mirror.exported import CaptureMetrics
from govern.mirror.folder import SegmentPath
from govern.mirror.follower import Follower, Settled
from govern.mirror.leaving import Leaving
from govern.mirror.publisher import Publisher, main_outlet, outlet_of
from govern.mirror.redaction.redactor import Redactor
from govern.mirror.spill import Spill
from govern.mirror.standing import Standing, Standings
from govern.mirror.surplus import Surplus
from govern.mirror.taking_over import TakingOver
from govern.record import Inference

_log: Final = logging.getLogger(__name__)

#: How often the agents' counters are read: finer than any scrape.
_EXPORT_EVERY_S: Final = 0.5


class Drained(NamedTuple):
    """What became of what lay in a spool.

    Attributes:
        shipped: records that came onto the bus.
        waiting: records that still lie in the spool.
        lost: records that cannot be read back.
        alive: agents that are still writing.
        destinations: the same of each destination, by name.
    """

    shipped: int
    waiting: int
    lost: int
    alive: int
    destinations: Mapping[str, Drained] = {}


class _Followed(NamedTuple):
    """A destination and who follows the spool for it."""

    destination: Destination
    follower: Follower
    task: asyncio.Task[None]


class Shipper:
    """Ships one spool.

    Args:
        open_bus: makes a new connection to the main bus; called again after each loss.
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
        self._tracer = tracer
        self._source = f"/govern/mirror/{config.pod}"
        self._leaving = Leaving(config, Redactor(config.redaction, body_bytes=config.body_bytes))
        self._taking_over = TakingOver(config, self._leaving, source=self._source, follow=self._follow)
        self._agents = Agents(config.spool_dir, config.disk_dir)
        self._surplus = Surplus(
            self._agents,
            spool_bytes=config.spool_bytes,
            disk_bytes=config.disk_bytes,
            needed=lambda segment: self._main.needs(segment),
            given_up=self._given_up,
        )
        self._followed: dict[str, _Followed] = {}
        for destination in config.destinations:
            outlet_of(destination, config)  # what is wrong with one shows before anything begins

    async def run(self, stop: asyncio.Event) -> None:
        """Ship until `stop` is set, then what the agents write until they end, for at most `drain_s`.

        Raises:
            Unavailable: the folders are not usable, or another shipper works on them.
            BusError: the bus refuses for good (topics with other settings, another holder of our id).
        """
        needed_key(self._config)
        await self._run(stop, until_agents_end=True)

    def apply(self, config: MirrorConfig) -> None:
        """Follow another configuration's rules from the next transaction on, and put that on record.

        Raises:
            ConfigError: the rules of redaction need a restart, or a key or a file that is missing or unusable.
        """
        self._taking_over.apply(config)

    def refused(self, standing: bool) -> None:
        """Show whether the configuration file, as it is now, is refused."""
        self._taking_over.rules.refuses = standing

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
            for each in self._agents.folders:
                folder.make_private(each)
                held.callback(os.close, folder.take(each, by="shipper"))
            self._spool_id = folder.spool_id(self._config.spool_dir)
            self._standings = Standings(self._config.spool_dir)
            self._stop, self._until_agents_end = stop, until_agents_end
            self._main = self._follower(
                Publisher(main_outlet(self._config), spool_id=self._spool_id, source=self._source, tracer=self._tracer),
                open_bus=self._open_bus,
            )
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    beside = [
                        self._tasks.create_task(each) for each in (self._spill(), self._surplus.run(), self._export())
                    ]
                    try:
                        async with asyncio.timeout(None) as limit:
                            beside.append(self._tasks.create_task(self._limit(limit, stop)))
                            self._follow(self._config)
                            await self._ship(self._main)
                            for followed in self._followed.values():
                                await asyncio.wait([followed.task])
                    except TimeoutError:
                        waiting = max(each.pending() for each in self._followers())
                        _log.warning("stopped after drain_s; %d records wait in the spool", waiting)
                    for task in (*beside, *(followed.task for followed in self._followed.values())):
                        task.cancel()
                alive = sum(agent.alive() for agent in self._agents)
                drained = {name: _drained(followed.follower, alive) for name, followed in self._followed.items()}
                return _drained(self._main, alive)._replace(destinations=drained)
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from group  # the first cause ended the others
            finally:
                self._show()
                self._agents.close()

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
                make_room=self._surplus.make_room,
            ).run()

    async def _export(self) -> None:
        while True:
            self._agents.find()
            self._show()
            await asyncio.sleep(_EXPORT_EVERY_S)

    def _follow(self, config: MirrorConfig) -> None:
        """Follow the spool for the destinations of a configuration, and no more for others."""
        wanted = {destination.name: destination for destination in config.destinations}
        for name, (destination, _, task) in list(self._followed.items()):
            if wanted.get(name) == destination:
                del wanted[name]
                continue
            task.cancel()
            if name not in wanted:
                _log.warning("destination %s is taken out, its place in the spool is forgotten", name)
                del self._followed[name]
        self._note()
        self._standings.forget_others({destination.name for destination in config.destinations})
        for name, destination in wanted.items():
            before = self._followed.get(name)
            where = f"{destination.bus} {destination.namespace or config.namespace}"
            known = self._standings.begin(name, where, self._agents.beginnings)
            follower = self._follower(
                Publisher(outlet_of(destination, config), spool_id=self._spool_id, source=self._source),
                open_bus=destination.open,
                known=known.agents,
            )
            task = self._tasks.create_task(self._ship(follower, after=before and before.task))
            self._followed[name] = _Followed(destination, follower, task)
        self._save()

    async def _ship(self, follower: Follower, *, after: asyncio.Task[None] | None = None) -> None:
        if after is not None:
            await asyncio.wait([after])
        await follower.run(
            self._stop,
            until_agents_end=self._until_agents_end,
            others_idle=lambda: all(each.idle for each in self._followers()),
        )

    def _followers(self) -> list[Follower]:
        return [self._main, *(followed.follower for followed in self._followed.values())]

    def _follower(
        self, publisher: Publisher, *, open_bus: Callable[[], Bus], known: Mapping[str, Standing] | None = None
    ) -> Follower:
        """One for the main bus, or for a destination: of that it is known how far it is."""
        return Follower(
            self._agents,
            self._leaving,
            publisher,
            open_bus=open_bus,
            after_round=self._after_round,
            before_round=self._taking_over.before_round if known is None else None,
            known=known,
            persistent=known is not None,
        )

    def _after_round(self, follower: Follower, settled: Settled) -> None:
        if follower is self._main:
            for agent, count in settled.lost:
                self._metrics.corrupt(agent.info, count)
            if settled.sent:
                self._count(shipped=[record for record in settled.sent if isinstance(record, Inference)])
        for segment in self._agents.segments():
            if self._agents.get(segment.agent) and not any(each.needs(segment) for each in self._followers()):
                segment.path.unlink(missing_ok=True)
        for agent in self._agents:
            if all(agent.name in each.spent for each in self._followers()):
                self._retire(agent)

    def _retire(self, agent: Agent) -> None:
        """Remove what a dead agent left, its counts remembered.

        In this order: a crash in between repeats no record, as long as its places are taken back last.
        """
        try:
            if agent.counted:
                self._metrics.retire(agent.info, self._counts(agent))
            self._note()
            self._standings.retire(agent.name, agent.info if agent.counted else None)
            self._standings.save()
        except OSError as error:
            _log.warning("the counts of agent %s cannot be kept yet: %s", agent.name, error)
            return
        self._agents.remove(agent)
        self._leaving.forget(agent.name)
        for follower in self._followers():
            follower.retire(agent.name)

    def _given_up(self, segment: SegmentPath) -> None:
        for follower in self._followers():
            if follower.needs(segment):
                follower.let_go(segment)

    def _note(self) -> None:
        """Take down how far each destination is."""
        for name, followed in self._followed.items():
            self._standings.note(name, followed.follower.standings())

    def _save(self) -> None:
        try:
            self._standings.save()
        except OSError as error:
            _log.warning("how far the destinations are cannot be kept now: %s", error)

    def _show(self) -> None:
        self._count()
        self._save()
        self._metrics.refused(
            self._config.namespace,
            self._config.service,
            [agent.info for agent in self._agents if agent.refuses()],
            shipper=self._taking_over.rules.refuses,
        )
        held = sum(folder.held_bytes(each) for each in self._agents.folders)
        self._metrics.held(self._config.namespace, self._config.service, held)

    def _count(self, *, shipped: Sequence[Inference] = ()) -> None:
        agents = {agent.name: (agent.info, self._counts(agent)) for agent in self._agents if agent.counted}
        self._note()
        self._metrics.update(
            agents,
            _pending(agents, self._main),
            shipped=shipped,
            destinations={
                name: (
                    self._standings.known[name].tallies({agent: info for agent, (info, _) in agents.items()}),
                    _pending(agents, followed.follower),
                )
                for name, followed in self._followed.items()
            },
        )

    def _counts(self, agent: Agent) -> Counts:
        """An agent's counters. What was read of it was captured, even if it died before it could count it."""
        read = max(each.standing(agent.name).position.next_seq for each in self._followers())
        return agent.counts(at_least=read)


def _pending(agents: Mapping[str, tuple[AgentInfo, Counts]], follower: Follower) -> dict[str, int]:
    return {name: counts.captured - follower.standing(name).position.next_seq for name, (_, counts) in agents.items()}


def _drained(follower: Follower, alive: int) -> Drained:
    return Drained(follower.n_sent, follower.pending(), follower.n_lost, alive)
