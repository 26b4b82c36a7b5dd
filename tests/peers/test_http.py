"""The HTTP proxy between other people's clients and servers: results as without it, exact bodies in the records."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from govern.codecs.inference import decode
from govern.record import Inference
from govern.schema import Feature, FeatureSchema
from tests.mirror.conftest import records
from tests.peers.conftest import HOST, KSERVE, PEERS, MLServer, post, result
from tests.peers.programs import chat_app
from tests.services.process import Process, free_port

pytestmark = pytest.mark.peers

#: What the clients ask.
ROWS = [[1, 2, 3], [-4, -5, -6]]
ProxyProcess = Callable[..., Process]


def recorded(spool_dir: Path, request_id: str) -> Inference:
    (found,) = [each for each in records([spool_dir]) if each.request_id == request_id]
    return found


def both(environment: str, name: str, direct: int, proxied: int, *arguments: str) -> tuple[Any, str]:
    """What a client makes of the server, which is what it makes of the proxy, and the id of its requests."""
    request_id = uuid.uuid4().hex
    ports = [f"{HOST}:{port}" for port in (direct, proxied)]
    alone, through = result(environment, name, *arguments, request_id, *ports)
    assert through == alone
    return through, request_id


def rows(inference: Inference) -> tuple[list[list[float]], dict[str, list[list[float]]]]:
    """What a detector reads of a record: the rows, and the outputs for them."""
    features = tuple(Feature(name=name, kind="numeric") for name in "abc")
    frame = decode(inference, FeatureSchema(format_version=1, model="three", features=features))
    return frame.matrix().tolist(), {name: output.tolist() for name, output in frame.outputs.items()}


def test_tritons_client_and_mlserver(mlserver: MLServer, proxy_process: ProxyProcess, spool_dir: Path) -> None:
    port = free_port()
    proxy_process(port, mlserver.http)
    through, request_id = both(PEERS, "triton_http", mlserver.http, port, "income", "json")
    assert through["values"] == [[1], [0]]
    found = recorded(spool_dir, request_id)
    assert found.request.body == base64.b64decode(through["sent"])
    assert (found.model, found.protocol, found.status_code, found.error) == ("income", "v2", 200, "")
    assert rows(found) == (ROWS, {"predict": [[1], [0]]})
    assert found.response.body == post(
        mlserver.http, found.path, found.request.body, {"content-type": found.request.content_type}
    )


def test_tritons_client_with_binary_tensors_and_kserves_server(
    kserve: int, proxy_process: ProxyProcess, spool_dir: Path
) -> None:
    port = free_port()
    proxy_process(port, kserve)
    through, request_id = both(PEERS, "triton_http", kserve, port, "adder", "binary")
    assert through["values"] == [6, -15]
    found = recorded(spool_dir, request_id)
    assert found.request.body == base64.b64decode(through["sent"])
    assert found.request.headers == {"inference-header-content-length": str(through["json_bytes"])}
    binary = found.request.body[through["json_bytes"] :]
    assert len(binary) == 6 * 4
    assert found.response.headers["inference-header-content-length"].isdigit()
    assert rows(found) == (ROWS, {"total": [[6], [-15]]})


@pytest.mark.parametrize("form", ["v1", "v2", "binary"])
def test_kserves_client_and_server(kserve: int, proxy_process: ProxyProcess, spool_dir: Path, form: str) -> None:
    port = free_port()
    proxy_process(port, kserve)
    answer, request_id = both(KSERVE, "kserve_client", kserve, port, "adder", form)
    assert answer == ({"predictions": [6, -15]} if form == "v1" else ["one", [["total", "FP32", [6, -15]]]])
    found = recorded(spool_dir, request_id)
    assert (found.model, found.protocol, found.status_code) == ("adder", "v1" if form == "v1" else "v2", 200)


def test_openais_client(chat: int, proxy_process: ProxyProcess, spool_dir: Path) -> None:
    port = free_port()
    proxy_process(port, chat, "--model", "clerk")
    (whole, chunks), request_id = both(PEERS, "openai_client", chat, port)
    words = [chunk["choices"][0]["delta"]["content"] or "" for chunk in chunks]
    assert "".join(words) == whole["choices"][0]["message"]["content"] == "".join(chat_app.WORDS)
    streamed = recorded(spool_dir, f"{request_id}-stream")
    assert streamed.response.body == b"".join(chat_app.events())
    assert (streamed.protocol, streamed.model, streamed.response.content_type) == (
        "openai",
        "clerk",
        "text/event-stream",
    )
    assert recorded(spool_dir, f"{request_id}-whole").response.body == chat_app.whole()
