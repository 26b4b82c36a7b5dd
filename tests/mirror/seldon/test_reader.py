"""From a real Kafka's Seldon topics to both kinds of bus: once each, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from govern.bus import Bus, Partition, open_bus
from govern.bus.protocol import Fenced, UnknownTopic
from govern.bus.topics import topic
from govern.codecs import open_inference_pb2 as oip
from govern.codecs.cloudevents import from_message
from govern.mirror.config import MirrorConfig
from govern.mirror.exported import SnapshotRegistry
from govern.mirror.place import OVERHEAD_BYTES
from govern.mirror.sampling import point_of
from tests.bus.helpers import read_all
from tests.mirror.conftest import DEADLINE_S, renew
from tests.mirror.seldon.conftest import (
    Make,
    Seldon,
    file_of,
    file_text,
    infer_request,
    infer_response,
    installation,
    metrics_url,
    process,
    reader_of,
    reading,
    recorded,
    recorded_within,
    scrape,
    until,
)
from tests.services.kafka import Kafka

pytestmark = pytest.mark.kafka


def total(registry: SnapshotRegistry, name: str) -> float:
    return sum(
        sample.value for family in registry.collect() for sample in family.samples if sample.name == f"govern_{name}"
    )


async def test_models_and_pipelines_are_recorded_whole(seldon: Seldon, seldon_config: Make) -> None:
    await seldon.make(
        "model.income.inputs", "model.income.outputs", "pipeline.credit.inputs", "pipeline.credit.outputs"
    )
    for number in range(50):
        await seldon.send("pipeline.credit.inputs", f"r{number}", infer_request(number), in_header=False)
        await seldon.call(number, pipeline="credit")
        await seldon.send("pipeline.credit.outputs", f"r{number}", infer_response(number / 2), in_header=False)
    config = seldon_config()
    async with reading(config) as registry:
        found = await recorded_within(config, 100)
        await until(lambda: total(registry, "capture_seen_total") == 100, "the counters")
    assert Counter((one.service, one.model) for one in found) == {
        ("credit", "income"): 50,
        ("credit", "credit.pipeline"): 50,
    }
    for one in found:
        number = int(one.request_id[1:])
        assert one.request.body == infer_request(number)
        assert one.response.body == infer_response(number / 2)
        assert one.missing == ()
    assert sorted(one.capture.seq for one in found) == list(range(100))
    assert total(registry, "capture_captured_total") == total(registry, "capture_shipped_total") == 100
    assert total(registry, "consumer_lag_records") == 0


async def test_what_the_rules_name_is_redacted_before_it_is_published(seldon: Seldon, seldon_config: Make) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    for number in range(10):
        await seldon.call(number)
    rules = [{"tensor": "age", "action": "drop"}, {"side": "response", "action": "withhold"}]
    config = seldon_config(redaction={"rules": rules})
    async with reading(config):
        found = await recorded_within(config, 10)
    for one in found:
        assert one.request.body == infer_request(float("nan"))
        assert (one.response.body, one.response.sha256) == (b"", "")
        assert [each.action for each in one.redactions] == ["drop", "withhold"]


async def test_a_second_run_goes_on_where_the_first_one_stood(seldon: Seldon, seldon_config: Make) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    config = seldon_config()
    await seldon.call(0)
    await seldon.send("model.income.inputs", "r1", infer_request(1))
    async with reading(config):
        (first,) = await recorded_within(config, 1)
    await seldon.send("model.income.outputs", "r1", infer_response(0.5))
    await seldon.call(2)
    async with reading(config):
        found = await recorded_within(config, 3)
    assert sorted(one.request_id for one in found) == ["r0", "r1", "r2"]
    assert {one.missing for one in found} == {()}
    assert sorted(one.capture.seq for one in found) == [0, 1, 2]
    assert len({one.capture.agent for one in found}) == 1
    assert first in found


async def test_halves_that_stay_alone_are_recorded_as_such(seldon: Seldon, seldon_config: Make) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    await seldon.send("model.income.inputs", "asked", infer_request(1))
    await seldon.send("model.income.outputs", "answered", infer_response(1))
    config = seldon_config(seldon={"join_s": 1.0})
    async with reading(config):
        found = {one.request_id: one for one in await recorded_within(config, 2)}
    assert found["asked"].missing == ("response",)
    assert found["asked"].status_code == 0
    assert found["answered"].missing == ("request",)
    assert found["answered"].status_code == 200


async def test_a_backlog_older_than_the_limit_is_joined_all_the_same(seldon: Seldon, seldon_config: Make) -> None:
    """Hours of requests, then their responses: nothing expires because the reader was away."""
    await seldon.make("model.income.inputs", "model.income.outputs", partitions=2)
    began_ms = int(time.time() * 1000) - 3 * 3600 * 1000
    for number in range(300):
        await seldon.send("model.income.inputs", f"r{number}", infer_request(number), t_ms=began_ms + 30_000 * number)
    for number in range(300):
        at_ms = began_ms + 30_000 * number + 40
        await seldon.send("model.income.outputs", f"r{number}", infer_response(number), t_ms=at_ms)
    config = seldon_config(seldon={"join_s": 60.0, "open_halves": 20})
    async with reading(config):
        found = await recorded_within(config, 300)
    assert Counter(one.request_id for one in found) == {f"r{number}": 1 for number in range(300)}
    joined = [one for one in found if not one.missing]
    assert len(joined) == 300


async def test_halves_that_wait_scattered_are_as_many_as_a_place_can_tell(seldon: Seldon, seldon_config: Make) -> None:
    """Every other request is answered: each of the rest is a gap of its own, and a place is one message of the bus."""
    await seldon.make("model.income.inputs", "model.income.outputs", partitions=1)
    config = seldon_config(seldon={"join_s": 3600.0}, body_bytes=100, message_bytes=17_000)
    asked, answered = range(3_200), range(1, 3_200, 2)
    room = (config.message_bytes - OVERHEAD_BYTES) // len("[1000,1000],")
    alone = len(asked) - len(answered) - room
    await seldon.send_all("model.income.inputs", {f"r{number}": infer_request(number) for number in asked})
    await seldon.send_all("model.income.outputs", {f"r{number}": infer_response(number) for number in answered})
    async with reading(config) as registry:
        await until(lambda: total(registry, "capture_captured_total") >= len(answered) + alone, "those past the bound")
        await until(lambda: total(registry, "sink_orphaned_total") >= alone, "their count")
    found = await recorded(config)
    assert total(registry, "capture_seen_total") == len(found)
    assert set(Counter(one.request_id for one in found).values()) == {1}
    assert {one.request_id for one in found if not one.missing} == {f"r{number}" for number in answered}
    assert {one.request_id for one in found if one.missing} == {f"r{2 * index}" for index in range(alone)}


async def test_a_model_that_failed_is_joined_with_its_error(seldon: Seldon, seldon_config: Make) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs", "errors.errors")
    await seldon.send("model.income.inputs", "r1", infer_request(1), pipeline="credit")
    await seldon.send("errors.errors", "r1", b"boom", pipeline="credit", headers={"seldon-pipeline-errors": "income"})
    await seldon.send("errors.errors", "r2", b"boom", headers={"seldon-pipeline-errors": "another"})
    config = seldon_config(seldon={"models": ["income"]})
    async with reading(config):
        (found,) = await recorded_within(config, 1)
    assert (found.request_id, found.status_code, found.error) == ("r1", 500, "income failed: boom")
    assert found.request.body == infer_request(1)


async def test_topics_and_partitions_made_later_are_found(seldon: Seldon, seldon_config: Make) -> None:
    config = seldon_config(seldon={"start": "latest"})
    async with reading(config):
        await committed(config)
        await seldon.make("model.income.inputs", "model.income.outputs")
        await seldon.call(1)
        assert [one.request_id for one in await recorded_within(config, 1)] == ["r1"]
        await seldon.make("model.other.inputs", "model.other.outputs")
        await seldon.call(2, model="other")
        found = await recorded_within(config, 2)
    assert sorted(one.model for one in found) == ["income", "other"]


async def committed(config: MirrorConfig) -> None:
    """Wait for the reader's first commit."""
    async with asyncio.timeout(DEADLINE_S), open_bus(config.bus) as bus:
        table: dict[bytes, bytes] = {}
        while not table:
            await asyncio.sleep(0.05)
            with contextlib.suppress(UnknownTopic):
                table = await bus.read_table(Partition(topic(config.namespace, "positions"), 0))


async def test_a_late_beginner_may_leave_out_what_was_before(seldon: Seldon, seldon_config: Make) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    await seldon.call(1)
    config = seldon_config(seldon={"start": "latest"})
    async with reading(config):
        await committed(config)
        await seldon.call(2)
        assert [one.request_id for one in await recorded_within(config, 1)] == ["r2"]


async def test_sampling_keeps_the_ids_that_every_capture_keeps(seldon: Seldon, seldon_config: Make) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    for number in range(60):
        await seldon.call(number)
    config = seldon_config(sampling_rate=0.4)
    kept = {f"r{number}" for number in range(60) if point_of(f"r{number}") < 0.4}
    assert 0 < len(kept) < 60
    async with reading(config) as registry:
        found = await recorded_within(config, len(kept))
        await until(lambda: total(registry, "capture_seen_total") == 60, "the counters")
    assert {one.request_id for one in found} == kept
    assert total(registry, "capture_sampled_out_total") == 60 - len(kept)
    assert total(registry, "capture_captured_total") == len(kept)


async def test_further_topics_get_their_copies(seldon: Seldon, seldon_config: Make, unique: str) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs", "model.other.inputs", "model.other.outputs")
    await seldon.call(1)
    await seldon.call(2, model="other")
    config = seldon_config(fan_out=[{"topic": f"{unique}.copies", "partitions": 1, "filter": {"model": "inc*"}}])
    async with reading(config):
        await recorded_within(config, 2)
    async with open_bus(config.bus) as bus:
        (copy,) = await read_all(bus, f"{unique}.copies", 1)
    assert from_message(copy) in await recorded(config)


async def test_a_second_reader_takes_over_and_the_first_one_ends(seldon: Seldon, seldon_config: Make) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    config = seldon_config()
    first, _ = reader_of(config)
    beginning = asyncio.create_task(first.run(asyncio.Event()))
    await seldon.call(1)
    await recorded_within(config, 1)
    number = 1
    async with reading(config):
        # It learns that it is fenced when it commits: so there is something to commit until it does.
        async with asyncio.timeout(DEADLINE_S):
            while not beginning.done():
                number += 1
                await seldon.call(number)
                await asyncio.wait({beginning}, timeout=0.05)
        with pytest.raises(Fenced):
            await beginning
        found = await recorded_within(config, number)
    assert Counter(one.request_id for one in found) == {f"r{each}": 1 for each in range(1, number + 1)}


async def test_seldons_kafka_may_be_another_cluster_and_be_away_for_a_while(
    kafka_url: str, unique: str, tmp_path: Path
) -> None:
    with Kafka() as other:
        async with installation(other.url, unique) as seldon:
            await seldon.make("model.income.inputs", "model.income.outputs")
            section = {"bus": other.url, "discover_s": 0.2, "join_s": 10.0}
            config = MirrorConfig.model_validate({"bus": kafka_url, "namespace": unique, "seldon": section})
            with process(config, tmp_path) as reader:
                await seldon.call(0)
                await recorded_within(config, 1)
                await seldon.send("model.income.inputs", "r1", infer_request(1))
                await seldon.call(2)
                await recorded_within(config, 2)
                other.kill()
                gone = time.monotonic()
                # Longer than the limit: the half that waits must not expire because nothing comes.
                await until(lambda: time.monotonic() - gone > 11.0, "the limit to pass")
                reader.pause()  # with the broker back and nothing in it, the time would be over
                other.start()
                await seldon.send("model.income.outputs", "r1", infer_response(1))
                reader.resume()
                found = await recorded_within(config, 3)
    assert sorted(one.request_id for one in found) == ["r0", "r1", "r2"]
    assert {one.missing for one in found} == {()}


KILLS = 8
#: Calls that are under way at every moment: asked, and not answered yet.
UNDER_WAY = 10


@pytest.mark.timeout(600)
async def test_killed_again_and_again_every_message_is_in_one_record(
    seldon: Seldon, seldon_config: Make, tmp_path: Path, unique: str
) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    config = seldon_config(seldon={"join_s": 600.0})
    moments = random.Random(unique)
    sent = 0

    async def feed(stop: asyncio.Event) -> None:
        nonlocal sent
        while not stop.is_set():
            await seldon.send("model.income.inputs", f"r{sent}", infer_request(sent))
            if sent >= UNDER_WAY:
                answered = sent - UNDER_WAY
                await seldon.send("model.income.outputs", f"r{answered}", infer_response(answered))
            sent += 1
            await asyncio.sleep(0.002)

    for kill in range(KILLS):
        stop = asyncio.Event()
        with process(config, tmp_path) as running:
            feeding = asyncio.create_task(feed(stop))
            await grown(config)
            renew(file_of(tmp_path), file_text(config, fan_out=[{"topic": f"{unique}-{kill}"}]))
            os.kill(running.pid, signal.SIGHUP)
            await asyncio.sleep(moments.uniform(0.0, 0.1))  # anywhere in the loop, or in following the new rules
        stop.set()
        await feeding
    for number in range(max(0, sent - UNDER_WAY), sent):
        await seldon.send("model.income.outputs", f"r{number}", infer_response(number))
    with process(config, tmp_path):
        found = await recorded_within(config, sent)
    assert Counter(one.request_id for one in found) == {f"r{number}": 1 for number in range(sent)}
    for one in found:
        number = int(one.request_id[1:])
        assert one.missing == ()
        assert (one.request.body, one.response.body) == (infer_request(number), infer_response(number))
    assert sorted(one.capture.seq for one in found) == list(range(sent))
    assert {one.capture.dropped_before for one in found} == {0}


async def grown(config: MirrorConfig) -> None:
    """Wait until more records are on the bus than when this was called."""
    name = topic(config.namespace, "inferences")

    async def end(bus: Bus) -> int:
        with contextlib.suppress(UnknownTopic):
            numbers = range(await bus.partitions(name))
            return sum([await bus.end_offset(Partition(name, number)) for number in numbers])
        return 0

    async with open_bus(config.bus) as bus, asyncio.timeout(DEADLINE_S):
        before = await end(bus)
        while await end(bus) <= before:
            await asyncio.sleep(0.02)


async def test_the_process_counts_and_drains_on_sigterm(seldon: Seldon, seldon_config: Make, tmp_path: Path) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    config = seldon_config()
    for number in range(5):
        await seldon.call(number)
    with process(config, tmp_path) as running:
        await recorded_within(config, 5)
        url = metrics_url(running)
        await until(lambda: scrape(url)["capture_seen_total"] == 5, "the counters")
        sums = scrape(url)
        assert sums["capture_captured_total"] == sums["capture_shipped_total"] == 5
        assert sums["capture_sampled_out_total"] == sums["capture_dropped_total"] == 0
        running.stop()
        assert "Traceback" not in running.log()


async def test_a_record_may_be_longer_than_a_message_by_default(
    seldon: Seldon, seldon_config: Make, tmp_path: Path
) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    asked = oip.ModelInferRequest(model_name="income", id="x" * 600_000).SerializeToString()
    answered = oip.ModelInferResponse(model_name="income_3", id="x" * 600_000).SerializeToString()
    await seldon.send("model.income.inputs", "r1", asked)
    await seldon.send("model.income.outputs", "r1", answered)
    config = seldon_config(body_bytes=700_000, message_bytes=1_500_000)
    with process(config, tmp_path):
        (found,) = await recorded_within(config, 1)
    assert (found.request.body, found.response.body) == (asked, answered)
