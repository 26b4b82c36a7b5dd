"""The gRPC server: its port taken before anything else, its end decided by the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from govern.errors import Unavailable
from govern.runtime.serving.calls import Calls
from govern.runtime.serving.grpc_names import SERVICE, described
from govern.runtime.serving.grpc_service import Service, handlers
from govern.runtime.serving.repository import Repository

#: Calls under way may finish for this long, seconds; as over HTTP (`govern.web.listening`).
_GRACE_S: Final = 5


@asynccontextmanager
async def serving(repository: Repository, calls: Calls, host: str, port: int) -> AsyncIterator[int]:
    """Serve V2, the health protocol and reflection until the block ends; gives the port, which 0 lets be any.

    Raises:
        Unavailable: the address cannot be listened on.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", calls.max_bytes),
            # Else two processes can listen on one port, and each gets some of the calls.
            ("grpc.so_reuseport", 0),
        ]
    )
    server.add_generic_rpc_handlers(tuple(handlers(Service(repository, calls))))
    state = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    pool = described()
    for other in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(other.DESCRIPTOR.serialized_pb)
    reflection.enable_server_reflection(names, server, pool=pool)
    try:
        bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise Unavailable(
            f"port {port} on {host}",
            why=str(error),
            fix="stop what listens there, or choose another port with --grpc (0 takes a free one)",
        ) from error
    await server.start()
    for name in ("", SERVICE):
        await state.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield bound
    finally:
        await state.enter_graceful_shutdown()
        # What is under way is answered although the process is being cancelled.
        await asyncio.shield(server.stop(_GRACE_S))
