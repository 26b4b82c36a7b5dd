"""Segments that only destinations still need: kept while there is room, given up, the oldest first, when there is none.

So a destination that is away for long costs the main bus nothing: not its room, and not its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from govern.mirror import folder
from govern.mirror.agents import Agents
from govern.mirror.folder import SegmentPath

_log: Final = logging.getLogger(__name__)

#: Segments are given up when memory is this full, after those that can have moved to the disk (from a half of it on).
_HIGH_WATER: Final = 0.75
#: How often to look. At 25 MB/s of capture, the last quarter of the default spool fills in 1.3 s.
_EVERY_S: Final = 0.25
#: A log line for the first segment that is given up and every hundredth: it must not flood the log.
_LOG_EVERY: Final = 100


class Surplus:
    """What lies in a spool beyond what the main bus needs.

    Args:
        spool_bytes: the limit of the memory folder.
        disk_bytes: the limit of the disk folder.
        needed: whether the main bus needs a segment.
        given_up: called with each segment that was deleted.
    """

    def __init__(
        self,
        agents: Agents,
        *,
        spool_bytes: int,
        disk_bytes: int,
        needed: Callable[[SegmentPath], bool],
        given_up: Callable[[SegmentPath], None],
    ) -> None:
        self._agents = agents
        self._spool_bytes = spool_bytes
        self._disk_bytes = disk_bytes
        self._needed = needed
        self._given_up = given_up
        self._n_given_up = 0

    async def run(self) -> None:
        """Keep the memory folder below its high water, until cancelled."""
        memory = self._agents.folders[0]
        while True:
            try:
                self._reduce(memory, self._spool_bytes * _HIGH_WATER)
            except OSError as error:
                _log.error("no room can be made in %s: %s", memory, error)
            await asyncio.sleep(_EVERY_S)

    def make_room(self, n_bytes: int) -> bool:
        """Whether the disk folder has room for so much, once what can be given up there was.

        Raises:
            OSError: the disk fails.
        """
        return self._reduce(self._agents.folders[-1], self._disk_bytes - n_bytes)

    def _reduce(self, where: Path, limit_bytes: float) -> bool:
        held = folder.held_bytes(where)
        if held <= limit_bytes:
            return True
        for _, segment, size in self._oldest(where):
            segment.path.unlink(missing_ok=True)
            if self._n_given_up % _LOG_EVERY == 0:
                _log.warning(
                    "%s is given up: the disk or memory is full, and a destination lags (%d so far)",
                    segment.path.name,
                    self._n_given_up + 1,
                )
            self._n_given_up += 1
            self._given_up(segment)
            held -= size
            if held <= limit_bytes:
                return True
        return False

    def _oldest(self, where: Path) -> list[tuple[int, SegmentPath, int]]:
        """Time, path and size of what can be given up. What the main bus has behind it is sealed."""
        found = []
        for segment in folder.segments(where):
            if self._agents.get(segment.agent) is not None and not self._needed(segment):
                try:
                    state = segment.path.stat()
                except FileNotFoundError:
                    continue
                found.append((state.st_mtime_ns, segment, state.st_size))
        return sorted(found)
