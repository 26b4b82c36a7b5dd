"""Dead letters on real buses: listed, shown, and given back to the pipeline or step that could not read them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from govern.bus import Bus, Partition, open_bus
from govern.bus.protocol import Fenced
from govern.bus.topics import specs, topic
from govern.cli.dlq import app
from govern.codecs import cloudevents, v2
from govern.codecs.tensor import Tensor
from govern.errors import BadInput, NotFound
from govern.record import Access, Capture, ConfigChange, DeadLetter, Inference, Window, decode
from govern.runtime import dead_letters, retry
from govern.runtime.judge import Stream
from govern.runtime.letters import Letter, Letters, Outcome
from govern.runtime.limits import to_message
from govern.runtime.loader import LoadedPipeline, load
from govern.runtime.task import Effects, PartitionTask
from tests.runtime.conftest import Fitted, Make, payload


@pytest.fixture
async def bus(bus_url: str, unique: str) -> AsyncIterator[Bus]:
    async with open_bus(bus_url) as connection:
        await connection.ensure_topics(specs(unique, partitions=1))
        yield connection


@pytest.fixture
def pipelines(fitted: Fitted, tmp_path: Path, unique: str) -> list[LoadedPipeline]:
    """Two pipelines that watch the same model."""
    first = fitted.write(tmp_path / "pipeline", unique)
    second = first.with_name("second.yaml")
    second.write_text(first.read_text().replace("name: watch,", "name: guard,").replace("watch.inputs", "guard.inputs"))
    return [*load(first), *load(second)]


async def retried(bus: Bus, namespace: str, letters: Sequence[Letter], *, again: bool = False) -> Outcome:
    """Give letters back, and return when every reader sees it: on Kafka that is a moment later."""
    outcome = await Letters(bus, namespace, actor="me").retry(letters, again=again)
    await (await bus.transactor(f"govern-dlq.{namespace}")).close()
    return outcome


async def judge(bus: Bus, namespace: str, task: PartitionTask) -> Effects:
    """What a worker does with what is new on its partition: the letters are published as it publishes them."""
    place = Partition(topic(namespace, "inferences"), 0)
    effects = task.process(await bus.read(place, task.position))
    letters = [to_message(one, source="/test") for one in effects.dead_letters]
    await bus.publish(topic(namespace, "dead-letter"), letters)
    return effects


async def publish(bus: Bus, namespace: str, *inferences: Inference) -> None:
    messages = [cloudevents.to_message(one, source="/test", partition=0) for one in inferences]
    await bus.publish(topic(namespace, "inferences"), messages)


async def found(letters: Letters) -> list[Letter]:
    return [one async for one in letters.all()]


def without_output(make: Make, namespace: str, number: int) -> Inference:
    """An answer that the adversarial steps of both pipelines cannot read, and all others can."""
    bare = payload(v2.encode_response("employment", [Tensor("other", "FP64", np.ones((1, 1)))]))
    return make(number, namespace=namespace, response=bare)


async def test_a_retried_letter_is_read_by_the_step_that_gave_it_up_and_by_nobody_else(
    bus: Bus, unique: str, pipelines: list[LoadedPipeline], make_inference: Make
) -> None:
    task = PartitionTask(Partition(topic(unique, "inferences"), 0), unique, pipelines)
    await publish(bus, unique, without_output(make_inference, unique, 0))
    await judge(bus, unique, task)
    letters = Letters(bus, unique, actor="me")
    (guard,) = [one for one in await found(letters) if one.record.pipeline == "guard"]
    outcome = await retried(bus, unique, [guard])
    assert (len(outcome.given_back), outcome.left) == (1, [])
    effects = await judge(bus, unique, task)
    (again,) = effects.dead_letters
    assert (again.pipeline, again.step) == ("guard", "adversarial")
    assert again.id != guard.record.id, "it failed a second time, at another place"
    assert not effects.observed, "it was counted when it came first"


async def test_what_was_mended_is_judged(
    bus: Bus, unique: str, pipelines: list[LoadedPipeline], make_inference: Make
) -> None:
    watch = pipelines[0]
    task = PartitionTask(Partition(topic(unique, "inferences"), 0), unique, [watch])
    foreign = replace(make_inference(0, namespace=unique), protocol="soap")
    await publish(bus, unique, *(make_inference(i, namespace=unique) for i in range(1, 20)), foreign)
    assert not (await judge(bus, unique, task)).judgements
    letters = Letters(bus, unique, actor="me")
    (letter,) = await found(letters)
    value = cloudevents.to_message(make_inference(0, namespace=unique), source="/test").value or b""
    mended = replace(letter.record, value=value, value_size=len(value))
    await retried(bus, unique, [Letter(mended, letter.offset, None)])
    (judgement,) = (await judge(bus, unique, task)).judgements
    assert (judgement.verdict.step, judgement.verdict.window.n_instances) == ("outlier", 20)


async def test_drops_that_a_retried_inference_knew_of_are_not_counted_again(
    bus: Bus, unique: str, pipelines: list[LoadedPipeline], make_inference: Make
) -> None:
    task = PartitionTask(Partition(topic(unique, "inferences"), 0), unique, [pipelines[0]])
    broken = make_inference(0, namespace=unique, request=payload(b"{"), capture=Capture(agent="a", seq=1))
    later = make_inference(1, namespace=unique, capture=Capture(agent="a", seq=2, dropped_before=5))
    await publish(bus, unique, broken, later)
    await judge(bus, unique, task)
    letters = Letters(bus, unique, actor="me")
    await retried(bus, unique, await found(letters))
    rest = (
        make_inference(i, namespace=unique, capture=Capture(agent="a", seq=i + 2, dropped_before=5))
        for i in range(2, 21)
    )
    await publish(bus, unique, *rest)
    (judgement,) = (await judge(bus, unique, task)).judgements
    # Twenty rows; lost are five drops, the broken one, and the broken one's second failure.
    assert judgement.verdict.window.completeness == 20 / 27


async def test_a_letter_is_given_back_once_however_often_it_is_asked(
    bus: Bus, unique: str, pipelines: list[LoadedPipeline], make_inference: Make
) -> None:
    task = PartitionTask(Partition(topic(unique, "inferences"), 0), unique, [pipelines[0]])
    await publish(bus, unique, *(make_inference(i, namespace=unique, request=payload(b"{")) for i in range(3)))
    await judge(bus, unique, task)
    letters = Letters(bus, unique, actor="me")
    asked = await found(letters)
    both = await asyncio.gather(*(retried(bus, unique, asked) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(one, Fenced) or not isinstance(one, BaseException) for one in both), both
    outcome = await retried(bus, unique, asked)
    assert {why for _, why in outcome.left} <= {"it was given back before, by me"}
    inferences = await bus.read(Partition(topic(unique, "inferences"), 0), 0)
    twice = [one for one in inferences if retry.target(one) is not None]
    assert [one.value for one in twice] == [one.value for one in inferences if retry.target(one) is None]
    assert all(one.retried is not None and one.retried.actor == "me" for one in await found(letters))
    changes = [
        decode(ConfigChange, one.value or b"") for one in await bus.read(Partition(topic(unique, "config"), 0), 0)
    ]
    assert [one.subject for one in changes] == [f"dead-letter/{one.record.id}" for one in asked]
    again = await retried(bus, unique, asked[:1], again=True)
    assert len(again.given_back) == 1


async def test_what_cannot_be_given_back_stays_and_says_why(bus: Bus, unique: str, make_inference: Make) -> None:
    await publish(bus, unique, make_inference(0, namespace=unique))
    (message,) = await bus.read(Partition(topic(unique, "inferences"), 0), 0)
    error = BadInput("what", why="why", fix="fix")
    whole = dead_letters.of_message(message, error, namespace=unique)
    cut = replace(whole, id="cut", value=whole.value[:9])
    gone = replace(cut, id="gone", source_offset=message.offset + 9)
    elsewhere = replace(whole, id="elsewhere", source_topic="sagemaker:file.jsonl")
    empty = replace(whole, id="empty", value=b"", value_size=0)
    stream = Stream(
        namespace=unique,
        service="s",
        model="m",
        revision="",
        endpoint="",
        pipeline="p",
        step="s",
        topic=message.topic,
        partition=0,
    )
    window = dead_letters.of_window(Window(topic=message.topic, n_instances=9), error, stream)
    outcome = await retried(bus, unique, [Letter(one, 0, None) for one in (cut, gone, elsewhere, empty, window)])
    assert [one.record.id for one in outcome.given_back] == ["cut"], "its topic still has the rest of it"
    assert (await bus.read(Partition(message.topic, 0), message.offset + 1))[-1].value == message.value
    left = {letter.record.id: why for letter, why in outcome.left}
    assert "which the bus has deleted" in left["gone"]
    assert "sagemaker:file.jsonl" in left["elsewhere"]
    assert "no value" in left["empty"]
    assert "window" in left[window.id]


async def test_marks_go_with_their_letters(bus: Bus, unique: str, make_inference: Make) -> None:
    await publish(bus, unique, make_inference(0, namespace=unique), make_inference(1, namespace=unique))
    messages = await bus.read(Partition(topic(unique, "inferences"), 0), 0)
    error = BadInput("what", why="why", fix="fix")
    first, second = (dead_letters.of_message(one, error, namespace=unique) for one in messages)
    await retried(bus, unique, [Letter(first, 0, None)])  # which the topic does not hold, as after its retention
    await bus.publish(topic(unique, "dead-letter"), [to_message(second, source="/test")])
    await retried(bus, unique, await found(Letters(bus, unique, actor="me")))
    marks = await bus.read_table(Partition(topic(unique, "positions"), 0))
    assert set(marks) == {f"dead-letter/{second.id}".encode()}


async def test_an_id_may_be_shortened_while_it_names_one(bus: Bus, unique: str, make_inference: Make) -> None:
    await publish(bus, unique, make_inference(0, namespace=unique))
    (message,) = await bus.read(Partition(topic(unique, "inferences"), 0), 0)
    letter = dead_letters.of_message(message, BadInput("what", why="why", fix="fix"), namespace=unique)
    others = [replace(letter, id=name) for name in ("abc1", "abc2")]
    await bus.publish(topic(unique, "dead-letter"), [to_message(one, source="/test") for one in others])
    letters = Letters(bus, unique, actor="me")
    assert (await letters.one("abc2")).record == others[1]
    with pytest.raises(BadInput, match="2 letters begin so"):
        await letters.one("abc")
    with pytest.raises(NotFound):
        await letters.one("x")


def command(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture
def namespace_with_letters(embedded_url: str, make_inference: Make) -> list[DeadLetter]:
    """Two letters in the namespace `default`, one of them for a step."""

    async def fill() -> list[DeadLetter]:
        async with open_bus(embedded_url) as connection:
            await connection.ensure_topics(specs("default", partitions=1))
            await publish(
                connection, "default", make_inference(0, request=payload(b'{"inputs": 7}')), make_inference(1)
            )
            messages = await connection.read(Partition(topic("default", "inferences"), 0), 0)
            letters = [
                dead_letters.of_message(
                    messages[0], BadInput("no list", why="7", fix="send a list"), namespace="default", pipeline="watch"
                ),
                dead_letters.of_message(
                    messages[1], BadInput("too old", why="v", fix="f"), namespace="default", pipeline="guard", step="s"
                ),
            ]
            await connection.publish("govern.default.dead-letter", [to_message(one, source="/test") for one in letters])
            return letters

    return asyncio.run(fill())


def read(kind: type, url: str, stream: str) -> list:  # type: ignore[type-arg]
    async def work() -> list:  # type: ignore[type-arg]
        async with open_bus(url) as connection:
            return [decode(kind, one.value or b"") for one in await connection.read(Partition(stream, 0), 0)]

    return asyncio.run(work())


def test_the_person_on_call_lists_shows_and_retries(
    embedded_url: str, namespace_with_letters: list[DeadLetter], tmp_path: Path
) -> None:
    first, second = namespace_with_letters
    status, text = command("ls", "--bus", embedded_url)
    assert status == 0
    assert first.id[:12] in text
    assert "2 dead letters: 2 bad-input" in text
    status, text = command("ls", "--bus", embedded_url, "--pipeline", "guard", "--json")
    (line,) = [json.loads(line) for line in text.splitlines()]
    assert (line["id"], line["step"], line["retried"], "value" in line) == (second.id, "s", None, False)

    status, text = command(
        "show", first.id[:9], "--bus", embedded_url, "--raw", str(tmp_path / "raw"), "--purpose", "p"
    )
    assert status == 0
    assert "send a list" in text
    assert '{\\"inputs\\": 7}' in text
    assert (tmp_path / "raw").read_bytes() == first.value
    (access,) = read(Access, embedded_url, "govern.default.access")
    assert (access.action, access.subject, access.purpose) == ("dead-letter", first.id, "p")

    status, text = command("retry", "--bus", embedded_url, "--all", "--pipeline", "watch")
    assert (status, "1 dead letters are given back, 0 stay" in text) == (0, True)
    status, text = command("retry", "--bus", embedded_url, "--all")
    assert (status, "1 dead letters are given back, 1 stay" in text) == (1, True)
    status, text = command("ls", "--bus", embedded_url, "--json")
    assert all(json.loads(line)["retried"]["actor"].startswith("cli:") for line in text.splitlines())


def test_what_to_retry_has_to_be_said(embedded_url: str) -> None:
    for words in ([], ["--all", "abc"]):
        with pytest.raises(BadInput, match="letters to retry"):
            command("retry", "--bus", embedded_url, *words)


def test_an_original_that_is_no_record_is_shown_as_it_is(embedded_url: str) -> None:
    letters = [
        DeadLetter(id=name, value=value)
        for name, value in (("t", b"some text"), ("b", b"\xff\x00"), ("l", b"x" * 5000))
    ]

    async def fill() -> None:
        async with open_bus(embedded_url) as connection:
            await connection.ensure_topics(specs("default", partitions=1))
            await connection.publish("govern.default.dead-letter", [to_message(one, source="/test") for one in letters])

    asyncio.run(fill())
    for name, shown in (("t", "some text"), ("b", "ff00"), ("l", "1,000 more bytes")):
        assert shown in command("show", name, "--bus", embedded_url)[1]
