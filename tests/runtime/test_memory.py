"""What detectors remember, whatever becomes of their steps and windows."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from govern.bus import Message
from govern.codecs.inference import decode
from govern.detection import WindowScores, remembers
from govern.frame import Frame
from govern.record import encode
from govern.runtime import checkpoint
from govern.runtime.loader import LoadedPipeline
from govern.runtime.memory import ANCHOR_DAYS
from govern.runtime.plans import fingerprint
from tests.runtime.conftest import START_NS, Make, message_of
from tests.runtime.remembering import Remembering
from tests.runtime.test_plans import OUTLIER, committed, of, resized, task_of

#: Of the memory before the first window.
BEGIN = hashlib.sha256(bytes(8)).hexdigest()


@pytest.fixture
def messages(make_inference: Make) -> list[Message]:
    return [message_of(make_inference(i), offset=i) for i in range(60)]


def remembering(pipeline: LoadedPipeline, *, digest: str = "e" * 64, size: int = 20) -> LoadedPipeline:
    """The pipeline, the detector of one of its steps replaced by one that remembers."""
    detectors = {**pipeline.detectors, "outlier": Remembering(pipeline.schema, digest=digest)}
    plan = resized(pipeline, "outlier", size, digest=hashlib.sha256(f"{digest}{size}".encode()).hexdigest()).plan
    return replace(pipeline, plan=plan, detectors=detectors)


def memories(table: dict[bytes, bytes], name: str = "watch") -> list[bytes]:
    found = ((checkpoint.parse_chunk_key(key), key) for key in table if key.startswith(b"["))
    return [key for (window, chunk, _), key in found if window.pipeline == name and chunk <= checkpoint.MEMORY]


def test_a_verdict_says_what_its_detector_says_of_the_windows_up_to_it(
    pipeline: LoadedPipeline, messages: list[Message], make_inference: Make
) -> None:
    """The row at which it alarmed included, and which past it is that it rests on."""
    one = remembering(pipeline, size=6)
    detector = one.detectors["outlier"]
    assert remembers(detector)
    calls = [make_inference(i) for i in range(60)]
    rows = Frame.concat([decode(call, pipeline.schema) for call in calls])
    times = np.array([call.t_response for call in calls])
    memory = detector.start()
    found = of(task_of(one).process(messages), "outlier")
    assert len(found) == 10
    for start, verdict in zip(range(0, 60, 6), found, strict=True):
        assert verdict.memory_digest == hashlib.sha256(detector.pack(memory)).hexdigest()
        window = slice(start, start + 6)
        scores, memory = detector.advance(memory, rows.take(window), times[window])
        assert isinstance(scores, WindowScores)
        assert (verdict.alarm, verdict.statistic, verdict.alarm_row) == (
            scores.alarm,
            scores.statistic,
            scores.alarm_row,
        )
    assert {one.alarm_row for one in found} > {-1}


@pytest.mark.parametrize("changes", [{"digest": "f" * 64}, {"size": 10}])
def test_a_changed_step_remembers_nothing_of_the_windows_before(
    pipeline: LoadedPipeline, messages: list[Message], changes: dict[str, Any]
) -> None:
    before, after = remembering(pipeline), remembering(pipeline, **changes)
    task = task_of(before)
    first, second = of(task.process(messages[:45]), "outlier")
    assert (first.memory_digest, len({BEGIN, second.memory_digest})) == (BEGIN, 2)
    table = committed(task, {})
    assert memories(table)

    (closed,) = of(task.take_over([after]), "outlier")
    assert closed.memory_digest not in (BEGIN, first.memory_digest, second.memory_digest), "judged as it was collected"
    assert not memories(committed(task, table))
    anew = of(task.process(messages[45:]), "outlier")
    elsewhere = task_of(after)
    elsewhere.restore(table, None)
    assert not memories(committed(elsewhere, table)), "what nobody remembers any more is deleted"
    restored = of(elsewhere.process(messages[45:]), "outlier")
    assert [one.memory_digest for one in anew[:1]] == [one.memory_digest for one in restored[:1]]
    assert all(one.memory_digest == BEGIN for one in (*anew[:1], *restored[:1]))
    assert {one.window.first_offset for one in restored[:1]} <= {45}


def test_a_memory_goes_with_its_step_and_pipeline(pipeline: LoadedPipeline, messages: list[Message]) -> None:
    remembers = remembering(pipeline)
    other = replace(remembers, plan=replace(remembers.plan, name="other", digest="c" * 64))
    steps = tuple(one for one in remembers.plan.steps if one.name != "outlier")
    detectors = {name: one for name, one in remembers.detectors.items() if name != "outlier"}
    without = replace(remembers, plan=replace(remembers.plan, steps=steps, digest="d" * 64), detectors=detectors)
    task = task_of(remembers, other)
    task.process(messages[:45])
    table = committed(task, {})
    assert memories(table, "watch")
    assert memories(table, "other")
    heir = task_of(without)
    heir.restore(table, None)
    task.take_over([without])
    for left in (committed(task, table), committed(heir, table)):
        assert not memories(left, "watch")
        assert not memories(left, "other")


def test_an_unchanged_step_remembers_whatever_becomes_of_its_pipeline(
    pipeline: LoadedPipeline, messages: list[Message]
) -> None:
    whole = of(task_of(remembering(pipeline)).process(messages), "outlier")
    task = task_of(remembering(pipeline))
    task.process(messages[:40])
    table = committed(task, {})
    changed = resized(remembering(pipeline), "drift", 25)
    assert of(task.take_over([changed]), "outlier") == []
    heir = task_of(changed)
    heir.restore(table, None)
    for one in (task, heir):
        assert [*map(encode, of(one.process(messages[40:]), "outlier"))] == [encode(whole[2])]


def test_a_memory_that_its_detector_does_not_know_costs_that_steps_windows_alone_and_is_kept(
    pipeline: LoadedPipeline, messages: list[Message]
) -> None:
    """As after an upgrade of a user's detector that packs otherwise, and forgot to say so by its digest."""
    one = remembering(pipeline)
    task = task_of(one)
    task.process(messages[:40])
    table = committed(task, {})
    key = OUTLIER.chunk(checkpoint.MEMORY, 0)
    good = table[key]
    collected_for = fingerprint(one, "outlier")
    table[key] = checkpoint.encode_memory(b"of another release", collected_for=collected_for, anchored=0)
    heir = task_of(one)
    heir.restore(table, None)
    effects = heir.process(messages[40:])
    (letter,) = effects.dead_letters
    assert (letter.step, letter.what) == ("outlier", "no trail")
    assert of(effects, "adversarial"), "the other steps go on"
    assert committed(heir, table)[key] == table[key] != good


def test_a_window_that_cannot_be_judged_is_not_remembered(pipeline: LoadedPipeline, messages: list[Message]) -> None:
    refusing = replace(
        remembering(pipeline, size=5),
        detectors={**pipeline.detectors, "outlier": Remembering(pipeline.schema, refuses=True)},
    )
    effects = task_of(refusing).process(messages)
    refused = [one.source_offset for one in effects.dead_letters]
    assert 1 <= len(refused) < 12
    readable = [one for one in messages if not any(offset <= one.offset < offset + 5 for offset in refused)]
    found = of(effects, "outlier")
    alone = of(task_of(refusing).process(readable), "outlier")
    assert [one.statistic for one in found] == [one.statistic for one in alone]
    assert [one.memory_digest for one in found] == [one.memory_digest for one in alone]


def test_one_memory_of_each_day_stays_for_as_long_as_inferences_are_kept(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    """Whether or not the partition changes hands on the way."""
    calls = [make_inference(i, t_response=START_NS + i * 6 * 3600 * 10**9) for i in range(60)]
    one, table = remembering(pipeline, size=2), dict[bytes, bytes]()
    unbroken, task = task_of(one), task_of(one)
    expected: dict[bytes, bytes] = {}
    for i, call in enumerate(calls):
        message = message_of(call, offset=i)
        unbroken.process([message])
        expected = committed(unbroken, expected)
        task.process([message])
        table = committed(task, table)
        if i % 7 == 0:
            task = task_of(one)
            task.restore(table, None)
    kept = memories(table)
    assert len(kept) == 1 + ANCHOR_DAYS
    assert {key: table[key] for key in kept} == {key: expected[key] for key in memories(expected)}
    days = {checkpoint.decode_memory(table[key]).anchored for key in kept}
    assert days == {calls[-1].t_response // (24 * 3600 * 10**9) - ago for ago in range(ANCHOR_DAYS)}
