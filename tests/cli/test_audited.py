"""An inference by request id through the audit log, while the bus has it and after the bus let it go."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.entry import draft
from audit.founding import opened
from govern.bus import Message, Partition, TopicSpec, open_bus
from govern.bus.topics import specs, topic
from govern.cli._audited import audited_inferences
from govern.codecs import cloudevents
from govern.record import Inference, Payload

NAMESPACE = "demo"
INFERENCES = Partition(topic(NAMESPACE, "inferences"), 0)


def inference(number: int) -> Inference:
    body = b'{"inputs": [%d]}' % number
    return Inference(
        schema_version=1,
        id=f"inference-{number}",
        request_id=f"request-{number}",
        namespace=NAMESPACE,
        service="s",
        model="m",
        protocol="v2",
        status_code=200,
        t_response=1_700_000_000_123_456_789 + number,
        request=Payload(content_type="application/json", body=body, size=len(body)),
    )


@pytest.fixture
async def messages(embedded_url: str) -> list[Message]:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(NAMESPACE, partitions=1))
        out = [cloudevents.to_message(inference(number), source="/test") for number in range(5)]
        await bus.publish(INFERENCES.topic, out)
        return await bus.read(INFERENCES, 0)


async def test_found_by_request_id_and_by_inference_id(
    embedded_url: str, messages: list[Message], tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'audit.db'}"
    with opened(database, NAMESPACE, tmp_path / "keys") as store:
        store.append([draft(message) for message in messages])
    async with open_bus(embedded_url) as bus:
        with audited_inferences(bus, database, NAMESPACE, None) as source:
            assert await source.find(NAMESPACE, "request-3") == inference(3)
            assert await source.find(NAMESPACE, "inference-2") == inference(2)
            assert await source.find(NAMESPACE, "request-99") is None


async def test_what_the_bus_let_go_is_opened_with_the_key_and_only_with_it(
    messages: list[Message], tmp_path: Path
) -> None:
    database, keys = f"sqlite:///{tmp_path / 'audit.db'}", tmp_path / "keys"
    with opened(database, NAMESPACE, keys) as store:
        store.append([draft(message) for message in messages])
    async with open_bus(f"embedded://{tmp_path / 'empty.db'}") as bus:
        await bus.ensure_topics([TopicSpec(name=INFERENCES.topic)])
        with audited_inferences(bus, database, NAMESPACE, keys) as source:
            found = await source.find(NAMESPACE, "request-1")
            assert found is not None
            assert (found.id, found.request.body, found.t_response) == (
                "inference-1",
                inference(1).request.body,
                inference(1).t_response,
            )
        with audited_inferences(bus, database, NAMESPACE, None) as source:
            assert await source.find(NAMESPACE, "request-1") is None
