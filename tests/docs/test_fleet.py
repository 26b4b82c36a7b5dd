"""The example of the page on fleets, run as it stands there."""

from __future__ import annotations

import asyncio
import shlex
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from govern.bus import open_bus
from govern.bus.topics import specs, topic
from govern.cli import main
from govern.codecs import cloudevents, v2
from govern.codecs.tensor import Tensor
from govern.record import Inference, Verdict, decode
from tests.bus.helpers import settled
from tests.docs.test_readme import ROOT, blocks
from tests.mirror.conftest import govern
from tests.runtime.conftest import payload
from tests.services.process import Process

PAGE = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
DEADLINE_S = 60.0


def typed(line: str) -> str:
    """What a command of the page prints."""
    words = shlex.split(line)
    assert words[0] == "govern"
    result = CliRunner().invoke(main.build(words[1]), words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def call(i: int) -> Inference:
    rows = np.array([[40.0 + i % 5], [38.0]])
    request = v2.encode_request([Tensor(name, "FP64", row) for name, row in zip(("age", "hours"), rows, strict=True)])
    return Inference(
        schema_version=1,
        id=f"call-{i}",
        request_id=f"call-{i}",
        namespace="default",
        service="income",
        model="income",
        protocol="v2",
        t_request=time.time_ns(),
        t_response=time.time_ns(),
        status_code=200,
        request=payload(request),
        response=payload(v2.encode_response("income", [Tensor("y", "FP64", np.array([1.0]))])),
    )


@pytest.mark.e2e
def test_the_example_as_the_page_shows_it(tmp_path: Path, embedded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOVERN_BUS", embedded_url)
    served = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    (tmp_path / "guard.yaml").write_text(blocks("yaml", served)[0])
    draws = np.random.default_rng(0).normal([40, 38], [12, 6], (800, 2)).round(1)
    for name, rows in (("reference.csv", draws[:400]), ("newer.csv", draws[400:])):
        (tmp_path / name).write_text("age,hours\n" + "".join(f"{age},{hours}\n" for age, hours in rows))
    (worker,), (fit, apply), (fit_again, *rest) = (block.splitlines() for block in blocks("", PAGE))

    async def judged() -> set[str]:
        """Which plans' detectors have judged calls that are made meanwhile."""
        async with open_bus(embedded_url) as bus:
            before = len(await settled(bus, topic("default", "verdicts")))
            async with asyncio.timeout(DEADLINE_S):
                for i in range(10_000):
                    await bus.publish(topic("default", "inferences"), [cloudevents.to_message(call(i), source="/t")])
                    found = await settled(bus, topic("default", "verdicts"))
                    if len(found) > before:
                        return {decode(Verdict, one.value or b"").pipeline for one in found}
                    await asyncio.sleep(0.05)
            raise AssertionError("nothing is judged")

    async def create() -> None:
        async with open_bus(embedded_url) as bus:
            await bus.ensure_topics(specs("default", partitions=1))

    asyncio.run(create())
    process = Process(govern(*shlex.split(worker)[1:]), log=tmp_path / "log")
    process.start(lambda log: "partition taken" in log)
    try:
        typed(fit)
        assert typed(apply) == blocks("text", PAGE)[0]
        assert asyncio.run(judged()) == {"guard"}
    finally:
        process.stop()
    assert typed(apply) == "guard unchanged\n"
    typed(fit_again)
    changed, ls, get, delete = map(typed, rest)
    assert changed == "guard changed\n"
    assert "income/income" in ls
    assert get == (tmp_path / "guard.yaml").read_text()
    assert delete == "guard deleted\n"
