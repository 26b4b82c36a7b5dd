"""An online detector where it runs: fitted by `govern fit`, in workers of which one is killed, replayed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from govern.bus import Bus, Partition, open_bus
from govern.bus.topics import specs, topic
from govern.cli.main import main
from govern.detection import remembers
from govern.runtime.loader import load
from govern.runtime.memory import Memory
from govern.runtime.past import Past
from tests.runtime.conftest import NOT_FEATURES, PARTITIONS, SAMPLE, Make
from tests.runtime.test_worker import DEADLINE_S, check, publish, until_committed

PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: now, namespace: NAMESPACE}
spec:
  source: {service: employment, model: employment}
  schema: schema.yaml
  steps:
    - name: online
      detector: {type: page_hinkley, params: {ert: 300}, artifact: artifacts/online}
      batch: {size: 50, windowMs: 3600000}
"""


async def govern(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    """The command, in this process, where what it needs is imported and compiled already."""

    def status() -> object:
        try:
            main()
        except SystemExit as ended:
            return ended.code
        return 0

    monkeypatch.setattr(sys, "argv", ["govern", *map(str, words)])
    assert not await asyncio.to_thread(status)


@pytest.mark.e2e
async def test_killed_in_the_middle_it_alarms_at_the_same_rows(
    embedded_url: str, unique: str, make_inference: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted on the people of 2015; those of 2018 come."""
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs(unique, partitions=PARTITIONS))
        await run(bus, embedded_url, unique, make_inference, tmp_path, monkeypatch)


async def run(
    bus: Bus, url: str, unique: str, make_inference: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = parquet.read_table(SAMPLE)
    parquet.write_table(people.slice(0, 4000), tmp_path / "reference.parquet")
    file = tmp_path / "now.yaml"
    file.write_text(PIPELINE.replace("NAMESPACE", unique))
    excluded = [f"--exclude={name}" for name in NOT_FEATURES]
    await govern(monkeypatch, "fit", tmp_path / "reference.parquet", "--pipeline", file, *excluded)

    compiled_once = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")}

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "govern.cli.main", "worker", str(file)]
        return subprocess.Popen([*command, "--bus", url, "--namespace", unique], env=compiled_once)

    worker = start()
    try:
        await publish(bus, unique, make_inference, range(60), rows=10)
        verdicts = Partition(topic(unique, "verdicts"), 0)
        async with asyncio.timeout(DEADLINE_S):
            while not await bus.end_offset(verdicts):
                await asyncio.sleep(0.01)
        await publish(bus, unique, make_inference, range(60, 200), rows=10)
        worker.kill()
        await asyncio.to_thread(worker.wait)
        worker = start()
        await until_committed(bus, unique, "govern-worker")
    finally:
        worker.kill()
        worker.wait()
    pipelines = load(file)
    expected = await check(bus, unique, pipelines)
    judged = [one.verdict for one in expected.judgements]
    assert any(one.alarm for one in judged)
    # Only what it remembers at the start comes again: on each partition, and after an alarm at a window's last row.
    detector = pipelines[0].detectors["online"]
    assert remembers(detector)
    digests = Counter(one.memory_digest for one in judged)
    at_start = digests.pop(Memory.of(detector, detector.start()).digest)
    assert PARTITIONS <= at_start < len(judged) / 2
    assert set(digests.values()) == {1}
    outcomes = [one.outcome async for one in Past(bus, unique).replay(judged, {"now": pipelines[0]})]
    assert outcomes == ["identical"] * len(judged)
