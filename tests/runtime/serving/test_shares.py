"""What each feature brings to the score of a flagged row, over REST and gRPC."""

from __future__ import annotations

from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from detectors.outlier.mahalanobis import MahalanobisOutlier
from govern.codecs import open_inference_pb2 as pb
from govern.codecs import v2, v2_binary, v2_grpc
from govern.codecs.frames import to_tensors
from govern.runtime.loader import load
from govern.runtime.serving.application import create_app
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.grpc_server import serving
from govern.runtime.serving.repository import Repository, detector_sources
from tests.runtime.conftest import Fitted

STEP = """\
    - name: tells
      detector: {type: mahalanobis, params: {contamination: 0.1}, artifact: ARTIFACT}
      inputs: [watch.inputs]
      batch: {size: 20, windowMs: 3600000}
"""


@pytest.fixture
def telling(fitted: Fitted, tmp_path: Path) -> tuple[Repository, MahalanobisOutlier]:
    """A pipeline with a detector that tells shares beside those that do not."""
    detector = MahalanobisOutlier(contamination=0.1).fit(fitted.replay.take(slice(0, 4000, 2)))
    detector.save(tmp_path / "tells")
    step = STEP.replace("ARTIFACT", str(tmp_path / "tells"))
    file = fitted.write(tmp_path / "pipeline", "default", further=step)
    return Repository(detector_sources(file, load(file))), detector


async def test_shares_are_served_where_the_detector_tells_them(
    telling: tuple[Repository, MahalanobisOutlier], fitted: Fitted
) -> None:
    repository, detector = telling
    people = fitted.replay.take(range(1, 4000, 40))
    expected = detector.score(people)
    assert expected.shares is not None
    assert 0 < expected.flagged.sum() < len(people)
    width = len(detector.schema.features)

    transport = httpx.ASGITransport(create_app(repository, Calls()))
    async with httpx.AsyncClient(transport=transport, base_url="http://serve") as client:
        for name, described in (("tells", True), ("outlier", True), ("adversarial", False)):
            outputs = (await client.get(f"/v2/models/watch-{name}")).json()["outputs"]
            shapes = {one["name"]: (one["datatype"], one["shape"]) for one in outputs}
            assert shapes.get("instance_shares") == (("FP64", [-1, width]) if described else None)
        body, size = v2.encode_binary_request(to_tensors(people))
        answer = await client.post("/v2/models/watch-tells/infer", content=body, headers={v2_binary.HEADER: str(size)})
    over_rest = v2.decode_response(answer.content, json_size=v2_binary.json_size(answer.headers))

    async with (
        serving(repository, Calls(max_bytes=1_000_000), "127.0.0.1", 0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
        )
        said = await infer(v2_grpc.encode_request(to_tensors(people), model="watch-tells"), timeout=60)
    over_grpc = v2_grpc.decode_responses(said.SerializeToString(), "application/protobuf")[0]

    for outputs in (over_rest.outputs, over_grpc.outputs):
        tensors = {one.name: one for one in outputs}
        assert list(tensors) == ["is_outlier", "instance_score", "threshold", "instance_shares"]
        shares = tensors["instance_shares"].data
        np.testing.assert_array_equal(shares, expected.shares)
        np.testing.assert_allclose(shares.sum(axis=1), expected.flagged.astype(float), atol=1e-9)
