"""How a call that its caller resets is recorded: what the time says, and nothing that a busy machine could delay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from govern.mirror.config import MirrorConfig
from govern.mirror.grpc.call import Call
from govern.mirror.recorder import Recorder, open_spool
from tests.mirror.conftest import records
from tests.mirror.grpc.conftest import INFER, framed, infer_request

MS = 10**6


@pytest.mark.parametrize(
    ("timeout", "after_ms", "status", "error"),
    [
        (b"2S", 1999, "DEADLINE_EXCEEDED", "the call's deadline passed"),
        (b"2020m", 2000, "DEADLINE_EXCEEDED", "the call's deadline passed"),  # sent rounded up
        (b"2S", 1800, "CANCELLED", "the caller cancelled the call"),
        (None, 10**6, "CANCELLED", "the caller cancelled the call"),
        (b"soon", 10**6, "CANCELLED", "the caller cancelled the call"),
    ],
)
def test_a_reset_at_the_deadline_is_the_deadlines(
    make_config: Callable[..., MirrorConfig],
    spool_dir: Path,
    timeout: bytes | None,
    after_ms: int,
    status: str,
    error: str,
) -> None:
    now_ns = 10**18
    config = make_config()
    recorder = Recorder(config, open_spool(config), source="grpc", clock=lambda: now_ns)
    headers = {b"content-type": b"application/grpc", b"x-request-id": b"r"}
    call = Call(recorder, INFER.encode(), headers if timeout is None else headers | {b"grpc-timeout": timeout})
    call.request(framed(infer_request().SerializeToString()))
    now_ns += after_ms * MS
    call.reset_by_caller()
    recorder.close()
    (found,) = records([spool_dir])
    assert (found.grpc_status, found.error) == (status, error)
