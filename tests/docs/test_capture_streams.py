"""The examples of the pages on Seldon's topics and on backfill, run as they stand there."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from govern.codecs.inference import decode
from govern.schema import Feature, FeatureSchema
from tests.backfill.conftest import published
from tests.mirror.conftest import govern
from tests.mirror.seldon.conftest import Seldon, installation
from tests.services.process import Process

PAGES = Path(__file__).parents[2] / "docs" / "capture"
DEADLINE_S = 60.0


def block(page: str, language: str) -> str:
    """The first block of a language ("" for commands) in a page."""
    pieces = (PAGES / page).read_text(encoding="utf-8").split("```")[1::2]
    return next(text.partition("\n")[2] for text in pieces if text.partition("\n")[0] == language)


async def test_backfill_as_the_page_shows_it(tmp_path: Path, unique: str) -> None:
    url = f"embedded://{tmp_path / 'bus.db'}"
    (tmp_path / "capture").mkdir()
    (tmp_path / "capture" / "day.jsonl").write_text(block("backfill.md", "json"))
    command = shlex.split(block("backfill.md", "").replace("embedded:///tmp/bus.db", url))
    done = subprocess.run(
        govern(*command[1:], "--namespace", unique), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == block("backfill.md", "text")
    (record,) = await published(url, unique)
    features = [Feature(name=name, kind="numeric") for name in ("age", "school", "sex")]
    frame = decode(record, FeatureSchema(format_version=1, model="income", features=tuple(features)))
    assert [column.tolist() for column in frame.columns] == [[39.0, 52.0], [13.0, 9.0], [1.0, 2.0]]
    assert frame.outputs["predictions"].tolist() == [[0.81], [0.27]]


@pytest.mark.parametrize("format_", ["databricks", "kserve"])
async def test_backfill_of_tables_and_blobs_as_the_page_shows_it(format_: str, tmp_path: Path, unique: str) -> None:
    url = f"embedded://{tmp_path / 'bus.db'}"
    example = block("backfill.md", f"json {format_}")
    command = shlex.split(block("backfill.md", f"sh {format_}").replace("embedded:///tmp/bus.db", url))
    folder = tmp_path / command[4]
    folder.mkdir()
    if format_ == "databricks":
        row = json.loads(example)
        row["request_metadata"] = list(row["request_metadata"].items())
        kinds = {"request_metadata": pa.map_(pa.string(), pa.string())}
        pq.write_table(
            pa.table({name: pa.array([value], kinds.get(name)) for name, value in row.items()}),
            folder / "part-0.parquet",
        )
    else:
        (folder / "9f2a4d4e.json").write_text(example)
    done = subprocess.run(
        govern(*command[1:], "--namespace", unique), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (record,) = await published(url, unique)
    assert done.stdout.split(" rows: ")[1] == block("backfill.md", "text").split(" rows: ")[1]
    service, request_id = {"databricks": ("credit", "r-2"), "kserve": ("income", "r-1")}[format_]
    assert (record.service, record.model, record.request_id) == (service, "income", request_id)
    schema = FeatureSchema(format_version=1, model="income", features=(Feature(name="age", kind="numeric"),))
    frame = decode(record, schema)
    assert frame.columns[0].tolist() == [39.0]
    (output,) = frame.outputs.values()
    assert output.tolist() in ([0.81], [[0.81]])


@pytest.mark.kafka
async def test_seldon_topics_as_the_page_shows_it(kafka_url: str, unique: str, tmp_path: Path) -> None:
    text = block("seldon-v2.md", "yaml").replace("kafka://kafka:9092", kafka_url)
    file = tmp_path / "mirror.yaml"
    file.write_text(text.replace("namespace: default ", f"namespace: {unique} "))
    command = shlex.split(block("seldon-v2.md", "").replace("mirror.yaml", str(file)))
    async with installation(kafka_url, unique) as seldon:
        await calls(seldon)
        process = Process(govern(*command[1:], "--metrics-listen", "127.0.0.1:0"), log=tmp_path / "log")
        process.start(lambda log: "recording" in log)
        try:
            async with asyncio.timeout(DEADLINE_S):
                while len(found := await published(kafka_url, unique)) < 3:
                    await asyncio.sleep(0.1)
        finally:
            process.stop()
    assert {(record.service, record.model) for record in found} == {("credit", "income")}
    schema = FeatureSchema(format_version=1, model="income", features=(Feature(name="age", kind="numeric"),))
    for record in found:
        number = float(record.request_id[1:])
        frame = decode(record, schema)
        assert frame.columns[0].tolist() == [number]
        assert frame.outputs["predict"].tolist() == [[number / 2]]


async def calls(seldon: Seldon) -> None:
    await seldon.make("model.income.inputs", "model.income.outputs")
    for number in range(3):
        await seldon.call(number, pipeline="credit")
