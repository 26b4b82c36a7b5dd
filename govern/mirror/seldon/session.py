"""Reading, joining and committing over one pair of connections; after a loss the next session begins anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from govern.bus.protocol import BusError, Message, Partition
from govern.mirror.in_force import InForce
from govern.mirror.join import Joiner, Pair
from govern.mirror.place import Place, Stored
from govern.mirror.sampling import Fate
from govern.mirror.seldon.exported import SeldonMetrics
from govern.mirror.seldon.half import Half, half_of, headers_of, key_of
from govern.mirror.seldon.inference import shares_of
from govern.mirror.seldon.ledger import Ledger
from govern.mirror.seldon.source import SeldonSource
from govern.mirror.seldon.topics import Selection, Stream

_log: Final = logging.getLogger(__name__)

#: One transaction carries the records of about this many messages.
_BATCH_MESSAGES: Final = 1000
#: How long to wait for messages when there are none; then a look at which halves have waited enough.
_POLL_S: Final = 0.2
#: After a small batch: wait for more, so that slow traffic costs tens of transactions a second, not hundreds.
_GATHER_S: Final = 0.025
_SMALL_BATCH: Final = 200


class Session:
    """What is known between two losses of a connection.

    Args:
        rules: those in force; others are taken over between two transactions.
    """

    def __init__(
        self, rules: InForce, source: SeldonSource, selection: Selection, ledger: Ledger, metrics: SeldonMetrics
    ) -> None:
        seldon = rules.config.seldon
        self._seldon = seldon
        self._rules = rules
        self._source = source
        self._selection = selection
        self._ledger = ledger
        self._metrics = metrics
        self._streams: dict[Partition, Stream] = {}
        self._kept_headers = tuple(name.encode() for name in seldon.headers)
        self._places: dict[Partition, Place] = {}
        self._joiner = Joiner[Half](
            limit_ms=seldon.join_s * 1000, max_halves=seldon.open_halves, max_bytes=seldon.open_bytes
        )
        self._pairs: list[Pair[Half]] = []
        self._lost = 0

    async def run(self, stop: asyncio.Event) -> None:
        next_discovery = 0.0
        while not stop.is_set():
            if time.monotonic() >= next_discovery:
                await self._discover()
                next_discovery = time.monotonic() + self._seldon.discover_s
            await self._ledger.take_over()
            self._metrics.refused(self._rules.refuses)
            messages = await self._source.read(max_messages=_BATCH_MESSAGES, timeout_s=_POLL_S)
            for message in messages:
                self._take(message)
            await self._expire()
            await self._commit()
            if len(messages) < _SMALL_BATCH:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _GATHER_S if self._places else _POLL_S)

    async def _discover(self) -> None:
        """Take up partitions that are new.

        Raises:
            BusError: one that was read is gone, or its topic was made anew.
        """
        found = await self._source.discover()
        ends = await self._source.ends(found.keys() | self._places.keys())
        for tp, place in self._places.items():
            if tp not in found or ends[tp] < place.offset:
                raise BusError(
                    f"{tp.topic}[{tp.partition}]",
                    why="it is gone, or shorter than it was",
                    fix="none: read what is there",
                )
        fresh = found.keys() - self._places.keys()
        if not fresh:
            return
        self._streams = found
        for tp in fresh:
            stored = self._begin(tp, ends[tp])
            self._places[tp] = Place(stored, changed=stored != self._ledger.stored(tp))
        self._source.assign({tp: place.start for tp, place in self._places.items()})
        _log.info("reading %d partitions, %d of them new", len(found), len(fresh))

    def _begin(self, tp: Partition, end: int) -> Stored:
        """Where to begin with a partition."""
        stored = self._ledger.stored(tp)
        if stored is None:
            latest = self._ledger.fresh and self._seldon.start == "latest"
            return Stored(offset=end) if latest else Stored()
        if stored.offset > end:
            _log.warning("%s[%d] was made anew: reading it from its beginning", tp.topic, tp.partition)
            return Stored()
        return stored

    def _take(self, message: Message) -> None:
        place = self._places[message.tp]
        self._lost += place.lost(message.offset)
        if not place.meets(message.offset, message.timestamp_ms):
            return
        stream = self._streams[message.tp]
        headers = headers_of(message)
        key, named = key_of(message, stream, headers)
        if not self._selection.wants(key.kind, key.name, key.pipeline):
            return
        other = self._joiner.other(key, stream.side)
        config = self._rules.config if other is None else other.config  # one that has begun keeps its rules
        half = half_of(
            message,
            stream,
            key,
            headers,
            config,
            named=named,
            left_out=shares_of(key, config).fate(key.request_id) is Fate.LEFT_OUT,
            kept_headers=self._kept_headers,
        )
        pair = self._joiner.add(half)
        if pair is None:
            place.waits(message.offset)
        else:
            self._close(pair)

    def _close(self, pair: Pair[Half]) -> None:
        for half in pair.halves:
            self._places[half.origin].done(half.offset)
        self._pairs.append(pair)

    async def _expire(self) -> None:
        """Give up on other halves that can no longer come in time.

        The time is that of the partition that is furthest behind: one that is read to its end is where the broker
        last said so, one that is not is where its newest message was. So no half expires because the other one is
        yet to be read, however long the reader or a broker was away.
        """
        lags = []
        now_ms = time.time() * 1000
        behind: dict[Partition, int] = {}
        for tp, place in self._places.items():
            standing = await self._source.standing(tp)
            if standing is None or standing.lag:
                behind[tp] = place.t_ms
            else:
                now_ms = min(now_ms, standing.asked_ms)
                self._lost += place.lost(place.offset)
            lags.append(standing.lag if standing else 0)
        slowest = min(behind.values(), default=now_ms)
        for pair in self._joiner.expire(min(slowest, now_ms)):
            self._close(pair)
        self._shorten_places()
        # Those far ahead of the slowest wait for it: what they hold could not be joined yet.
        ahead_ms = self._seldon.join_s * 1000 / 2
        self._source.hold({tp for tp, t_ms in behind.items() if t_ms > slowest + ahead_ms})
        self._metrics.lag(lags)

    def _shorten_places(self) -> None:
        """Give up on the oldest halves while those that wait are too scattered for a place to be one message."""
        limit = self._rules.config.message_bytes
        while any(place.n_bytes > limit for place in self._places.values()):
            oldest = self._joiner.oldest()
            if oldest is None:
                break
            self._close(oldest)

    async def _commit(self) -> None:
        changed = {tp: place for tp, place in self._places.items() if place.changed}
        if not (self._pairs or changed or self._lost or self._ledger.fresh):
            return
        if self._lost:
            _log.error("%d halves that waited are in their topics no more", self._lost)
        captured, left_out = await self._ledger.commit(
            self._pairs, {tp: place.stored() for tp, place in changed.items()}, self._lost
        )
        self._metrics.committed(captured, left_out, self._lost)
        for place in changed.values():
            place.changed = False
        self._pairs.clear()
        self._lost = 0
