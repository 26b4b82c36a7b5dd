"""What becomes of an open window when its step changes, and which plan judged from where on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from govern.bus import Message, Partition
from govern.record import Verdict, encode
from govern.runtime.checkpoint import WindowKey
from govern.runtime.loader import LoadedPipeline
from govern.runtime.plans import InForce, Plans, fingerprint, is_plan, read_plans
from govern.runtime.task import Effects, PartitionTask
from tests.runtime.conftest import Make, message_of

PLACE = Partition("govern.default.inferences", 0)
OUTLIER = WindowKey("watch", "outlier", "", "default")
DRIFT = WindowKey("watch", "drift", "", "default")


@pytest.fixture
def messages(make_inference: Make) -> list[Message]:
    return [message_of(make_inference(i), offset=i) for i in range(60)]


def resized(pipeline: LoadedPipeline, step: str, size: int, digest: str = "b" * 64) -> LoadedPipeline:
    """The pipeline with another window of one step, and so with another plan."""
    steps = tuple(replace(one, batch_size=size) if one.name == step else one for one in pipeline.plan.steps)
    return replace(pipeline, plan=replace(pipeline.plan, steps=steps, digest=digest))


def of(effects: Effects, step: str) -> list[Verdict]:
    return [one.verdict for one in effects.judgements if one.verdict.step == step]


def task_of(*pipelines: LoadedPipeline) -> PartitionTask:
    return PartitionTask(PLACE, "default", pipelines)


def committed(task: PartitionTask, table: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """A checkpoint after the task's commit."""
    after = {**table, **dict(task.changed_state())}
    return {key: value for key, value in after.items() if value is not None}


def test_a_changed_step_begins_a_new_window_and_the_open_one_is_judged_as_it_was_collected(
    pipeline: LoadedPipeline, messages: list[Message]
) -> None:
    changed = resized(pipeline, "outlier", 30)
    task = task_of(pipeline)
    task.process(messages[:45])
    table = committed(task, {})
    closed = task.take_over([changed])
    (verdict,) = of(closed, "outlier")
    where = verdict.window
    assert (where.first_offset, where.last_offset, where.closed_by, where.completeness) == (40, 44, "change", 1.0)
    assert not of(closed, "drift"), "that step judges as before, and its window goes on"
    assert not of(closed, "adversarial")
    after = task.process(messages[45:])
    assert of(after, "outlier") == []
    assert len(task.open_window(OUTLIER) or ()) == 15

    # The next holder goes on with the same windows.
    table = committed(task, table)
    other = task_of(changed)
    assert other.restore(table, None) == 60
    for step in pipeline.detectors:
        key = WindowKey("watch", step, "", "default")
        mine, theirs = task.open_window(key), other.open_window(key)
        assert (None if mine is None else mine.request_ids) == (None if theirs is None else theirs.request_ids)


def test_a_window_that_begins_to_slide_or_ends_it_is_another_one(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    """Rows that were judged are not lost to the next, and not judged by it."""
    messages = [message_of(make_inference(i), offset=i) for i in range(70)]
    tumbles = resized(pipeline, "drift", 25)
    steps = tuple(replace(one, rolling=one.name == "drift") for one in tumbles.plan.steps)
    slides = replace(tumbles, plan=replace(tumbles.plan, steps=steps, digest="c" * 64))
    assert fingerprint(slides, "drift") != fingerprint(tumbles, "drift")
    assert fingerprint(slides, "outlier") == fingerprint(tumbles, "outlier")
    for before, after, count, closed in ((slides, tumbles, 21, []), (tumbles, slides, 1, [(25, 44, 20)])):
        task = task_of(before)
        assert len(of(task.process(messages[:45]), "drift")) == count
        table = committed(task, {})
        taken = [one.window for one in of(task.take_over([after]), "drift")]
        assert [(one.first_offset, one.last_offset, one.n_instances) for one in taken] == closed
        heir = task_of(after)
        heir.restore(table, None)
        for one, completeness in ((task, 1.0), (heir, 1.0 if before is slides else 25 / 45)):
            (verdict,) = of(one.process(messages[45:]), "drift")
            assert (verdict.window.first_offset, verdict.window.completeness) == (45, completeness)
        table = committed(task, table)
        again = task_of(after)
        again.restore(table, None)
        mine, theirs = task.open_window(DRIFT), again.open_window(DRIFT)
        assert (None if mine is None else mine.request_ids) == (None if theirs is None else theirs.request_ids)


def test_what_is_too_little_to_be_judged_is_counted_lost(pipeline: LoadedPipeline, messages: list[Message]) -> None:
    """A drift test needs more rows than there are."""
    assert pipeline.detectors["drift"].min_instances > 1
    task = task_of(pipeline)
    task.process(messages[:1])
    assert of(task.take_over([resized(pipeline, "drift", 20)]), "drift") == []
    (verdict,) = of(task.process(messages[1:21]), "drift")
    assert (verdict.window.first_offset, verdict.window.completeness) == (1, 20 / 21)


def test_a_window_that_another_step_had_collected_is_counted_lost_after_a_restart(
    pipeline: LoadedPipeline, messages: list[Message]
) -> None:
    task = task_of(pipeline)
    task.process(messages[:45])
    table = committed(task, {})
    other = task_of(resized(pipeline, "outlier", 15))
    other.restore(table, None)
    assert other.open_window(OUTLIER) is None
    assert len(other.open_window(WindowKey("watch", "drift", "", "default")) or ()) == 45
    (verdict,) = of(other.process(messages[45:]), "outlier")
    assert (verdict.window.first_offset, verdict.window.completeness) == (45, 15 / 20)
    again = task_of(resized(pipeline, "outlier", 15))
    again.restore(committed(other, table), None)
    assert again.open_window(OUTLIER) is None


def test_pipelines_that_go_leave_nothing_in_the_checkpoint_and_unchanged_ones_keep_their_windows(
    pipeline: LoadedPipeline, messages: list[Message]
) -> None:
    other = replace(pipeline, plan=replace(pipeline.plan, name="other", digest="c" * 64))
    task = task_of(pipeline, other)
    task.process(messages[:45])
    table = committed(task, {})
    assert any(key.startswith(b'["other"') for key in table)
    effects = task.take_over([pipeline])
    assert effects == Effects()
    table = committed(task, table)
    assert not any(key.startswith(b'["other"') for key in table)
    whole = of(task_of(pipeline).process(messages), "outlier")
    assert [*map(encode, of(task.process(messages[45:]), "outlier"))] == [*map(encode, whole[2:])]


def test_a_fingerprint_is_of_the_stream_the_detector_and_the_window(pipeline: LoadedPipeline) -> None:
    elsewhere = replace(
        pipeline, plan=replace(pipeline.plan, source=pipeline.plan.source.model_copy(update={"model": "other"}))
    )
    swapped = replace(pipeline, detectors={**pipeline.detectors, "outlier": pipeline.detectors["drift"]})
    others = [resized(pipeline, "outlier", 21), elsewhere, swapped]
    found = [fingerprint(one, "outlier") for one in (pipeline, *others)]
    assert len(set(found)) == len(found)
    assert fingerprint(pipeline, "drift") == fingerprint(others[0], "drift")
    assert fingerprint(pipeline, "drift") != fingerprint(elsewhere, "drift")


def test_the_checkpoint_says_which_plan_judged_from_where_on(pipeline: LoadedPipeline) -> None:
    changed = resized(pipeline, "outlier", 30)
    table: dict[bytes, bytes] = {}
    plans = Plans()
    for pipelines, position in (([pipeline], 0), ([pipeline], 5), ([changed], 10), ([], 20), ([pipeline], 30)):
        plans.note(pipelines, position)
        table.update(plans.changed())
        plans = Plans()
        plans.restore(table)
    (state,) = read_plans({**table, b"@position": b""}).values()
    first, second = pipeline.plan.digest, changed.plan.digest
    assert state.in_force == (InForce(first, 0), InForce(second, 10), InForce("", 20), InForce(first, 30))
    assert [state.at(offset) for offset in (0, 9, 10, 19, 20, 29, 30, 99)] == [
        first,
        first,
        second,
        second,
        "",
        "",
        first,
        first,
    ]
    assert all(map(is_plan, table))
