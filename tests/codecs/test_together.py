"""Decoding many inferences at once gives what decoding each alone gives, to the bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs import inference as alone
from govern.codecs.together import decode_together
from govern.errors import DecodeError
from govern.frame import Frame
from govern.record import Inference, Payload
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

SCHEMA = FeatureSchema(
    format_version=FORMAT_VERSION,
    model="m",
    features=(
        Feature(name="age", kind="numeric"),
        Feature(name="children", kind="numeric", datatype="INT64"),
        Feature(name="job", kind="categorical", datatype="BYTES", categories=("clerk", "nurse", "1")),
        Feature(name="note", kind="text", datatype="BYTES"),
    ),
)

Json = dict[str, object]


def tensor(name: str, datatype: str, data: list[object], **others: object) -> Json:
    return {"name": name, "datatype": datatype, "shape": [len(data), 1], "data": data} | others


numbers = st.one_of(st.none(), st.integers(-(2**60), 2**60), st.floats(width=32))
jobs = st.sampled_from(["clerk", "nurse", "pilot", "", None, "1"])


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Json, Json]:
    """A request and its answer: mostly ordinary, sometimes not what the schema or the protocol asks for."""
    rows = draw(st.integers(1, 3))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    inputs = [
        tensor("age", draw(st.sampled_from(["FP32", "FP64"])), column(numbers)),
        tensor("children", "INT64", column(st.integers(0, 9))),
        tensor("job", "BYTES", column(jobs)),
        tensor("note", "BYTES", column(st.sampled_from(["a", "", None]))),
    ]
    odd = draw(st.sampled_from(["", "", "", "", *ODD]))
    if odd == "nested":
        inputs[0]["data"] = [[value] for value in inputs[0]["data"]]  # type: ignore[attr-defined]
    elif odd == "too few":
        inputs[1]["data"] = []
    elif odd == "other type":
        inputs[1]["data"] = ["x"] * rows
    elif odd == "absent":
        del inputs[draw(st.integers(0, 3))]
    elif odd == "twice":
        inputs.append(inputs[0])
    elif odd == "content type":
        inputs[3]["parameters"] = {"content_type": "base64"}
    elif odd == "no tensors":
        inputs = []
    elif odd == "half a child":
        inputs[1] = tensor("children", "FP64", [0.5] * rows)
    outputs = [
        tensor("p", "FP64", column(numbers)),
        {"name": "pair", "datatype": "INT8", "shape": [rows, 2], "data": [1, 2] * rows},
        tensor("label", "BYTES", column(st.sampled_from(["yes", "no"]))),
    ]
    if draw(st.booleans()) and draw(st.booleans()):
        outputs[0] = tensor("p", "FP64", [1.0] * (rows + 1))
    return {"inputs": inputs}, {"model_name": "m", "outputs": outputs}


ODD = ("nested", "too few", "other type", "absent", "twice", "content type", "no tensors", "half a child")


@st.composite
def v1_bodies(draw: st.DrawFn) -> tuple[Json, Json]:
    """The same in V1: rows without names, whose values say by themselves of which type they are."""
    rows = draw(st.integers(1, 3))
    row = st.tuples(numbers, st.one_of(st.integers(0, 9), st.just(2.0)), jobs, st.sampled_from(["a", "", None]))
    instances: list[object] = [list(draw(row)) for _ in range(rows)]
    odd = draw(st.sampled_from(["", "", "", "ragged", "named", "numbers", "deep", "empty"]))
    if odd == "ragged":
        instances.append([1.0])
    elif odd == "named":
        instances[0] = {"age": 1.0}
    elif odd == "numbers":
        instances = [[1, 2, 1, 3]] * rows
    elif odd == "deep":
        instances = [[[1.0], [2], ["clerk"], ["a"]]] * rows
    elif odd == "empty":
        instances = []
    predictions = draw(
        st.sampled_from([[0.5] * rows, [[0.5, 1]] * rows, [1] * rows, [{"p": 1.0}] * rows, ["x"] * rows, []])
    )
    return {"instances": instances}, {"predictions": predictions}


@st.composite
def inferences(draw: st.DrawFn) -> list[Inference]:
    found = []
    for number in range(draw(st.integers(1, 8))):
        in_v1 = draw(st.booleans())
        request, response = draw(v1_bodies() if in_v1 else bodies())
        found.append(
            Inference(
                id=f"i{number}",
                protocol=draw(st.sampled_from([*(["v1" if in_v1 else "v2"] * 3), "unknown", "v1", "v2"])),
                status_code=draw(st.sampled_from([200, 200, 200, 201])),
                request=payload(request),
                response=payload(response) if draw(st.integers(0, 5)) else Payload(body=b"{"),
                truncated=draw(st.sampled_from([(), (), (), ("request",), ("response",)])),
            )
        )
    return found


def payload(body: Json) -> Payload:
    return Payload(content_type="application/json", body=json.dumps(body).encode())


@given(inferences())
def test_together_is_as_alone(stream: list[Inference]) -> None:
    for one, found in zip(stream, decode_together(stream, SCHEMA), strict=True):
        assert same(found, read_alone(one))


def test_one_that_cannot_be_read_spoils_none_of_its_kind() -> None:
    good = {"inputs": [tensor("age", "FP64", [1.5]), *rest()]}
    bad = {"inputs": [tensor("age", "FP64", ["old"]), *rest()]}
    answer = {"model_name": "m", "outputs": [tensor("p", "FP64", [0.5])]}
    stream = [
        Inference(id=str(i), protocol="v2", status_code=200, request=payload(body), response=payload(answer))
        for i, body in enumerate([good, bad, good])
    ]
    first, second, third = decode_together(stream, SCHEMA)
    assert isinstance(first, Frame)
    assert isinstance(third, Frame)
    assert first.instance_ids == ("0/0",)
    assert third.instance_ids == ("2/0",)
    assert isinstance(second, DecodeError)
    assert "old" in second.what


def test_ordinary_requests_are_not_read_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing would be gained, and every other test here would pass all the same."""
    body = {"inputs": [tensor("age", "FP64", [1.5]), *rest()]}
    answer = {"model_name": "m", "outputs": [tensor("p", "FP64", [0.5])]}
    one = Inference(id="i", protocol="v2", status_code=200, request=payload(body), response=payload(answer))
    body = {"instances": [[1.5, 2, "pilot", "a"]]}
    in_v1 = Inference(
        id="i", protocol="v1", status_code=200, request=payload(body), response=payload({"predictions": [0.5]})
    )
    monkeypatch.delattr(alone, "decode")
    monkeypatch.delattr(alone, "outputs_of")
    frames = decode_together([in_v1] * 3, SCHEMA)
    assert all(isinstance(frame, Frame) and frame.outputs["predictions"].tolist() == [[0.5]] for frame in frames)
    frames = decode_together([one] * 3, SCHEMA)
    assert all(isinstance(frame, Frame) and frame.outputs["p"].tolist() == [[0.5]] for frame in frames)


def rest() -> list[Json]:
    return [tensor("children", "INT64", [2]), tensor("job", "BYTES", ["pilot"]), tensor("note", "BYTES", ["a"])]


def read_alone(inference: Inference) -> Frame | DecodeError:
    try:
        return alone.decode(inference, SCHEMA)
    except DecodeError as error:
        return error


def same(found: Frame | DecodeError, expected: Frame | DecodeError) -> bool:
    if isinstance(found, DecodeError) or isinstance(expected, DecodeError):
        return isinstance(found, DecodeError) and isinstance(expected, DecodeError) and str(found) == str(expected)
    return (
        (found.schema, found.instance_ids, found.unseen) == (expected.schema, expected.instance_ids, expected.unseen)
        and found.outputs.keys() == expected.outputs.keys()
        and all(alike(found.outputs[name], expected.outputs[name]) for name in found.outputs)
        and all(alike(here, there) for here, there in zip(found.columns, expected.columns, strict=True))
    )


def alike(here: np.ndarray, there: np.ndarray) -> bool:
    if here.dtype != there.dtype or here.shape != there.shape:
        return False
    return here.tolist() == there.tolist() if here.dtype == object else here.tobytes() == there.tobytes()
