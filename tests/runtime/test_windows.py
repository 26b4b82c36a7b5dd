"""The window buffer against a plain reading of its rules, and its survival of a checkpoint at any moment."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from govern.frame import MISSING, UNSEEN, Frame
from govern.runtime import checkpoint
from govern.runtime.windows import ClosedWindow, Rows, WindowBuffer
from govern.schema import Feature, FeatureSchema

SCHEMA = FeatureSchema(
    format_version=1,
    model="m",
    features=(
        Feature(name="age", kind="numeric"),
        Feature(name="sex", kind="categorical", categories=("1", "2")),
        Feature(name="note", kind="text"),
    ),
)


def message(offset: int, n: int, time_ns: int) -> Rows:
    """n rows whose first column numbers them by offset and row."""
    frame = Frame(
        schema=SCHEMA,
        columns=(
            np.array([offset * 1000.0 + row for row in range(n)]),
            np.array([(MISSING, UNSEEN, 0, 1)[(offset + row) % 4] for row in range(n)], dtype=np.int32),
            np.array([f"{offset}" if row % 2 else None for row in range(n)], dtype=object),
        ),
        instance_ids=tuple(f"i{offset}/{row}" for row in range(n)),
        unseen={"sex": {row: "x" for row in range(n) if (offset + row) % 4 == 1}},
        outputs={"p": np.array([[offset + row / 10] for row in range(n)])},
    )
    return Rows.of_message(frame, offset=offset, time_ns=time_ns, request_id=f"r{offset}", traceparent=f"t{offset}")


@dataclass
class Reference:
    """One instance at a time, exactly as the module's docstring says."""

    size: int
    span_ns: int
    minimum: int
    open: list[tuple[int, int, int]] = field(default_factory=list)
    closed: list[tuple[list[tuple[int, int, int]], str]] = field(default_factory=list)

    def add(self, offset: int, n: int, time_ns: int) -> None:
        if n:
            self.expire(time_ns)
        for row in range(n):
            self.open.append((offset, row, time_ns))
            if len(self.open) == self.size:
                self.close("count")

    def expire(self, now_ns: int) -> None:
        if self.span_ns and len(self.open) >= self.minimum and now_ns - self.open[0][2] >= self.span_ns:
            self.close("time")

    def close(self, closed_by: str) -> None:
        self.closed.append((self.open, closed_by))
        self.open = []


def described(windows: list[ClosedWindow]) -> list[tuple[list[tuple[int, int, int]], str]]:
    return [
        (
            list(
                zip(
                    window.rows.offsets.tolist(),
                    window.rows.positions.tolist(),
                    window.rows.times.tolist(),
                    strict=True,
                )
            ),
            window.closed_by,
        )
        for window in windows
    ]


def through_checkpoint(buffer: WindowBuffer, size: int, span_ns: int, minimum: int) -> WindowBuffer:
    rows = buffer.contents()
    parts: list[Rows] = []
    if rows is not None:
        for start in range(0, len(rows), 7):
            part = checkpoint.decode_chunk(checkpoint.encode_chunk(rows.take(slice(start, start + 7))), SCHEMA)
            assert isinstance(part, Rows)
            parts.append(part)
    again = WindowBuffer(size=size, span_ns=span_ns, minimum=minimum)
    again.restore(Rows.concat(parts) if parts else None, buffer.lost)
    return again


@given(
    size=st.integers(1, 12),
    span=st.sampled_from([0, 5, 50]),
    minimum=st.integers(1, 4),
    stream=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12), st.booleans(), st.booleans()), max_size=40),
)
def test_windows_follow_the_rules_and_survive_a_checkpoint_anywhere(
    size: int, span: int, minimum: int, stream: list[tuple[int, int, bool, bool]]
) -> None:
    reference = Reference(size, span, min(minimum, size))
    buffer = WindowBuffer(size=size, span_ns=span, minimum=minimum)
    closed: list[ClosedWindow] = []
    now = 0
    for offset, (n, step, quiet, crash) in enumerate(stream):
        now += step
        closed.extend(buffer.add(message(offset, n, now)))
        reference.add(offset, n, now)
        if quiet:
            closed.extend(buffer.expire(now + 3))
            reference.expire(now + 3)
        if crash:
            buffer = through_checkpoint(buffer, size, span, minimum)
        assert len(buffer) == len(reference.open)
    assert described(closed) == reference.closed


def test_a_window_keeps_every_cell_through_a_split_and_a_checkpoint() -> None:
    buffer = WindowBuffer(size=5, span_ns=0, minimum=1)
    assert buffer.add(message(1, 3, 10)) == []
    buffer = through_checkpoint(buffer, 5, 0, 1)
    (window,) = buffer.add(message(2, 4, 20))
    rest = buffer.contents()
    assert rest is not None
    whole = [message(1, 3, 10), message(2, 4, 20)]
    expected = [rows.frame.row(i) | {"p": rows.frame.outputs["p"][i, 0]} for rows in whole for i in range(len(rows))]
    found = [
        rows.frame.row(i) | {"p": rows.frame.outputs["p"][i, 0]}
        for rows in (window.rows, rest)
        for i in range(len(rows))
    ]
    assert found == expected
    assert window.rows.frame.instance_ids + rest.frame.instance_ids == (
        "i1/0",
        "i1/1",
        "i1/2",
        "i2/0",
        "i2/1",
        "i2/2",
        "i2/3",
    )
    assert window.rows.request_ids == ("r1", "r1", "r1", "r2", "r2")


def test_lost_instances_lower_the_completeness_of_the_window_they_fall_in() -> None:
    buffer = WindowBuffer(size=3, span_ns=0, minimum=1)
    buffer.add(message(0, 1, 0))
    buffer.add_lost(1)
    (window,) = buffer.add(message(1, 2, 0))
    assert window.lost == 1
    assert window.completeness == 3 / 4
    (window,) = buffer.add(message(2, 3, 0))
    assert window.completeness == 1.0


def test_a_quiet_stream_waits_until_its_window_can_be_judged() -> None:
    buffer = WindowBuffer(size=100, span_ns=10, minimum=2)
    buffer.add(message(0, 1, 0))
    assert buffer.expire(10**9) == []
    (window,) = [*buffer.add(message(1, 1, 5)), *buffer.expire(10)]
    assert (len(window.rows), window.closed_by) == (2, "time")
    assert buffer.drain() == []


def test_rows_of_another_schema_cannot_continue_a_window() -> None:
    other = FeatureSchema(format_version=1, model="m", features=(Feature(name="age", kind="numeric"),))
    assert checkpoint.decode_chunk(checkpoint.encode_chunk(message(0, 3, 0)), other) == 3
