"""Capture inside MLServer as it is shipped, by two of its settings."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from govern.codecs.inference import decode
from govern.schema import Feature, FeatureSchema
from tests.docs.test_readme import ROOT, blocks
from tests.mirror.conftest import exchange, records, renew, request, until
from tests.peers.conftest import HOST, PEERS, MLServer, post, result

pytestmark = pytest.mark.peers

INFER = "/v2/models/income/infer"
BODY = json.dumps(
    {"id": "one", "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, -4, -5, -6]}]}
).encode()
#: Once: another time of packing is in its bytes, too.
PACKED = gzip.compress(BODY)
PAGE = ROOT / "docs" / "capture" / "middleware.md"
JSON = {"content-type": "application/json"}


@pytest.fixture(params=[0, 1], ids=["in its process", "in a worker"])
def captured(
    tmp_path_factory: pytest.TempPathFactory, spool_dir: Path, request: pytest.FixtureRequest
) -> Iterator[MLServer]:
    """MLServer with capture inside; the models run in its own process, or in a worker."""
    folder = tmp_path_factory.mktemp("captured")
    (folder / "mirror.yaml").write_text(f"spool_dir: {spool_dir}\nservice: income\n")
    (settings,) = blocks("json", PAGE.read_text(encoding="utf-8"))
    server = MLServer(folder, **json.loads(settings), parallel_workers=request.param)
    server.start()
    yield server
    server.process.stop()


def test_it_answers_as_ever_and_its_inferences_are_captured(
    captured: MLServer, mlserver: MLServer, spool_dir: Path
) -> None:
    for path, body, headers in (
        (INFER, BODY, JSON),
        (INFER, PACKED, {**JSON, "content-encoding": "gzip"}),
        (INFER, b'{"inputs": "no"}', JSON),
        ("/v2/models/nowhere/infer", BODY, JSON),
    ):
        assert post(captured.http, path, body, headers) == post(mlserver.http, path, body, headers)
    exchange(captured.http, [request("/v2/models/income", None, method="GET")])
    found = records([spool_dir])
    assert [each.status_code for each in found] == [200, 200, 422, 404]
    assert [each.request.body for each in found[:2]] == [BODY, PACKED]
    assert found[0].response.body == post(mlserver.http, INFER, BODY, JSON)
    assert {(each.service, each.capture.source) for each in found} == {("income", "middleware")}
    (answer,) = result(PEERS, "triton_http", "income", "json", "asked", f"{HOST}:{captured.http}")
    assert answer["values"] == [[1], [0]]
    assert records([spool_dir])[-1].request_id == "asked"


def test_it_follows_new_rules_and_refuses_wrong_ones(captured: MLServer, spool_dir: Path) -> None:
    file, process = captured.folder / "mirror.yaml", captured.process
    post(captured.http, INFER, BODY, JSON | {"x-request-id": "before"})
    renew(file, f"spool_dir: {spool_dir}\nservice: income\nheaders: [x-request-id]\n")
    until(lambda: "new rules are taken over" in process.log(), "the new rules")
    post(captured.http, INFER, BODY, JSON | {"x-request-id": "after"})
    renew(file, f"spool_dir: {spool_dir}\nservice: income\nheaders: 7\n")
    until(lambda: "the rules in force stay: mirror.yaml:3: headers" in process.log(), "the refusal")
    post(captured.http, INFER, BODY, JSON | {"x-request-id": "still"})
    found = [(record.request_id, dict(record.request.headers)) for record in records([spool_dir])]
    kept = [(name, {"x-request-id": name}) for name in ("after", "still")]
    assert found == [("before", {}), *kept]


def test_its_grpc_calls_are_captured_too(captured: MLServer, mlserver: MLServer, spool_dir: Path) -> None:
    own, direct = f"{HOST}:{captured.grpc}", f"{HOST}:{mlserver.grpc}"
    answers = result(PEERS, "triton_grpc", "income", "asked", own)
    assert answers == result(PEERS, "triton_grpc", "income", "asked", direct)
    streams = result(PEERS, "mlserver_stream", "income", "asked", own)
    assert streams == result(PEERS, "mlserver_stream", "income", "asked", direct)
    found = records([spool_dir])
    refusal = answers["nowhere"][0].removeprefix("StatusCode.")
    ids = ["asked"] * 3 + ["asked-0"] * 3
    assert [each.request_id for each in found] == ids
    assert [each.model for each in found] == ["income", "income", "nowhere"] * 2
    assert [each.grpc_status for each in found] == ["OK", "OK", refusal, "OK", "OK", streams["nowhere"][0]]
    assert {(each.protocol, each.capture.source, each.service) for each in found} == {
        ("v2-grpc", "middleware", "income")
    }
    schema = FeatureSchema(
        format_version=1, model="income", features=tuple(Feature(name=f"x[{i}]", kind="numeric") for i in range(3))
    )
    for each in (found[0], found[1], found[3]):  # unary, unary and compressed, a stream of one
        frame = decode(each, schema)
        assert [column.tolist() for column in frame.columns] == [[1.0, -4.0], [2.0, -5.0], [3.0, -6.0]]
        assert each.response.body
    (values,) = decode(found[0], schema).outputs.values()
    assert values.ravel().tolist() == [1, 0]
    assert all(not each.response.body and not each.error for each in found if each.grpc_status != "OK")
    assert found[0].path == "/inference.GRPCInferenceService/ModelInfer"
