"""The example of the page on windows, run as it stands there: fitted, judged by a worker, and replayed."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from govern.bus import Partition, open_bus
from govern.bus.topics import specs, topic
from govern.cli import main
from govern.codecs import cloudevents, v2
from govern.codecs.tensor import Tensor
from govern.record import Inference, Verdict, decode
from govern.runtime.checkpoint import POSITION_KEY, decode_partition
from govern.runtime.loader import load
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.bus.helpers import settled
from tests.docs.test_readme import ROOT, blocks
from tests.runtime.conftest import START_NS, payload

PAGE = (ROOT / "docs" / "windows.md").read_text(encoding="utf-8")
DEADLINE_S = 60.0
CALLS, CHANGE = 240, 130
COLUMNS = ("age", "pay")
Matrix = npt.NDArray[np.float64]


def inference(i: int, row: Matrix) -> Inference:
    tensors = [Tensor(name, "FP64", row[at].reshape(1, 1)) for at, name in enumerate(COLUMNS)]
    return Inference(
        schema_version=1,
        id=f"i{i}",
        request_id=f"r{i}",
        namespace="default",
        service="income",
        model="income",
        protocol="v2",
        t_response=START_NS + i,
        status_code=200,
        request=payload(v2.encode_request(tensors)),
        response=payload(v2.encode_response("income", [Tensor("pay", "FP64", np.ones((1, 1)))])),
    )


def govern(line: str) -> str:
    words = shlex.split(line)[1:]
    result = CliRunner().invoke(main.build(words[0]), words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


async def judged(url: str, file: Path, calls: Matrix) -> list[Verdict]:
    """What a worker publishes of the calls."""
    async with open_bus(url) as bus:
        await bus.ensure_topics(specs("default", partitions=1))
        sent = [cloudevents.to_message(inference(i, row), source="/test") for i, row in enumerate(calls)]
        await bus.publish(topic("default", "inferences"), sent)
        reporter = Reporter(Metrics(CollectorRegistry()))
        worker = Worker(bus=bus, namespace="default", pipelines=load(file), reporter=reporter)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group, asyncio.timeout(DEADLINE_S):
            group.create_task(worker.run(stop))
            while True:
                table = await bus.read_table(Partition(topic("default", "checkpoints"), 0))
                if POSITION_KEY in table and decode_partition(table[POSITION_KEY]).offset >= CALLS:
                    break
                await asyncio.sleep(0.02)
            stop.set()
        return [decode(Verdict, one.value or b"") for one in await settled(bus, topic("default", "verdicts"))]


def test_the_example_as_the_page_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    rows = np.column_stack((rng.normal(40, 9, 2_000 + CALLS), rng.normal(20, 5, 2_000 + CALLS))).round(3)
    rows[2_000 + CHANGE :, 1] += 20.0
    lines = [",".join(map(str, row)) for row in rows[:2_000].tolist()]
    (tmp_path / "reference.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    url = f"embedded://{tmp_path / 'bus.db'}"
    began, replayed = (block.replace("embedded:///tmp/bus.db", url) for block in blocks("", PAGE))
    fit, worker = began.splitlines()
    govern(fit)
    assert worker.startswith("govern worker people.yaml ")
    verdicts = asyncio.run(judged(url, tmp_path / "people.yaml", rows[2_000:]))
    first: dict[str, str] = {}
    for one in verdicts:
        if one.alarm:
            first.setdefault(one.step, f"{one.step} {one.window.first_offset}-{one.window.last_offset}\n")
    alarms, replay = blocks("text", PAGE)
    assert "".join(first[step] for step in sorted(first)) == alarms
    assert govern(replayed) == replay
