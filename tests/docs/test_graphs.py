"""The example of the page on graphs, with a real model server; workers are killed, and so is the server."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from govern.bus import Bus, Message, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.cli import main
from govern.codecs import cloudevents, v2
from govern.codecs.tensor import Tensor
from govern.record import Inference, Verdict, decode, encode
from govern.runtime.checkpoint import POSITION_KEY, decode_partition
from govern.runtime.flows import PORTION_MESSAGES, Flows
from govern.runtime.loader import load
from govern.runtime.outputs import lineage
from govern.runtime.task import Effects, PartitionTask
from tests.bus.helpers import settled
from tests.runtime.conftest import START_NS, payload
from tests.runtime.encoding import encode as encoding
from tests.runtime.test_storm import storm
from tests.services.process import Process, free_port, listening

PAGE = (Path(__file__).parents[2] / "docs" / "graphs.md").read_text(encoding="utf-8")
DEADLINE_S = 60.0
SENT = 300
Matrix = npt.NDArray[np.float64]
COLUMNS = ("age", "price")
SERVED = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: encoder}
spec:
  steps:
    - {name: encode, transformer: {callable: "tests.runtime.encoding:encode"}}
  output: {steps: [encode]}
"""


def blocks(language: str) -> list[str]:
    pieces = (piece.partition("\n") for piece in PAGE.split("```")[1::2])
    return [text for found, _, text in pieces if found == language]


def people(i: int) -> list[Tensor]:
    values = np.random.default_rng(i).normal(size=(2, 2)) * (1, 10) + (40, 100)
    return [Tensor(name, "FP64", values[:, [at]]) for at, name in enumerate(COLUMNS)]


def inference(namespace: str, i: int) -> Inference:
    return Inference(
        schema_version=1,
        id=f"i{i}",
        request_id=f"r{i}",
        namespace=namespace,
        service="shop",
        model="ranker",
        protocol="v2",
        t_response=START_NS + i,
        status_code=200,
        request=payload(v2.encode_request(people(i))),
        response=payload(v2.encode_response("ranker", [Tensor("rank", "INT64", np.arange(2))])),
    )


def embedding(given: Sequence[Tensor]) -> Matrix:
    return encoding({one.name: one for one in given})["e"]


def csv(path: Path, names: Sequence[str], rows: Sequence[Matrix]) -> None:
    lines = [",".join(map(repr, row)) for row in np.concatenate(rows).tolist()]
    path.write_text("\n".join([",".join(names), *lines]) + "\n")


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def encoder(tmp_path: Path, port: int) -> Iterator[Process]:
    """`govern serve` where the page's url leads here, not started yet."""
    (tmp_path / "encoder.yaml").write_text(SERVED)
    command = [sys.executable, "-m", "govern.cli.main", "serve", str(tmp_path / "encoder.yaml")]
    process = Process([*command, "--http", f"127.0.0.1:{port}"], log=tmp_path / "encoder.log")
    yield process
    process.stop()


async def until_judged(bus: Bus, namespace: str, end: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            table = await bus.read_table(Partition(topic(namespace, "checkpoints"), 0))
            if POSITION_KEY in table and decode_partition(table[POSITION_KEY]).offset >= end:
                return
            await asyncio.sleep(0.02)


@pytest.mark.e2e
async def test_the_example_as_the_page_shows_it_with_kills(
    encoder: Process, port: int, tmp_path: Path, unique: str
) -> None:
    text = blocks("yaml")[0].replace("http://encoder:8080", f"http://127.0.0.1:{port}")
    file = tmp_path / "embed.yaml"
    file.write_text(text.replace("{name: embed}", f"{{name: embed, namespace: {unique}}}"))
    given = [people(i) for i in range(SENT)]
    csv(tmp_path / "requests.csv", COLUMNS, [np.concatenate([one.data for one in each], axis=1) for each in given])
    csv(tmp_path / "embeddings.csv", ("e0", "e1"), [embedding(each) for each in given])
    *fits, worker = (shlex.split(line)[1:] for line in blocks("")[0].splitlines())
    for arguments in fits:
        here = [str(tmp_path / one) if "." in one else one for one in arguments]
        result = CliRunner().invoke(main.build("fit"), here)
        assert result.exit_code == 0, result.output
    assert worker[:2] == ["worker", "embed.yaml"]

    url = f"embedded://{tmp_path / 'bus.db'}"
    async with open_bus(url) as bus:
        await bus.ensure_topics(specs(unique, partitions=1))
        sent = [cloudevents.to_message(inference(unique, i), source="/test") for i in range(SENT)]
        await bus.publish(topic(unique, "inferences"), sent)
        with storm(file, url, unique, tmp_path / "workers.log") as workers:
            await workers.start()
            encoder.start(lambda _: listening(port))  # until then the worker waits for it
            for judged in (1, PORTION_MESSAGES + 1):  # while the rest is under way
                await until_judged(bus, unique, judged)
                workers.kill(0)
                await workers.start()
            await until_judged(bus, unique, SENT)
        await check(bus, unique, file)


async def check(bus: Bus, namespace: str, file: Path) -> None:
    messages = await settled(bus, topic(namespace, "inferences"))
    records = [decode(Inference, one.value or b"") for one in messages]
    outputs = {one.request_id: one for one in records if lineage(one)}
    assert Counter(one.request_id for one in records) == {f"r{i}": 2 for i in range(SENT)}, "each was answered once"
    for i in range(SENT):
        made = outputs[f"r{i}"]
        (tensor,) = v2.decode_response(made.response.body).outputs
        np.testing.assert_allclose(tensor.data, embedding(people(i)))
        assert (made.service, made.model) == ("shop", "embed")
    assert not await settled(bus, topic(namespace, "dead-letter"))
    verdicts = [decode(Verdict, one.value or b"") for one in await settled(bus, topic(namespace, "verdicts"))]
    assert [one.window.n_instances for one in verdicts] == [200] * 3
    assert [encode(one) for one in verdicts] == [
        encode(one.verdict) for one in (await alone(file, messages)).judgements
    ]


async def alone(file: Path, messages: Sequence[Message]) -> Effects:
    """What one task makes of all, without a break."""
    pipelines = load(file)
    flows = Flows(pipelines)
    try:
        task = PartitionTask(messages[0].tp, pipelines[0].plan.namespace, pipelines)
        return task.process(messages, await flows.run(messages))
    finally:
        await flows.close()
