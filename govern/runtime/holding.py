"""A partition that a worker holds: one track that its pipelines share, and one for each that nobody else waits for.

Each track has a place in the partition, windows and drop counts of its own, which lie in the checkpoint under keys of
their own; so a track is committed when it is at rest, whatever the others do. A pipeline that leaves the shared track
takes its windows along, and the transaction that says so is the first to know either without the other. It comes back
where both have come to the same place, with what is then the same state as if it had never been away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from govern.bus import Message, Partition, Transactor
from govern.runtime import checkpoint
from govern.runtime.fairness import STALL_S, Cooling, Scales
from govern.runtime.flows import Flows
from govern.runtime.loader import LoadedPipeline
from govern.runtime.plans import Plans
from govern.runtime.report import Standing
from govern.runtime.task import PartitionTask
from govern.runtime.track import Track

#: Tracks that pipelines of one partition may have of their own: each holds messages of its own in memory.
OWN_TRACKS: Final = 8


class Holding:
    """
    Args:
        flows: of the pipelines, run before their messages are judged.
        transactor: of the partition; closed with it.
    """

    def __init__(
        self,
        tp: Partition,
        namespace: str,
        pipelines: Sequence[LoadedPipeline],
        flows: Flows,
        transactor: Transactor,
    ) -> None:
        self.tp = tp
        self.transactor = transactor
        self.plans = Plans()
        self.paused = False
        self.own: dict[str, Track] = {}
        self._scales = Scales()
        self._cooling: dict[str, Cooling] = {}
        self._namespace = namespace
        self._flows = flows
        self._pipelines = {one.plan.name: one for one in pipelines}
        self.shared = Track(PartitionTask(tp, namespace, pipelines), flows)
        #: Keys of tracks that are no more: deleted with the next commit of the shared one.
        self._gone: list[bytes] = []

    @property
    def tracks(self) -> Iterator[Track]:
        yield self.shared
        yield from self.own.values()

    def restore(self, table: Mapping[bytes, bytes], committed: int | None) -> int:
        """Take up the checkpoint; return the offset to read from.

        Raises:
            BadInput: the checkpoint is of another format version.
        """
        places = {name: value for key, value in table.items() if (name := checkpoint.parse_track_key(key)) is not None}
        for name, place in places.items():
            if name not in self._pipelines:
                self._gone.append(checkpoint.track_key(name))
                continue
            task = PartitionTask(self.tp, self._namespace, [self._pipelines[name]], alone=True)
            mine = {key: value for key, value in table.items() if _owner(key) == name}
            task.restore({**mine, checkpoint.POSITION_KEY: place}, None)
            self._add(name, Track(task, self._flows.of([name]), own=True))
        start = self._restore_shared(table, committed)
        self.plans.restore(table)
        self._note_plans()
        return start

    async def take_over(self, pipelines: Sequence[LoadedPipeline], timeout_s: float) -> bool:
        """Go on with these pipelines from where each track is; False when some of it has to be taken up anew."""
        self._pipelines = {one.plan.name: one for one in pipelines}
        await self.rest(timeout_s)
        for name, track in self.own.items():
            if track.at_rest:
                track.begin_take_over([self._pipelines[name]] if name in self._pipelines else [])
        if self.shared.at_rest:
            self.shared.begin_take_over([one for name, one in self._pipelines.items() if name not in self.own])
            self._note_plans()
        return await self.rest(timeout_s) and not self.own

    async def restart(self, table: Mapping[bytes, bytes], committed: int | None) -> int:
        """Drop what the shared track has in hand, a turn that does not end included, and take up its checkpoint."""
        await self.shared.close()
        return self._restore_shared(table, committed)

    def take(self, message: Message) -> None:
        """Let a message wait in each track that has all before it and room for it."""
        before = self.shared.next
        self.shared.take(message)
        for track in self.own.values():
            if track.next >= before and not track.full:
                track.take(message)

    async def part(self, pipeline: str) -> None:
        """Give a pipeline a track of its own. The shared track must be at rest."""
        track = Track(self.shared.task.part(pipeline), self._flows.of([pipeline]), own=True)
        for message in self.shared.waiting:
            if not track.full:
                track.take(message)
        self._add(pipeline, track)
        await self.shared.run(self._flows.of(self.shared.task.pipelines))
        track.touch()
        self.shared.touch()

    async def reunite(self, pipeline: str) -> None:
        """Take a pipeline back that has come to the place of the shared track. Both must be at rest."""
        track = self.own.pop(pipeline)
        del self._cooling[pipeline]
        await track.close()
        self.shared.task.join(track.task)
        await self.shared.run(self._flows.of(self.shared.task.pipelines))
        self.shared.pending.extend(track.pending)
        self.shared.touch()
        self._gone.append(checkpoint.track_key(pipeline))

    def heavy(self) -> str | None:
        """The pipeline that the others of the shared track are not to wait for any longer, if there is one."""
        shared = self.shared
        if len(shared.task.pipelines) < 2 or len(self.own) >= OWN_TRACKS:
            return None
        if not shared.at_rest:
            return (shared.task.at_work or None) if shared.turn_s >= STALL_S else None
        if shared.flow_s >= STALL_S:
            return self._flows.slowest(shared.task.pipelines)
        return self._scales.weigh(shared.spent_s(), behind=len(shared) > 0)

    def may_return(self, pipeline: str, now_s: float) -> bool:
        """Whether a pipeline with a track of its own has come to where the others are, and has become light enough."""
        track, cooling = self.own[pipeline], self._cooling[pipeline]
        if not track.at_rest:
            return False
        cooling.turn(now_s, sum(track.spent_s().values()))
        return cooling.cool(now_s) and self.shared.at_rest and track.task.position == self.shared.task.position

    async def rest(self, timeout_s: float) -> bool:
        """Whether all turns in hand have ended, at the latest after `timeout_s`. One that hangs is not waited for."""
        waits = [track.rest(0.0 if track.turn_s >= timeout_s else timeout_s) for track in self.tracks]
        return all(await asyncio.gather(*waits))

    async def close(self) -> None:
        for track in self.tracks:
            await track.close()
        await self.transactor.close()

    def state(self, track: Track) -> list[tuple[bytes, bytes | None]]:
        """Checkpoint entries of a track at rest that differ from what was last taken."""
        entries = track.task.changed_state()
        if track is self.shared:
            gone, self._gone = self._gone, []
            return [*((key, None) for key in gone), *entries]
        name = next(name for name, one in self.own.items() if one is track)
        return [
            (checkpoint.track_key(name) if key == checkpoint.POSITION_KEY else key, value) for key, value in entries
        ]

    def _note_plans(self) -> None:
        places = {name: track.task.position for name, track in self.own.items()}
        self.plans.note(self._pipelines.values(), self.shared.task.position, places)

    def _restore_shared(self, table: Mapping[bytes, bytes], committed: int | None) -> int:
        shared = [one for name, one in self._pipelines.items() if name not in self.own]
        task = PartitionTask(self.tp, self._namespace, shared)
        theirs = {
            key: value
            for key, value in table.items()
            if checkpoint.parse_track_key(key) is None and _owner(key) not in self.own
        }
        start = task.restore(theirs, committed)
        self.shared = Track(task, self._flows.of(task.pipelines))
        return start

    def _add(self, pipeline: str, track: Track) -> None:
        self.own[pipeline] = track
        self._cooling[pipeline] = Cooling(time.monotonic())


def standing(
    pipelines: Sequence[str], held: Mapping[Partition, Holding], behind: Mapping[Partition, int]
) -> list[Standing]:
    """How pipelines stand over the partitions of a worker.

    Args:
        behind: messages that have not been fetched yet, for each partition.
    """
    shared = sum(behind.get(tp, 0) + len(holding.shared) for tp, holding in held.items())
    found = {name: Standing(name, shared, 0.0, 0) for name in pipelines}
    for holding in held.values():
        for name, track in holding.own.items():
            further = max(0, holding.shared.next - track.task.position) - len(holding.shared)
            ours = found[name]
            found[name] = ours._replace(lag=ours.lag + further, own_tracks=ours.own_tracks + 1)
        for track in holding.tracks:
            if (name := track.task.at_work) in found:
                found[name] = found[name]._replace(turn_s=max(found[name].turn_s, track.turn_s))
    return list(found.values())


def _owner(key: bytes) -> str | None:
    """The pipeline whose window a key of the checkpoint is of."""
    return None if key.startswith(b"@") else checkpoint.parse_chunk_key(key)[0].pipeline
