"""Calls through the gRPC proxy under rules: what is planted in tensors, parameters and errors is not published."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from govern.codecs.open_inference_pb2 import ModelInferRequest, ModelStreamInferResponse
from govern.mirror.config import MirrorConfig
from govern.mirror.redaction.keys import Keys
from tests.mirror.conftest import DEADLINE_S
from tests.mirror.grpc.conftest import INFER, STREAM_INFER, model_server
from tests.mirror.test_shipper import on_the_bus, ship_all
from tests.services.process import Process, free_port

KEY = bytes(range(32))
MARK = "Zo3-private-"
RULES = [
    {"tensor": "ssn", "action": "hash"},
    {"path": "parameters.user", "action": "drop"},
]


def planted(number: int) -> bytes:
    request = ModelInferRequest(model_name="income", id=f"r{number}")
    request.parameters["user"].string_param = f"{MARK}user"
    request.inputs.add(name="ssn", datatype="BYTES", shape=[1]).contents.bytes_contents.append(
        f"{MARK}{number}".encode()
    )
    request.inputs.add(name="x", datatype="FP64", shape=[1]).contents.fp64_contents.append(0.5)
    return request.SerializeToString()


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_no_planted_value_of_a_grpc_call_is_published(
    make_config: Callable[..., MirrorConfig],
    start_grpc: Callable[..., Process],
    embedded_url: str,
    monkeypatch: pytest.MonkeyPatch,
    compression: grpc.Compression,
) -> None:
    monkeypatch.setenv("GOVERN_REDACTION_KEY", base64.b64encode(KEY).decode())
    port = free_port()
    with model_server() as (_, upstream):
        proxy = start_grpc(port, upstream)
        with grpc.insecure_channel(f"127.0.0.1:{port}", compression=compression) as channel:
            unary = channel.unary_unary(INFER)
            unary(planted(0), timeout=DEADLINE_S)
            stream = channel.stream_stream(STREAM_INFER)
            answers = list(stream(iter([planted(1), planted(2)]), timeout=DEADLINE_S))
            assert all(ModelStreamInferResponse.FromString(answer).infer_response.id for answer in answers)
            with pytest.raises(grpc.RpcError):
                unary(planted(3), metadata=[("x-fail", "INTERNAL"), ("x-message", f"{MARK}said")], timeout=DEADLINE_S)
        proxy.stop()
    config = make_config(bus=embedded_url, redaction={"rules": RULES}, drain_s=DEADLINE_S)
    await ship_all(config)
    found = await on_the_bus(config)
    assert len(found) == 3
    for message, record in found:
        assert MARK.encode() not in (message.value or b"")
        assert [one.action for one in record.redactions if one.path.startswith("request.")] == ["hash", "drop"]
        assert all(MARK.encode() not in one for one in _unpacked(record.request.body))
    hashes = [Keys(KEY).hash(f"{MARK}{number}").encode() for number in range(4)]
    bodies = b"".join(record.request.body for _, record in found)
    assert all(one in bodies for one in hashes)
    assert files_without_mark(Path(embedded_url.removeprefix("embedded://")).parent)


def _unpacked(body: bytes) -> list[bytes]:
    """The messages of a body, unpacked where they are packed."""
    messages = []
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at + 1 : at + 5], "big")
        message = body[at + 5 : at + 5 + size]
        messages.append(gzip.decompress(message) if body[at] else message)
        at += 5 + size
    return messages


def files_without_mark(folder: Path) -> bool:
    return all(MARK.encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
