"""The sink: takes halves and feedback, joins the halves, and puts each inference into the spool exactly once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from govern.errors import Unavailable
from govern.mirror.agent import agent_name
from govern.mirror.captured import CapturedFeedback, SentFeedback
from govern.mirror.cipher import known_key, needed_key
from govern.mirror.config import MirrorConfig
from govern.mirror.folder import make_private
from govern.mirror.recorder import open_spool
from govern.mirror.rules import Rules
from govern.mirror.sampling import Fate, Shares
from govern.mirror.sink.half import Half
from govern.mirror.sink.inference import failed, inference_of
from govern.mirror.sink.journal import Arrived, Journal, Placed, Proof, Settled, Undone
from govern.mirror.sink.ledger import Ledger, Standing, Waiting
from govern.mirror.spool import SpoolWriter
from govern.record import Capture
from govern.telemetry.metrics import Metrics, labels

_log: Final = logging.getLogger(__name__)

#: Segments of feedback: an event is a few hundred bytes, and three segments are made ahead.
_FEEDBACK_SEGMENT_BYTES: Final = 256 * 1024
#: Segments of the journal beside twice what is needed of it: so many may wait to be cleaned.
_JOURNAL_SPARE_SEGMENTS: Final = 4
#: What a half takes in the journal beside its body, about.
_HALF_OVERHEAD_BYTES: Final = 1024
#: What a remembered inference takes there.
_REMEMBERED_BYTES: Final = 128


class Busy(Unavailable):
    """There is no room for an event now; the broker is to deliver it again."""

    code = "busy"


class Sink:
    """One thread uses it: `accept` for each half, `tick` every so often, `flush` and `close` at the end.

    Args:
        metrics: where to count.
        clock: seconds, for the time limits.

    Raises:
        Unavailable: the spool's folder is not usable, or another sink works on it.
    """

    def __init__(
        self,
        config: MirrorConfig,
        metrics: Metrics,
        *,
        open_spool: Callable[..., SpoolWriter] = open_spool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.rules = Rules(config)
        self._clock = clock
        self._open_spool = open_spool
        self._encode = msgspec.msgpack.Encoder().encode
        limits = config.sink
        needed = (
            limits.pending_bytes + 2 * limits.pending * _HALF_OVERHEAD_BYTES + limits.remembered * _REMEMBERED_BYTES
        )
        self._spare_bytes = _JOURNAL_SPARE_SEGMENTS * config.segment_bytes
        make_private(config.spool_dir)
        self._journal = Journal(
            config.spool_dir / "sink",
            agent_name(config.pod),
            segment_bytes=config.segment_bytes,
            limit_bytes=2 * needed + 2 * self._spare_bytes,
            key=needed_key(config),
            old_key=known_key(config),
        )
        self._proof = Proof(config.spool_dir / "sink" / "proof")
        self._ledger = Ledger(remembered=limits.remembered, remember_s=limits.remember_s)
        self._feedback: SpoolWriter | None = None
        self._restore()
        self._spool = open_spool(config, on_segment=self._proof.keep)
        #: Inferences that are whole and found no room in the spool.
        self._stuck = {key: None for key, waiting in self._ledger.waiting.items() if waiting.complete}
        self.tick()

    @property
    def spool(self) -> SpoolWriter:
        return self._spool

    @property
    def pending(self) -> int:
        return self._ledger.halves

    @staticmethod
    def now_ns() -> int:
        """When an event came that does not say when it happened."""
        return time.time_ns()

    def apply(self, config: MirrorConfig) -> None:
        """Follow another configuration's rules from the next event on."""
        self.config = config
        self.rules = Rules(config)

    def refused(self, standing: bool) -> None:
        """Show whether the configuration file, as it is now, is refused."""
        self._spool.show_refused(standing)

    def unwell(self) -> str | None:
        """Why no event could be taken now; None when one could."""
        if len(self._ledger.waiting) >= self.config.sink.pending:
            return f"{len(self._ledger.waiting)} inferences wait (sink.pending)"
        if self._stuck:
            return f"the spool has no room: {len(self._stuck)} inferences wait for it"
        return None

    def accept(self, half: Half) -> Standing:
        """Take a half; when this returns, nothing but the loss of the machine's memory can lose it.

        Raises:
            Busy: there is no room for it; it is not taken.
        """
        standing = self._ledger.standing(half)
        if standing is Standing.AGAIN:
            self.metrics.sink_duplicates.labels(*self._labels(half)).inc()
            return standing
        self._check_room(half, standing)
        placed = self._journal.append(Arrived(half))
        if placed is None:
            self._clean()
            placed = self._journal.append(Arrived(half))
        if placed is None:
            raise self._busy("the journal has no room")
        waiting = self._ledger.arrive(placed, half, self._clock())
        if waiting.complete and not self._settle(half.key, waiting):
            self._stuck[half.key] = None
        return standing

    def tick(self) -> None:
        """What time brings: halves alone for too long, room in the spool, things to forget."""
        now = self._clock()
        for key in self._ledger.overdue(now, self.config.sink.join_s):
            waiting = self._ledger.waiting[key]
            if not waiting.complete:
                waiting.alone = True
                self._stuck[key] = None
        self._settle_stuck()
        self._ledger.forget(now)
        for spool in (self._spool, self._feedback):
            if spool is not None:
                self._proof.forget(agent=spool.info.agent, before=spool.writing)
        self._clean()
        self.metrics.sink_pending.labels(*labels(namespace=self.config.namespace)).set(self._ledger.halves)

    def flush(self) -> int:
        """Record all halves that wait, alone; how many inferences found no room and stay in the journal."""
        for key, waiting in self._ledger.waiting.items():
            if not waiting.complete:
                waiting.alone = True
                self._stuck[key] = None
        self.tick()
        return len(self._stuck)

    def close(self) -> None:
        self._spool.close()
        if self._feedback is not None:
            self._feedback.close()
        self._journal.close()

    def _restore(self) -> None:
        """Take up what the run before had acknowledged."""
        now = self._clock()
        for placed in self._journal.read_all():
            self._ledger.replay(placed, now)
        doubt = self._ledger.in_doubt()
        if doubt is not None:
            done = self._proof.has(doubt.agent, doubt.seq)
            entry = Settled(doubt.key, doubt.sides) if done else Undone(doubt.key)
            placed_again = self._journal.append(entry, urgent=True)
            if placed_again is None:
                self._journal.close()
                raise Unavailable(
                    f"sink folder {self.config.spool_dir / 'sink'}",
                    why="there is no room in it for the first entry of this run",
                    fix="free memory there (govern mirror spool ls)",
                )
            if done:
                self._ledger.settle(doubt, placed_again.segment, now)
        self._proof.forget_others(set())
        if self._ledger.waiting:
            _log.warning("%d halves of an earlier run wait again for their others", self._ledger.halves)

    def _check_room(self, half: Half, standing: Standing) -> None:
        limits, ledger = self.config.sink, self._ledger
        if standing is not Standing.FIRST:  # it lets two go
            return
        if len(ledger.waiting) >= limits.pending:
            raise self._busy(f"{len(ledger.waiting)} inferences wait for their other half (sink.pending)")
        if ledger.body_bytes + half.n_bytes > limits.pending_bytes:
            raise self._busy(f"{ledger.body_bytes} bytes wait for their other half (sink.pending_bytes)")

    @staticmethod
    def _busy(why: str) -> Busy:
        return Busy(
            "the sink takes no event now",
            why=why,
            fix="let the broker deliver it again; if it lasts, see whether the shipper reaches the bus",
        )

    def _settle_stuck(self) -> None:
        """Record what found no room, in order; inferences and feedback have spools of their own."""
        full: set[bool] = set()
        for key in list(self._stuck):
            waiting = self._ledger.waiting[key]
            is_feedback = waiting.halves[0].side == "feedback"
            if is_feedback in full:
                continue
            if self._settle(key, waiting):
                del self._stuck[key]
            else:
                full.add(is_feedback)
            if len(full) == 2:
                return

    def _settle(self, key: str, waiting: Waiting) -> bool:
        """Record an inference, or feedback; False when there is no room now, and nothing has changed."""
        first = waiting.halves[0]
        sides = tuple(half.side for half in waiting.halves)
        if first.side == "feedback":
            return self._settle_feedback(key, first)
        shares = self.rules.shares(first.service, first.model)
        if _left_out(waiting.halves, shares):
            placed = self._journal.append(Settled(key, sides), urgent=True)
            if placed is None:
                return False
            self._spool.count_sampled_out()
        else:
            capture = self._capture(self._spool, first)
            payload = self._encode(inference_of(waiting.halves, self.config, shares, capture))
            placed = self._record(self._spool, Settled(key, sides, capture.agent, capture.seq), payload)
            if placed is None:
                return False
        counter = self.metrics.sink_joined if len(sides) == 2 else self.metrics.sink_orphaned
        counter.labels(*self._labels(first)).inc()
        self._ledger.settle(Settled(key, sides), placed.segment, self._clock())
        return True

    def _settle_feedback(self, key: str, half: Half) -> bool:
        if self._feedback is None:
            small = min(self.config.segment_bytes, _FEEDBACK_SEGMENT_BYTES)
            try:
                self._feedback = self._open_spool(
                    self.config.model_copy(update={"segment_bytes": small}),
                    stream="feedback",
                    on_segment=self._proof.keep,
                )
            except Unavailable as error:
                _log.warning("feedback waits: %s", error)
                return False
        capture = self._capture(self._feedback, half)
        feedback = msgspec.msgpack.decode(half.payload.body, type=SentFeedback)
        payload = self._encode(CapturedFeedback(capture, feedback))
        placed = self._record(self._feedback, Settled(key, (half.side,), capture.agent, capture.seq), payload)
        if placed is None:
            return False
        self.metrics.sink_feedback.labels(*self._labels(half)).inc()
        self._ledger.settle(Settled(key, (half.side,)), placed.segment, self._clock())
        return True

    def _record(self, spool: SpoolWriter, intent: Settled, payload: bytes) -> Placed | None:
        """The intent, then the record: in this order, so that after a crash only the last intent is in doubt."""
        if not spool.room_for(len(payload)):
            return None
        placed = self._journal.append(intent, urgent=True)
        if placed is None:
            return None
        kept = spool.append(payload)
        assert kept, "there was room, and one thread appends"
        return placed

    def _capture(self, spool: SpoolWriter, half: Half) -> Capture:
        return Capture(
            agent=spool.info.agent,
            pod=self.config.pod,
            seq=spool.next_seq,
            dropped_before=spool.dropped,
            source=half.logger,
        )

    def _clean(self) -> None:
        """Delete journal segments that nothing needs; write again what little is needed of the oldest."""
        journal, ledger = self._journal, self._ledger
        while journal.oldest is not None and not ledger.needs(journal.oldest):
            journal.drop_oldest()
        if journal.oldest is None or journal.held_bytes <= 2 * ledger.needed_bytes + self._spare_bytes:
            return
        for placed in journal.read(journal.oldest):
            entry = ledger.needed(placed)
            if entry is not None:
                again = journal.append(entry, urgent=True)
                if again is None:
                    return
                ledger.moved(again)
        journal.drop_oldest()

    def _labels(self, half: Half) -> tuple[str, ...]:
        return labels(
            namespace=self.config.namespace,
            service=half.service,
            model=half.model,
            revision=half.revision,
            endpoint=half.endpoint,
        )


def _left_out(halves: list[Half], shares: Shares) -> bool:
    """Whether sampling leaves an inference out; a half without its body decides, should the rates have changed."""
    if any(half.left_out for half in halves):
        return True
    fate = shares.fate(halves[0].join_id)
    return fate is Fate.LEFT_OUT or (fate is Fate.OPEN and not failed(halves))
