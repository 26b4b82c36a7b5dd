"""Windows that slide, against a plain reading of their rules, and their survival of a checkpoint at any moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govern.runtime import checkpoint
from govern.runtime.checkpoint import WindowKey
from govern.runtime.chunks import Chunks
from govern.runtime.rolling import RollingBuffer
from govern.runtime.windows import ClosedWindow, Rows, WindowBuffer
from tests.runtime.test_windows import SCHEMA, message

B = TypeVar("B", bound=RollingBuffer | WindowBuffer)
KEY = WindowKey("watch", "drift", "", "default")


def answered(offset: int, n: int, time_ns: int, outputs: int) -> Rows:
    """A message whose model gave one output, another one, two, or one of another shape."""
    rows = message(offset, n, time_ns)
    p = rows.frame.outputs["p"]
    given = ({"p": p}, {"q": p}, {"p": p, "q": p}, {"p": np.hstack((p, p))})[outputs]
    return replace(rows, frame=replace(rows.frame, outputs=given))


def told(rows: Rows) -> tuple[object, ...]:
    """All that a window's rows are, to be compared."""
    frame = rows.frame
    return (
        rows.offsets.tolist(),
        rows.positions.tolist(),
        rows.times.tolist(),
        rows.request_ids,
        rows.traceparents,
        frame.instance_ids,
        [frame.row(i) for i in range(len(frame))],
        {name: values.tolist() for name, values in frame.outputs.items()},
    )


@dataclass
class Reference:
    """One instance at a time, exactly as the module's docstring says."""

    size: int
    span_ns: int
    minimum: int
    all: list[Rows] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    judged: int = 0
    waiting: int = 0
    said: list[tuple[tuple[object, ...], int, str, int]] = field(default_factory=list)

    def add(self, rows: Rows) -> None:
        if len(rows):
            self.expire(int(rows.times[0]))
        for i in range(len(rows)):
            self.all.append(rows.take(slice(i, i + 1)))
            self.lost.append(self.waiting)
            self.waiting = 0
            if len(self.all) - self.judged == self.size:
                self.judge("count")
        if len(rows) and len(self.all) >= self.size and self.judged < len(self.all):
            self.judge("count")

    def expire(self, now_ns: int) -> None:
        waits = self.judged < len(self.all) and now_ns - int(self.all[self.judged].times[0]) >= self.span_ns
        if self.span_ns and waits:
            self.drain("time")

    def drain(self, closed_by: str) -> None:
        if self.judged < len(self.all) and min(len(self.all), self.size) >= self.minimum:
            self.judge(closed_by)

    def judge(self, closed_by: str) -> None:
        rows, lost = Rows.concat(self.all[-self.size :]), sum(self.lost[-self.size :])
        self.said.append((told(rows), lost, closed_by, len(self.all) - self.judged))
        self.judged = len(self.all)


def said(windows: Iterable[ClosedWindow]) -> list[tuple[tuple[object, ...], int, str, int]]:
    return [(told(one.rows), one.lost, one.closed_by, one.new) for one in windows]


@dataclass
class Stored:
    """What the checkpoints topic has of the window."""

    table: dict[bytes, bytes] = field(default_factory=dict)
    chunks: Chunks = field(default_factory=Chunks)

    def commit(self, buffer: RollingBuffer | WindowBuffer) -> list[tuple[bytes, bytes | None]]:
        entries = self.chunks.take_changed(KEY, buffer, collected_for="f")
        for key, value in entries:
            if value is None:
                del self.table[key]
            else:
                self.table[key] = value
        return entries

    def restored(self, buffer: B, lost: int, *, collected_for: str = "f") -> B:
        """The new buffer, as whoever takes the partition next has it."""
        self.chunks = Chunks()
        found: dict[int, dict[int, bytes]] = {}
        for key, value in self.table.items():
            _, number, piece = checkpoint.parse_chunk_key(key)
            found.setdefault(number, {})[piece] = value
        self.chunks.restore(KEY, found, buffer, SCHEMA, lost=lost, collected_for=collected_for)
        return buffer


STEPS = st.tuples(
    st.integers(0, 30),
    st.integers(0, 12),
    st.sampled_from((0, 0, 0, 1, 2, 3)),
    st.sampled_from(("", "", "", "quiet", "lost", "drain", "commit", "commit", "crash")),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 12),
    span=st.sampled_from([0, 5, 50]),
    minimum=st.integers(1, 4),
    chunk_rows=st.sampled_from([1, 3, 256]),
    piece_bytes=st.sampled_from([300, checkpoint.PIECE_BYTES]),
    stream=st.lists(STEPS, max_size=40),
)
def test_windows_slide_by_the_rules_and_survive_a_checkpoint_anywhere(
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    span: int,
    minimum: int,
    chunk_rows: int,
    piece_bytes: int,
    stream: list[tuple[int, int, int, str]],
) -> None:
    monkeypatch.setattr(checkpoint, "CHUNK_ROWS", chunk_rows)
    monkeypatch.setattr(checkpoint, "PIECE_BYTES", piece_bytes)
    reference, topic = Reference(size, span, min(minimum, size)), Stored()
    buffer = RollingBuffer(size=size, span_ns=span, minimum=minimum)
    found: list[ClosedWindow] = []
    now = 0
    for offset, (n, step, outputs, then) in enumerate(stream):
        now += step
        rows = answered(offset, n, now, outputs)
        found.extend(buffer.add(rows))
        reference.add(rows)
        match then:
            case "quiet":
                found.extend(buffer.expire(now + 3))
                reference.expire(now + 3)
            case "lost":
                buffer.add_lost(2)
                reference.waiting += 2
            case "drain":
                found.extend(buffer.drain())
                reference.drain("drain")
            case "commit":
                topic.commit(buffer)
            case "crash":
                topic.commit(buffer)
                again = RollingBuffer(size=size, span_ns=span, minimum=minimum)
                buffer = topic.restored(again, buffer.lost)
                assert len({checkpoint.parse_chunk_key(key)[1] for key in topic.table}) <= size
        assert (len(buffer), buffer.unjudged) == (
            min(size, len(reference.all)),
            len(reference.all) - reference.judged,
        )
    assert said(found) == reference.said
    in_windows = {one for window in found for one in window.rows.frame.instance_ids}
    every = {one for rows in reference.all[: reference.judged] for one in rows.frame.instance_ids}
    assert in_windows == every, "each that was judged is in a window, and the rest waits"
    assert sum(window.new for window in found) == reference.judged


def test_a_request_larger_than_the_window_is_judged_in_pieces_and_no_row_is_passed_over() -> None:
    buffer = RollingBuffer(size=4, span_ns=0, minimum=1)
    assert buffer.add(message(0, 3, 0)) == []
    windows = buffer.add(message(1, 10, 0))
    assert [(one.rows.positions.tolist(), one.new) for one in windows] == [
        ([0, 1, 2, 0], 4),
        ([1, 2, 3, 4], 4),
        ([5, 6, 7, 8], 4),
        ([6, 7, 8, 9], 1),
    ]
    (window,) = buffer.add(message(2, 1, 0))
    assert (window.rows.offsets.tolist(), window.rows.positions.tolist()) == ([1, 1, 1, 2], [7, 8, 9, 0])


@pytest.mark.parametrize("crashes", [False, True])
def test_a_window_is_incomplete_as_long_as_it_reaches_over_a_gap(crashes: bool) -> None:
    topic, buffer = Stored(), RollingBuffer(size=3, span_ns=0, minimum=1)
    buffer.add(message(0, 2, 0))
    buffer.add_lost(1)
    completeness = []
    for offset in range(1, 6):
        completeness += [one.completeness for one in buffer.add(message(offset, 1, 0))]
        if crashes:
            topic.commit(buffer)
            buffer = topic.restored(RollingBuffer(size=3, span_ns=0, minimum=1), buffer.lost)
    assert completeness == [3 / 4, 3 / 4, 3 / 4, 1.0, 1.0]


def test_rows_keep_their_outputs_when_those_without_have_left_the_window() -> None:
    buffer, topic = RollingBuffer(size=3, span_ns=0, minimum=1), Stored()
    for offset, outputs in enumerate((1, 0, 0)):
        windows = buffer.add(answered(offset, 1, 0, outputs))
        topic.commit(buffer)
    assert [one.rows.frame.outputs for one in windows] == [{}]
    for last in (buffer, topic.restored(RollingBuffer(size=3, span_ns=0, minimum=1), 0)):
        (window,) = last.add(answered(3, 1, 0, 0))
        assert window.rows.frame.outputs["p"].tolist() == [[1.0], [2.0], [3.0]]


def test_what_was_judged_is_not_judged_again_by_the_next_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last chunk was full when it was committed, before its rows were judged."""
    monkeypatch.setattr(checkpoint, "CHUNK_ROWS", 2)
    topic, buffer = Stored(), RollingBuffer(size=4, span_ns=0, minimum=1)
    buffer.add(message(0, 2, 0))
    topic.commit(buffer)
    assert buffer.drain()
    topic.commit(buffer)
    heir = topic.restored(RollingBuffer(size=4, span_ns=0, minimum=1), 0)
    assert (len(heir), heir.unjudged, heir.drain()) == (2, 0, [])


def test_the_numbers_of_chunks_that_the_window_has_left_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHUNK_ROWS", 2)
    topic, buffer = Stored(), RollingBuffer(size=5, span_ns=0, minimum=1)
    for offset in range(40):
        buffer.add(message(offset, 1, 0))
        topic.commit(buffer)
        assert {checkpoint.parse_chunk_key(key)[1] for key in topic.table} <= set(range(4))
        heir = Stored(dict(topic.table)).restored(RollingBuffer(size=5, span_ns=0, minimum=1), 0)
        assert rows_of(heir) == rows_of(buffer)


def test_a_model_with_little_traffic_gets_its_verdict_while_the_window_fills() -> None:
    buffer = RollingBuffer(size=5, span_ns=10, minimum=2)
    buffer.add(message(0, 1, 0))
    assert buffer.expire(10**9) == [], "one row is too little to judge"
    buffer.add(message(1, 1, 5))
    (window,) = buffer.expire(10)
    assert (len(window.rows), window.new, window.closed_by) == (2, 2, "time")
    assert buffer.expire(10**9) == [], "nothing new"
    assert buffer.drain() == []
    buffer.add(message(2, 1, 20))
    assert buffer.expire(29) == []
    (window,) = buffer.expire(30)
    assert (len(window.rows), window.new) == (3, 1)


def decoded(chunk: bytes) -> Rows | int:
    return checkpoint.decode_chunk(chunk, SCHEMA)


def test_a_commit_writes_what_came_and_not_the_window() -> None:
    """What it costs to commit a request of one row does not depend on the size of the window."""
    size = 8 * checkpoint.CHUNK_ROWS
    topic, buffer = Stored(), RollingBuffer(size=size, span_ns=0, minimum=1)
    buffer.add(message(0, size, 0))
    topic.commit(buffer)
    written = []
    for offset in range(1, 2 * checkpoint.CHUNK_ROWS):
        buffer.add(message(offset, 1, 0))
        values = [value for _, value in topic.commit(buffer) if value is not None]
        written.append(sum(len(rows) for value in values if isinstance(rows := decoded(value), Rows)))
    assert max(written) <= checkpoint.CHUNK_ROWS
    assert len(topic.table) == size // checkpoint.CHUNK_ROWS + 1, "what the window has left behind is deleted"


def rows_of(buffer: RollingBuffer | WindowBuffer) -> Sequence[str]:
    rows = buffer.contents()
    return () if rows is None else rows.frame.instance_ids


def test_of_what_another_step_had_collected_only_the_rows_that_nobody_judged_are_lost() -> None:
    topic, slides = Stored(), RollingBuffer(size=4, span_ns=10, minimum=2)
    slides.add(message(0, 2, 0))
    assert slides.expire(10)
    slides.add(message(1, 1, 11))
    topic.commit(slides)
    for kind in (RollingBuffer, WindowBuffer):
        heir = Stored(dict(topic.table))
        buffer = heir.restored(kind(size=5, span_ns=0, minimum=1), 0, collected_for="another")
        assert (rows_of(buffer), buffer.lost) == ((), 1)
        buffer.add(message(2, 1, 12))
        heir.commit(buffer)
        assert rows_of(heir.restored(kind(size=5, span_ns=0, minimum=1), 0)) == ("i2/0",)

    tumbles = WindowBuffer(size=4, span_ns=0, minimum=1)
    tumbles.add(message(0, 3, 0))
    topic = Stored()
    topic.commit(tumbles)
    new = topic.restored(RollingBuffer(size=5, span_ns=0, minimum=1), 0, collected_for="another")
    assert (rows_of(new), new.lost) == ((), 3)


def as_before(rows: Rows) -> bytes:
    """A chunk as a release wrote it that knew of no windows that slide."""
    state = msgspec.msgpack.decode(checkpoint.encode_chunk(rows))
    del state["slide"], state["collected_for"]
    return msgspec.msgpack.encode(state)


def test_rows_that_an_older_release_collected_are_the_first_of_the_window() -> None:
    rows = message(0, 5, 0)
    topic = Stored({KEY.chunk(n, 0): as_before(rows.take(slice(2 * n, 2 * n + 2))) for n in range(3)})
    buffer = topic.restored(RollingBuffer(size=6, span_ns=0, minimum=1), 1)
    assert (rows_of(buffer), buffer.unjudged) == (rows.frame.instance_ids, 5)
    (window,) = buffer.add(message(1, 1, 1))
    assert (window.new, window.lost) == (6, 1)
