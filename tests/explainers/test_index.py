"""The index: bounded in memory, complete through the topic."""

from __future__ import annotations

import asyncio

from explainers.index import ExplanationIndex
from govern.bus import Bus, Outgoing, open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents
from govern.record import ExplainRequest, Explanation


async def publish(bus: Bus, namespace: str, *ids: str) -> None:
    told = [Explanation(schema_version=1, id=one, namespace=namespace, status="ok") for one in ids]
    await bus.publish(topic(namespace, "explanations"), [cloudevents.to_message(one, source="/t") for one in told])


async def test_what_memory_forgot_the_topic_still_has(bus_url: str, unique: str) -> None:
    async with open_bus(bus_url) as bus:
        await bus.ensure_topics(specs(unique))
        index = ExplanationIndex(bus, unique, size=2)
        await publish(bus, unique, *(f"e{n}" for n in range(2500)))
        follower = asyncio.create_task(index.follow())
        assert await index.wait("e2499", 60) is not None
        assert index.get("e2498") is not None
        assert index.get("e0") is None
        for forgotten in ("e0", "e1200", "e2000"):
            found = await index.find(forgotten)
            assert found is not None
            assert found.id == forgotten
        assert await index.find("absent") is None
        await publish(bus, unique, "late")
        assert await index.wait("late", 60) is not None
        assert await index.wait("absent", 0.01) is None
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)


async def test_noise_on_the_topic_is_passed_over(embedded_url: str, unique: str) -> None:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique))
        index = ExplanationIndex(bus, unique)
        await bus.publish(topic(unique, "explanations"), [Outgoing(key=b"k", value=b"noise")])
        await publish(bus, unique, "e")
        async with asyncio.timeout(60):
            follower = asyncio.create_task(index.follow())
            assert await index.wait("e", 60) is not None
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)


async def test_a_request_on_the_bus_is_seen(embedded_url: str, unique: str) -> None:
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique))
        index = ExplanationIndex(bus, unique)
        asked = ExplainRequest(schema_version=1, id="asked", namespace=unique)
        await bus.publish(topic(unique, "explain-requests"), [cloudevents.to_message(asked, source="/t")])
        assert await index.is_requested("asked")
        assert not await index.is_requested("never")
