"""The example of the page on steps that run elsewhere, run by the commands that it shows: two real workers."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import subprocess
from pathlib import Path

import pytest

from govern.bus import open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents
from govern.codecs.inference import response_tensors
from govern.record import Inference, decode
from govern.runtime.outputs import lineage
from tests.bus.helpers import settled, until
from tests.mirror.conftest import govern
from tests.runtime.chained.conftest import SCHEMA, called, column
from tests.services.process import Process

PAGE = (Path(__file__).parents[2] / "docs" / "placement.md").read_text(encoding="utf-8")
REQUESTS = 20


def blocks(language: str) -> list[str]:
    pieces = (piece.partition("\n") for piece in PAGE.split("```")[1::2])
    return [text for found, _, text in pieces if found == language]


@pytest.mark.e2e
async def test_two_workers_run_the_example_as_the_page_shows_it(tmp_path: Path, embedded_url: str) -> None:
    (written,), (commands,), (answer,) = blocks("yaml"), blocks(""), blocks("text")
    (tmp_path / "prices.yaml").write_text(written)
    (tmp_path / "schema.yaml").write_text(SCHEMA.to_yaml())
    check, *work = (shlex.split(line)[1:] for line in commands.splitlines())
    said = subprocess.run(govern(*check), cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == answer
    inferences = topic("default", "inferences")
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs("default"))
        sent = [
            called("price", n, 100 * n, outputs=[column("gross", 4.0 * n), column("discounted", 2.0 * n)])
            for n in range(REQUESTS)
        ]
        await bus.publish(inferences, [cloudevents.to_message(one, source="/test") for one in sent])

        async def given() -> list[Inference]:
            found = [decode(Inference, one.value or b"") for one in await settled(bus, inferences)]
            return [one for one in found if one.model == "prices"]

        async def there() -> bool:
            await asyncio.sleep(0.05)
            return len(await given()) == REQUESTS

        with contextlib.ExitStack() as stack:
            for number, command in enumerate(work):
                words = [str(tmp_path / word) if word == "prices.yaml" else word for word in command]
                words = [embedded_url if word.startswith("kafka:") else word for word in words]
                worker = Process(govern(*words), log=tmp_path / f"worker-{number}.log")
                worker.start(lambda log: "partition taken" in log)
                stack.callback(worker.stop)
            await until(there, "what the pipeline gives")
        found = await given()
    assert sorted(one.request_id for one in found) == sorted(one.request_id for one in sent)
    for one in found:
        assert lineage(one) == ("prices", "prices-net")
        ((name, values),) = [(tensor.name, tensor.data.tolist()) for tensor in response_tensors(one)]
        assert (name, values) == ("level", [[3.5 * int(one.request_id.split("-")[1])]])
