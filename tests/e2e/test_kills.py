"""Every process is killed with SIGKILL at random moments while a client keeps asking. Nothing is lost, nothing twice.

What the client saw answered is compared with the audit log; verdicts and explanations with what one uninterrupted
task computes from the same topic.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from audit import keys
from audit.fsck import verify_database
from govern.bus import Bus, Message, Partition, open_bus
from govern.bus.topics import topic
from govern.cli.demo import people, traffic
from govern.cli.demo.model import MODEL
from govern.cli.demo.stack import Stack
from govern.cli.demo.stages.prepare import Prepared
from govern.cli.demo.work import Work
from govern.record import ExplainRequest, Explanation, Inference, Verdict, decode, encode
from govern.runtime.loader import load
from govern.runtime.task import Effects, PartitionTask
from tests.e2e.conftest import NAMESPACE, create_topics, with_count_windows

pytestmark = pytest.mark.e2e

#: Over both buses together 52.
KILLS = 26
CLIENTS = 3
SETTLE_S = 180.0
TENTH_S = 0.1


@dataclass
class Seen:
    """What the client knows: request id -> SHA-256 of the request and of the answer."""

    answered: dict[str, tuple[str, str]] = field(default_factory=dict)
    unanswered: int = 0


async def ask(url: str, bodies: list[bytes], seen: Seen, stop: asyncio.Event, seed: int) -> None:
    """Send requests, one after the other, each with an id of its own, until told to stop."""
    chance = random.Random(seed)
    async with httpx.AsyncClient(base_url=url, timeout=20.0) as client:
        while not stop.is_set():
            request_id = str(uuid.UUID(int=chance.getrandbits(128)))
            body = chance.choice(bodies)
            try:
                response = await client.post(
                    f"/v2/models/{MODEL}/infer",
                    content=body,
                    headers={"content-type": "application/json", "x-request-id": request_id},
                )
            except httpx.TransportError:
                seen.unanswered += 1
                await asyncio.sleep(TENTH_S)
                continue
            seen.answered[request_id] = (sha256(body), sha256(response.content))
            await asyncio.sleep(chance.uniform(0, 0.02))  # a client that thinks, so that two cores serve them all


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def kill_at_random(stack: Stack, chance: random.Random) -> Counter[str]:
    """SIGKILL one process after the other at random moments, each as often as the others."""
    killed: Counter[str] = Counter()
    dead: set[int] = set()
    victims = [name for _ in range(-(-KILLS // len(stack.names))) for name in stack.names]
    chance.shuffle(victims)
    for victim in victims[:KILLS]:
        async with asyncio.timeout(SETTLE_S):
            while (pid := stack.processes.get(victim)) is None or pid in dead or not stack.is_ready(victim):
                await asyncio.sleep(TENTH_S)
        await asyncio.sleep(chance.uniform(0, 1.0))
        os.kill(pid, signal.SIGKILL)
        dead.add(pid)
        killed[victim] += 1
    return killed


async def read_all(bus: Bus, name: str) -> list[Message]:
    messages: list[Message] = []
    for number in range(await bus.partitions(name)):
        start = 0
        while batch := await bus.read(Partition(name, number), start):
            messages.extend(batch)
            start = batch[-1].offset + 1
    return messages


async def until(what: str, holds: Callable[[], object]) -> None:
    """Wait until a look says yes; on time-out say what was waited for."""
    try:
        async with asyncio.timeout(SETTLE_S):
            while True:
                result = holds()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return
                await asyncio.sleep(0.3)
    except TimeoutError:
        raise AssertionError(f"not within {SETTLE_S:.0f} s: {what}") from None


def reference_run(messages: Iterable[Message], pipeline: Path) -> Effects:
    """What one task for each partition makes of the topic, from its beginning and without a break."""
    pipelines = load(pipeline)
    by_partition: dict[Partition, list[Message]] = defaultdict(list)
    for message in messages:
        by_partition[message.tp].append(message)
    effects = Effects()
    for tp, many in sorted(by_partition.items()):
        effects.extend(PartitionTask(tp, NAMESPACE, pipelines).process(many))
    return effects


def audited(engine: sa.Engine, kind: str, column: str = "record_id") -> Counter[str]:
    with engine.connect() as connection:
        rows = connection.execute(sa.text(f"select {column} from entries where kind = :kind"), {"kind": kind})
        return Counter(row[0] for row in rows)


def bare(verdict: Verdict) -> bytes:
    """A verdict without its trace, which belongs to whoever judged it."""
    from msgspec.structs import replace

    return encode(replace(verdict, traceparent=""))


@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_doubled_whatever_is_killed_embedded(
    copy_of_work: Callable[[], Work], prepared: tuple[Work, Prepared]
) -> None:
    work = copy_of_work()
    await run(work, prepared[1], work.bus_url, work.database_url, seed=11)


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.timeout(900)
async def test_nothing_is_lost_or_doubled_whatever_is_killed_on_kafka_and_postgres(
    copy_of_work: Callable[[], Work], prepared: tuple[Work, Prepared], kafka_url: str, postgres_url: str
) -> None:
    await run(copy_of_work(), prepared[1], kafka_url, postgres_url, seed=12)


async def run(work: Work, prepared: Prepared, bus_url: str, database_url: str, *, seed: int) -> None:
    chance = random.Random(seed)
    with_count_windows(work.pipeline)
    await create_topics(bus_url, NAMESPACE)
    everybody = people.replay(400)
    bodies = [call.body for call in traffic.what_if("x", everybody[:200], prepared.schema).calls]
    bodies += [traffic.body(everybody[start : start + 3], prepared.schema) for start in range(200, 380, 3)]
    seen = Seen()
    stop = asyncio.Event()
    async with Stack.running(work, namespace=NAMESPACE, bus_url=bus_url, database_url=database_url) as stack:
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(ask(stack.at.proxy, bodies, seen, stop, seed * 100 + number))
            killed = await kill_at_random(stack, chance)
            await until("many requests are answered", lambda: len(seen.answered) > 500)
            stop.set()
        await stack.ready()
        assert sum(killed.values()) == KILLS
        assert set(killed) == set(stack.names)
        await settle_and_check(work, bus_url, database_url, seen)
    print(f"\nkilled {dict(killed)}; answered {len(seen.answered)}, unanswered {seen.unanswered}")


async def settle_and_check(work: Work, bus_url: str, database_url: str, seen: Seen) -> None:
    engine = sa.create_engine(database_url)
    async with open_bus(bus_url) as bus:
        await until(
            "every answered request is in the audit log",
            lambda: seen.answered.keys() <= audited(engine, "inference", "request_id").keys(),
        )

        async def all_of_the_topic() -> bool:
            captured = await read_all(bus, topic(NAMESPACE, "inferences"))
            return audited(engine, "inference").total() == len(captured)

        await until("what was captured, answered or not, is in the audit log", all_of_the_topic)
        messages = await read_all(bus, topic(NAMESPACE, "inferences"))
        expected = await asyncio.to_thread(reference_run, messages, work.pipeline)
        wanted = {one.verdict.id for one in expected.judgements}
        asked = {one.id for one in expected.explain_requests}
        await until("every verdict is in the audit log", lambda: wanted <= audited(engine, "verdict").keys())
        await until("every explanation is in the audit log", lambda: asked <= audited(engine, "explanation").keys())
        found = {
            kind: [decode(kind, m.value or b"") for m in await read_all(bus, topic(NAMESPACE, stream))]
            for kind, stream in (
                (Verdict, "verdicts"),
                (ExplainRequest, "explain-requests"),
                (Explanation, "explanations"),
            )
        }
    assert wanted
    assert asked

    inferences = [decode(Inference, message.value or b"") for message in messages]
    check_capture(inferences, seen)
    for kind in ("inference", "verdict", "explanation"):
        column = "request_id" if kind == "inference" else "record_id"
        doubled = {name: count for name, count in audited(engine, kind, column).items() if count > 1}
        assert not doubled, f"{kind} more than once in the audit log"
    assert audited(engine, "inference", "request_id").keys() == {one.request_id for one in inferences}

    assert sorted(map(bare, found[Verdict])) == sorted(bare(one.verdict) for one in expected.judgements)
    assert sorted(map(encode, found[ExplainRequest])) == sorted(map(encode, expected.explain_requests))
    assert Counter(one.id for one in found[Explanation]) == Counter(asked)
    assert audited(engine, "verdict") == Counter(wanted)
    assert audited(engine, "explanation") == Counter(asked)
    report = await asyncio.to_thread(verify_database, database_url, keys.load(work.keys).signer.verifier)
    assert report.ok, report
    engine.dispose()


def check_capture(inferences: list[Inference], seen: Seen) -> None:
    """Each answered request is there once, with the bytes that the client sent and got; no agent skipped a number."""
    by_request = Counter(one.request_id for one in inferences)
    assert max(by_request.values()) == 1
    captured = {one.request_id: (one.request.sha256, one.response.sha256) for one in inferences}
    assert {request_id: captured[request_id] for request_id in seen.answered} == seen.answered
    by_agent: dict[str, list[int]] = defaultdict(list)
    for one in inferences:
        assert one.capture.dropped_before == 0
        by_agent[one.capture.agent].append(one.capture.seq)
    for agent, numbers in by_agent.items():
        assert sorted(numbers) == list(range(len(numbers))), f"agent {agent} has gaps"
