"""Capture inside MLServer, without a hop: its REST server gets the middleware, its gRPC server captured handlers.

MLServer (1.7) has no setting for either. The one object of the user's that it makes before its servers is the
model repository, so capture comes as one, and `mlserver start` stays as it is:

    MLSERVER_MODEL_REPOSITORY_IMPLEMENTATION=govern.mirror.mlserver.captured_repository
    MLSERVER_MODEL_REPOSITORY_IMPLEMENTATION_ARGS='{"config": "/etc/govern/mirror.yaml"}'

The repository itself is MLServer's own, and the models may run in any number of its workers: the bodies are seen
where they enter and leave, in the process that holds the connections.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from govern.errors import Unavailable
from govern.mirror.asgi import MirrorMiddleware
from govern.mirror.guest import Guest
from govern.mirror.reload import Reload, follow

#: Set on the function that makes MLServer's application once it is ours: MLServer makes its repository twice.
_MARK: Final = "_captured_by_govern"
_METHODS: Final = frozenset(f"/inference.GRPCInferenceService/{name}" for name in ("ModelInfer", "ModelStreamInfer"))


def captured_repository(root: str | None, config: str | None = None, **arguments: Any) -> Any:
    """MLServer's own model repository; from now on its servers are captured.

    Args:
        root: as MLServer gives it.
        config: the YAML file of capture, of which new rules are taken over; the environment variables count, too.
        arguments: what else the repository takes.

    Raises:
        ConfigError: the configuration is wrong.
        Unavailable: this MLServer makes its application in another way than the ones that are known.
    """
    from mlserver.repository import SchemalessModelRepository

    source = follow(Path(config) if config else None)
    _capture_rest(source)
    _capture_grpc(source)
    return SchemalessModelRepository(root, **arguments)


def _capture_rest(config: Reload) -> None:
    from mlserver.rest import server

    create = _known(server, "create_app", proxy="proxy")
    if hasattr(create, _MARK):
        return

    def create_captured(*args: Any, **options: Any) -> Any:
        app = create(*args, **options)
        app.add_middleware(MirrorMiddleware, config=config)
        return app

    setattr(create_captured, _MARK, True)
    server.create_app = create_captured


def _capture_grpc(config: Reload) -> None:
    from mlserver.grpc import server

    name = "add_GRPCInferenceServiceServicer_to_server"
    add = _known(server, name, proxy="grpc")
    if hasattr(add, _MARK):
        return
    guest = Guest(config, source="middleware")

    def add_captured(servicer: object, to: Any) -> None:
        add(servicer, _Registrar(to, guest))
        atexit.register(guest.close)

    setattr(add_captured, _MARK, True)
    setattr(server, name, add_captured)


class _Registrar:
    """What MLServer's servicer is added to in the place of the server."""

    def __init__(self, server: Any, guest: Guest) -> None:
        self._server = server
        self._guest = guest

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        from govern.mirror.grpc.inside import CapturedHandlers

        self._server.add_generic_rpc_handlers(tuple(CapturedHandlers(each, _METHODS, self._guest) for each in handlers))

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """The same handlers once more, by name: where a server looks there, they would go before the captured ones."""


def _known(module: Any, name: str, *, proxy: str) -> Callable[..., Any]:
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None:
        raise Unavailable(
            "capture inside MLServer",
            why=f"this release has no {module.__name__}.{name}",
            fix=f"use MLServer 1.7, or put `govern mirror {proxy}` in front of it",
        )
    return found
