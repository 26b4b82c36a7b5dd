"""Bodies as tritonclient writes and reads them; `written.py` says how to run this."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request as triton_grpc_request
from tritonclient.http._utils import _get_inference_request as triton_http_request
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor
from written import NUMBERS, Manifest, frame, tensor

MANIFEST = Manifest("triton.json")

ARRAYS: dict[str, np.ndarray] = {
    **NUMBERS,
    "fp16": np.array([[0.1, -65504.0], [np.nan, np.inf]], np.float16),
    "bf16": np.array([[0.1, -3.0e38], [np.nan, 1.5]], ml_dtypes.bfloat16),
    "bytes": np.array([["café", ""], [b"\xff\x00", "x" * 300]], dtype=object),
    "empty": np.zeros((2, 0), np.float32),
}


def of_array(array: np.ndarray) -> dict[str, Any]:
    datatype = np_to_triton_dtype(array.dtype)
    return tensor(datatype, array.shape, array.astype(float if datatype == "BF16" else array.dtype).ravel().tolist())


def triton_inputs(kind: Any) -> list[Any]:
    inputs = []
    for name, array in ARRAYS.items():
        one = kind.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        one.set_data_from_numpy(array)
        inputs.append(one)
    return inputs


def http_request() -> None:
    body, json_size = triton_http_request(triton_inputs(triton_http), "id-1", None, 0, False, False, 0, None, None)
    tensors = {name: of_array(array) for name, array in ARRAYS.items()}
    sent = {"protocol": "v2", "side": "request", "headers": {"inference-header-content-length": str(json_size)}}
    MANIFEST.write("triton-http.request", body, tensors, **sent)
    codings: dict[str, Callable[[bytes], bytes]] = {
        "gzip": lambda data: gzip.compress(data, mtime=0),
        "deflate": zlib.compress,
    }
    for coding, pack in codings.items():  # as tritonclient.http.InferenceServerClient.infer packs a request
        MANIFEST.write(f"triton-http-{coding}.request", pack(body), tensors, **sent, content_encoding=coding)


def http_response() -> None:
    """A server's answer, read by tritonclient."""
    outputs, tail = [], b""
    for name, array in ARRAYS.items():
        raw = serialize_byte_tensor(array).item() if array.dtype == object else array.tobytes()
        datatype = np_to_triton_dtype(array.dtype)
        head = {"name": name, "datatype": datatype, "shape": array.shape, "parameters": {"binary_data_size": len(raw)}}
        outputs.append(head)
        tail += raw
    head = json.dumps({"model_name": "m", "model_version": "1", "id": "id-1", "outputs": outputs}).encode()
    result = triton_http.InferResult.from_response_body(head + tail, header_length=len(head))
    tensors = {name: of_array(result.as_numpy(name)) for name in ARRAYS}
    headers = {"inference-header-content-length": str(len(head))}
    MANIFEST.write("triton-http.response", head + tail, tensors, protocol="v2", side="response", headers=headers)


def grpc_messages() -> None:
    request = triton_grpc_request(
        "m", triton_inputs(triton_grpc), "", "id-1", None, 0, False, False, 0, None, {"a": 1, "b": "x", "c": True}
    ).SerializeToString(deterministic=True)
    tensors = {name: of_array(array) for name, array in ARRAYS.items()}
    sent: dict[str, Any] = {"protocol": "v2-grpc", "side": "request"}
    MANIFEST.write("triton-grpc.request", frame(request), tensors, **sent, content_type="application/grpc")
    packed = frame(request, packed=gzip.compress(request, mtime=0))
    MANIFEST.write("triton-grpc-gzip.request", packed, tensors, **sent, content_type="application/grpc+proto")
    MANIFEST.write("triton-bare.request", request, tensors, **sent, content_type="application/protobuf")
    preamble = b"\x00\x00\x00\x00\x07\x00"
    MANIFEST.write("triton-registry.request", preamble + request, tensors, **sent, content_type="application/protobuf")


def grpc_stream() -> None:
    """ModelStreamInfer: two answers and the empty last one of a decoupled model."""
    body = b""
    for rows in ([1.0, 2.0], [3.0]):
        answer = service_pb2.ModelInferResponse(model_name="m", id="id-1")
        answer.outputs.add(name="y", datatype="FP32", shape=[len(rows)])
        answer.raw_output_contents.append(np.array(rows, np.float32).tobytes())
        body += frame(service_pb2.ModelStreamInferResponse(infer_response=answer).SerializeToString())
    last = service_pb2.ModelInferResponse(model_name="m", id="id-1")
    last.parameters["triton_final_response"].bool_param = True
    body += frame(service_pb2.ModelStreamInferResponse(infer_response=last).SerializeToString())
    MANIFEST.write(
        "triton-grpc-stream.response",
        body,
        {"y": tensor("FP32", [3], [1.0, 2.0, 3.0])},
        protocol="v2-grpc",
        side="response",
        content_type="application/grpc",
        path="/inference.GRPCInferenceService/ModelStreamInfer",
    )


if __name__ == "__main__":
    http_request()
    http_response()
    grpc_messages()
    grpc_stream()
    MANIFEST.close()
