"""Files to the bus, on both kinds of it: once each, however often a run is repeated or killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from govern.bus import Bus, Partition, open_bus
from govern.bus.protocol import UnknownTopic
from govern.bus.topics import topic
from govern.frame import Frame
from tests.backfill.conftest import blob, capture_file, capture_line, inference_table, logged, published
from tests.bus.helpers import settled
from tests.mirror.conftest import govern

DEADLINE_S = 60.0


def backfill(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = govern("mirror", "backfill", *map(str, arguments))
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


async def test_a_run_that_is_repeated_publishes_nothing_twice(
    people: Frame, tmp_path: Path, bus_url: str, unique: str
) -> None:
    at = ("--bus", bus_url, "--namespace", unique)
    first = capture_file(tmp_path / "1.jsonl", people, range(700))
    done = backfill("sagemaker", first, *at, "--service", "employment")
    assert done.returncode == 0, done.stderr
    assert "1 files (0 of them known already), 700 rows: 700 inferences published" in done.stdout
    again = backfill("sagemaker", first, *at, "--service", "employment")
    assert "1 files (1 of them known already), 0 rows: 0 inferences published" in again.stdout
    renamed = tmp_path / "folder" / "renamed.jsonl"
    renamed.parent.mkdir()
    renamed.write_bytes(first.read_bytes())
    capture_file(tmp_path / "folder" / "more.jsonl", people, range(700, 710))
    more = backfill("sagemaker", tmp_path / "folder", *at)
    assert "2 files (1 of them known already), 10 rows: 10 inferences published" in more.stdout
    found = await published(bus_url, unique)
    assert Counter(record.request_id for record in found) == {f"event-{i}": 1 for i in range(710)}


async def test_malformed_rows_go_to_the_dead_letters(people: Frame, tmp_path: Path, bus_url: str, unique: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(capture_line(people, 0)) + "\nno line\n")
    done = backfill("sagemaker", file, "--bus", bus_url, "--namespace", unique)
    assert "1 inferences published" in done.stdout
    assert "1 refused: JSON is malformed" in done.stdout
    (letter,) = await published(bus_url, unique, "dead-letter")
    assert letter.value == b"no line"
    assert letter.source_offset == 1
    backfill("sagemaker", file, "--bus", bus_url, "--namespace", unique)
    assert len(await published(bus_url, unique, "dead-letter")) == 1


async def test_what_redaction_takes_out_is_nowhere_and_further_topics_get_their_copies(
    tmp_path: Path, bus_url: str, unique: str
) -> None:
    def line(number: int, body: str, kind: str, encoding: str) -> str:
        side = {"observedContentType": kind, "mode": "INPUT", "data": body, "encoding": encoding}
        meta = {"eventId": f"e{number}", "inferenceTime": "2024-07-30T13:36:30Z"}
        return json.dumps({"captureData": {"endpointInput": side}, "eventMetadata": meta})

    file = tmp_path / "a.jsonl"
    lines = [
        line(0, json.dumps({"instances": [{"name": "PLANTED", "age": 39}]}), "application/json", "JSON"),
        line(1, "{no JSON, PLANTED", "application/json", "JSON"),
        '{"no line": "PLANTED"}',
    ]
    file.write_text("\n".join(lines))
    config = tmp_path / "mirror.yaml"
    config.write_text(
        "redaction: {rules: [{path: 'instances.*.name', action: drop}]}\n"
        f"fan_out: [{{topic: {unique}.copies, filter: {{service: mo*}}}}]\n"
    )
    done = backfill("sagemaker", file, "--bus", bus_url, "--namespace", unique, "--config", config)
    assert done.returncode == 0, done.stderr
    async with open_bus(bus_url) as bus:
        names = (topic(unique, "inferences"), topic(unique, "dead-letter"), f"{unique}.copies")
        whole = [message for name in names for message in await settled(bus, name)]
    assert len(whole) == 2 + 1 + 2
    assert all(b"PLANTED" not in (message.value or b"") for message in whole)
    found = {record.request_id: record for record in await published(bus_url, unique)}
    assert json.loads(found["e0"].request.body) == {"instances": [{"name": None, "age": 39}]}
    assert found["e1"].request.body == b""
    assert found["e1"].redactions[0].action == "withhold"
    (letter,) = await published(bus_url, unique, "dead-letter")
    assert letter.value == b""
    assert len(letter.headers["sha256"]) == 64


@pytest.mark.kafka
async def test_a_record_may_be_longer_than_a_message_by_default(tmp_path: Path, kafka_url: str, unique: str) -> None:
    def side(mode: str) -> dict[str, str]:
        return {"observedContentType": "text/csv", "mode": mode, "data": "1" * 600_000, "encoding": "CSV"}

    captured = {"endpointInput": side("INPUT"), "endpointOutput": side("OUTPUT")}
    meta = {"eventId": "long", "inferenceTime": "2024-07-30T13:36:30Z"}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"captureData": captured, "eventMetadata": meta}))
    config = tmp_path / "mirror.yaml"
    config.write_text("body_bytes: 700000\nmessage_bytes: 1500000\n")
    done = backfill("sagemaker", file, "--bus", kafka_url, "--namespace", unique, "--config", config)
    assert done.returncode == 0, done.stderr
    (record,) = await published(kafka_url, unique)
    assert (len(record.request.body), len(record.response.body)) == (600_000, 600_000)


@pytest.mark.kafka
async def test_rows_that_wait_scattered_are_as_many_as_a_message_holds(
    people: Frame, tmp_path: Path, kafka_url: str, unique: str
) -> None:
    """Every other request is answered, so that the rows of the others are no runs: 4,500 of 5 bytes, for a limit of
    17,000. The oldest are recorded alone instead."""
    n_rows = 9_000
    requests = [logged(people, i, "request") for i in range(n_rows)]
    answers = [logged(people, i, "response") for i in range(0, n_rows, 2)]
    files = [blob(tmp_path / "1.parquet", requests), blob(tmp_path / "2.parquet", answers)]
    config = tmp_path / "mirror.yaml"
    config.write_text("body_bytes: 100\nmessage_bytes: 17000\n")
    at = ("--bus", kafka_url, "--namespace", unique, "--config", config)
    done = backfill("kserve-blobs", *files, *at)
    assert done.returncode == 0, done.stderr
    found = await published(kafka_url, unique)
    halves = Counter((one.request_id, side) for one in found for side in {"request", "response"} - {*one.missing})
    asked, answered = range(n_rows), range(0, n_rows, 2)
    assert halves == {(f"r{i}", "request"): 1 for i in asked} | {(f"r{i}", "response"): 1 for i in answered}
    assert Counter(one.missing for one in found) == {(): len(answered), ("response",): n_rows - len(answered)}
    again = backfill("kserve-blobs", *files, *at)
    assert "2 files (2 of them known already), 0 rows: 0 inferences published" in again.stdout


def test_a_dry_run_counts_and_needs_no_bus(people: Frame, tmp_path: Path) -> None:
    table = inference_table(tmp_path / "table.parquet", people, range(120))
    done = backfill("databricks", table, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "120 rows: 120 inferences would be published" in done.stdout


def test_refusals_say_what_to_do(people: Frame, tmp_path: Path) -> None:
    table = inference_table(tmp_path / "table.parquet", people, [0])
    no_bus = backfill("databricks", table)
    assert no_bus.returncode == 2
    assert "GOVERN_BUS" in no_bus.stderr
    no_file = backfill("databricks", tmp_path / "none", "--dry-run")
    assert no_file.returncode == 2
    assert "there is no such file" in no_file.stderr
    other = tmp_path / "other"
    other.write_text("x")
    wrong = backfill("databricks", other, "--dry-run")
    assert wrong.returncode == 2
    assert "is no Parquet" in wrong.stderr


async def test_what_comes_before_a_file_that_is_none_is_published(
    people: Frame, tmp_path: Path, bus_url: str, unique: str
) -> None:
    good = inference_table(tmp_path / "good.parquet", people, range(5))
    bad = tmp_path / "bad.parquet"
    bad.write_text("x")
    done = backfill("databricks", good, bad, "--bus", bus_url, "--namespace", unique)
    assert done.returncode == 2
    assert len(await published(bus_url, unique)) == 5
    again = backfill("databricks", good, "--bus", bus_url, "--namespace", unique)
    assert "1 of them known already" in again.stdout


@pytest.mark.e2e
@pytest.mark.timeout(600)
async def test_killed_again_and_again_it_publishes_every_row_once(
    people: Frame, tmp_path: Path, bus_url: str, unique: str
) -> None:
    """A run is killed once it has published something new, until one comes to its end."""
    n_rows, n_halves = 6_000, 900
    captured = tmp_path / "captured"
    captured.mkdir()
    capture_file(captured / "a.jsonl", people, range(n_rows))
    # Halves far apart: requests in some files, their responses in later ones, so that kills find halves waiting.
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for side, name in (("request", "1"), ("response", "2")):
        for start in range(0, n_halves, 300):
            events = [logged(people, i, side) for i in range(start, start + 300)]
            blob(blobs / f"{name}-{start:05}.parquet", events)
    expected = {f"event-{i}": 1 for i in range(n_rows)} | {f"r{i}": 1 for i in range(n_halves)}
    moments = random.Random(unique)
    longest_s, kills = 0.3, 0
    for attempt in itertools.count():
        namespace = f"{unique}-{attempt}"
        for source, folder in (("sagemaker", captured), ("kserve-blobs", blobs)):
            while not await killed_or_done(source, folder, bus_url, namespace, moments.uniform(0.0, longest_s)):
                kills += 1
        found = await published(bus_url, namespace)
        assert Counter(record.request_id for record in found) == expected
        assert {record.missing for record in found} == {()}
        assert len({record.id for record in found}) == n_rows + n_halves
        if kills >= 3:
            break
        longest_s /= 4  # a fast machine is done before it is killed: sooner, and all over again


async def killed_or_done(source: str, folder: Path, bus_url: str, namespace: str, after_s: float) -> bool:
    """Run until something new is on the bus, and `after_s` longer; then kill it. Whether it had ended by itself."""
    async with open_bus(bus_url) as bus, asyncio.timeout(DEADLINE_S):
        before = await end(bus, namespace)
        command = govern("mirror", "backfill", source, str(folder), "--bus", bus_url, "--namespace", namespace)
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        try:
            while process.returncode is None and await end(bus, namespace) <= before:
                await asyncio.sleep(0.005)
            await asyncio.sleep(after_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode == 0


async def end(bus: Bus, namespace: str) -> int:
    name = topic(namespace, "inferences")
    with contextlib.suppress(UnknownTopic):
        return sum([await bus.end_offset(Partition(name, number)) for number in range(await bus.partitions(name))])
    return 0


def test_memory_does_not_grow_with_the_file(people: Frame, tmp_path: Path) -> None:
    line = json.dumps(capture_line(people, 0)) + "\n"

    def peak_kb(n_rows: int) -> int:
        file = tmp_path / f"{n_rows}.jsonl"
        file.write_text(line * n_rows)
        # Not getrusage: its maximum is carried on from the process that started this one.
        script = (
            "from govern.cli.main import main\n"
            "try: main()\n"
            "finally: print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, "mirror", "backfill", "sagemaker", str(file), "--dry-run"],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout.split()[-1])

    small, large = peak_kb(1000), peak_kb(60_000)
    assert large - small < 20_000, "60,000 rows (30 MB) took 20 MB more than 1,000"
