"""The example of the page on chained pipelines, run by the commands that it shows."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from pathlib import Path

import pytest

from govern.bus import open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents
from govern.codecs.inference import response_tensors
from govern.record import Inference, decode
from govern.schema import Feature, FeatureSchema
from tests.bus.helpers import settled, until
from tests.mirror.conftest import govern
from tests.runtime.chained.conftest import SCHEMA, called, column
from tests.services.process import Process

PAGE = (Path(__file__).parents[2] / "docs" / "chaining.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    pieces = (piece.partition("\n") for piece in PAGE.split("```")[1::2])
    return [text for found, _, text in pieces if found == language]


@pytest.mark.e2e
async def test_the_example_as_the_page_shows_it(tmp_path: Path, embedded_url: str) -> None:
    (written,), (commands,) = blocks("yaml"), blocks("")
    (tmp_path / "shop.yaml").write_text(written)
    (tmp_path / "schema.yaml").write_text(SCHEMA.to_yaml())
    features = tuple(Feature(name=name, kind="numeric") for name in ("net", "stocked"))
    (tmp_path / "worth.yaml").write_text(FeatureSchema(format_version=1, model="m", features=features).to_yaml())
    check, work = (shlex.split(line)[1:] for line in commands.splitlines())
    checked = subprocess.run(govern(*check), cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert [line.startswith("ok") for line in checked.splitlines() if "run by govern worker" in line] == [True] * 3

    inferences = topic("default", "inferences")
    outputs = {"price": ("gross", "discounted"), "stock": ("pieces",)}
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs("default"))
        for model, names in outputs.items():
            sent = [
                called(model, number, 1000 * number, outputs=[column(name, 4.0 * number) for name in names])
                for number in range(10)
            ]
            await bus.publish(inferences, [cloudevents.to_message(one, source="/test") for one in sent])
        at_work = [str(tmp_path / word) if word == "shop.yaml" else word for word in work]
        at_work[-1] = embedded_url
        worker = Process(govern(*at_work), log=tmp_path / "worker.log")
        worker.start(lambda log: "partition taken" in log)
        try:

            async def there() -> bool:
                await asyncio.sleep(0.05)
                found = [decode(Inference, one.value or b"") for one in await settled(bus, inferences)]
                return sum(one.model == "worth" for one in found) == 10

            await until(there, "what the last pipeline gives")
        finally:
            worker.stop()
        found = [decode(Inference, one.value or b"") for one in await settled(bus, inferences)]
    worth = [one for one in found if one.model == "worth"]
    assert sorted(one.request_id for one in worth) == [f"request-{number}" for number in range(10)]
    for one in worth:
        ((name, values),) = [(tensor.name, tensor.data.tolist()) for tensor in response_tensors(one)]
        assert (name, values) == ("level", [[4.0 * int(one.request_id.split("-")[1])]])
