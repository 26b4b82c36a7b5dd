"""Bodies as MLServer writes and reads them; `written.py` says how to run this."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from mlserver.codecs import Base64Codec, DatetimeCodec, NumpyCodec, PandasCodec, StringCodec
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.types import InferenceRequest, InferenceResponse
from written import NUMBERS, Manifest, frame, tensor

MANIFEST = Manifest("mlserver.json")

TIMES = [datetime(2026, 8, 21, 10, 0, 0, 250000, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59)]


def mlserver_typed() -> None:
    """MLServer's gRPC without raw contents: elements in the typed fields."""
    request = InferenceRequest(inputs=[NumpyCodec.encode_input(name, array) for name, array in NUMBERS.items()])
    request.inputs.append(StringCodec.encode_input("texts", ["café", ""]))
    tensors = {name: of_array(array) for name, array in NUMBERS.items()}
    tensors["texts"] = tensor("BYTES", [2, 1], ["café", ""])
    # NumpyCodec writes NaN as null, which has no place in a typed field.
    for one in request.inputs:
        one.data = [math.nan if element is None else element for element in one.data]
    message = ModelInferRequestConverter.from_types(request, model_name="m", model_version="1")
    body = frame(message.SerializeToString(deterministic=True))
    MANIFEST.write(
        "mlserver-grpc.request", body, tensors, protocol="v2-grpc", side="request", content_type="application/grpc"
    )


def mlserver_content_types() -> None:
    def inputs(use_bytes: bool) -> list[Any]:
        return [
            StringCodec.encode_input("texts", ["café", ""], use_bytes=use_bytes),
            Base64Codec.encode_input("binary", [b"\xff\x00", b"plain"], use_bytes=use_bytes),
            DatetimeCodec.encode_input("times", TIMES, use_bytes=use_bytes),
            NumpyCodec.encode_input("numbers", NUMBERS["int16"]),
        ]

    request = InferenceRequest(inputs=inputs(use_bytes=False))
    texts, binary, times, numbers = request.inputs
    tensors = {
        "texts": tensor("BYTES", [2, 1], StringCodec.decode_input(texts)),
        "binary": tensor("BYTES", [2, 1], Base64Codec.decode_input(binary)),
        "times": tensor("TIME", [2, 1], DatetimeCodec.decode_input(times)),
        "numbers": tensor("INT16", [2, 2], NumpyCodec.decode_input(numbers).ravel().tolist()),
    }
    body = request.model_dump_json(exclude_none=True).encode()
    MANIFEST.write("mlserver-content-types.request", body, tensors, protocol="v2", side="request")
    message = ModelInferRequestConverter.from_types(
        InferenceRequest(inputs=inputs(use_bytes=True)), model_name="m", use_raw=True
    )
    body = frame(message.SerializeToString(deterministic=True))
    MANIFEST.write(
        "mlserver-raw.request", body, tensors, protocol="v2-grpc", side="request", content_type="application/grpc"
    )


def mlserver_pandas() -> None:
    objects = {"city": ["Köln", "Oslo"], "mixed": ["a", 2]}
    table = pd.DataFrame(
        {"age": [31, 47], "pay": [1.5, None], **{name: pd.Series(one, dtype=object) for name, one in objects.items()}}
    )
    request = PandasCodec.encode_request(table, use_bytes=False)
    back = PandasCodec.decode_request(InferenceRequest.model_validate_json(request.model_dump_json()))
    tensors = {
        "age": tensor("INT64", [2, 1], back["age"].tolist()),
        "pay": tensor("FP64", [2, 1], back["pay"].tolist()),
        "city": tensor("BYTES", [2, 1], [str(city) for city in back["city"]]),
        "mixed": tensor("MIXED", [2, 1], back["mixed"].tolist()),
    }
    MANIFEST.write(
        "mlserver-pandas.request", request.model_dump_json().encode(), tensors, protocol="v2", side="request"
    )
    answer = PandasCodec.encode_response("m", table[["age", "city"]], use_bytes=True)
    message = ModelInferResponseConverter.from_types(InferenceResponse.model_validate(answer), use_raw=True)
    body = frame(message.SerializeToString(deterministic=True))
    kept = {name: tensors[name] for name in ("age", "city")}
    MANIFEST.write(
        "mlserver-pandas.response", body, kept, protocol="v2-grpc", side="response", content_type="application/grpc"
    )


def of_array(array: np.ndarray) -> dict[str, Any]:
    kind = str(array.dtype).upper().replace("FLOAT", "FP")
    return tensor(kind, array.shape, array.ravel().tolist())


if __name__ == "__main__":
    mlserver_typed()
    mlserver_content_types()
    mlserver_pandas()
    MANIFEST.close()
