"""Workers that have names in their group: two that were given the same one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from govern.bus import Bus, open_bus
from govern.bus.protocol import MemberRefused
from govern.bus.topics import specs
from govern.cli import main
from govern.errors import ConfigError
from govern.runtime.loader import load
from govern.runtime.report import Reporter
from govern.runtime.worker import Worker
from govern.telemetry.metrics import Metrics
from tests.runtime.conftest import PARTITIONS, Fitted, Make
from tests.runtime.test_worker import check, publish, until_committed


@pytest.mark.kafka
async def test_the_newer_of_two_workers_with_one_name_does_the_work_and_the_other_ends(
    kafka_url: str, unique: str, fitted: Fitted, make_inference: Make, tmp_path: Path
) -> None:
    """The older one's transactions are fenced: what it does then must not take the name from the newer one."""
    pipelines = load(fitted.write(tmp_path / "pipeline", unique))
    stop = asyncio.Event()

    async def work(bus: Bus) -> None:
        reporter = Reporter(Metrics(CollectorRegistry()))
        await Worker(bus=bus, namespace=unique, pipelines=pipelines, reporter=reporter).run(stop)

    async def refused(bus: Bus) -> None:
        with pytest.raises(MemberRefused, match="worker-0"):
            await work(bus)

    old_bus, new_bus = (open_bus(kafka_url, instance_id="worker-0", session_timeout_s=60.0) for _ in range(2))
    async with open_bus(kafka_url) as bus, old_bus, new_bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        await publish(bus, unique, make_inference, range(200))
        async with asyncio.TaskGroup() as tasks:
            older = tasks.create_task(refused(old_bus))
            await until_committed(bus, unique, "govern-worker")
            tasks.create_task(work(new_bus))
            await publish(bus, unique, make_inference, range(200, 400))
            await older
            await publish(bus, unique, make_inference, range(400, 500))
            await until_committed(bus, unique, "govern-worker")
            stop.set()
        await check(bus, unique, pipelines)


@pytest.mark.parametrize("words", ["worker FILE", "audit write --db sqlite:///FOLDER/audit.db"])
def test_a_command_that_joins_a_group_hands_its_name_on(words: str, fitted: Fitted, tmp_path: Path) -> None:
    """Which the embedded bus refuses, as it has no names."""
    file = fitted.write(tmp_path / "pipeline", "default")
    given = [word.replace("FILE", str(file)).replace("FOLDER", str(tmp_path)) for word in words.split()]
    environment = {"GOVERN_BUS": f"embedded://{tmp_path / 'bus.db'}", "GOVERN_GROUP_INSTANCE_ID": "worker-0"}
    with pytest.raises(ConfigError, match="members of the embedded bus have neither"):
        CliRunner().invoke(main.build(given[0]), given, env=environment, catch_exceptions=False)
