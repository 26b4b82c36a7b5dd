"""A fitted pipeline on real rows (US Census ACS), and inferences as a capture agent would publish them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from govern import table
from govern.bus import Bus, Message, Outgoing, open_bus
from govern.bus.topics import specs
from govern.codecs import cloudevents, v2
from govern.codecs.frames import to_tensors
from govern.codecs.tensor import Tensor
from govern.frame import Frame
from govern.plugins import DETECTORS, load
from govern.record import Capture, Inference, Payload
from govern.runtime.loader import LoadedPipeline
from govern.runtime.loader import load as load_pipelines

SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
NOT_FEATURES = ("id", "employed", "year", "prediction", "predicted_probability")
#: Of each topic that a test makes.
PARTITIONS = 2
#: The year 2096: a worker's clock never finds these windows over, so that only the stream itself closes them.
START_NS = 4_000_000_000_000_000_000

PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: watch, namespace: NAMESPACE}
spec:
  source: {service: employment, model: employment}
  schema: schema.yaml
  steps:
    - name: employment
      model: {captured: true}
    - name: drift
      detector: {type: tabular, artifact: artifacts/drift}
      inputs: [watch.inputs]
      batch: {size: 300, windowMs: 3600000}
    - name: outlier
      detector: {type: isolation_forest, params: {n_estimators: 20}, artifact: artifacts/outlier}
      inputs: [watch.inputs]
      batch: {size: 20, windowMs: 3600000}
    - name: adversarial
      detector: {type: model_distillation, params: {output: probability, epochs: 5}, artifact: artifacts/adversarial}
      inputs: [watch.inputs, employment.outputs.probability]
      batch: {size: 50, windowMs: 3600000}
    - name: explain
      explainer: {name: why, maxPerWindow: 2}
      inputs: [watch.inputs]
      triggers: [outlier.outputs.outliers]
"""


#: Another step for it, of a window that slides; its detector takes a fraction of a millisecond.
SLIDES = """\
    - name: slides
      detector: {type: ks, artifact: artifacts/slides}
      batch: {size: 60, windowMs: 3600000, rolling: true}
"""


@dataclass(frozen=True)
class Fitted:
    """A folder with schema and artifacts, and the rows to send: `replay` is later than what was fitted on."""

    folder: Path
    replay: Frame

    def write(self, folder: Path, namespace: str, *, further: str = "") -> Path:
        """A pipeline file for this namespace, with further steps, beside links to the artifacts."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "schema.yaml").write_bytes((self.folder / "schema.yaml").read_bytes())
        (folder / "artifacts").symlink_to(self.folder / "artifacts")
        file = folder / "pipeline.yaml"
        file.write_text(PIPELINE.replace("NAMESPACE", namespace) + further)
        return file


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    folder = tmp_path_factory.mktemp("fitted")
    whole = table.read(SAMPLE)
    schema = table.infer_schema(whole, "employment", exclude=NOT_FEATURES)
    (folder / "schema.yaml").write_text(schema.to_yaml())
    frame = table.frame_of(whole, schema, {"probability": "predicted_probability"})
    reference, replay = frame.take(slice(0, 4000)), frame.take(slice(4000, 8000))
    for name, method, params in (
        ("drift", "tabular", {}),
        ("slides", "ks", {}),
        ("outlier", "isolation_forest", {"n_estimators": 20}),
        ("adversarial", "model_distillation", {"output": "probability", "epochs": 5}),
    ):
        load(DETECTORS, method)(**params).fit(reference).save(folder / "artifacts" / name)
    return Fitted(folder, replay)


@pytest.fixture
def pipeline(fitted: Fitted, tmp_path: Path) -> LoadedPipeline:
    (loaded,) = load_pipelines(fitted.write(tmp_path / "pipeline", "default"))
    return loaded


@pytest.fixture
async def bus(bus_url: str, unique: str) -> AsyncIterator[Bus]:
    async with open_bus(bus_url) as connection:
        await connection.ensure_topics(specs(unique, partitions=PARTITIONS))
        yield connection


@pytest.fixture
def pipeline_file(fitted: Fitted, tmp_path: Path, unique: str) -> Path:
    return fitted.write(tmp_path / "pipeline", unique)


Make = Callable[..., Inference]


@pytest.fixture(scope="session")
def make_inference(fitted: Fitted) -> Make:
    """`make(i, rows=1, **changes)`: the i-th call, with `rows` people from the replay, one second after the last."""

    def make(i: int, rows: int = 1, **changes: object) -> Inference:
        people = fitted.replay.take([(i * 7 + row) % len(fitted.replay) for row in range(rows)])
        request = v2.encode_request(to_tensors(people))
        probability = Tensor("probability", "FP64", np.ascontiguousarray(people.outputs["probability"]))
        response = v2.encode_response("employment", [probability])
        fields: dict[str, object] = {
            "schema_version": 1,
            "id": f"inference-{i}",
            "request_id": f"request-{i}",
            "traceparent": f"00-{i + 1:032x}-{i + 1:016x}-01",
            "namespace": "default",
            "service": "employment",
            "model": "employment",
            "endpoint": "default",
            "protocol": "v2",
            "t_request": START_NS + i * 10**9,
            "t_response": START_NS + i * 10**9 + 5_000_000,
            "status_code": 200,
            "request": payload(request),
            "response": payload(response),
            "capture": Capture(agent="agent", seq=i),
        }
        return Inference(**{**fields, **changes})

    return make


def payload(body: bytes) -> Payload:
    return Payload(content_type="application/json", body=body, size=len(body), sha256=hashlib.sha256(body).hexdigest())


def message_of(
    inference: Inference, offset: int, partition: int = 0, topic: str = "govern.default.inferences"
) -> Message:
    return as_message(cloudevents.to_message(inference, source="/test"), offset, partition, topic)


def as_message(out: Outgoing, offset: int, partition: int = 0, topic: str = "govern.default.inferences") -> Message:
    return Message(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=START_NS // 10**6 + offset,
        key=out.key,
        value=out.value,
        headers=out.headers,
    )
