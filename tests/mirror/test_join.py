"""The join and the places: every message in exactly one record, whatever comes in which order and dies when."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from govern.bus.protocol import Partition
from govern.mirror.config import MirrorConfig
from govern.mirror.join import Joiner, Pair, Side
from govern.mirror.place import OVERHEAD_BYTES, Place, Stored
from govern.mirror.seldon.half import Half, JoinKey
from govern.record import Payload

REQUESTS, RESPONSES = Partition("inputs", 0), Partition("outputs", 0)
SIDES: dict[Partition, Side] = {REQUESTS: "request", RESPONSES: "response"}
CONFIG = MirrorConfig()
UNBOUNDED = {"limit_ms": 100.0, "max_halves": 10**6, "max_bytes": 10**9}


def half(request_id: str, origin: Partition, offset: int, t_ms: int = 0, body: bytes = b"") -> Half:
    return Half(
        key=JoinKey("model", "m", "", request_id),
        side=SIDES[origin],
        config=CONFIG,
        origin=origin,
        offset=offset,
        t_ms=t_ms,
        payload=Payload(body=body),
        cut=False,
        protocol="v2-grpc",
        revision="",
        traceparent="",
        error="",
        named=True,
        synthetic=False,
    )


def ids(pairs: list[Pair[Half]]) -> list[tuple[Partition, int]]:
    return [(one.origin, one.offset) for pair in pairs for one in pair.halves]


def test_the_two_halves_meet_in_either_order() -> None:
    for first, second in ((REQUESTS, RESPONSES), (RESPONSES, REQUESTS)):
        joiner = Joiner[Half](**UNBOUNDED)
        assert joiner.add(half("a", first, 0)) is None
        pair = joiner.add(half("a", second, 0))
        assert pair is not None
        assert pair.request is not None
        assert pair.request.side == "request"
        assert pair.response is not None
        assert pair.response.side == "response"
        assert len(joiner) == 0


def test_an_id_used_twice_makes_two_inferences_first_with_first() -> None:
    joiner = Joiner[Half](**UNBOUNDED)
    for offset in (0, 1):
        assert joiner.add(half("a", REQUESTS, offset)) is None
    pairs = [joiner.add(half("a", RESPONSES, offset)) for offset in (0, 1)]
    assert [(pair.request.offset, pair.response.offset) for pair in pairs] == [(0, 0), (1, 1)]  # type: ignore[union-attr]


def test_a_half_waits_as_long_as_the_limit_and_no_longer() -> None:
    joiner = Joiner[Half](**UNBOUNDED)
    joiner.add(half("a", REQUESTS, 0, t_ms=1000))
    joiner.add(half("b", RESPONSES, 0, t_ms=1001))
    assert joiner.expire(1100) == []
    assert [pair.first.key.request_id for pair in joiner.expire(1101)] == ["a"]
    (orphan,) = joiner.expire(5000)
    assert orphan.request is None
    assert len(joiner) == 0
    assert joiner.n_bytes == 0


def test_past_the_bounds_the_oldest_go_first() -> None:
    by_number = Joiner[Half](limit_ms=1e9, max_halves=2, max_bytes=10**9)
    by_size = Joiner[Half](limit_ms=1e9, max_halves=10**6, max_bytes=25)
    for joiner in (by_number, by_size):
        for offset, t_ms in enumerate((3, 1, 2)):
            joiner.add(half(str(offset), REQUESTS, offset, t_ms=t_ms, body=b"x" * 10))
        assert [pair.first.offset for pair in joiner.expire(0)] == [1]
        assert len(joiner) == 2
        assert joiner.n_bytes == 20


events = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from((REQUESTS, RESPONSES)), st.integers(0, 300)), max_size=60
)


@given(events, st.integers(1, 8), st.integers(1, 200))
def test_every_half_is_in_exactly_one_pair(halves: list[tuple[str, Partition, int]], most: int, size: int) -> None:
    joiner = Joiner[Half](limit_ms=100, max_halves=most, max_bytes=size)
    pairs: list[Pair[Half]] = []
    added = []
    for offset, (request_id, origin, t_ms) in enumerate(halves):
        one = half(request_id, origin, offset, t_ms=t_ms, body=b"x" * (offset % 40))
        added.append(one)
        pair = joiner.add(one)
        pairs += [pair] if pair else []
        pairs += joiner.expire(t_ms)
        assert len(joiner) <= most
        assert joiner.n_bytes <= size
    pairs += joiner.rest()
    assert (len(joiner), joiner.n_bytes) == (0, 0)
    assert Counter(ids(pairs)) == Counter((one.origin, one.offset) for one in added)
    for pair in pairs:
        assert len({one.key for one in pair.halves}) == 1
        assert [one.side for one in pair.halves] == [side for side in ("request", "response") if _has(pair, side)]


def _has(pair: Pair[Half], side: str) -> bool:
    return (pair.request if side == "request" else pair.response) is not None


class Run:
    """One life of a reader over two partitions, in memory: what it has read and not committed dies with it."""

    def __init__(self, logs: dict[Partition, list[tuple[str, int]]], stored: dict[Partition, Stored]) -> None:
        self.logs = logs
        self.places = {tp: Place(stored[tp]) for tp in logs}
        self.at = {tp: place.start for tp, place in self.places.items()}
        self.joiner = Joiner[Half](**UNBOUNDED)
        self.pairs: list[Pair[Half]] = []

    def read(self, tp: Partition) -> None:
        if self.at[tp] >= len(self.logs[tp]):
            return
        offset = self.at[tp]
        self.at[tp] += 1
        request_id, t_ms = self.logs[tp][offset]
        place = self.places[tp]
        if place.meets(offset, t_ms):
            pair = self.joiner.add(half(request_id, tp, offset, t_ms))
            if pair is None:
                place.waits(offset)
            else:
                self.close(pair)

    def close(self, pair: Pair[Half]) -> None:
        for one in pair.halves:
            self.places[one.origin].done(one.offset)
        self.pairs.append(pair)


steps = st.lists(st.sampled_from(("inputs", "outputs", "commit", "expire", "kill")), max_size=120)
logs = st.lists(st.sampled_from("abcdef"), max_size=20)


@settings(max_examples=300)
@given(logs, logs, steps)
def test_a_reader_killed_anywhere_records_each_message_once(
    requests: list[str], responses: list[str], does: list[str]
) -> None:
    written = {
        REQUESTS: [(name, 10 * n) for n, name in enumerate(requests)],
        RESPONSES: [(name, 10 * n) for n, name in enumerate(responses)],
    }
    stored = {tp: Stored() for tp in written}
    published: list[Pair[Half]] = []
    run = Run(written, stored)
    for step in [*does, *["inputs", "outputs"] * 60]:
        if step in ("inputs", "outputs"):
            run.read(Partition(step, 0))
        elif step == "expire":
            for pair in run.joiner.expire(150):
                run.close(pair)
        elif step == "commit":
            published += run.pairs
            run.pairs = []
            stored = {tp: place.stored() for tp, place in run.places.items()}
        else:
            run = Run(written, stored)
    for pair in run.joiner.rest():
        run.close(pair)
    published += run.pairs
    assert Counter(ids(published)) == {(tp, n): 1 for tp, log in written.items() for n in range(len(log))}
    assert {tp: place.stored() for tp, place in run.places.items()} == {
        tp: Stored(offset=len(log)) for tp, log in written.items()
    }


def test_open_halves_that_retention_deleted_are_told_once() -> None:
    place = Place(Stored(offset=10, open=[2, 5, 7]))
    assert place.start == 2
    assert place.lost(2) == 0
    assert place.lost(6) == 2
    assert place.meets(6, 0) is False
    assert place.meets(7, 0) is True
    assert place.lost(100) == 0
    assert place.stored() == Stored(offset=10, open=[7])


def test_what_waits_in_a_row_is_kept_as_one_run() -> None:
    place = Place(Stored())
    for offset in range(1_000_000):
        assert place.meets(offset, 0)
        place.waits(offset)
    assert place.stored() == Stored(offset=1_000_000, open=[(0, 999_999)])
    place.done(500)
    assert place.stored().open == [(0, 499), (501, 999_999)]
    assert len(msgspec.json.encode(place.stored())) < 100


def test_what_is_stored_costs_by_its_runs_and_not_by_what_waits() -> None:
    """A commit each few rows, as a backfill has it; a list of what waits would never be made."""
    place = Place(Stored(offset=10**12 + 1, open=[(0, 10**12)]))
    for offset in range(1000):
        assert place.start == offset
        assert place.meets(offset, 0)
        place.done(offset)
        assert place.stored().open == [(offset + 1, 10**12)]


@given(st.sets(st.integers(0, 40)), st.lists(st.integers(0, 40)))
def test_runs_are_counted_and_read_back(before: set[int], does: list[int]) -> None:
    place, waiting = Place(Stored(offset=41, open=[*sorted(before)])), set(before)
    for offset in does:
        assert (offset in place.open) is (offset in waiting)
        (place.done if offset in waiting else place.waits)(offset)
        waiting ^= {offset}
    stored = place.stored()
    assert list(place.open) == sorted(waiting)
    assert stored.open == [
        first if first == last else (first, last)
        for first in sorted(waiting)
        if first - 1 not in waiting
        for last in [next(one for one in range(first, 42) if one + 1 not in waiting)]
    ]
    assert msgspec.json.decode(msgspec.json.encode(stored), type=Stored) == stored
    assert list(Place(stored).open) == sorted(waiting)


@given(st.sets(st.integers(0, 60), min_size=1), st.sampled_from([0, 10**10 - 30, 2**63 - 61]))
def test_no_place_takes_more_than_is_reckoned_with(waiting: set[int], first: int) -> None:
    """Whatever the offsets are: Kafka's have up to 19 digits."""
    place = Place(Stored())
    for offset in sorted(waiting):
        place.meets(first + offset, 0)
        place.waits(first + offset)
    assert len(msgspec.json.encode(place.stored())) <= place.n_bytes
    assert len(msgspec.json.encode(place.stored().open)) <= place.n_bytes - OVERHEAD_BYTES + len("[]")
