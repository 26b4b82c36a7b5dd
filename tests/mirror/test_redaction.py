"""What the rules take out of a body in each format, what they leave as it is, and when a body is withheld."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cramjam
import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs import open_inference_pb2 as oip
from govern.codecs import sealed
from govern.codecs.inference import decode
from govern.codecs.packing import unpack
from govern.errors import DecodeError
from govern.frame import MISSING, UNSEEN
from govern.mirror.redaction.config import RedactionConfig
from govern.mirror.redaction.keys import Keys
from govern.mirror.redaction.redactor import Redactor
from govern.record import Inference, Payload, Redaction, encode
from govern.schema import Feature, FeatureSchema

KEY = bytes(range(32))
SECRET = "Zo3-private-9"
#: A number whose bytes, in every width, are not those of any other in these bodies.
NUMBER = 7391.0
BODY_BYTES = 64 * 1024
SCHEMA = FeatureSchema(
    format_version=1,
    model="income",
    features=(
        Feature(name="age", kind="numeric", datatype="FP64"),
        Feature(name="ssn", kind="categorical", datatype="BYTES", categories=("known",), pii=True),
        Feature(name="sex", kind="categorical", datatype="INT64", categories=("0", "1"), protected=True),
    ),
)

MakeRedactor = Callable[..., Redactor]


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    path = tmp_path / "schema.yaml"
    path.write_text(SCHEMA.to_yaml())
    return path


@pytest.fixture
def redactor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRedactor:
    """`redactor({rule}, ..., **config)`, with a key and the key of an audit store."""
    monkeypatch.setenv("GOVERN_REDACTION_KEY", base64.b64encode(KEY).decode())
    public = tmp_path / "audit.pub.pem"
    public.write_bytes(AUDIT.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def make(*rules: dict[str, object], body_bytes: int = BODY_BYTES, **config: object) -> Redactor:
        section = RedactionConfig.model_validate({"rules": rules, "seal_to": public} | config)
        return Redactor(section, body_bytes=body_bytes)

    return make


AUDIT = X25519PrivateKey.generate()


def inference(body: bytes, *, protocol: str = "v1", side: str = "request", **fields: Any) -> Inference:
    values = {"content_type": "application/json", "size": len(body), "sha256": "ab" * 32}
    payload = Payload(body=body, **(values | {name: fields.pop(name) for name in tuple(fields) if name in KNOWN}))
    sides = {side: payload}
    return Inference(
        id="0190", request_id="r", protocol=protocol, status_code=fields.pop("status_code", 200), **sides, **fields
    )


KNOWN = Payload.__struct_fields__


def dumps(document: object) -> bytes:
    return json.dumps(document).encode()


def withheld(record: Inference, side: str = "request") -> bool:
    payload: Payload = getattr(record, side)
    return payload.body == b"" and payload.size > 0 and Redaction(path=side, action="withhold") in record.redactions


def v2(*tensors: dict[str, object], key: str = "inputs") -> bytes:
    return dumps({key: tensors})


def tensor(name: str, datatype: str, data: list[Any], **more: object) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": list(np.shape(data)), "data": data, **more}


def test_without_rules_the_record_is_the_same_object(redactor: MakeRedactor) -> None:
    record = inference(b"no json at all", error="boom", status_code=500)
    assert redactor().of(record) is record


def test_what_no_rule_finds_stays_byte_by_byte(redactor: MakeRedactor) -> None:
    record = inference(b'{ "instances" : [ [1.50, 2e0] ] }', response=Payload(body=b"{}", size=2))
    assert redactor({"path": "instances.ssn", "action": "drop"}).of(record) is record


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        ("a.b", {"a": {"b": SECRET, "c": 1}}, {"a": {"b": None, "c": 1}}),
        ("a.b", {"a": [{"b": SECRET}, {"c": 2}]}, {"a": [{"b": None}, {"c": 2}]}),
        ("a[1].b", {"a": [{"b": 1}, {"b": SECRET}]}, {"a": [{"b": 1}, {"b": None}]}),
        ("a[*]", {"a": [SECRET, SECRET]}, {"a": [None, None]}),
        ("*.b", {"x": {"b": SECRET}, "y": {"b": SECRET}}, {"x": {"b": None}, "y": {"b": None}}),
        ("**.b", {"x": [{"y": {"b": [SECRET]}}], "b": SECRET}, {"x": [{"y": {"b": None}}], "b": None}),
        ('$.a["b.c"]', {"a": {"b.c": SECRET}}, {"a": {"b.c": None}}),
        ("messages.content", {"messages": [{"content": SECRET, "n": 1}]}, {"messages": [{"content": None, "n": 1}]}),
    ],
)  # fmt: skip
def test_a_path_names_fields_of_any_json(redactor: MakeRedactor, path: str, before: object, after: object) -> None:
    found = redactor({"path": path, "action": "drop"}).of(inference(dumps(before), protocol="unknown"))
    assert json.loads(found.request.body) == after
    assert found.redactions == (Redaction(path=f"request.{path}", action="drop"),)


def test_hash_token_and_seal(redactor: MakeRedactor) -> None:
    rules = [{"path": name, "action": action} for name, action in (("h", "hash"), ("t", "tokenise"), ("e", "encrypt"))]
    body = dumps({"h": [SECRET], "t": [SECRET, NUMBER, None], "e": {"n": SECRET}, "kept": 1})
    found = redactor(*({**rule, "path": f"{rule['path']}[*]"} if rule["path"] != "e" else rule for rule in rules)).of(
        inference(body)
    )
    keys, shown = Keys(KEY), json.loads(found.request.body)
    assert shown["h"] == [keys.hash(SECRET)]
    assert len(shown["h"][0]) == 32
    assert [keys.value_of(token) for token in shown["t"][:2]] == [SECRET, NUMBER]
    assert (shown["t"][2], shown["e"], shown["kept"]) == (None, None, 1)
    opened = sealed.unseal(found.request.sealed, AUDIT, inference_id="0190", side="request")
    assert opened == {"request.e": [{"n": SECRET}]}
    assert SECRET.encode() not in encode(found)
    assert found.request.sha256 == keys.digest("ab" * 32)
    assert found.request.size == len(body)


def test_hashes_of_the_same_value_agree_across_formats_and_differ_across_keys() -> None:
    assert Keys(KEY).hash(5) == Keys(KEY).hash(5.0) == Keys(KEY).hash("5") == Keys(KEY).hash(b"5")
    assert Keys(KEY).hash(5) != Keys(bytes(32)).hash(5)
    assert Keys(KEY).token("5") == Keys(KEY).token("5") != Keys(KEY).token(5)


def message(kind: Any, key: str, *tensors: dict[str, Any], raw: bool) -> bytes:
    """A V2 message of tensors as `tensor` makes them."""
    made = kind()
    for one in tensors:
        held = getattr(made, key).add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        flat = np.ravel(one["data"]).tolist()
        if raw:
            getattr(made, f"raw_{key[:-1]}_contents").append(raw_bytes(one["datatype"], flat))
        elif one["datatype"] == "BYTES":
            held.contents.bytes_contents.extend(str(item).encode() for item in flat)
        else:
            field = {"FP64": "fp64_contents", "FP32": "fp32_contents", "INT64": "int64_contents"}[one["datatype"]]
            getattr(held.contents, field).extend(flat)
    return bytes(made.SerializeToString())


def raw_bytes(datatype: str, flat: list[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(str(item))) + str(item).encode() for item in flat)
    if datatype == "BF16":
        return b"".join(np.float32(item).tobytes()[2:] for item in flat)
    return np.array(
        flat, dtype={"FP16": "f2", "FP32": "f4", "FP64": "f8", "INT64": "i8", "UINT8": "u1"}[datatype]
    ).tobytes()


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(one).to_bytes(4, "big") + one for one in messages)


def binary(*tensors: dict[str, Any], key: str = "inputs") -> tuple[bytes, dict[str, str]]:
    """A V2 body with binary tensor data, and its headers."""
    raws = [raw_bytes(one["datatype"], np.ravel(one["data"]).tolist()) for one in tensors]
    shown = [
        {name: value for name, value in one.items() if name != "data"} | {"parameters": {"binary_data_size": len(raw)}}
        for one, raw in zip(tensors, raws, strict=True)
    ]
    head = dumps({key: shown})
    return head + b"".join(raws), {"inference-header-content-length": str(len(head))}


TENSORS = (
    tensor("age", "FP64", [[41.0], [42.0]]),
    tensor("ssn", "BYTES", [[SECRET], ["known"]]),
    tensor("sex", "INT64", [[1], [0]]),
)
CALL = {"content_type": "application/grpc", "path": "/inference.GRPCInferenceService/ModelInfer"}
BINARY, BINARY_HEADERS = binary(*TENSORS)
ROWS = [{"age": 41.0, "ssn": SECRET, "sex": 1}, {"age": 42.0, "ssn": "known", "sex": 0}]
#: The same two rows in every form whose columns have names.
NAMED: dict[str, Inference] = {
    "v1 rows": inference(dumps({"instances": ROWS})),
    "v1 columns": inference(dumps({"inputs": {name: [row[name] for row in ROWS] for name in ROWS[0]}})),
    "v1 lists": inference(dumps({"instances": [list(row.values()) for row in ROWS]})),
    "v2 json": inference(v2(*TENSORS), protocol="v2"),
    "v2 binary": inference(BINARY, protocol="v2", headers=BINARY_HEADERS),
    "v2 binary without header": inference(BINARY, protocol="v2"),
    "v2 grpc packed": inference(
        b"\1" + framed(gzip.compress(message(oip.ModelInferRequest, "inputs", *TENSORS, raw=True)))[1:],
        protocol="v2-grpc", **CALL,
    ),
    "v2 grpc typed": inference(
        framed(message(oip.ModelInferRequest, "inputs", *TENSORS, raw=False)),
        protocol="v2-grpc", **CALL,
    ),
    "v2 grpc raw": inference(
        framed(message(oip.ModelInferRequest, "inputs", *TENSORS, raw=True)),
        protocol="v2-grpc", **(CALL | {"content_type": "application/grpc+proto"}),
    ),
    "v2 protobuf": inference(
        message(oip.ModelInferRequest, "inputs", *TENSORS, raw=True),
        protocol="v2-grpc", content_type="application/protobuf",
    ),
    "seldon ndarray": inference(
        dumps({"data": {"names": list(ROWS[0]), "ndarray": [list(row.values()) for row in ROWS]}, "meta": {}}),
        protocol="seldon-v1",
    ),
    "seldon without names": inference(
        dumps({"data": {"ndarray": [list(row.values()) for row in ROWS]}}), protocol="seldon-v1"
    ),
    "gzip": inference(gzip.compress(dumps({"instances": ROWS})), content_encoding="gzip"),
}  # fmt: skip


@pytest.mark.parametrize("action", ["drop", "hash", "tokenise", "encrypt"])
@pytest.mark.parametrize("form", NAMED)
def test_a_class_of_the_schema_is_taken_out_of_every_form(
    redactor: MakeRedactor, schema_file: Path, form: str, action: str
) -> None:
    record = NAMED[form]
    found = redactor({"class": "pii", "action": action}, schema_file=schema_file).of(record)
    assert found.redactions == (Redaction(path="request.column(ssn)", action=action),)
    assert found.request.content_encoding == ""
    assert found.request.body
    assert SECRET.encode() not in encode(found)
    assert b"known" not in found.request.body
    assert (found.request.size, found.response) == (record.request.size, record.response)
    if action == "encrypt":
        opened = sealed.unseal(found.request.sealed, AUDIT, inference_id="0190", side="request")
        assert opened == {"request.column(ssn)": [SECRET, "known"]}


@pytest.mark.parametrize(("action", "code"), [("drop", MISSING), ("hash", UNSEEN), ("tokenise", UNSEEN)])
@pytest.mark.parametrize("form", NAMED)
def test_a_redacted_body_still_decodes(
    redactor: MakeRedactor, schema_file: Path, form: str, action: str, code: int
) -> None:
    """A value that was dropped is missing, a hash is a category that nobody knows; the rest is as it was."""
    record = NAMED[form]
    found = redactor({"class": "pii", "action": action}, schema_file=schema_file).of(record)
    frame, before = decode(found, SCHEMA), decode(record, SCHEMA)
    assert frame["ssn"].tolist() == [code, code]
    assert frame["age"].tolist() == before["age"].tolist()
    assert frame["sex"].tolist() == before["sex"].tolist()
    if action == "hash":
        assert frame.unseen["ssn"][0] == Keys(KEY).hash(SECRET)


@pytest.mark.parametrize("action", ["drop", "hash", "encrypt"])
@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64", "INT64"])
@pytest.mark.parametrize("form", ["json", "binary", "grpc"])
def test_a_column_of_a_matrix_becomes_missing_and_the_others_stay(
    redactor: MakeRedactor, form: str, datatype: str, action: str
) -> None:
    number = {"BF16": 7392.0, "FP16": 7392.0}.get(datatype, NUMBER)
    one = tensor("x", datatype, [[1.0, number, 3.0], [4.0, number, 6.0]])
    if datatype == "INT64":
        one["data"] = [[int(value) for value in row] for row in one["data"]]  # type: ignore[union-attr,attr-defined]
    fields: dict[str, Any] = {"protocol": "v2"}
    body = v2(one)
    if form == "binary":
        body, fields["headers"] = binary(one)
    elif form == "grpc":
        body = framed(message(oip.ModelInferRequest, "inputs", one, raw=True))
        fields = {"protocol": "v2-grpc", **CALL}
    found = redactor({"tensor": "x", "column": 1, "action": action}).of(inference(body, **fields))
    done = "drop" if action == "hash" else action  # text finds no place between numbers
    assert found.redactions == (Redaction(path="request.tensor(x).column(1)", action=done),)
    now = "FP64" if datatype == "INT64" else datatype
    expected = [1.0, np.nan, 3.0, 4.0, np.nan, 6.0]
    if form == "json":
        (shown,) = json.loads(found.request.body)["inputs"]
        assert (shown["datatype"], shown["data"]) == (now, [[1, None, 3], [4, None, 6]])
        return
    if form == "binary":
        length = int(found.request.headers["inference-header-content-length"])
        (shown,) = json.loads(found.request.body[:length])["inputs"]
        raw = found.request.body[length:]
        assert (shown["datatype"], shown["parameters"]["binary_data_size"]) == (now, len(raw))
    else:
        parsed = oip.ModelInferRequest.FromString(found.request.body[5:])
        (raw,) = parsed.raw_input_contents
        assert parsed.inputs[0].datatype == now
    assert raw == raw_bytes(now, expected)


def test_the_record_says_of_each_rule_all_that_it_did(redactor: MakeRedactor) -> None:
    body = v2(tensor("x", "BYTES", [["a", "b"]]), tensor("x", "FP64", [[1.0, 2.0]]))
    found = redactor({"tensor": "x", "column": 0, "action": "hash"}).of(inference(body, protocol="v2"))
    assert [one.action for one in found.redactions] == ["hash", "drop"]


def test_tensors_that_a_response_repeats_are_found(redactor: MakeRedactor) -> None:
    echo = {"inputs": [tensor("ssn", "BYTES", [SECRET])], "outputs": [tensor("predict", "FP64", [0.5])]}
    record = inference(dumps(echo), side="response", protocol="v2")
    found = redactor({"tensor": "ssn", "action": "drop"}).of(record)
    echoed = json.loads(found.response.body)
    assert echoed["inputs"][0]["data"] == [None]
    assert echoed["outputs"] == echo["outputs"]


def test_a_tensor_of_numbers_becomes_text_when_it_is_hashed(redactor: MakeRedactor) -> None:
    body, headers = binary(tensor("id", "INT64", [[7391], [12]]), tensor("x", "FP32", [[0.5], [0.25]]))
    found = redactor({"tensor": "id", "action": "hash"}).of(inference(body, protocol="v2", headers=headers))
    length = int(found.request.headers["inference-header-content-length"])
    first, second = json.loads(found.request.body[:length])["inputs"]
    texts = raw_bytes("BYTES", [Keys(KEY).hash(7391), Keys(KEY).hash(12)])
    assert found.request.body[length:] == texts + raw_bytes("FP32", [0.5, 0.25])
    assert (first["datatype"], first["parameters"]["binary_data_size"]) == ("BYTES", len(texts))
    assert second["parameters"]["binary_data_size"] == 8


def test_the_parameters_of_a_grpc_message_have_paths(redactor: MakeRedactor) -> None:
    made = oip.ModelInferRequest(id="call-1", model_name="m")
    made.parameters["user"].string_param = SECRET
    made.parameters["limit"].int64_param = 3
    made.inputs.add(name="x", datatype="FP32", shape=[1]).parameters["by"].string_param = SECRET
    made.inputs[0].contents.fp32_contents.append(0.5)
    record = inference(framed(made.SerializeToString()), protocol="v2-grpc", **CALL)
    found = redactor({"path": "parameters.user", "action": "hash"}, {"path": "**.by", "action": "drop"}).of(record)
    parsed = oip.ModelInferRequest.FromString(found.request.body[5:])
    assert parsed.parameters["user"].string_param == Keys(KEY).hash(SECRET)
    assert (parsed.parameters["limit"].int64_param, parsed.id) == (3, "call-1")
    assert dict(parsed.inputs[0].parameters) == {}
    assert list(parsed.inputs[0].contents.fp32_contents) == [0.5]


def test_each_message_of_a_grpc_stream_is_redacted(redactor: MakeRedactor) -> None:
    answers = []
    for number in range(3):
        inner = oip.ModelInferResponse.FromString(
            message(
                oip.ModelInferResponse, "outputs", tensor("name", "BYTES", [f"{SECRET}{number}"]), raw=number % 2 == 0
            )
        )
        answers.append(oip.ModelStreamInferResponse(infer_response=inner).SerializeToString())
    record = inference(
        framed(*answers), side="response", protocol="v2-grpc", content_type="application/grpc",
        path="/inference.GRPCInferenceService/ModelStreamInfer",
    )  # fmt: skip
    found = redactor({"tensor": "name", "action": "tokenise"}).of(record)
    assert found.redactions == (Redaction(path="response.tensor(name)", action="tokenise"),)
    assert found.response.body.count(b"tok_") == 3
    assert SECRET.encode() not in encode(found)


def test_each_event_of_a_stream_is_redacted(redactor: MakeRedactor) -> None:
    events = [{"choices": [{"delta": {"content": part}}], "model": "m"} for part in ("Zo3-", "private-9")]
    body = b": comment Zo3-private-9\n\n" + b"".join(b"data: " + dumps(event) + b"\n\n" for event in events)
    record = inference(body + b"data: [DONE]\n\n", side="response", content_type="text/event-stream", protocol="openai")
    found = redactor({"path": "choices.delta.content", "action": "drop"}).of(record)
    lines = [line for line in found.response.body.decode().split("\n\n") if line]
    assert [json.loads(line.removeprefix("data: "))["model"] for line in lines[:2]] == ["m", "m"]
    assert lines[2:] == ["data: [DONE]"]
    assert b"Zo3" not in found.response.body
    assert b"private" not in found.response.body


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "snappy"])
def test_packed_bodies_are_unpacked_or_withheld_but_never_passed_on(redactor: MakeRedactor, coding: str) -> None:
    packers = {"gzip": cramjam.gzip, "br": cramjam.brotli, "zstd": cramjam.zstd, "snappy": cramjam.snappy}
    packed = bytes(packers[coding].compress(dumps({"a": SECRET, "b": 1})))
    try:
        unpack(packed, coding, what="body")
        known = True
    except DecodeError:
        known = False
    found = redactor({"path": "a", "action": "drop"}).of(inference(packed, content_encoding=coding))
    assert withheld(found) == (not known)
    if known:
        assert (json.loads(found.request.body), found.request.content_encoding) == ({"a": None, "b": 1}, "")


def test_a_body_that_outgrows_the_limit_is_packed_or_withheld(redactor: MakeRedactor) -> None:
    rule = {"path": "a[*]", "action": "hash"}
    found = redactor(rule, body_bytes=2000).of(inference(dumps({"a": [1] * 500})))
    assert found.request.content_encoding == "gzip"
    assert len(found.request.body) <= 2000
    assert json.loads(gzip.decompress(found.request.body))["a"] == [Keys(KEY).hash(1)] * 500
    assert withheld(redactor(rule, body_bytes=2000).of(inference(dumps({"a": list(range(500))}))))


UNREADABLE = {
    "no json": inference(SECRET.encode()),
    "cut json": inference(dumps({"a": SECRET})[:-1]),
    "a prefix": inference(dumps({"a": SECRET}), truncated=("request",)),
    "named twice": inference(b'{"a": {"ssn": "Zo3-private-9"}, "a": {}}'),
    "unknown coding": inference(dumps({"a": SECRET}), content_encoding="snappy"),
    "no gzip": inference(dumps({"a": SECRET}), content_encoding="gzip"),
    "form": inference(f"a={SECRET}".encode(), content_type="application/x-www-form-urlencoded"),
    "events that are no json": inference(f"data: {SECRET}\n\n".encode(), content_type="text/event-stream"),
    "no message": inference(b"\x0a" + dumps({"a": SECRET}), content_type="application/protobuf"),
    "another message": inference(b"\xfa\x07\x0d" + SECRET.encode(), content_type="application/protobuf"),
    "no frames": inference(SECRET.encode(), **CALL),
    "a frame of another flag": inference(b"\2" + framed(b"")[1:], **CALL),
    "a packed frame that is not": inference(b"\1" + framed(b"abc")[1:], **CALL),
    "a cut frame": inference(framed(SECRET.encode())[:-1], **CALL),
    "another call": inference(framed(b""), content_type="application/grpc", path="/grpc.health.v1.Health/Check"),
    "no header length": inference(BINARY, headers={"inference-header-content-length": "x"}),
    "bytes of no tensor": inference(BINARY + SECRET.encode(), headers=BINARY_HEADERS),
    "binary without its header, and too long": inference(BINARY + SECRET.encode()),
    "deep": inference(b"[" * 100_000),
    "surrogate": inference(b'{"ssn": "\\ud800"}'),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_body_that_cannot_be_read_under_a_rule_is_withheld(redactor: MakeRedactor, case: str) -> None:
    record = UNREADABLE[case]
    found = redactor({"path": "**.ssn", "action": "hash"}).of(record)
    assert withheld(found)
    assert found.request.size == record.request.size
    assert found.request.sha256 == Keys(KEY).digest("ab" * 32)
    assert SECRET.encode() not in encode(found)


UNLOCATABLE = {
    "rows of another width": dumps({"instances": [[1, SECRET]]}),
    "one tensor of another width": v2(tensor("x", "BYTES", [["1", SECRET]])),
    "one tensor of one dimension": v2(tensor("x", "BYTES", ["1", SECRET, "0"])),
    "tensors with other names": v2(tensor("x", "BYTES", [[SECRET]]), tensor("age", "FP64", [[1.0]])),
    "no rows": dumps({"messages": [{"content": SECRET}]}),
    "seldon text": dumps({"strData": SECRET}),
    "seldon tftensor": dumps({"data": {"tftensor": {"stringVal": [SECRET]}}}),
    "shape that does not fit": v2({"name": "ssn", "datatype": "BYTES", "shape": [3], "data": [SECRET]}),
    "a tensor without datatype": dumps({"inputs": [{"name": "ssn", "shape": [1], "data": [SECRET]}]}),
    "two protocols": dumps({"instances": ROWS, "inputs": TENSORS}),
}


@pytest.mark.parametrize("case", UNLOCATABLE)
def test_a_body_in_which_the_column_may_be_anywhere_is_withheld(
    redactor: MakeRedactor, schema_file: Path, case: str
) -> None:
    found = redactor({"class": "pii", "action": "drop"}, schema_file=schema_file).of(inference(UNLOCATABLE[case]))
    assert withheld(found)
    assert SECRET.encode() not in encode(found)


@pytest.mark.parametrize("form", NAMED)
def test_no_prefix_of_a_body_shows_what_the_whole_one_hides(
    redactor: MakeRedactor, schema_file: Path, form: str
) -> None:
    """As a connection that ends early leaves it, which nothing marks as truncated."""
    record = NAMED[form]
    rules = redactor({"class": "pii", "action": "hash"}, schema_file=schema_file)
    for length in range(1, len(record.request.body)):
        cut = msgspec.structs.replace(record.request, body=record.request.body[:length])
        found = rules.of(msgspec.structs.replace(record, request=cut))
        assert SECRET.encode() not in found.request.body
        if found.redactions == ():
            assert SECRET.encode() not in cut.body


@given(st.data())
def test_a_column_is_taken_out_of_random_tensors_and_the_others_stay(data: st.DataObject) -> None:
    """The same tensor as JSON, as binary data and as a gRPC message, against numpy."""
    datatype = data.draw(st.sampled_from(["FP16", "FP32", "FP64", "INT64", "UINT8"]))
    rows, width = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 4))
    column = data.draw(st.integers(0, width - 1))
    values = np.array(data.draw(st.lists(st.integers(0, 255), min_size=rows * width, max_size=rows * width)))
    one = tensor("x", datatype, values.reshape(rows, width).tolist())
    if datatype.startswith("FP"):
        one["data"] = values.reshape(rows, width).astype(float).tolist()
    now = datatype if datatype.startswith("FP") else "FP64"
    expected = values.reshape(rows, width).astype(np.float64)
    expected[:, column] = np.nan
    raw = raw_bytes(now, expected.ravel().tolist())
    config = {"rules": [{"tensor": "x", "column": column, "action": "drop"}], "key_env": "TEST_KEY"}
    rules = _with_key(RedactionConfig.model_validate(config))
    (shown,) = json.loads(rules.of(inference(v2(one), protocol="v2")).request.body)["inputs"]
    assert np.array_equal(np.array(shown["data"], dtype=np.float64), expected, equal_nan=True)
    body, headers = binary(one)
    payload = rules.of(inference(body, protocol="v2", headers=headers)).request
    assert payload.body[int(payload.headers["inference-header-content-length"]) :] == raw
    body = framed(message(oip.ModelInferRequest, "inputs", one, raw=True))
    payload = rules.of(inference(body, protocol="v2-grpc", **CALL)).request
    assert oip.ModelInferRequest.FromString(payload.body[5:]).raw_input_contents[0] == raw


def test_a_rule_withholds_a_body_always_or_where_it_finds_a_field(redactor: MakeRedactor) -> None:
    always = redactor({"side": "response", "action": "withhold"})
    record = inference(dumps({"a": SECRET}), response=Payload(body=b'{"b": 1}', size=8, sha256="cd" * 32))
    assert withheld(always.of(record), "response")
    assert always.of(record).request == record.request
    sometimes = redactor({"path": "a", "action": "withhold"})
    assert withheld(sometimes.of(record))
    assert sometimes.of(record).response == record.response


def test_errors_repeat_inputs_and_are_withheld_unless_told_otherwise(redactor: MakeRedactor) -> None:
    answer = Payload(body=dumps({"detail": f"no number: {SECRET}"}), size=40)
    record = inference(b"{}", response=answer, error=f"model: {SECRET}", status_code=422)
    rule = {"path": "ssn", "action": "drop"}
    found = redactor(rule).of(record)
    assert withheld(found, "response")
    assert (found.error, found.request) == ("withheld", record.request)
    assert Redaction(path="error", action="withhold") in found.redactions
    assert redactor(rule, errors="keep").of(record) is record


def test_without_a_key_a_digest_is_left_out(redactor: MakeRedactor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOVERN_REDACTION_KEY")
    found = redactor({"path": "a", "action": "drop"}).of(inference(dumps({"a": SECRET})))
    assert found.request.sha256 == ""


def test_a_defect_withholds_and_logs_no_value(
    redactor: MakeRedactor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("govern.mirror.redaction.redactor.redact_body", broken)
    found = redactor({"path": "a", "action": "drop"}).of(inference(dumps({"a": SECRET})))
    assert withheld(found)
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


NAMES = st.sampled_from(["a", "b", "c", "ssn"])
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.recursive(
    LEAVES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=25,
)
STEPS = NAMES | st.sampled_from(["*", "0", "1"])


@given(data=st.data(), document=DOCUMENTS, action=st.sampled_from(["drop", "hash", "tokenise"]), deep=st.booleans())
def test_no_planted_value_survives_and_everything_else_is_unchanged(
    data: st.DataObject, document: Any, action: str, deep: bool
) -> None:
    """The oracle finds the places by enumerating every place of the document and matching it with the path."""
    path = data.draw(st.lists(STEPS, min_size=1, max_size=3))
    wanted = ["**", *path] if deep else path
    planted = _walk(document, (), wanted, _with_secret)
    rule = {"path": ".".join(wanted), "action": action}
    section = RedactionConfig.model_validate({"rules": [rule], "key_env": "TEST_KEY"})
    redactor = _with_key(section)
    found = redactor.of(inference(dumps(planted), protocol="unknown"))
    assert SECRET.encode() not in encode(found)
    expected = _walk(planted, (), wanted, lambda value: _expected(action, value))
    if not withheld(found):
        assert _same(json.loads(found.request.body), expected)
        assert bool(found.redactions) == _hits(planted, wanted)


def _with_key(section: RedactionConfig) -> Redactor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_KEY", base64.b64encode(KEY).decode())
        return Redactor(section, body_bytes=1 << 20)


def _expected(action: str, value: object) -> object:
    if action == "drop" or value is None:
        return None
    return Keys(KEY).hash(value) if action == "hash" else Keys(KEY).token(value)


def _matches(place: tuple[object, ...], path: list[str]) -> bool:
    """Whether a place (names and positions) is one that a path names; a name passes through lists."""
    if not path:
        return not place
    if path[0] == "**":
        return any(_matches(place[skip:], path[1:]) for skip in range(len(place)))
    if not place:
        return False
    here, rest = place[0], place[1:]
    if path[0] == "*" or (isinstance(here, int) and path[0].isdecimal() and int(path[0]) == here):
        return _matches(rest, path[1:])
    if isinstance(here, int) and not path[0].isdecimal():
        return _matches(rest, path)
    return here == path[0] and _matches(rest, path[1:])


def _walk(node: Any, place: tuple[object, ...], path: list[str], change: Callable[[Any], Any]) -> Any:
    if place and _matches(place, path):
        return change(node)
    if isinstance(node, dict):
        return {name: _walk(value, (*place, name), path, change) for name, value in node.items()}
    if isinstance(node, list):
        return [_walk(value, (*place, number), path, change) for number, value in enumerate(node)]
    return node


def _with_secret(value: Any) -> Any:
    return [value, SECRET] if isinstance(value, (dict, list)) else SECRET


def _hits(node: Any, path: list[str]) -> bool:
    hits: list[object] = []
    _walk(node, (), path, lambda value: hits.append(value))
    return bool(hits)


def _same(left: object, right: object) -> bool:
    return msgspec.json.encode(left) == msgspec.json.encode(right)
