"""How far a bus is with the spool, agent by agent, and the file that remembers it of each destination."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from govern.mirror.agent import AgentInfo
from govern.mirror.tail import Position

_log: Final = logging.getLogger(__name__)

_FILE: Final = "destinations.json"


class Tally(NamedTuple):
    """What became of the records for a destination. Dropped: given up for want of room, or not to be read."""

    sent: int = 0
    filtered: int = 0
    dropped: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(self.sent + other.sent, self.filtered + other.filtered, self.dropped + other.dropped)


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a bus is with one agent. `sent + filtered + position.corrupt` are its records since the bus began.

    Attributes:
        sent: records that are on the bus.
        filtered: records that were not for it.
    """

    position: Position = Position()
    sent: int = 0
    filtered: int = 0

    @property
    def tally(self) -> Tally:
        return Tally(self.sent, self.filtered, self.position.corrupt)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one destination.

    Attributes:
        bus: where it is; another one under the same name is another destination.
        last: the agent that was retired last, in case its files are still there.
        agents: of each agent, how far the destination was.
        retired: what became of the records of agents that are gone, by the agents' labels.
    """

    bus: str
    last: str = ""
    agents: dict[str, Standing] = {}
    retired: list[tuple[AgentInfo, Tally]] = []

    def standing(self, agent: str) -> Standing:
        return self.agents.get(agent, Standing())

    def tally(self, infos: Mapping[str, AgentInfo]) -> Tally:
        """What became of all records so far, of those agents that count."""
        total = Tally()
        for _, tally in self.tallies(infos):
            total = total.plus(tally)
        return total

    def tallies(self, infos: Mapping[str, AgentInfo]) -> list[tuple[AgentInfo, Tally]]:
        """The same by the labels of the agents."""
        present = [
            (infos[name], standing.tally)
            for name, standing in self.agents.items()
            if name in infos and name != self.last
        ]
        return [*self.retired, *present]

    def without(self, agent: str, info: AgentInfo | None) -> Known:
        """After an agent's retirement; `info` is None when it has no part in the account."""
        rest = {name: standing for name, standing in self.agents.items() if name != agent}
        if self.last == agent or info is None:
            return msgspec.structs.replace(self, agents=rest)
        key = msgspec.structs.replace(info, agent="", pod="")
        totals = dict(self.retired)
        totals[key] = totals.get(key, Tally()).plus(self.standing(agent).tally)
        return msgspec.structs.replace(self, agents=rest, last=agent, retired=list(totals.items()))


class Standings:
    """The file of a spool's folder in which all that is kept. What it says of an agent may be a little old, never new.

    So a destination that is away when the shipper starts holds back no segment that it has already.
    """

    def __init__(self, spool_dir: Path) -> None:
        self._path = spool_dir / _FILE
        self._written = known_destinations(spool_dir)
        self.known = dict(self._written)

    def begin(self, name: str, bus: str, beginnings: Callable[[], Mapping[str, Position]]) -> Known:
        """What is known of a destination; one that is new begins with what is not deleted yet.

        Args:
            beginnings: of each agent, where the oldest of its segments begins.
        """
        known = self.known.get(name)
        if known is None or known.bus != bus:
            agents = {agent: Standing(position=position) for agent, position in beginnings().items()}
            known = self.known[name] = Known(bus=bus, agents=agents)
        return known

    def note(self, name: str, agents: dict[str, Standing]) -> None:
        """Take down how far a destination is; `save` keeps it."""
        if self.known[name].agents != agents:
            self.known[name] = msgspec.structs.replace(self.known[name], agents=agents)

    def retire(self, agent: str, info: AgentInfo | None) -> None:
        """Nothing of an agent is left; `info` is None when it has no part in the account."""
        self.known = {name: known.without(agent, info) for name, known in self.known.items()}

    def forget_others(self, names: set[str]) -> None:
        self.known = {name: known for name, known in self.known.items() if name in names}

    def save(self) -> None:
        """
        Raises:
            OSError: it cannot be written.
        """
        if self.known != self._written:
            draft = self._path.with_suffix(".draft")
            draft.write_bytes(msgspec.json.encode(self.known))
            os.replace(draft, self._path)
            self._written = dict(self.known)


def known_destinations(spool_dir: Path) -> dict[str, Known]:
    """What the folder's file says; nothing when there is none."""
    path = spool_dir / _FILE
    with contextlib.suppress(FileNotFoundError):
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Known])
        except msgspec.DecodeError as error:
            _log.error("%s is damaged, destinations begin anew: %s", path, error)
    return {}
