"""New rules while Seldon's topics are read: none lost, none twice, each counted by the rules that it began with."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from govern.bus import open_bus
from govern.bus.protocol import TopicSpec
from govern.bus.topics import topic
from govern.codecs.cloudevents import from_message
from govern.mirror.sampling import point_of
from govern.record import ConfigChange, Inference
from tests.bus.helpers import settled
from tests.mirror.conftest import renew
from tests.mirror.seldon.conftest import (
    Make,
    Seldon,
    file_of,
    file_text,
    infer_request,
    infer_response,
    metrics_url,
    process,
    scrape,
    until,
)

pytestmark = pytest.mark.kafka

#: Calls under each set of rules, and calls that begin under one and end under the next.
CALLS = 40
ACROSS = 10
HEAD_ONLY = {"errors_rate": 0}


async def ask(seldon: Seldon, numbers: range) -> None:
    for number in numbers:
        await seldon.send("model.income.inputs", f"r{number}", infer_request(number), partition=0)


async def answer(seldon: Seldon, numbers: range) -> None:
    for number in numbers:
        await seldon.send("model.income.outputs", f"r{number}", infer_response(number), partition=0)


def kept(numbers: range, rate: float) -> set[str]:
    return {f"r{number}" for number in numbers if point_of(f"r{number}") < rate}


async def test_what_has_begun_keeps_its_rules_and_every_call_is_counted_once(
    seldon: Seldon, seldon_config: Make, tmp_path: Path, unique: str
) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs", partitions=1)
    config = seldon_config()
    across_1, first = range(ACROSS), range(ACROSS, ACROSS + CALLS)
    across_2, second = range(100, 100 + ACROSS), range(100 + ACROSS, 100 + ACROSS + CALLS)
    third = range(200, 200 + CALLS)
    left_out = {f"r{number}" for number in across_1} - kept(across_1, 0.4)
    assert 0 < len(left_out) < ACROSS
    file, copies = file_of(tmp_path), f"{unique}-copies"
    with process(config, tmp_path, sampling_rate=0.4, sampling=HEAD_ONLY) as running:
        url = metrics_url(running)
        for numbers in (across_1, first):  # one partition: once the later ones are counted, the others are taken, too
            await ask(seldon, numbers)
        await answer(seldon, first)
        await until(lambda: scrape(url)["capture_seen_total"] == len(first), "those that are whole")

        more = {"fan_out": [{"topic": copies}], "sampling": HEAD_ONLY}
        renew(file, file_text(config, **more))
        await until(lambda: running.log().count("new rules are in force") == 1, "the new rules")
        await answer(seldon, across_1)
        for numbers in (across_2, second):
            await ask(seldon, numbers)
        await answer(seldon, second)
        so_far = len(across_1) + len(first) + len(second)
        await until(lambda: scrape(url)["capture_seen_total"] == so_far, "those after the change")

        renew(file, file_text(config, sampling_rate=0, **more))
        os.kill(running.pid, signal.SIGHUP)
        await until(lambda: running.log().count("new rules are in force") == 2, "the rules after the signal")
        await answer(seldon, across_2)
        await ask(seldon, third)
        await answer(seldon, third)
        so_far += len(across_2) + len(third)
        await until(lambda: scrape(url)["capture_seen_total"] == so_far, "the last ones")
        sums = scrape(url)
        running.stop()

    async with open_bus(config.bus) as bus:
        records = [from_message(message) for message in await settled(bus, topic(unique, "inferences"))]
        copied = [from_message(message) for message in await settled(bus, copies)]
        changes = [from_message(message) for message in await settled(bus, topic(unique, "config"))]
    by_number = {int(one.request_id[1:]): one for one in records if isinstance(one, Inference)}
    found = {one.request_id for one in by_number.values()}
    whole = {f"r{number}" for number in (*across_2, *second)}
    assert found == kept(across_1, 0.4) | kept(first, 0.4) | whole
    assert sums["capture_captured_total"] == sums["capture_shipped_total"] == len(found)
    assert sums["capture_sampled_out_total"] == so_far - len(found)
    assert sums["capture_dropped_total"] == 0
    for number, one in by_number.items():
        assert (one.request.body, one.response.body) == (infer_request(number), infer_response(number))
        assert one.missing == ()
        assert one.sampling.rate == (0.4 if number < 100 else 1.0)
    assert sorted(one.capture.seq for one in by_number.values()) == list(range(len(found)))
    assert len(records) == len(found)
    assert sorted(one.request_id for one in copied if isinstance(one, Inference)) == sorted(kept(across_1, 0.4) | whole)
    assert [change.subject for change in changes if isinstance(change, ConfigChange)] == [
        f"capture/seldon-topics/seldon.{unique}"
    ] * 2
    assert [change.detail for change in changes[1:] if isinstance(change, ConfigChange)] == [
        f"instead of {change.digest}" for change in changes[:1] if isinstance(change, ConfigChange)
    ]


async def test_rules_that_are_refused_leave_those_in_force_and_show_in_the_metrics(
    seldon: Seldon, seldon_config: Make, tmp_path: Path, unique: str
) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    config = seldon_config()
    async with open_bus(config.bus) as bus:
        await bus.ensure_topics([TopicSpec(name=f"{unique}-state", compacted=True)])  # of another kind than a target
    file = file_of(tmp_path)
    with process(config, tmp_path) as running:
        url = metrics_url(running)
        await until(lambda: scrape(url).get("capture_rules_refused") == 0, "that it refuses nothing")
        renew(file, file_text(config, sampling_rate=7))
        await until(lambda: scrape(url)["capture_rules_refused"] == 1, "that it refuses the file")
        assert f"{file}:1: sampling_rate" in running.log()
        await seldon.call(1)
        await until(lambda: scrape(url)["capture_captured_total"] == 1, "a record under the old rules")
        renew(file, file_text(config))
        await until(lambda: scrape(url)["capture_rules_refused"] == 0, "that it refuses nothing any more")
        renew(file, file_text(config, sampling_rate=0, fan_out=[{"topic": f"{unique}-state"}]))
        await until(lambda: scrape(url)["capture_rules_refused"] == 1, "that the bus refuses a target")
        await seldon.call(2)
        await until(lambda: scrape(url)["capture_captured_total"] == 2, "another record under the old rules")
        running.stop()
        assert "Traceback" not in running.log()
