"""The sink against a model of it: any order of halves, repeats, waits, full spools and deaths at the worst moments."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from prometheus_client import CollectorRegistry

from govern.errors import Unavailable
from govern.mirror import folder
from govern.mirror.captured import CapturedFeedback, decode
from govern.mirror.config import MirrorConfig
from govern.mirror.inspect import inspect_segments
from govern.mirror.recorder import open_spool
from govern.mirror.segment import Frame, SegmentReader
from govern.mirror.sink.half import Half, Side
from govern.mirror.sink.ledger import Standing
from govern.mirror.sink.sink import Busy, Sink
from govern.mirror.spool import SpoolWriter
from govern.record import Feedback, Inference, Payload
from govern.telemetry.metrics import Metrics
from tests.mirror.conftest import until
from tests.mirror.sink.conftest import entries, sides_of

SEGMENT_BYTES = 32 * 1024
JOIN_S = 10.0


class Died(Exception):
    """The process would be dead here."""


class MortalSpool(SpoolWriter):
    """A real spool whose process can die just before, or just after, its next record is in."""

    dies: str = ""

    def append(self, payload: bytes) -> bool:
        if self.dies == "before":
            raise Died
        kept = super().append(payload)
        if self.dies == "after":
            raise Died
        return kept


def half(key: int, side: Side, *, size: int = 20) -> Half:
    body = bytes([key % 256]) * size
    if side == "feedback":
        body = msgspec.msgpack.encode(Feedback(id=f"k{key}", request_id=f"k{key}"))
    return Half(
        logger="kserve",
        side=side,
        key=f"{side == 'feedback'}{key}",
        join_id=f"k{key}",
        request_id=f"k{key}",
        traceparent="",
        service="income",
        model="income",
        revision="",
        endpoint="default",
        protocol="unknown",
        t_ns=1_800_000_000_000_000_000,
        payload=Payload(body=body, size=len(body)),
        cut=False,
        synthetic=False,
        left_out=False,
    )


class SinkMachine(RuleBasedStateMachine):
    """What is acknowledged is in one record, whatever happens; a half is joined if its other comes in time."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="govern-test-", dir=folder.default_spool_dir().parent))
        self.now = 0.0
        self.spools: list[MortalSpool] = []
        self.acknowledged: set[tuple[str, str]] = set()
        self.uncertain: set[tuple[str, str]] = set()
        self.shipped: list[Inference | CapturedFeedback] = []

    @initialize()
    def begin(self) -> None:
        self.config = MirrorConfig.model_validate(
            {
                "spool_dir": self.base / "spool",
                "segment_bytes": SEGMENT_BYTES,
                "body_bytes": 4 * 1024,
                "spool_bytes": 12 * SEGMENT_BYTES,
                "sink": {"join_s": JOIN_S, "pending": 12, "remembered": 10_000, "remember_s": 1e9},
            }
        )
        self.sink = self.open()

    def open(self) -> Sink:
        def mortal(config: MirrorConfig, **options: object) -> SpoolWriter:
            spool = open_spool(config, **options)  # type: ignore[arg-type]
            spool.__class__ = MortalSpool
            assert isinstance(spool, MortalSpool)
            self.spools.append(spool)
            return spool

        return Sink(self.config, Metrics(CollectorRegistry()), open_spool=mortal, clock=lambda: self.now)

    def abandon(self) -> None:
        """As kill -9: nothing is sealed or flushed, and the kernel gives up the locks."""
        for spool in self.spools:
            spool._calls.put(False)
            spool._maker.join()
            spool._file.close()
        self.spools.clear()
        os.close(self.sink._journal._lock)

    def deliver(self, one: Half) -> None:
        name = (one.request_id, one.side)
        try:
            self.sink.accept(one)
        except Busy:
            assert self.sink.unwell() is not None
            return
        except Died:
            self.uncertain.add(name)
            self.abandon()
            self.sink = self.open()
            return
        self.acknowledged.add(name)

    @rule(key=st.integers(0, 40), side=st.sampled_from(["request", "response", "feedback"]), size=st.integers(0, 4096))
    def event(self, key: int, side: Side, size: int) -> None:
        self.deliver(half(key, side, size=size))

    @rule(key=st.integers(0, 40), first=st.sampled_from(["request", "response"]))
    def both_halves(self, key: int, first: Side) -> None:
        other: Side = "response" if first == "request" else "request"
        before = self.sink._ledger.standing(half(key, first)), self.sink._ledger.standing(half(key, other))
        for side in (first, other):
            self.deliver(half(key, side))
        if before == (Standing.FIRST, Standing.FIRST) and {(f"k{key}", first), (f"k{key}", other)} <= self.acknowledged:
            until(self.no_room_or_nothing_stuck, "the record")
            if not self.sink.unwell():
                assert any(
                    isinstance(entry, Inference) and entry.request_id == f"k{key}" and entry.missing == ()
                    for entry in self.everything()
                )

    def no_room_or_nothing_stuck(self) -> bool:
        self.tick()
        full = folder.held_bytes(self.config.spool_dir) + SEGMENT_BYTES > self.config.spool_bytes
        return full or self.sink.unwell() is None or "sink.pending" in str(self.sink.unwell())

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        try:
            self.sink.tick()
        except Died:
            self.abandon()
            self.sink = self.open()

    @rule()
    def killed(self) -> None:
        self.abandon()
        self.sink = self.open()

    @rule(when=st.sampled_from(["before", "after"]))
    def will_die(self, when: str) -> None:
        """At the next record: with its intent in the journal, and without or with it in the spool."""
        self.spools[0].dies = when

    @rule()
    def restarted(self) -> None:
        self.sink.close()
        self.spools.clear()
        self.sink = self.open()

    @rule()
    def shipped_and_deleted(self) -> None:
        """As the shipper does with segments that are full, and with all that dead agents left."""
        alive = {spool.info.agent: spool.writing for spool in self.spools}
        for segment in inspect_segments([self.config.spool_dir]):
            agent = segment.header.agent
            if agent in alive and segment.header.number >= alive[agent]:
                continue
            frames = [item for item in segment.frames() if isinstance(item, Frame)]
            with SegmentReader(segment.path) as reader:
                frames += reader.beyond(segment.header.end)
            self.shipped += [decode(frame.payload) for frame in frames]
            segment.path.unlink()
        for path in list(folder.segments(self.config.spool_dir)):
            if path.agent not in alive:
                path.path.unlink()

    def everything(self) -> list[Inference | CapturedFeedback]:
        return self.shipped + entries(self.config.spool_dir)

    @invariant()
    def nothing_is_recorded_twice(self) -> None:
        counts = Counter(name for entry in self.everything() for name in sides_of(entry))
        assert [name for name, count in counts.items() if count > 1] == []
        assert set(counts) <= self.acknowledged | self.uncertain

    @invariant()
    def the_journal_is_bounded(self) -> None:
        assert self.sink._journal.held_bytes <= 2 * self.sink._ledger.needed_bytes + 8 * SEGMENT_BYTES

    def drained(self) -> bool:
        self.shipped_and_deleted()
        return self.sink.flush() == 0

    def teardown(self) -> None:
        for spool in self.spools:
            spool.dies = ""
        until(self.drained, "room for all that waits")
        self.sink.close()
        found = {name for entry in self.everything() for name in sides_of(entry)}
        assert self.acknowledged <= found
        self.nothing_is_recorded_twice()
        shutil.rmtree(self.base)


TestSinkMachine = SinkMachine.TestCase
TestSinkMachine.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a thread makes the segments: shrinking meets other timing
)


MakeConfig = Callable[..., MirrorConfig]


def test_a_second_sink_on_a_spool_is_refused(make_config: MakeConfig) -> None:
    config = make_config()
    first = Sink(config, Metrics(CollectorRegistry()))
    with pytest.raises(Unavailable, match="sink folder") as caught:
        Sink(config, Metrics(CollectorRegistry()))
    assert "another sink" in caught.value.why
    first.close()


def test_halves_are_kept_for_the_next_start_and_joined_there(make_config: MakeConfig, spool_dir: Path) -> None:
    config = make_config()
    sink = Sink(config, Metrics(CollectorRegistry()))
    for key in range(50):
        sink.accept(half(key, "request", size=4000))
    sink.close()
    assert entries(spool_dir) == []
    sink = Sink(config, Metrics(CollectorRegistry()))
    assert sink.pending == 50
    for key in range(50):
        until(lambda: sink.spool.ahead > 0, "the next segment")
        assert sink.accept(half(key, "response")) is Standing.SECOND
        assert sink.accept(half(key, "request")) is Standing.AGAIN
    sink.close()
    found = entries(spool_dir)
    assert [(entry.request_id, entry.missing) for entry in found if isinstance(entry, Inference)] == [
        (f"k{key}", ()) for key in range(50)
    ]


def test_a_long_run_keeps_the_journal_small(make_config: MakeConfig, spool_dir: Path) -> None:
    """One half waits all the time: its segment must not hold up the deletion of the others."""
    config = make_config(sink={"join_s": 1e6, "remembered": 20})
    sink = Sink(config, Metrics(CollectorRegistry()))
    sink.accept(half(0, "request"))
    most = 0
    for key in range(1, 400):
        until(lambda: sink.spool.ahead > 0, "the next segment")
        sink.accept(half(key, "request", size=8000))
        sink.accept(half(key, "response", size=8000))
        sink.tick()
        most = max(most, folder.held_bytes(spool_dir / "sink"))
        for path in sorted(segment.path for segment in folder.segments(spool_dir))[:-4]:
            path.unlink()
    assert most <= 8 * config.segment_bytes
    assert sink.accept(half(0, "response")) is Standing.SECOND
    sink.close()
