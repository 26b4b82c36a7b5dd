"""Joining halves to whole inferences: every half ends up in exactly one pair. Pure."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import NamedTuple

from govern.mirror.seldon.half import Half, JoinKey


class Pair(NamedTuple):
    """The two halves of an inference; one is None when it never came."""

    request: Half | None
    response: Half | None

    @property
    def halves(self) -> tuple[Half, ...]:
        return tuple(half for half in self if half is not None)

    @property
    def first(self) -> Half:
        """The request, or the response that came without one."""
        return self.halves[0]


class Joiner:
    """Holds the halves that wait for the other one, in bounded number and size.

    Halves of one key are joined in the order in which they come: a caller that uses a request id twice gets two
    inferences, the first request with the first response.

    Args:
        limit_ms: how long a half waits, by the clock that `expire` is given.
        max_halves: how many wait at most.
        max_bytes: how many bytes of bodies wait at most.
    """

    def __init__(self, *, limit_ms: float, max_halves: int, max_bytes: int) -> None:
        self._limit_ms = limit_ms
        self._max_halves = max_halves
        self._max_bytes = max_bytes
        self._numbers = count()
        self._by_key: dict[JoinKey, deque[int]] = {}  # of one key only one side can wait
        self._waiting: dict[int, Half] = {}
        self._by_time: list[tuple[int, int]] = []  # a heap; those that were joined meanwhile are passed over
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, half: Half) -> Pair | None:
        """The pair that a half completes, if it completes one; else it waits."""
        waiting = self._by_key.get(half.key)
        if waiting and self._waiting[waiting[0]].side != half.side:
            other = self._take(waiting[0])
            return Pair(half, other) if half.side == "request" else Pair(other, half)
        number = next(self._numbers)
        self._waiting[number] = half
        self._by_key.setdefault(half.key, deque()).append(number)
        heapq.heappush(self._by_time, (half.t_ms, number))
        self.n_bytes += half.n_bytes
        return None

    def expire(self, now_ms: float) -> list[Pair]:
        """The halves that have waited too long, and the oldest ones past the bounds; each alone, oldest first."""
        alone = []
        while self._by_time:
            t_ms, number = self._by_time[0]
            if number in self._waiting:
                full = len(self._waiting) > self._max_halves or self.n_bytes > self._max_bytes
                if not full and t_ms + self._limit_ms >= now_ms:
                    break
                half = self._take(number)
                alone.append(Pair(half, None) if half.side == "request" else Pair(None, half))
            heapq.heappop(self._by_time)
        return alone

    def _take(self, number: int) -> Half:
        half = self._waiting.pop(number)
        queue = self._by_key[half.key]
        queue.remove(number)
        if not queue:
            del self._by_key[half.key]
        self.n_bytes -= half.n_bytes
        return half
