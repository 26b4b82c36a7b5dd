"""Topics, keys, headers and bodies as FORMATS of Seldon Core v2 have them."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from govern.bus.protocol import Message
from govern.mirror.config import MirrorConfig
from govern.mirror.join import Pair
from govern.mirror.seldon.config import SeldonConfig
from govern.mirror.seldon.half import Half, half_of, headers_of, key_of
from govern.mirror.seldon.inference import inference_of
from govern.mirror.seldon.topics import ERRORS, Selection, Stream
from govern.record import Inference
from tests.mirror.seldon.conftest import infer_request, infer_response

INPUTS = Stream("model", "income", "request")
OUTPUTS = Stream("model", "income", "response")
PARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def message(
    value: bytes | None, *, key: bytes = b"0.credit.r1", offset: int = 7, t_ms: int = 1000, **headers: str
) -> Message:
    return Message(
        topic="seldon.default.model.income.inputs",
        partition=1,
        offset=offset,
        timestamp_ms=t_ms,
        key=key,
        value=value,
        headers=tuple((name.replace("_", "-"), text.encode()) for name, text in headers.items()),
    )


def half(sent: Message, stream: Stream = INPUTS, **values: object) -> Half:
    config = MirrorConfig.model_validate({"pod": "pod-1", "body_bytes": 1000, **values})
    headers = headers_of(sent)
    key, named = key_of(sent, stream, headers)
    kept = tuple(name.encode() for name in SeldonConfig().headers)
    return half_of(sent, stream, key, headers, config, named=named, kept_headers=kept)


def record(request: Half | None, response: Half | None) -> Inference:
    return inference_of(Pair(request, response), agent="agent", seq=4, dropped=2)


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("seldon.default.model.income.inputs", INPUTS),
        ("seldon.default.model.a.b.outputs", Stream("model", "a.b", "response")),
        ("seldon.default.pipeline.credit.inputs", Stream("pipeline", "credit", "request")),
        ("seldon.default.errors.errors", ERRORS),
        ("seldon.default.model.income.other", None),
        ("seldon.default.model..inputs", None),
        ("seldon.prod.model.income.inputs", None),
        ("other.default.model.income.inputs", None),
        ("seldon.default.pipeline.other.inputs", None),
        ("govern.default.inferences", None),
    ],
)
def test_topics_are_known_by_their_names(name: str, stream: Stream | None) -> None:
    selection = Selection(SeldonConfig(pipelines=("cred*",)), "default")
    assert selection.stream(name) == stream


def test_a_prefix_may_hold_dots_and_models_are_chosen_by_pattern() -> None:
    selection = Selection(SeldonConfig(prefix="acme.ml", models=("in?ome", "b"), within=("credit",)), "default")
    assert selection.stream("acme.ml.default.model.income.inputs") == INPUTS
    assert selection.stream("acme.ml.default.model.c.inputs") is None
    assert selection.wants("model", "income", "credit")
    assert not selection.wants("model", "income", "other")
    assert not selection.wants("model", "income", "")
    assert not selection.wants("model", "c", "credit")


def test_request_ids_come_from_the_header_first_and_from_the_key_else() -> None:
    assert half(message(b"", x_request_id="r9")).key.request_id == "r9"
    assert half(message(b"")).key.request_id == "r1"
    nameless = half(message(b"", key=b""))
    assert nameless.key.request_id == "seldon.default.model.income.inputs/1/7"
    assert record(nameless, None).request_id == record(nameless, None).id


def test_a_whole_inference() -> None:
    request, response = infer_request(40.0), infer_response(0.5, version="3")
    common = {"x_request_id": "r1", "pipeline": "credit", "x_pipeline_version": "12", "x_seldon_route": ":income:"}
    found = record(
        half(message(request, t_ms=1000, traceparent=PARENT, secret="s3", **common), namespace="acme"),
        half(message(response, t_ms=1250, offset=9, **common), OUTPUTS, namespace="acme"),
    )
    assert (found.namespace, found.service, found.model, found.revision) == ("acme", "credit", "income", "3")
    assert (found.protocol, found.status_code, found.error, found.missing) == ("v2-grpc", 200, "", ())
    assert (found.t_request, found.t_response) == (1_000_000_000, 1_250_000_000)
    assert found.request.body == request
    assert found.request.content_type == "application/protobuf"
    assert found.response.body == response
    assert found.request.headers == {"pipeline": "credit", "x-pipeline-version": "12", "x-seldon-route": ":income:"}
    assert found.traceparent == PARENT
    assert (found.capture.source, found.capture.seq, found.capture.dropped_before) == ("seldon-v2", 4, 2)
    assert found.sampling.strategy == "all"


def test_a_pipeline_is_a_service_whose_model_is_named_as_callers_name_it() -> None:
    stream = Stream("pipeline", "credit", "request")
    found = record(half(message(infer_request(1.0), x_pipeline_version="12"), stream), None)
    assert (found.service, found.model, found.revision) == ("credit", "credit.pipeline", "12")
    assert found.missing == ("response",)
    assert found.status_code == 0


def test_the_schema_registry_preamble_is_no_part_of_the_body() -> None:
    body = infer_request(1.0)
    found = half(message(b"\0" + (77).to_bytes(4, "big") + b"\0" + body))
    assert found.payload.body == body
    assert found.payload.size == len(body)
    assert found.payload.sha256 == hashlib.sha256(body).hexdigest()


def test_json_is_told_by_its_header() -> None:
    body = b'{"model_name":"income","model_version":"5","outputs":[]}'
    found = half(message(body, seldon_infer_type="json/inferModelResponse"), OUTPUTS)
    assert found.protocol == "v2"
    assert found.payload.content_type == "application/json"
    assert found.revision == "5"


def test_a_failed_step_is_an_error_of_the_model_that_it_names() -> None:
    failed = half(message(b"rpc error: no such model", seldon_pipeline_errors="income", pipeline="credit"), ERRORS)
    assert failed.key == ("model", "income", "credit", "r1")
    request = half(message(infer_request(1.0), pipeline="credit"))
    found = record(request, failed)
    assert found.status_code == 500
    assert found.error == "income failed: rpc error: no such model"
    assert found.response.body == b"rpc error: no such model"
    assert found.protocol == "v2-grpc"


def test_a_large_body_is_cut_with_its_size_and_digest_kept() -> None:
    body = infer_request(1.0)
    found = record(half(message(body), body_bytes=10), half(message(body), OUTPUTS, body_bytes=1000))
    assert found.request.body == body[:10]
    assert found.request.size == len(body)
    assert found.request.sha256 == hashlib.sha256(body).hexdigest()
    assert found.truncated == ("request",)


def test_the_same_messages_make_the_same_record() -> None:
    made = [record(half(message(infer_request(1.0))), None) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].id[14] == "7"
    assert int(made[0].id.replace("-", "")[:12], 16) == 1000
    other = record(half(message(infer_request(1.0), offset=8)), None)
    assert other.id != made[0].id
    assert other.traceparent != made[0].traceparent


def test_bodies_that_are_none_and_messages_without_a_value_are_recorded() -> None:
    found = record(half(message(None)), half(message(b"\xff\xff", traceparent="00-zz"), OUTPUTS))
    assert found.request.size == 0
    assert found.response.body == b"\xff\xff"
    assert found.revision == ""
    assert found.traceparent.startswith("00-")
    assert "zz" not in found.traceparent


def test_a_source_that_is_no_kafka_is_refused() -> None:
    with pytest.raises(ValidationError, match="kafka://host:port"):
        SeldonConfig(bus="embedded:///x.db")
