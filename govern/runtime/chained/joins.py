"""Joins across streams: what several pipelines gave for one request, put together within a window of time. Pure.

| join | of inputs | of triggers |
| --- | --- | --- |
| inner | all must come, and all are passed on | all must come |
| outer | those that came, once all have or the window is over | one must come |
| any | the first that comes, alone | one must come |

Within one call it is known what can still come (`govern.runtime.flow.joins`); between streams it is not, so a request
waits for the parts whose times lie within the window of the first that came. Its window is over when *every* stream
that it joins has gone on beyond it: a stream whose worker died stands still, and so do the joins that wait for it,
which is why neither a crash nor the order in which streams are read changes what is joined of parts that lie within
the window of each other. (Parts of one id that lie further apart are taken for calls of their own, as they come.) Only
a stream that says nothing at all is not waited for without end (`Joins.expire`).

A request that was passed on is remembered until its window is over, so that what comes late makes no second one of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, NamedTuple

from govern.pipeline.spec import JoinType

#: How long a silent stream is waited for beyond the window: longer than a group takes to hand a dead worker's
#: partitions to another one, and longer than a shipper takes to publish.
SILENT_NS: Final = 30 * 10**9
#: Requests that wait or are remembered, in one partition. At some hundred bytes each beside their parts, tens of MB.
MAX_REQUESTS: Final = 50_000
#: Bytes of the parts that wait, in one partition. What waits is in every checkpoint once, and in memory.
MAX_BYTES: Final = 64 * 1024 * 1024


class JoinKey(NamedTuple):
    """What waits: one request of one pipeline."""

    pipeline: str
    request_id: str


@dataclass(frozen=True, slots=True)
class JoinRule:
    """How a pipeline joins what it reads. Its ports are numbered: first the inputs, then the triggers."""

    inputs: int
    inputs_join: JoinType
    triggers: int
    triggers_join: JoinType
    window_ns: int

    @property
    def ports(self) -> range:
        return range(self.inputs + self.triggers)


@dataclass(frozen=True, slots=True)
class Part:
    """What one port brought.

    Attributes:
        time_ns: when it happened: of the inference that it was made of.
        arrived_ns: when it came onto the bus.
    """

    key: JoinKey
    port: int
    time_ns: int
    arrived_ns: int
    body: bytes


@dataclass(slots=True)
class Waiting:
    """A request of which something has come.

    Attributes:
        first_ns: time of the part that came first; the window reaches from there to both sides.
        since_ns: when that part came onto the bus, or when the request was given up or passed on.
        bodies: port -> what it brought, in the order in which it came; empty once `done`.
        done: passed on or given up, and remembered.
    """

    first_ns: int
    since_ns: int
    bodies: dict[int, bytes] = field(default_factory=dict)
    done: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """A request whose join is met. `bodies`: what the inputs brought that are passed on, in the order of the inputs."""

    key: JoinKey
    bodies: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A request whose join was not met in time, or (`late`) a part that came after its request was passed on."""

    key: JoinKey
    late: bool = False


Outcome = Joined | Dropped


class Joins:
    """What waits in one partition.

    Attributes:
        waiting: every request that waits or is remembered.
        progress: pipeline -> port -> the newest time that came over it.
        changed: keys of `waiting` that were added, changed or taken out since somebody cleared this.
    """

    def __init__(
        self,
        rules: Mapping[str, JoinRule],
        *,
        max_requests: int = MAX_REQUESTS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._rules = rules
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._bytes = 0
        #: By (first_ns, request id), the next one to be over in front; holds some that are gone.
        self._next: dict[str, list[tuple[int, str]]] = {name: [] for name in rules}
        self.waiting: dict[JoinKey, Waiting] = {}
        self.progress: dict[str, dict[int, int]] = {name: {} for name in rules}
        self.changed: set[JoinKey] = set()

    def restore(self, waiting: Mapping[JoinKey, Waiting], progress: Mapping[str, Mapping[int, int]]) -> None:
        """Take up what was kept of pipelines that still join over these ports; one that is no more holds nobody up."""
        for key, one in sorted(waiting.items()):
            rule = self._rules.get(key.pipeline)
            if rule is not None and all(port in rule.ports for port in one.bodies):
                self._hold(key, one)
        for name, rule in self._rules.items():
            ports = progress.get(name, {})
            self.progress[name] = {port: ports[port] for port in rule.ports if port in ports}
        self.changed.clear()

    def add(self, part: Part) -> list[Outcome]:
        """Take in a part of a pipeline that joins; what it completes, ends or comes too late for."""
        name = part.key.pipeline
        rule, progress = self._rules[name], self.progress[name]
        outcomes: list[Outcome] = []
        one = self.waiting.get(part.key)
        if one is not None and abs(part.time_ns - one.first_ns) > rule.window_ns:
            # Not of the same call: its caller uses a request id again.
            outcomes += self._end(part.key, one)
            one = None
        if one is None:
            one = Waiting(first_ns=part.time_ns, since_ns=part.arrived_ns)
            self._hold(part.key, one)
        if one.done or part.port in one.bodies:
            outcomes.append(Dropped(part.key, late=True))
        else:
            one.bodies[part.port] = part.body
            self._bytes += len(part.body)
            self.changed.add(part.key)
            chosen = _met(rule, one.bodies, over=False)
            if chosen is not None:
                self._settle(part.key, one, part.arrived_ns)
                outcomes.append(Joined(part.key, chosen))
        progress[part.port] = max(part.time_ns, progress.get(part.port, part.time_ns))
        outcomes += self._end_what_is_over(name)
        outcomes += self._end_what_is_too_much()
        return outcomes

    def expire(self, now_ns: int, *, watched_since_ns: int = 0) -> list[Outcome]:
        """End what has waited for a stream that says nothing; for when nothing is left to be read.

        Args:
            now_ns: by the clock of the bus.
            watched_since_ns: since when somebody has been there to take in what comes.
        """
        outcomes: list[Outcome] = []
        for key, one in sorted(self.waiting.items()):
            rule = self._rules[key.pipeline]
            if now_ns - max(one.since_ns, watched_since_ns) <= rule.window_ns + SILENT_NS:
                continue
            if one.done:
                self._forget(key, one)
            else:
                outcomes.append(self._given_up(key, one))
                self._settle(key, one, now_ns)
        return outcomes

    def _hold(self, key: JoinKey, one: Waiting) -> None:
        self.waiting[key] = one
        self._bytes += sum(map(len, one.bodies.values()))
        heappush(self._next[key.pipeline], (one.first_ns, key.request_id))
        self.changed.add(key)

    def _forget(self, key: JoinKey, one: Waiting) -> None:
        del self.waiting[key]
        self._bytes -= sum(map(len, one.bodies.values()))
        self.changed.add(key)

    def _settle(self, key: JoinKey, one: Waiting, now_ns: int) -> None:
        self._bytes -= sum(map(len, one.bodies.values()))
        one.bodies, one.done, one.since_ns = {}, True, now_ns
        self.changed.add(key)

    def _end(self, key: JoinKey, one: Waiting) -> list[Outcome]:
        """Its window is over: passed on with what came or dropped, and forgotten."""
        outcomes: list[Outcome] = [] if one.done else [self._given_up(key, one)]
        self._forget(key, one)
        return outcomes

    def _given_up(self, key: JoinKey, one: Waiting) -> Outcome:
        chosen = _met(self._rules[key.pipeline], one.bodies, over=True)
        return Dropped(key) if chosen is None else Joined(key, chosen)

    def _end_what_is_over(self, name: str) -> list[Outcome]:
        rule, progress = self._rules[name], self.progress[name]
        if len(progress) < len(rule.ports):
            return []  # of a stream that has not spoken yet nobody knows where it is
        reached = min(progress.values()) - rule.window_ns
        outcomes: list[Outcome] = []
        for key, one in self._before(name, reached):
            outcomes += self._end(key, one)
        return outcomes

    def _before(self, name: str, reached_ns: int) -> Iterator[tuple[JoinKey, Waiting]]:
        queue = self._next[name]
        while queue and queue[0][0] < reached_ns:
            first_ns, request_id = heappop(queue)
            key = JoinKey(name, request_id)
            one = self.waiting.get(key)
            if one is not None and one.first_ns == first_ns:
                yield key, one

    def _end_what_is_too_much(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while len(self.waiting) > self._max_requests or self._bytes > self._max_bytes:
            name = min((name for name, queue in self._next.items() if queue), key=lambda name: self._next[name][0])
            first_ns, request_id = heappop(self._next[name])
            key = JoinKey(name, request_id)
            one = self.waiting.get(key)
            if one is not None and one.first_ns == first_ns:
                outcomes += self._end(key, one)
        return outcomes


def _met(rule: JoinRule, bodies: Mapping[int, bytes], *, over: bool) -> tuple[bytes, ...] | None:
    """What is passed on of the parts that came; None while the join is not met.

    Args:
        over: whether nothing more is waited for.
    """
    inputs = [port for port in bodies if port < rule.inputs]
    n_triggers = len(bodies) - len(inputs)
    if n_triggers < (rule.triggers if rule.triggers_join == "inner" else min(1, rule.triggers)):
        return None
    if rule.inputs_join == "any":
        return (bodies[inputs[0]],) if inputs else None
    if len(inputs) < rule.inputs and not (rule.inputs_join == "outer" and over and inputs):
        return None
    return tuple(bodies[port] for port in sorted(inputs))
