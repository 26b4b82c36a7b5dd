"""What the routers of a server have learned, as it is kept on the bus: one table for all servers of a namespace.

The key of a part is the server's name, pipeline, step and part; that of a place is the server's name and the partition
of the feedback that it has read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from govern.bus import Outgoing, Partition
from govern.record import Feedback
from govern.runtime.flow.steps.router import Router

_Router = tuple[str, str]  # pipeline, step


class Learner(Protocol):
    """A pipeline whose routers have routed requests."""

    @property
    def name(self) -> str: ...

    @property
    def routers(self) -> Sequence[Router]:
        """Those that feedback teaches."""
        ...

    def learn(self, feedback: Feedback) -> bool:
        """Tell the routers what a request was worth; whether one of them knows more by it.

        Raises:
            BadInput: a reward that is not between 0 and 1.
        """
        ...


class Learned:
    """The state of one server: what it found at its start, and what has changed since the last message about it.

    Args:
        server: its name; it finds again what a server of this name left behind.
        table: of the topic, as it was found.

    Attributes:
        places: partition of the feedback -> the next offset to read.
    """

    def __init__(self, server: str, table: Mapping[bytes, bytes]) -> None:
        self._server = server
        self._found: dict[_Router, dict[str, bytes]] = {}
        self.places: dict[int, int] = {}
        self._routers: dict[_Router, Router] = {}
        self._unwritten: dict[tuple[str | int, ...], bytes | None] = {}
        for key, value in table.items():
            match msgspec.json.decode(key):
                case [name, int(partition)] if name == server:
                    self.places[partition] = int(value)
                case [name, str(pipeline), str(step), str(part)] if name == server:
                    self._found.setdefault((pipeline, step), {})[part] = value

    def move(self, partition: Partition, offset: int) -> None:
        """The feedback before this offset has been read."""
        self.places[partition.partition] = offset
        self._unwritten[partition.partition,] = str(offset).encode()

    def meet(self, learners: Iterable[Learner]) -> None:
        """Let routers that are new go on from what is known: of the start, or of the one whose place they took."""
        for one in learners:
            for router in one.routers:
                name = (one.name, router.name)
                before = self._routers.get(name)
                if before is router:
                    continue
                if before is not None:
                    self._note(name, before)
                router.restore(self._found.get(name, {}) if before is None else before.state())
                self._routers[name] = router

    def messages(self) -> list[Outgoing]:
        """What is to be written, until it is said that it was. All of them together: they are one state."""
        for name, router in self._routers.items():
            self._note(name, router)
        return [
            Outgoing(key=msgspec.json.encode((self._server, *parts)), value=value)
            for parts, value in self._unwritten.items()
        ]

    def written(self) -> None:
        self._unwritten.clear()

    def _note(self, name: _Router, router: Router) -> None:
        self._unwritten.update({(*name, part): value for part, value in router.changed().items()})
