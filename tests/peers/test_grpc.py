"""MLServer's gRPC as it is shipped, asked by Triton's client as it is, directly and through the proxy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mirror.conftest import records
from tests.mirror.grpc.conftest import start_grpc
from tests.peers.conftest import HOST, PEERS, MLServer, result
from tests.services.process import Process, free_port

__all__ = ["start_grpc"]

pytestmark = pytest.mark.peers


def test_triton_and_mlserver_meet_as_without_the_proxy(
    mlserver: MLServer, start_grpc: Callable[..., Process], spool_dir: Path
) -> None:
    port = free_port()
    start_grpc(port, mlserver.grpc)
    direct = result(PEERS, "triton_grpc", "income", "asked", f"{HOST}:{mlserver.grpc}")
    assert result(PEERS, "triton_grpc", "income", "asked", f"{HOST}:{port}") == direct
    assert direct["live"]
    assert direct["values"] == direct["packed"] == [[1], [0]]
    found = records([spool_dir])
    assert [each.grpc_status for each in found][:2] == ["OK", "OK"]
    assert (found[0].model, found[2].model) == ("income", "nowhere")
    assert (found[0].request_id, found[2].request_id) == ("asked", "asked")
    assert found[2].grpc_status == direct["nowhere"][0].removeprefix("StatusCode.")


def test_mlservers_stream_is_relayed_and_recorded(
    mlserver: MLServer, start_grpc: Callable[..., Process], spool_dir: Path
) -> None:
    """Its default runtime answers a stream's first request. (Triton's client waits for ever for messages of its own
    kind, which MLServer does not send, with or without a proxy between them.)"""
    port = free_port()
    start_grpc(port, mlserver.grpc)
    direct = result(PEERS, "mlserver_stream", "income", "asked", f"{HOST}:{mlserver.grpc}")
    assert direct["one"] == direct["three"] == [["asked-0", [1, 0]]]
    assert result(PEERS, "mlserver_stream", "income", "asked", f"{HOST}:{port}") == direct
    found = records([spool_dir])
    assert [each.model for each in found] == ["income", "income", "nowhere"]
    assert [each.grpc_status for each in found] == ["OK", "OK", direct["nowhere"][0]]
    assert all(each.response.body for each in found[:2])
