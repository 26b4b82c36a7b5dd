"""Messages as Seldon Core v2 puts them on Kafka, and a reader of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from govern.bus import Partition, TopicSpec, open_bus
from govern.bus.protocol import UnknownTopic
from govern.bus.topics import topic
from govern.bus.url import kafka_of
from govern.codecs import open_inference_pb2 as oip
from govern.codecs.cloudevents import from_message
from govern.mirror.config import MirrorConfig
from govern.mirror.exported import SnapshotRegistry
from govern.mirror.seldon.exported import SeldonMetrics
from govern.mirror.seldon.reader import SeldonReader
from govern.mirror.seldon.source import SeldonSource
from govern.record import Inference
from govern.telemetry.metrics import Metrics
from tests.mirror.conftest import DEADLINE_S, govern
from tests.services.process import Process


def infer_request(value: float, *, model: str = "income") -> bytes:
    message = oip.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="age", datatype="FP64", shape=[1, 1])
    tensor.contents.fp64_contents.append(value)
    return message.SerializeToString()


def infer_response(value: float, *, model: str = "income", version: str = "3") -> bytes:
    message = oip.ModelInferResponse(model_name=f"{model}_{version}", model_version=version)
    tensor = message.outputs.add(name="predict", datatype="FP64", shape=[1, 1])
    tensor.contents.fp64_contents.append(value)
    return message.SerializeToString()


@dataclass
class Seldon:
    """A Seldon Core v2 installation, as its Kafka shows it: topics and messages."""

    url: str
    namespace: str
    producer: AIOKafkaProducer
    made: set[str] = field(default_factory=set)

    def topic(self, what: str) -> str:
        return f"seldon.{self.namespace}.{what}"

    async def make(self, *names: str, partitions: int = 2) -> None:
        """Create topics such as `model.income.inputs`."""
        async with open_bus(self.url) as bus:
            specs = [TopicSpec(name=self.topic(name), partitions=partitions) for name in names]
            await bus.ensure_topics(specs)
        self.made.update(names)

    async def send(
        self,
        what: str,
        request_id: str,
        value: bytes | None,
        *,
        pipeline: str = "",
        headers: dict[str, str] | None = None,
        in_header: bool = True,
        partition: int | None = None,
        t_ms: int | None = None,
    ) -> None:
        """One message, keyed and with headers as the gateways write them."""
        carried = {
            **({"x-request-id": request_id} if in_header else {}),
            **({"pipeline": pipeline} if pipeline else {}),
        }
        place = sum(request_id.encode()) % 2 if partition is None else partition
        await self.producer.send_and_wait(
            self.topic(what),
            value,
            key=f"{place}.{pipeline}.{request_id}".encode(),
            headers=[(name, text.encode()) for name, text in {**carried, **(headers or {})}.items()],
            partition=place,
            timestamp_ms=t_ms,
        )

    async def send_all(self, what: str, values: dict[str, bytes]) -> None:
        """Many messages at once, by request id, in order in one partition."""
        for request_id, value in values.items():
            carried = [("x-request-id", request_id.encode())]
            await self.producer.send(self.topic(what), value, headers=carried, partition=0)
        await self.producer.flush()

    async def call(self, number: int, *, model: str = "income", pipeline: str = "") -> None:
        """A request and its response."""
        request_id = f"r{number}"
        await self.send(f"model.{model}.inputs", request_id, infer_request(number), pipeline=pipeline)
        await self.send(f"model.{model}.outputs", request_id, infer_response(number / 2), pipeline=pipeline)


@pytest.fixture
async def seldon(kafka_url: str, unique: str) -> AsyncIterator[Seldon]:
    async with installation(kafka_url, unique) as made:
        yield made


@contextlib.asynccontextmanager
async def installation(url: str, namespace: str) -> AsyncIterator[Seldon]:
    bootstrap, access = kafka_of(url)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **access.options())
    await producer.start()
    try:
        yield Seldon(url, namespace, producer)
    finally:
        await producer.stop()


Make = Callable[..., MirrorConfig]


@pytest.fixture
def seldon_config(bus_url: str, kafka_url: str, unique: str) -> Make:
    """A configuration that reads the test's topics onto each kind of bus."""

    def make(*, seldon: dict[str, object] | None = None, **values: object) -> MirrorConfig:
        section = {"bus": kafka_url, "discover_s": 0.2, **(seldon or {})}
        return MirrorConfig.model_validate(
            {"bus": bus_url, "namespace": unique, "pod": "pod-1", "seldon": section, **values}
        )

    return make


def reader_of(config: MirrorConfig) -> tuple[SeldonReader, SnapshotRegistry]:
    registry = SnapshotRegistry()
    bootstrap, access = kafka_of(config.seldon.bus or config.bus)
    reader = SeldonReader(
        config,
        open_bus=lambda: open_bus(config.bus),
        open_source=lambda selection: SeldonSource(bootstrap, selection, access=access),
        metrics=SeldonMetrics(Metrics(registry), registry.updating, config),
    )
    return reader, registry


@contextlib.asynccontextmanager
async def reading(config: MirrorConfig) -> AsyncIterator[SnapshotRegistry]:
    """A reader that runs for as long as the block."""
    reader, registry = reader_of(config)
    stop = asyncio.Event()
    task = asyncio.create_task(reader.run(stop))
    try:
        yield registry
    finally:
        stop.set()
        await task


async def recorded(config: MirrorConfig) -> list[Inference]:
    """All inferences on govern's bus; none while the topic is not there."""
    name = topic(config.namespace, "inferences")
    found = []
    async with open_bus(config.bus) as bus:
        for number in range(await bus.partitions(name)):
            start = 0
            while messages := await bus.read(Partition(name, number), start):
                start = messages[-1].offset + 1
                found += [from_message(message) for message in messages]
    assert all(isinstance(one, Inference) for one in found)
    return found  # type: ignore[return-value]


async def recorded_within(config: MirrorConfig, count: int) -> list[Inference]:
    """The inferences, once there are so many."""
    found: list[Inference] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < count:
            await asyncio.sleep(0.1)
            with contextlib.suppress(UnknownTopic):
                found = await recorded(config)
    return found


def file_of(folder: Path) -> Path:
    return folder / "mirror.yaml"


def file_text(config: MirrorConfig, **rules: object) -> str:
    """A file with what a process needs beside its flags, and with rules."""
    values = {
        "seldon": {"bus": config.seldon.bus, "discover_s": 0.2, "join_s": config.seldon.join_s},
        "body_bytes": config.body_bytes,
        "message_bytes": config.message_bytes,
        **rules,
    }
    return json.dumps(values)  # JSON is YAML


@contextlib.contextmanager
def process(config: MirrorConfig, folder: Path, **rules: object) -> Iterator[Process]:
    """A reader process; it is killed at the end."""
    file = file_of(folder)
    file.write_text(file_text(config, **rules))
    started = Process(
        govern(
            *("mirror", "seldon-topics", "--config", str(file), "--bus", config.bus),
            *("--namespace", config.namespace, "--metrics-listen", "127.0.0.1:0"),
        ),
        log=folder / "log",
    )
    started.start(lambda text: "recording" in text)
    try:
        yield started
    finally:
        started.kill()


def metrics_url(running: Process) -> str:
    found = re.search(r"metrics on (\S+)", running.log())
    assert found is not None
    return found[1]


def scrape(url: str) -> Counter[str]:
    """Totals by name, over all labels."""
    sums: Counter[str] = Counter()
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                sums[sample.name.removeprefix("govern_")] += sample.value  # type: ignore[assignment]
    return sums


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.05)
