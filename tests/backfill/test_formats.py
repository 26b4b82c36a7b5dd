"""What the rows of each system's files say, and that they decode to the rows they were made from."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.backfill.databricks import DATABRICKS
from govern.backfill.kserve import KSERVE
from govern.backfill.ledger import DryLedger
from govern.backfill.row import Format
from govern.backfill.run import Backfill, Report
from govern.backfill.sagemaker import SAGEMAKER
from govern.codecs.inference import decode
from govern.errors import BadInput
from govern.frame import Frame
from govern.mirror.config import MirrorConfig
from govern.mirror.place import Stored
from govern.record import DeadLetter, Inference
from tests.backfill.conftest import (
    BEGAN_S,
    blob,
    capture_file,
    capture_line,
    inference_table,
    logged,
    one,
)


class Kept(DryLedger):
    """A ledger that keeps what is committed."""

    def __init__(self) -> None:
        self.records: list[Inference] = []
        self.letters: list[DeadLetter] = []

    async def commit(self, records: Any, letters: Any, places: dict[str, Stored]) -> None:  # type: ignore[override]
        self.records += records
        self.letters += letters


async def read(format_: Format[Any], *files: Path, **config: object) -> tuple[Kept, Report]:
    kept = Kept()
    settings = MirrorConfig.model_validate({"pod": "pod-1", **config})
    report = await Backfill(settings, format_, kept, service_named="service" in config).run(files)
    return kept, report


def same(record: Inference, person: Frame) -> None:
    """The record holds the person's features, and the model's answer."""
    frame = decode(record, person.schema)
    assert len(frame) == len(person)
    for found, wanted in zip(frame.columns, person.columns, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert frame.instance_ids == (f"{record.id}/0",)
    (output,) = frame.outputs.values()
    np.testing.assert_allclose(output.ravel(), person.outputs["probability"].ravel())


@pytest.mark.parametrize("encoding", ["CSV", "JSON", "BASE64"])
async def test_data_capture_of_sagemaker(people: Frame, tmp_path: Path, encoding: str) -> None:
    file = capture_file(tmp_path / "capture.jsonl", people, range(30), encoding=encoding)
    kept, report = await read(SAGEMAKER, file, service="employment", revision="7")
    assert (report.rows, report.records, report.alone) == (30, 30, 0)
    for i, record in enumerate(kept.records):
        assert record.request_id == f"event-{i}"
        assert record.t_request == (BEGAN_S + i) * 10**9
        assert (record.service, record.model, record.revision) == ("employment", "employment", "7")
        assert record.capture.source == "backfill"
        assert record.capture.seq == i
        same(record, one(people, i))


async def test_a_capture_of_one_side_says_which_is_missing(people: Frame, tmp_path: Path) -> None:
    line = capture_line(people, 0)
    del line["captureData"]["endpointOutput"]
    line["eventMetadata"]["inferenceId"] = "mine"
    line["eventMetadata"]["customAttributes"] = ["a=b"]
    file = tmp_path / "capture.jsonl"
    file.write_text(json.dumps(line))
    kept, report = await read(SAGEMAKER, file, headers=["x-amzn-sagemaker-custom-attributes"])
    (record,) = kept.records
    assert record.missing == ("response",)
    assert record.status_code == 0
    assert record.request_id == "mine"
    assert record.request.headers == {"x-amzn-sagemaker-custom-attributes": "a=b"}
    assert report.alone == 1


@pytest.mark.parametrize("gateway", [False, True], ids=["legacy", "gateway"])
async def test_inference_tables_of_databricks(people: Frame, tmp_path: Path, gateway: bool) -> None:
    file = inference_table(tmp_path / "table.parquet", people, range(120), gateway=gateway)
    kept, report = await read(DATABRICKS, file)
    assert (report.rows, report.records) == (120, 120)
    for i, record in enumerate(kept.records):
        assert record.request_id == (f"mine-{i}" if i % 2 else f"db-{i}")
        assert record.t_request == (BEGAN_S + i) * 10**9
        assert record.t_response == record.t_request + 7_000_000
        assert record.sampling.rate == 0.5
        named = ("model", "model", "entity-1") if gateway else ("credit", "employment", "4")
        assert (record.service, record.model, record.revision) == named
        same(record, one(people, i))


async def test_names_given_beat_those_of_the_rows(people: Frame, tmp_path: Path) -> None:
    file = inference_table(tmp_path / "table.parquet", people, [0])
    kept, _ = await read(DATABRICKS, file, service="s", model="m", revision="r")
    assert (kept.records[0].service, kept.records[0].model, kept.records[0].revision) == ("s", "m", "r")


@pytest.mark.parametrize("ending", ["json", "csv", "parquet"])
@pytest.mark.parametrize("batched", [False, True], ids=["one-each", "batched"])
async def test_blobs_of_kserve(people: Frame, tmp_path: Path, ending: str, batched: bool) -> None:
    sides = [(i, side) for i in range(20) for side in ("request", "response")]
    if batched:  # the response of one call comes in the next object, before the request of the following one
        events = [logged(people, i, side) for i, side in sides]
        files = [blob(tmp_path / f"{n:02}.{ending}", events[n : n + 7]) for n in range(0, len(events), 7)]
    else:
        files = [blob(tmp_path / f"id-{i}-{side}.{ending}", [logged(people, i, side)]) for i, side in sides]
    kept, report = await read(KSERVE, *files)
    assert (report.rows, report.records, report.alone) == (40, 20, 0)
    for i, record in enumerate(kept.records):
        assert record.request_id == f"r{i}"
        assert (record.service, record.model, record.endpoint) == ("employment", "employment", "default")
        same(record, one(people, i))


async def test_halves_without_the_other_are_recorded_at_the_end(people: Frame, tmp_path: Path) -> None:
    files = [
        blob(tmp_path / "0.json", [logged(people, 0, "request")]),
        blob(tmp_path / "1.json", [logged(people, 1, "response")]),
    ]
    kept, report = await read(KSERVE, *files)
    assert report.alone == 2
    assert {record.request_id: record.missing for record in kept.records} == {"r0": ("response",), "r1": ("request",)}


async def test_what_is_malformed_becomes_a_dead_letter_with_its_reason(people: Frame, tmp_path: Path) -> None:
    good = json.dumps(capture_line(people, 0))
    bad = capture_line(people, 1, encoding="BASE64")
    bad["captureData"]["endpointInput"]["data"] = "no base64!"
    lines = [good, "{", '{"captureData": {}}', json.dumps(bad), "", good[:-21]]
    file = tmp_path / "capture.jsonl"
    file.write_text("\n".join(lines))
    kept, report = await read(SAGEMAKER, file)
    assert (report.records, report.refused.total()) == (1, 4)
    assert [letter.value.decode() for letter in kept.letters] == [lines[1], lines[2], lines[3], lines[5]]
    assert [letter.source_offset for letter in kept.letters] == [1, 2, 3, 4]
    assert {letter.code for letter in kept.letters} == {"undecodable-payload"}
    assert "eventMetadata" in kept.letters[1].why
    assert "BASE64" in kept.letters[2].why
    assert len({letter.id for letter in kept.letters}) == 4
    assert kept.letters[0].source_topic.startswith("sagemaker:capture.jsonl@")


async def test_malformed_rows_of_tables_and_blobs(people: Frame, tmp_path: Path) -> None:
    unknown = {**logged(people, 0, "request"), "reqType": "org.example.other"}
    nameless = {**logged(people, 0, "request"), "id": ""}
    cut = tmp_path / "b.json"
    cut.write_text('[{"Id": "x", ')
    kept, report = await read(KSERVE, blob(tmp_path / "a.csv", [unknown, nameless]), cut)
    assert (report.records, report.refused.total()) == (0, 3)
    assert "org.example.other" in kept.letters[0].why
    assert json.loads(kept.letters[0].value)["reqType"] == "org.example.other"


@pytest.mark.parametrize(
    ("format_", "why"),
    [(DATABRICKS, "no Parquet"), (KSERVE, "no object of KServe's logger")],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_a_file_of_another_kind_is_refused_as_a_whole(tmp_path: Path, format_: Format[Any], why: str) -> None:
    file = tmp_path / "file"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match=why):
        await read(format_, file)


async def test_a_table_without_its_columns_is_refused(people: Frame, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="databricks_request_id"):
        await read(DATABRICKS, blob(tmp_path / "a.parquet", [logged(people, 0, "request")]))


async def test_ids_do_not_depend_on_the_run_and_sampling_goes_by_the_request_id(people: Frame, tmp_path: Path) -> None:
    file = capture_file(tmp_path / "a.jsonl", people, range(50))
    again = capture_file(tmp_path / "b.jsonl", people, range(40, 60))
    first, _ = await read(SAGEMAKER, file)
    second, _ = await read(SAGEMAKER, again)
    assert [record.id for record in first.records[40:]] == [record.id for record in second.records[:10]]
    assert len({record.id for record in first.records}) == 50
    some, report = await read(SAGEMAKER, file, sampling_rate=0.5)
    assert 0 < report.sampled_out < 50
    assert report.sampled_out + report.records == 50
    assert {record.id for record in some.records} < {record.id for record in first.records}


async def test_a_large_payload_is_cut_with_its_size_and_digest_kept(people: Frame, tmp_path: Path) -> None:
    file = capture_file(tmp_path / "a.jsonl", people, [0])
    kept, _ = await read(SAGEMAKER, file, body_bytes=10)
    whole, _ = await read(SAGEMAKER, file)
    (record,) = kept.records
    assert record.truncated == ("request", "response")
    assert record.request.body == whole.records[0].request.body[:10]
    assert record.request.sha256 == whole.records[0].request.sha256


@given(st.binary(max_size=60), st.integers(0, 2**31))
def test_any_bytes_come_through_base64(data: bytes, second: int) -> None:
    text = base64.b64encode(data).decode()
    side = {"observedContentType": "x/y", "mode": "INPUT", "data": text, "encoding": "BASE64"}
    meta = {"eventId": "e", "inferenceTime": f"{np.datetime64(second, 's')}Z"}
    call = SAGEMAKER.parse(json.dumps({"captureData": {"endpointInput": side}, "eventMetadata": meta}).encode())
    assert call.request is not None  # type: ignore[union-attr]
    assert call.request.data == data  # type: ignore[union-attr]
    assert call.t_request == second * 10**9  # type: ignore[union-attr]
