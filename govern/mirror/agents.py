"""The agents of a spool, as those see them who follow it: found by their files, gone when nothing of them is left."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from govern.errors import ArtifactError
from govern.mirror import folder
from govern.mirror.agent import AgentInfo, AgentView, Counts
from govern.mirror.segment import SegmentReader
from govern.mirror.tail import Position

_log: Final = logging.getLogger(__name__)


class Agent:
    """One agent; `view` is None when its file was lost with the memory of the machine, and only segments are left."""

    def __init__(self, name: str, view: AgentView | None) -> None:
        self.name = name
        self.view = view
        self.info = view.info if view is not None else AgentInfo(agent=name)

    def counts(self, *, at_least: int) -> Counts:
        """Its counters.

        Args:
            at_least: records of it that were read: they were captured, even if it died before it could count them.
        """
        counts = self.view.counts() if self.view is not None else Counts()
        return counts._replace(captured=max(counts.captured, at_least))

    @property
    def counted(self) -> bool:
        """Whether it has a part in the account of inferences."""
        return self.view is not None and self.info.stream == "inferences"

    def alive(self) -> bool:
        return self.view is not None and self.view.alive()

    def refuses(self) -> bool:
        """Whether it refuses its configuration file; a dead one refuses nothing."""
        return self.view is not None and self.view.refuses() and self.view.alive()


class Agents:
    """Those whose files or segments lie in a spool's folders."""

    def __init__(self, spool_dir: Path, disk_dir: Path | None) -> None:
        self.folders: tuple[Path, ...] = (spool_dir, *(() if disk_dir is None else (disk_dir,)))
        self._known: dict[str, Agent] = {}

    def __iter__(self) -> Iterator[Agent]:
        return iter(list(self._known.values()))

    def find(self) -> None:
        """Look for new ones."""
        spool_dir, *disk = self.folders
        for path in folder.agents(spool_dir):
            if path.stem not in self._known:
                try:
                    view = AgentView(path)
                except FileNotFoundError:
                    continue
                except ArtifactError as error:
                    _log.error("%s", error)
                    continue
                self._known[path.stem] = Agent(path.stem, view)
        for segment in (found for each in disk for found in folder.segments(each)):
            if segment.agent not in self._known:
                self._known[segment.agent] = Agent(segment.agent, None)

    def names(self) -> set[str]:
        """Of whom anything is left, looked for now."""
        found = {path.stem for path in folder.agents(self.folders[0])}
        return found | {segment.agent for segment in self.segments()}

    def segments(self) -> list[folder.SegmentPath]:
        return [segment for each in self.folders for segment in folder.segments(each)]

    def beginnings(self) -> dict[str, Position]:
        """Of each agent, where the oldest of its segments begins."""
        found: dict[str, Position] = {}
        for segment in sorted(self.segments(), reverse=True):
            with contextlib.suppress(FileNotFoundError, ArtifactError), SegmentReader(segment.path) as reader:
                found[segment.agent] = Position(segment=segment.number, next_seq=reader.header().first_seq)
        return found

    def get(self, name: str) -> Agent | None:
        return self._known.get(name)

    def remove(self, agent: Agent) -> None:
        """Delete all that an agent has left; its own file last."""
        for each in self.folders:
            for segment in folder.segments(each):
                if segment.agent == agent.name:
                    segment.path.unlink(missing_ok=True)
            for draft in folder.drafts(each, agent.name):
                draft.unlink(missing_ok=True)
        if agent.view is not None:
            agent.view.path.unlink(missing_ok=True)
            agent.view.close()
        del self._known[agent.name]

    def close(self) -> None:
        for agent in self._known.values():
            if agent.view is not None:
                agent.view.close()
        self._known.clear()
