"""Bodies that tritonclient and MLServer made (`golden/written.py`) decode to what their makers say is in them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from govern.codecs.packing import unpack
from govern.codecs.protocols import CODECS, Body
from govern.codecs.sniff import protocol_of
from govern.codecs.tensor import DTYPES, Tensor
from govern.schema import FeatureSchema

GOLDEN = Path(__file__).parent / "golden"
BODIES: dict[str, dict[str, Any]] = {
    name: sent
    for manifest in ("triton.json", "mlserver.json")
    for name, sent in json.loads((GOLDEN / manifest).read_text(encoding="utf-8")).items()
}


def body_of(name: str) -> Body:
    sent = BODIES[name]
    data = unpack((GOLDEN / name).read_bytes(), sent.get("content_encoding", ""), what=name)
    return Body(data, sent.get("content_type", ""), sent.get("headers", {}), sent.get("path", ""))


def tensors_of(name: str, schema: FeatureSchema) -> list[Tensor]:
    codec, body = CODECS[BODIES[name]["protocol"]], body_of(name)
    return list(codec.request(body, schema) if BODIES[name]["side"] == "request" else codec.response(body))


def expected(wire: dict[str, Any]) -> tuple[str, list[object]]:
    datatype, elements = wire["datatype"], wire["elements"]
    if datatype == "TIME":
        times = [datetime.fromisoformat(one) for one in elements]
        return "FP64", [(one if one.tzinfo else one.replace(tzinfo=UTC)).timestamp() for one in times]
    if datatype.startswith(("FP", "BF")):
        return datatype, [float(one) for one in elements]
    return datatype, [bytes.fromhex(one["hex"]) if isinstance(one, dict) else one for one in elements]


@pytest.mark.parametrize("name", sorted(BODIES))
def test_a_golden_body_has_the_tensors_that_its_maker_says(name: str, flat: FeatureSchema) -> None:
    found = {tensor.name: tensor for tensor in tensors_of(name, flat)}
    assert list(found) == list(BODIES[name]["tensors"])
    for tensor_name, wire in BODIES[name]["tensors"].items():
        tensor = found[tensor_name]
        datatype, elements = expected(wire)
        assert (tensor.datatype, list(tensor.data.shape)) == (datatype, wire["shape"])
        assert datatype == "MIXED" or tensor.data.dtype == DTYPES[datatype]
        np.testing.assert_array_equal(tensor.data.ravel(), np.array(elements, dtype=tensor.data.dtype))


def test_every_datatype_is_among_the_golden_bodies() -> None:
    of_triton = {tensor["datatype"] for tensor in BODIES["triton-http.request"]["tensors"].values()}
    assert of_triton == set(DTYPES)


@pytest.mark.parametrize("name", sorted(name for name in BODIES if BODIES[name]["side"] == "request"))
def test_the_protocol_of_a_golden_request_is_recognised(name: str) -> None:
    assert protocol_of(body_of(name)) == BODIES[name]["protocol"]


def test_the_end_of_the_json_is_found_without_its_header(flat: FeatureSchema) -> None:
    body = body_of("triton-http.request")
    bare = Body(body.data)
    assert protocol_of(bare) == "v2"
    with_header, without = (CODECS["v2"].request(one, flat) for one in (body, bare))
    for left, right in zip(with_header, without, strict=True):
        np.testing.assert_array_equal(left.data, right.data)
