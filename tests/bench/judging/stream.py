"""Fitted pipelines, and the captured requests that they judge."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from govern.bus import Outgoing
from govern.codecs import cloudevents, v2
from govern.codecs.frames import to_tensors
from govern.codecs.tensor import Tensor
from govern.frame import Frame
from govern.plugins import DETECTORS, load
from govern.record import Capture, Inference, Payload
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

REFERENCE_ROWS: Final = 10_000
CATEGORIES: Final = 8
#: How many different requests there are; more would only take longer to make.
DIFFERENT: Final = 500
LANES: Final = 8

PIPELINE: Final = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {{name: watch-{model}, namespace: {namespace}}}
spec:
  source: {{service: bench, model: {model}}}
  schema: schema.yaml
  steps:
    - name: drift
      detector: {{type: tabular, artifact: drift}}
      inputs: [watch-{model}.inputs]
      batch: {{size: {window}, windowMs: 3600000}}
    - name: outlier
      detector: {{type: isolation_forest, artifact: outlier}}
      inputs: [watch-{model}.inputs]
      batch: {{size: {window}, windowMs: 3600000}}
"""

Exchange = tuple[Payload, Payload]


def frame(rows: int, features: int, seed: int) -> Frame:
    """Half of the features numeric, the others categorical."""
    rng = np.random.default_rng(seed)
    names = tuple(str(code) for code in range(CATEGORIES))
    numeric = features // 2
    described = tuple(
        Feature(name=f"f{i}", kind="numeric")
        if i < numeric
        else Feature(name=f"f{i}", kind="categorical", datatype="BYTES", categories=names)
        for i in range(features)
    )
    columns = tuple(
        rng.normal(size=rows) if i < numeric else rng.integers(0, CATEGORIES, rows, dtype=np.int32)
        for i in range(features)
    )
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="bench", features=described)
    return Frame(schema=schema, columns=columns)


def fit(folder: Path, features: int) -> None:
    """Schema and artifacts, which all pipelines of the folder share."""
    reference = frame(REFERENCE_ROWS, features, 1)
    folder.mkdir()
    (folder / "schema.yaml").write_text(reference.schema.to_yaml())
    load(DETECTORS, "tabular")().fit(reference).save(folder / "drift")
    load(DETECTORS, "isolation_forest")().fit(reference).save(folder / "outlier")


def pipelines(folder: Path, namespace: str, *, models: int, window: int) -> list[Path]:
    files = []
    for number in range(models):
        file = folder / f"{namespace}-{number}.yaml"
        file.write_text(PIPELINE.format(model=f"m{number}", namespace=namespace, window=window))
        files.append(file)
    return files


def exchanges(features: int, rows: int) -> list[Exchange]:
    """Requests of so many rows with a tensor for each feature, in V2 JSON, and their answers."""
    people = frame(DIFFERENT * rows, features, 2)
    made = []
    for start in range(0, len(people), rows):
        part = people.take(slice(start, start + rows))
        answer = Tensor("p", "FP64", np.linspace(0.0, 1.0, rows).reshape(rows, 1))
        made.append((payload(v2.encode_request(to_tensors(part))), payload(v2.encode_response("bench", [answer]))))
    return made


def payload(body: bytes) -> Payload:
    digest = hashlib.sha256(body).hexdigest()
    return Payload(content_type="application/json", body=body, size=len(body), sha256=digest)


def messages(namespace: str, made: list[Exchange], *, count: int, models: int, first: int = 0) -> Iterator[Outgoing]:
    """So many inferences, of the models in turn, each a moment old."""
    for i in range(first, first + count):
        request, response = made[i % len(made)]
        now = time.time_ns()
        inference = Inference(
            schema_version=1,
            id=f"0192f3a0-0000-7000-8000-{i:012x}",
            request_id=f"request-{i:08d}",
            traceparent=f"00-{i + 1:032x}-{i + 1:016x}-01",
            namespace=namespace,
            service="bench",
            model=f"m{i % models}",
            revision="1",
            endpoint="default",
            protocol="v2",
            t_request=now - 5_000_000,
            t_response=now,
            status_code=200,
            request=request,
            response=response,
            path="/v2/models/bench/infer",
            capture=Capture(agent="bench", pod="bench-0", seq=i),
        )
        yield cloudevents.to_message(inference, source="/bench", lane=i % LANES)
