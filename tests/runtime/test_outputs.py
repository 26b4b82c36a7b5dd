"""What pipelines give reads like any model's inference, names whose it is, and goes round in no ring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from govern import record as records
from govern.bus.protocol import MAX_MESSAGE_BYTES
from govern.bus.topics import key
from govern.codecs import cloudevents
from govern.codecs.inference import body_of, outputs_of
from govern.codecs.protocols import CODECS
from govern.codecs.tensor import Tensor, objects
from govern.errors import DecodeError
from govern.record import Capture, Inference, Redaction
from govern.runtime.outputs import lane_of, lineage, model_of, output_record
from govern.schema import Feature, FeatureSchema

SCHEMA = FeatureSchema(format_version=1, model="m", features=(Feature(name="x", kind="numeric"),))
SOURCE = Inference(
    schema_version=1,
    id="i",
    request_id="r",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    namespace="n",
    service="s",
    model="m",
    revision="7",
    endpoint="canary",
    protocol="v1",
    t_request=1_700_000_000_000_000_000,
    t_response=1_700_000_000_005_000_000,
    status_code=201,
    redactions=(Redaction(path="$.name", action="drop"),),
    principal_hash="whose",
    capture=Capture(agent="a", pod="p", seq=5, dropped_before=3, source="proxy"),
)
INPUTS = [Tensor("x", "FP32", np.array([[1.5], [np.nan]], np.float32))]
OUTPUTS = [
    Tensor("score", "FP64", np.array([0.1, 1 / 3])),
    Tensor("name", "BYTES", objects(["é", None])),
    Tensor("half", "FP16", np.array([0.5, 2.0], np.float16)),
]
INFINITE = [Tensor("score", "FP64", np.array([np.inf, np.nan]))]
RAW = [Tensor("name", "BYTES", objects([b"\xff\xfe", "text"]))]


@pytest.mark.parametrize(("outputs", "protocol"), [(OUTPUTS, "v2"), (INFINITE, "v2-grpc"), (RAW, "v2-grpc")])
def test_what_was_given_and_returned_is_read_back_as_it_was(outputs: list[Tensor], protocol: str) -> None:
    made = records.decode(Inference, records.encode(output_record(SOURCE, INPUTS, outputs, pipeline="p")))
    assert made.protocol == protocol
    codec = CODECS[protocol]
    same(codec.request(body_of(made, made.request, side="request"), SCHEMA), INPUTS)
    same(codec.response(body_of(made, made.response, side="response")), outputs)


def same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    assert [(one.name, one.datatype, one.data.shape) for one in found] == [
        (one.name, one.datatype, one.data.shape) for one in wanted
    ]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_it_is_the_pipelines_and_of_the_same_request() -> None:
    made = output_record(SOURCE, INPUTS, OUTPUTS, pipeline="p")
    kept = ("request_id", "traceparent", "namespace", "service", "revision", "endpoint", "t_request", "t_response")
    for name in (*kept, "redactions", "principal_hash", "synthetic", "sampling"):
        assert getattr(made, name) == getattr(SOURCE, name), name
    assert (made.model, made.status_code) == ("p", 200)
    assert outputs_of(made, 2)["score"].tolist() == [[0.1], [1 / 3]]
    # Capture's losses go on: who reads this stream knows what is missing in it.
    assert made.capture == Capture(agent="p/a", pod="p", seq=5, dropped_before=3, source="pipeline:p")


def test_the_same_work_has_the_same_id_and_other_work_another() -> None:
    def made(source: Inference = SOURCE, pipeline: str = "p", step: str = "") -> str:
        return output_record(source, INPUTS, OUTPUTS, pipeline=pipeline, step=step).id

    assert made() == made()
    others = [made(), made(replace(SOURCE, id="j")), made(pipeline="q"), made(step="s"), made(pipeline="p.s")]
    assert len(set(others)) == len(others)


def test_a_steps_outputs_have_a_name_of_their_own() -> None:
    made = output_record(SOURCE, INPUTS, OUTPUTS, pipeline="p", step="encode")
    assert made.model == model_of("p", "encode") == "p.encode"
    assert lineage(made) == ("p",)


def test_a_record_names_the_pipelines_that_it_went_through() -> None:
    first = output_record(SOURCE, INPUTS, OUTPUTS, pipeline="p", step="encode")
    second = output_record(first, INPUTS, OUTPUTS, pipeline="q")
    assert lineage(SOURCE) == ()
    assert lineage(second) == ("q", "p")


def test_it_stays_on_its_lane() -> None:
    message = cloudevents.to_message(SOURCE, source="/test", lane=3)
    assert lane_of(message.key) == 3
    assert lane_of(key("n", "s#9", "m#x", 0)) == 0
    assert lane_of(None) == lane_of(b"somebody else's") == 0


@pytest.mark.parametrize(
    ("inputs", "outputs", "truncated"), [(70_000, 1, ("request",)), (70_000, 70_000, ("request", "response"))]
)
def test_what_the_bus_cannot_carry_is_cut_like_a_captured_body(
    inputs: int, outputs: int, truncated: tuple[str, ...]
) -> None:
    def wide(count: int) -> list[Tensor]:
        return [Tensor("x", "FP64", np.full(count, 1 / 3 * 1e-7))]

    made = output_record(SOURCE, wide(inputs), wide(outputs), pipeline="p")
    assert made.truncated == truncated
    assert made.request.size > MAX_MESSAGE_BYTES
    assert len(cloudevents.to_message(made, source="/test").value or b"") < MAX_MESSAGE_BYTES
    with pytest.raises(DecodeError, match="is cut"):
        body_of(made, made.request, side="request")
