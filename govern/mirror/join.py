"""Joining halves to whole inferences: every half ends up in exactly one pair. Pure."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from itertools import count
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

Side = Literal["request", "response"]


class Joinable(Protocol):
    """A request or a response, as the join sees it."""

    @property
    def key(self) -> Hashable:
        """What the two halves of one inference have in common."""
        ...

    @property
    def side(self) -> Side: ...

    @property
    def t_ms(self) -> int:
        """When it happened, milliseconds since the Unix epoch."""
        ...

    @property
    def n_bytes(self) -> int:
        """What its body takes in memory."""
        ...


H = TypeVar("H", bound=Joinable)


class Pair(NamedTuple, Generic[H]):
    """The two halves of an inference; one is None when it never came."""

    request: H | None
    response: H | None

    @property
    def halves(self) -> tuple[H, ...]:
        return tuple(half for half in (self.request, self.response) if half is not None)

    @property
    def missing(self) -> tuple[Side, ...]:
        """The side that never came, if one did not."""
        return ("request",) if self.request is None else ("response",) if self.response is None else ()

    @property
    def first(self) -> H:
        """The request, or the response that came without one."""
        return self.halves[0]


class Joiner(Generic[H]):
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
        self._by_key: dict[Hashable, deque[int]] = {}  # of one key only one side can wait
        self._waiting: dict[int, H] = {}
        self._by_time: list[tuple[int, int]] = []  # a heap; those that were joined meanwhile are passed over
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, half: H) -> Pair[H] | None:
        """The pair that a half completes, if it completes one; else it waits."""
        other = self.other(half.key, half.side)
        if other is not None:
            self._take(self._by_key[half.key][0])
            return Pair(half, other) if half.side == "request" else Pair(other, half)
        number = next(self._numbers)
        self._waiting[number] = half
        self._by_key.setdefault(half.key, deque()).append(number)
        heapq.heappush(self._by_time, (half.t_ms, number))
        self.n_bytes += half.n_bytes
        return None

    def other(self, key: Hashable, side: Side) -> H | None:
        """The half that one of this key and side completes, if it comes next."""
        waiting = self._by_key.get(key)
        if not waiting:
            return None
        half = self._waiting[waiting[0]]
        return half if half.side != side else None

    def expire(self, now_ms: float) -> list[Pair[H]]:
        """The halves that have waited too long, and the oldest ones past the bounds; each alone, oldest first."""
        alone: list[Pair[H]] = []
        while self._by_time:
            t_ms, number = self._by_time[0]
            if number in self._waiting:
                full = len(self._waiting) > self._max_halves or self.n_bytes > self._max_bytes
                if not full and t_ms + self._limit_ms >= now_ms:
                    break
                alone.append(_alone(self._take(number)))
            heapq.heappop(self._by_time)
        return alone

    def oldest(self) -> Pair[H] | None:
        """The half that is oldest, alone; None when none waits."""
        while self._by_time:
            _, number = heapq.heappop(self._by_time)
            if number in self._waiting:
                return _alone(self._take(number))
        return None

    def rest(self) -> list[Pair[H]]:
        """All halves that wait, each alone: nothing comes any more."""
        return [_alone(self._take(number)) for number in list(self._waiting)]

    def _take(self, number: int) -> H:
        half = self._waiting.pop(number)
        queue = self._by_key[half.key]
        queue.remove(number)
        if not queue:
            del self._by_key[half.key]
        self.n_bytes -= half.n_bytes
        return half


def _alone(half: H) -> Pair[H]:
    return Pair(half, None) if half.side == "request" else Pair(None, half)
