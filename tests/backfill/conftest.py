"""Files as SageMaker, Databricks and KServe write them, of real people (US Census ACS) and a model's answers."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from govern import table
from govern.bus import open_bus
from govern.bus.protocol import UnknownTopic
from govern.bus.topics import Stream, topic
from govern.codecs import v2
from govern.codecs.cloudevents import from_message
from govern.codecs.frames import to_tensors
from govern.codecs.tensor import Tensor
from govern.frame import Frame
from tests.bus.helpers import settled

SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
NOT_FEATURES = ("id", "employed", "year", "prediction", "predicted_probability")
#: 2023-11-14T22:13:20Z; the i-th call comes i seconds later.
BEGAN_S = 1_700_000_000


@pytest.fixture(scope="session")
def people() -> Frame:
    """Real rows, with the model's probability as their output."""
    whole = table.read(SAMPLE)
    schema = table.infer_schema(whole, "employment", exclude=NOT_FEATURES)
    return table.frame_of(whole, schema, {"probability": "predicted_probability"})


def one(people: Frame, i: int) -> Frame:
    """The person of the i-th call."""
    return people.take([i % len(people)])


def values(person: Frame) -> dict[str, object]:
    """A person's features as JSON has them."""
    found: dict[str, object] = {}
    for tensor in to_tensors(person):
        value = tensor.data.ravel().tolist()[0]
        missing = value == "" or (isinstance(value, float) and math.isnan(value))
        found[tensor.name] = None if missing else value
    return found


def probability(person: Frame) -> float:
    return float(person.outputs["probability"].ravel()[0])


def as_csv(person: Frame) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(["" if v is None else v for v in values(person).values()])
    return text.getvalue()


def capture_line(people: Frame, i: int, *, encoding: str = "CSV", event_id: str | None = None) -> dict[str, Any]:
    """One line of SageMaker's data capture."""
    person = one(people, i)
    request, response = as_csv(person), f"{probability(person)!r}\n"
    kind = "text/csv"
    if encoding == "JSON":
        request = json.dumps({"instances": [values(person)]})
        response = json.dumps({"predictions": [probability(person)]})
        kind = "application/json"

    def side(mode: str, data: str) -> dict[str, str]:
        text = base64.b64encode(data.encode()).decode() if encoding == "BASE64" else data
        return {"observedContentType": kind, "mode": mode, "data": text, "encoding": encoding}

    at = np.datetime64(BEGAN_S + i, "s")
    return {
        "captureData": {"endpointInput": side("INPUT", request), "endpointOutput": side("OUTPUT", response)},
        "eventMetadata": {"eventId": event_id or f"event-{i}", "inferenceTime": f"{at}Z"},
        "eventVersion": "0",
    }


def capture_file(path: Path, people: Frame, numbers: Sequence[int], **options: Any) -> Path:
    path.write_text("".join(json.dumps(capture_line(people, i, **options)) + "\n" for i in numbers))
    return path


def inference_table(path: Path, people: Frame, numbers: Sequence[int], *, gateway: bool = False) -> Path:
    """An inference table of Databricks: the legacy schema, or that of AI Gateway."""
    persons = [one(people, i) for i in numbers]
    split = [
        {"dataframe_split": {"columns": list(values(each)), "data": [list(values(each).values())]}} for each in persons
    ]
    records = [{"dataframe_records": [values(each)]} for each in persons]
    columns: dict[str, Any] = {
        "databricks_request_id": [f"db-{i}" for i in numbers],
        "client_request_id": [f"mine-{i}" if i % 2 else None for i in numbers],
        "status_code": pa.array([200] * len(numbers), pa.int32()),
        "sampling_fraction": [0.5] * len(numbers),
        "request": [json.dumps(records[n] if n % 2 else split[n]) for n in range(len(numbers))],
        "response": [json.dumps({"predictions": [probability(each)]}) for each in persons],
    }
    if gateway:
        columns["request_date"] = pa.array([19_675] * len(numbers), pa.date32())
        columns["request_time"] = pa.array([(BEGAN_S + i) * 10**6 for i in numbers], pa.timestamp("us", tz="UTC"))
        columns["execution_duration_ms"] = [7] * len(numbers)
        columns["served_entity_id"] = ["entity-1"] * len(numbers)
        columns["logging_error_codes"] = pa.array([[] for _ in numbers], pa.list_(pa.string()))
        columns["requester"] = ["someone@example.org"] * len(numbers)
    else:
        columns["date"] = pa.array([19_675] * len(numbers), pa.date32())
        columns["timestamp_ms"] = [(BEGAN_S + i) * 1000 for i in numbers]
        columns["execution_time_ms"] = [7] * len(numbers)
        metadata = [("endpoint_name", "credit"), ("model_name", "employment"), ("model_version", "4")]
        columns["request_metadata"] = pa.array([metadata] * len(numbers), pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table(columns), path, row_group_size=50)
    return path


def logged(people: Frame, i: int, side: str) -> dict[str, Any]:
    """What KServe's logger knows of one side, in the camel case of its tabular forms."""
    person = one(people, i)
    answer = Tensor("probability", "FP64", np.array([[probability(person)]]))
    body = v2.encode_request(to_tensors(person)) if side == "request" else v2.encode_response("m", [answer])
    return {
        "url": "s3://bucket/logs",
        "bytes": base64.b64encode(body).decode(),
        "contentType": "application/json",
        "reqType": f"org.kubeflow.serving.inference.{side}",
        "id": f"id-{i}",
        "sourceUri": "http://localhost:9081/",
        "inferenceService": "employment",
        "namespace": "prod",
        "component": "predictor",
        "endpoint": "",
        "metadata": {"x-request-id": [f"r{i}"]},
        "annotations": None,
        "certName": "",
        "tlsSkipVerify": False,
    }


def as_go(event: dict[str, Any]) -> dict[str, Any]:
    """The event as Go's encoding/json writes the logger's struct."""
    return {
        **{name[0].upper() + name[1:]: value for name, value in event.items()},
        "Url": {"Scheme": "s3", "Host": "bucket", "Path": "/logs", "User": None},
        "SourceUri": {"Scheme": "http", "Host": "localhost:9081", "Path": "/", "User": None},
    }


def blob(path: Path, events: Sequence[dict[str, Any]]) -> Path:
    """An object of KServe's logger, in the form that the name's ending says."""
    flat = [{**e, "metadata": json.dumps(e["metadata"]), "annotations": ""} for e in events]
    if path.suffix == ".json":
        whole = [as_go(event) for event in events]
        path.write_text(json.dumps(whole[0] if len(whole) == 1 else whole))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(flat[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({**e, "tlsSkipVerify": "false"} for e in flat)
    else:
        pq.write_table(pa.Table.from_pylist(flat), path)
    return path


async def published(url: str, namespace: str, stream: Stream = "inferences") -> list[Any]:
    """What is in a topic; nothing while it is not there."""
    async with open_bus(url) as bus:
        try:
            return [from_message(message) for message in await settled(bus, topic(namespace, stream))]
        except UnknownTopic:
            return []
