"""Whose turn it is, among the tracks of all partitions that a worker holds."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from govern.bus import Bus
from govern.runtime.fairness import STALL_S
from govern.runtime.holding import Holding
from govern.runtime.track import Track
from govern.telemetry.logging import get_logger

#: Within this time each partition that has work gets a turn, and what was judged is committed. Shorter costs a round
#: trip of transactions for less; longer adds to the age of the verdicts of all partitions when one of them lags.
ROUND_S: Final = 0.5
#: The shortest turn: below it, reading ahead costs more than judging.
TURN_S: Final = 0.05
#: A turn ends between two messages. One that is so much longer than it should be goes on beside those of others.
LATE_S: Final = 0.25

log = get_logger("govern.worker")


class Rota:
    """
    Args:
        bus: what did not fit in memory is read from it again.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._turns = 0
        #: Those whose turn ended late, and is to be committed before the next one begins.
        self._ended: set[Track] = set()

    async def round(self, held: Collection[Holding]) -> None:
        """A turn for each partition that has work, one after the other: they share one interpreter anyway."""
        self._ended.clear()
        for holding in held:
            for track in holding.tracks:
                if not track.at_rest and await track.rest(0.0):
                    self._ended.add(track)
                track.look_ahead()
        ready = [holding.shared for holding in held if holding.shared.ready and holding.shared not in self._ended]
        budget_s = max(TURN_S, ROUND_S / max(1, len(ready)))
        for track in ready:
            track.begin(budget_s)
            await track.rest(budget_s + LATE_S)

    def own_turn(self, held: Collection[Holding]) -> None:
        """A turn for one of the tracks that nobody waits for, beside the round.

        One at a time, the longest unserved first, so that however many they are they take no more than half of the
        interpreter. A turn that does not end stands in nobody's way, but its pipeline gets no second thread.
        """
        own = [(name, holding, track) for holding in held for name, track in holding.own.items()]
        for name, holding, track in own:
            if lost := track.take_read():
                partition = holding.tp.partition
                log.warning("deleted before a pipeline came to it", pipeline=name, records=lost, partition=partition)
            if track.next < holding.shared.next:
                track.read(self._bus)
        if any(0 < track.turn_s < STALL_S for _, _, track in own):
            return
        stalled = {name for name, _, track in own if not track.at_rest}
        ready = [track for name, _, track in own if track.ready and track not in self._ended and name not in stalled]
        if ready:
            self._turns += 1
            track = min(ready, key=lambda one: one.served)
            track.served = self._turns
            track.begin(ROUND_S)
