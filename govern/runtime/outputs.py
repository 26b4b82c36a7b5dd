"""What a pipeline gives for an inference, as an inference of its own: other pipelines, explainers, the audit log and
dashboards read it like any model's. Pure.

It belongs to the service of the inference that it was made of. Its model is the pipeline (`<pipeline>`), or one of its
steps (`<pipeline>.<step>`); its request is what that was given, its response what it returned. Request id, trace,
revision, endpoint, times and whose data it is are those of the inference that it was made of, and so is what capture
had dropped before: what is missing there is missing here. Its id follows from that inference, pipeline and step, so
that the same work done twice gives the same record.

`Capture.source` names the pipelines that it went through (`lineage`); a pipeline never runs on what it has had a hand
in, so that no ring of pipelines goes on for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace

from govern import record as records
from govern.codecs import v2, v2_grpc
from govern.codecs.tensor import Tensor
from govern.ids import derived_uuid7
from govern.record import Capture, Inference, Payload
from govern.runtime.limits import RECORD_BYTES_MAX

LINEAGE: Final = "pipeline:"
_OK: Final = 200


def model_of(pipeline: str, step: str = "") -> str:
    """The model under whose name the outputs of a pipeline, or of one of its steps, are published."""
    return f"{pipeline}.{step}" if step else pipeline


def lineage(inference: Inference) -> tuple[str, ...]:
    """The pipelines that a record went through, the newest first; none for one that was captured."""
    source = inference.capture.source
    return tuple(source.removeprefix(LINEAGE).split(",")) if source.startswith(LINEAGE) else ()


def lane_of(key: bytes | None) -> int:
    """The lane that a message's key names (`govern.bus.topics.key`): what is made of a message goes the same way."""
    lane = (key or b"").rpartition(b"#")[2]
    return int(lane) if lane.isdigit() else 0


def output_record(
    source: Inference, inputs: Sequence[Tensor], outputs: Sequence[Tensor], *, pipeline: str, step: str = ""
) -> Inference:
    """The record of what a pipeline, or one of its steps, gave for an inference.

    Bodies are V2 JSON where it says all that the tensors hold, else V2's protobuf messages. A body for which a message
    of the bus has no room is left out like one that capture cut: first the request, then the response.

    Args:
        inputs: what it was given; at least one tensor, as of `outputs`.

    Raises:
        BadInput: a tensor that V2 cannot carry.
    """
    plain = all(_is_plain(tensor) for tensor in (*inputs, *outputs))
    model, request_id = model_of(pipeline, step), source.request_id
    if plain:
        bodies = (
            v2.encode_request(inputs, request_id=request_id),
            v2.encode_response(model, outputs, request_id=request_id),
        )
    else:
        bodies = (
            v2_grpc.encode_request(inputs, model=model, request_id=request_id),
            v2_grpc.encode_response(model, outputs, request_id=request_id),
        )
    content_type = "application/json" if plain else "application/protobuf"
    request, response = (_payload(body, content_type) for body in bodies)
    made = Inference(
        schema_version=records.SCHEMA_VERSION,
        id=derived_uuid7(source.t_response, "output", source.id, pipeline, step),
        request_id=request_id,
        traceparent=source.traceparent,
        namespace=source.namespace,
        service=source.service,
        model=model,
        revision=source.revision,
        endpoint=source.endpoint,
        protocol="v2" if plain else "v2-grpc",
        t_request=source.t_request,
        t_response=source.t_response,
        status_code=_OK,
        request=request,
        response=response,
        sampling=source.sampling,
        redactions=source.redactions,
        principal_hash=source.principal_hash,
        synthetic=source.synthetic,
        capture=Capture(
            agent=f"{model}/{source.capture.agent}",
            pod=source.capture.pod,
            seq=source.capture.seq,
            dropped_before=source.capture.dropped_before,
            source=LINEAGE + ",".join((pipeline, *lineage(source))),
        ),
    )
    return _fitting(made)


def given_record(made: Inference, inputs: Sequence[Tensor]) -> Inference:
    """An inference that was asked with these tensors and has no answer: what a pipeline is given.

    Raises:
        BadInput: a tensor that V2 cannot carry.
    """
    plain = all(_is_plain(tensor) for tensor in inputs)
    request_id = made.request_id
    if plain:
        request = _payload(v2.encode_request(inputs, request_id=request_id), "application/json")
    else:
        body = v2_grpc.encode_request(inputs, model=made.model, request_id=request_id)
        request = _payload(body, "application/protobuf")
    return _fitting(
        replace(
            made,
            protocol="v2" if plain else "v2-grpc",
            path="",
            status_code=_OK,
            grpc_status="",
            request=request,
            response=Payload(),
            truncated=(),
            missing=("response",),
        )
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether JSON holds the tensor as it is: it has no infinities (NaN is null there) and no bytes."""
    if tensor.data.dtype.kind == "f":
        return not bool(np.isinf(tensor.data).any())
    return tensor.data.dtype.kind != "O" or not any(isinstance(one, bytes) for one in tensor.data.ravel().tolist())


def _payload(body: bytes, content_type: str) -> Payload:
    return Payload(content_type=content_type, body=body, size=len(body), sha256=hashlib.sha256(body).hexdigest())


def _fitting(made: Inference) -> Inference:
    for side in ("request", "response"):
        if len(records.encode(made)) <= RECORD_BYTES_MAX:
            break
        cut = replace(getattr(made, side), body=b"")
        made = replace(made, **{side: cut}, truncated=(*made.truncated, side))
    return made
