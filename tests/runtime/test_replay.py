"""Past verdicts computed once more: the same bits, or the difference explained."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace as with_fields
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from govern import plugins
from govern.bus import Bus, Message, Outgoing, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.cli import main
from govern.codecs import cloudevents
from govern.codecs.inference import decode as inference_rows
from govern.errors import BadInput, NotFound
from govern.frame import Frame
from govern.pipeline import Plan
from govern.record import Access, Inference, Payload, Redaction, Verdict, decode
from govern.runtime import dead_letters, retry
from govern.runtime.limits import to_message
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.plans import Plans
from govern.runtime.replay import Replayed, replay, verdict_digest
from govern.runtime.task import PartitionTask
from tests.bus.helpers import settled
from tests.runtime.conftest import START_NS, Fitted, Make, as_message, message_of

TP = Partition("govern.default.inferences", 0)
PAGE = (Path(__file__).parents[2] / "docs" / "replay.md").read_text(encoding="utf-8")


def stream(make_inference: Make, n: int) -> list[Message]:
    """Calls of several rows of two revisions, some of which failed; every third offset is missing, as on Kafka."""
    calls = [
        make_inference(i, rows=1 + i % 3, revision=str(i % 2), error="reset" if i % 11 == 5 else "") for i in range(n)
    ]
    return [message_of(one, offset=i + i // 2) for i, one in enumerate(calls)]


def judged(messages: Sequence[Message], pipeline: LoadedPipeline) -> list[Verdict]:
    task = PartitionTask(TP, "default", [pipeline])
    found = [one.verdict for one in task.process(messages).judgements]
    return found + [one.verdict for one in task.expire(2 * START_NS).judgements]


def sliding(plan: Plan, *, size: int) -> Plan:
    """The plan with a drift window that slides, and no other detectors."""
    (step,) = [with_fields(one, batch_size=size, rolling=True) for one in plan.steps if one.name == "drift"]
    return with_fields(plan, steps=(step,), outputs=("drift",))


def again(verdict: Verdict, messages: Sequence[Message], pipeline: LoadedPipeline, kept_from: int = 0) -> Replayed:
    return replay(verdict, messages, {"watch": pipeline}, kept_from=kept_from)


def wire(verdict: Verdict) -> Verdict:
    return decode(Verdict, to_message(verdict, source="/test").value or b"")


def test_every_window_is_computed_from_its_own_records_alone(pipeline: LoadedPipeline, make_inference: Make) -> None:
    messages = stream(make_inference, 420)
    verdicts = judged(messages, pipeline)
    assert {one.window.closed_by for one in verdicts} == {"count", "time"}
    assert {one.step for one in verdicts} == {"drift", "outlier", "adversarial"}
    assert any(one.window.first_row for one in verdicts), "a window that begins inside a request"
    for verdict in verdicts:
        where = verdict.window
        own = [one for one in messages if where.first_offset <= one.offset <= where.last_offset]
        found = again(wire(verdict), own, pipeline)
        assert (found.outcome, found.why, found.differences) == ("identical", "", ())


def test_each_window_of_those_that_overlap_is_computed_from_its_own_records_alone(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    slides = with_fields(
        pipeline, plan=sliding(pipeline.plan, size=50), detectors={"drift": pipeline.detectors["drift"]}
    )
    messages = stream(make_inference, 90)
    verdicts = judged(messages, slides)
    assert len({one.id for one in verdicts}) == len(verdicts) > 30
    assert any(one.window.first_row for one in verdicts), "a window that begins inside a request"
    for verdict in verdicts:
        where = verdict.window
        own = [one for one in messages if where.first_offset <= one.offset <= where.last_offset]
        found = again(wire(verdict), own, slides)
        assert (found.outcome, found.why, found.differences) == ("identical", "", ())
    last = verdicts[-1].window
    late = replace(verdicts[-1], window=replace(last, first_row=last.first_row + 1))
    assert again(late, messages, slides).outcome == "rows"


def test_a_letter_that_was_given_back_counts_where_it_was_judged(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    messages = stream(make_inference, 60)
    error = BadInput("what", why="why", fix="fix")
    letter = dead_letters.of_message(messages[3], error, namespace="default", pipeline="watch", step="outlier")
    messages.insert(30, as_message(retry.to_message(letter), offset=messages[29].offset))
    messages[29:30] = []
    verdicts = judged(messages, pipeline)
    assert any(f"inference-{3}/0" in [i.instance_id for i in one.instances] for one in verdicts[1:])
    assert {again(wire(one), messages, pipeline).outcome for one in verdicts} == {"identical"}


def test_a_verdict_that_was_cut_for_the_bus_is_compared_as_cut(pipeline: LoadedPipeline, make_inference: Make) -> None:
    (step,) = [one for one in pipeline.plan.steps if one.name == "outlier"]
    large = with_fields(pipeline.plan, steps=(with_fields(step, batch_size=900),))
    wide = with_fields(pipeline, plan=large, detectors={"outlier": pipeline.detectors["outlier"]})
    long = [make_inference(i, rows=20, request_id=f"{i}-" * 500) for i in range(45)]
    messages = [message_of(one, offset=i) for i, one in enumerate(long)]
    (verdict,) = judged(messages, wide)
    assert len(wire(verdict).instances) < len(verdict.instances)
    assert again(wire(verdict), messages, wide).outcome == "identical"


def cut(one: Inference) -> Inference:
    return replace(one, truncated=("request",))


def redacted(one: Inference) -> Inference:
    withheld = Payload(size=10, sha256="hmac-sha256:x")
    return replace(one, request=withheld, redactions=(Redaction(path="request", action="withhold"),))


@pytest.mark.parametrize(
    ("change", "said"), [(cut, "is cut"), (redacted, "redacted: request (withhold)")], ids=["cut", "redacted"]
)
def test_bodies_that_are_gone_are_named(
    pipeline: LoadedPipeline, make_inference: Make, change: Callable[[Inference], Inference], said: str
) -> None:
    messages = [message_of(make_inference(i), offset=i) for i in range(20)]
    (verdict,) = [one for one in judged(messages, pipeline) if one.window.closed_by == "count"]
    messages[7] = message_of(change(make_inference(7)), offset=7)
    found = again(verdict, messages, pipeline)
    assert found.outcome == "rows"
    assert found.why.startswith("19 of the window's 20 rows")
    assert "offset 7" in found.why
    assert said in found.why


def test_a_window_that_retention_has_eaten_into_is_said_to_be_gone(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    messages = [message_of(make_inference(i), offset=i) for i in range(20)]
    (verdict,) = [one for one in judged(messages, pipeline) if one.window.closed_by == "count"]
    found = again(verdict, messages[4:], pipeline, kept_from=4)
    assert (found.outcome, "begins at 4" in found.why) == ("deleted", True)


def test_an_altered_record_shows_field_by_field(pipeline: LoadedPipeline, make_inference: Make) -> None:
    messages = [message_of(make_inference(i), offset=i) for i in range(20)]
    (verdict,) = [one for one in judged(messages, pipeline) if one.window.closed_by == "count"]
    score = verdict.instances[4].score
    forged = replace(verdict.instances[4], score=score + 2**-52, flagged=not verdict.instances[4].flagged)
    found = again(
        replace(verdict, instances=(*verdict.instances[:4], forged, *verdict.instances[5:])), messages, pipeline
    )
    assert found.outcome == "values"
    assert [(one.field, one.recorded, one.computed) for one in found.differences] == [
        ("instances[inference-4/0].score", repr(forged.score), repr(score)),
        ("instances[inference-4/0].flagged", repr(forged.flagged), repr(not forged.flagged)),
    ]


def test_another_detector_is_named_with_what_it_says(pipeline: LoadedPipeline, make_inference: Make) -> None:
    messages = [message_of(make_inference(i), offset=i) for i in range(20)]
    (verdict,) = [one for one in judged(messages, pipeline) if one.window.closed_by == "count"]
    reference = Frame.concat([inference_rows(make_inference(i), pipeline.schema) for i in range(200)])
    fresh = plugins.load(plugins.DETECTORS, "isolation_forest")(n_estimators=20, contamination=0.05).fit(reference)
    found = again(verdict, messages, with_fields(pipeline, detectors={**pipeline.detectors, "outlier": fresh}))
    assert found.outcome == "detector"
    assert fresh.digest[:12] in found.why
    assert {"detector_digest", "reference_digest", "threshold"} <= {one.field for one in found.differences}


def test_what_the_files_no_longer_hold_is_said(pipeline: LoadedPipeline, make_inference: Make) -> None:
    messages = [message_of(make_inference(i), offset=i) for i in range(20)]
    verdict = judged(messages, pipeline)[0]
    moved = with_fields(
        pipeline, plan=with_fields(pipeline.plan, source=pipeline.plan.source.model_copy(update={"model": "other"}))
    )
    for verdict_of, pipelines, said in (
        (verdict, {}, "hold no pipeline"),
        (replace(verdict, step="gone"), {"watch": pipeline}, "no detector step 'gone'"),
        (verdict, {"watch": moved}, "watches employment/other"),
    ):
        found = replay(verdict_of, messages, pipelines)
        assert (found.outcome, said in found.why) == ("pipeline", True)


def test_the_digest_leaves_out_only_what_the_window_does_not_tell(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    messages = [message_of(make_inference(i), offset=i) for i in range(20)]
    verdict = judged(messages, pipeline)[0]
    window = replace(verdict.window, completeness=0.5, closed_by="drain")
    same = replace(verdict, id="x", traceparent="", t_verdict=1, window=window)
    assert verdict_digest(same) == verdict_digest(verdict)
    for other in (
        replace(verdict, statistic=verdict.statistic + 1),
        replace(verdict, alarm=not verdict.alarm),
        replace(verdict, window=replace(verdict.window, last_row=3)),
        replace(verdict, detector_digest="0"),
    ):
        assert verdict_digest(other) != verdict_digest(verdict)


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def file(fitted: Fitted, tmp_path: Path, unique: str) -> Path:
    return fitted.write(tmp_path / "pipeline", unique)


async def record(bus: Bus, namespace: str, file: Path, make_inference: Make) -> list[Verdict]:
    """Calls on a bus, and what a worker would have published of them."""
    await bus.ensure_topics(specs(namespace, partitions=1))
    inferences = Partition(topic(namespace, "inferences"), 0)
    calls = [make_inference(i, rows=3, namespace=namespace) for i in range(130)]
    await bus.publish(inferences.topic, [cloudevents.to_message(one, source="/test") for one in calls])
    plans = Plans()
    plans.note(load(file), 0)
    state = [Outgoing(key=key, value=value, partition=0) for key, value in plans.changed()]
    await bus.publish(topic(namespace, "checkpoints"), state)
    task = PartitionTask(inferences, namespace, load(file))
    found = [one.verdict for one in task.process(await settled(bus, inferences.topic)).judgements]
    await bus.publish(topic(namespace, "verdicts"), [to_message(one, source="/test") for one in found])
    return found


@pytest.fixture
def recorded(bus_url: str, unique: str, file: Path, make_inference: Make) -> Iterator[list[Verdict]]:
    async def all_of_it() -> list[Verdict]:
        async with open_bus(bus_url) as bus:
            return await record(bus, unique, file, make_inference)

    return asyncio.run(all_of_it())


def govern(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main.build("replay"), ["replay", *words], catch_exceptions=False)
    return result.exit_code, result.output


def test_the_command_replays_a_range_and_says_what_differs(
    bus_url: str, unique: str, file: Path, recorded: list[Verdict]
) -> None:
    words = [str(file), "--bus", bus_url, "--namespace", unique]
    assert govern(*words) == (0, f"{len(recorded)} verdicts replayed: {len(recorded)} identical\n")
    # The first 60 seconds of the stream: 180 rows.
    code, said = govern(*words, "--from", "2096-10-02T07:06:40Z", "--to", "2096-10-02T09:07:40+02:00", "--json")
    lines = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert [(one["step"], one["outcome"]) for one in lines if one["step"] == "adversarial"] == [
        ("adversarial", "identical")
    ] * 3
    assert {one["digest"] for one in lines} <= {verdict_digest(one) for one in recorded}

    (loaded,) = load(file)
    plan = loaded.plan.digest
    assert {(one["recorded_plan"], one["replayed_plan"]) for one in lines} == {(plan, plan)}

    code, said = govern(*words, "--from", "0:60", "--to", "0:100", "--json")
    inside = {one.id for one in recorded if 60 <= one.window.last_offset < 100}
    assert code == 0
    assert inside
    assert {json.loads(line)["id"] for line in said.splitlines()} == inside
    with pytest.raises(NotFound):
        govern(*words, "--from", "1:0")  # of a partition in which nothing was judged

    forged = replace(recorded[0], id="forged", alarm=not recorded[0].alarm)

    async def publish_and_look() -> list[Access]:
        async with open_bus(bus_url) as bus:
            both = [to_message(one, source="/test") for one in (forged, recorded[0])]
            await bus.publish(topic(unique, "verdicts"), both)
            return [decode(Access, one.value or b"") for one in await settled(bus, topic(unique, "access"))]

    looked = asyncio.run(publish_and_look())
    assert [(one.action, one.subject.split(" ")[0]) for one in looked] == [
        ("replay", str(len(recorded))),
        ("replay", str(len(lines))),
        ("replay", str(len(inside))),
    ]
    code, said = govern(*words, "--id", "forged", "--id", recorded[0].id)
    assert code == 1
    assert said.endswith("3 verdicts replayed: 1 identical, 1 doubled, 1 values\n")
    assert f"alarm: recorded {forged.alarm}, computed {recorded[0].alarm}" in said
    assert "recorded under plan" not in said
    file.write_text(file.read_text().replace("batch: {size: 20,", "batch: {size: 30,"))
    code, said = govern(*words, "--id", "forged")
    (other,) = load(file)
    assert f"  recorded under plan {plan[:12]}, you replay plan {other.plan.digest[:12]}\n" in said


def test_times_without_a_zone_and_ranges_without_verdicts_are_refused(
    embedded_url: str, unique: str, file: Path
) -> None:
    async def create() -> None:
        async with open_bus(embedded_url) as bus:
            await bus.ensure_topics(specs(unique, partitions=1))

    asyncio.run(create())
    words = [str(file), "--bus", embedded_url, "--namespace", unique]
    with pytest.raises(BadInput, match="no time zone"):
        govern(*words, "--from", "2026-11-25T09:00:00")
    with pytest.raises(BadInput, match="--to yesterday"):
        govern(*words, "--to", "yesterday")
    with pytest.raises(BadInput, match="two partitions"):
        govern(*words, "--from", "0:10", "--to", "1:20")
    with pytest.raises(NotFound, match="verdicts of namespace"):
        govern(*words)


def blocks(language: str) -> list[str]:
    pieces = (piece.partition("\n") for piece in PAGE.split("```")[1::2])
    return [text for found, _, text in pieces if found == language]


def test_the_examples_as_the_page_shows_them(embedded_url: str, unique: str, file: Path, make_inference: Make) -> None:
    async def play() -> None:
        async with open_bus(embedded_url) as bus:
            found = next(one for one in await record(bus, unique, file, make_inference) if one.step == "outlier")
            altered = replace(found, id="5a3bf00d", alarm=not found.alarm)
            await bus.publish(topic(unique, "verdicts"), [to_message(altered, source="/test")])

    asyncio.run(play())
    for block, said, status in zip(blocks(""), blocks("text"), (0, 0, 1), strict=True):
        shown = block.replace("embedded:///tmp/bus.db", embedded_url).replace("pipeline.yaml", str(file))
        code, output = govern(*shlex.split(shown)[2:], "--namespace", unique)
        assert (code, output.replace(unique, "default")) == (status, said)
