"""Capture inside MLServer, without a hop: its REST server gets the middleware.

MLServer (1.7) has no setting for a middleware. The one object of the user's that it makes before its servers is the
model repository, so capture comes as one, and `mlserver start` stays as it is:

    MLSERVER_MODEL_REPOSITORY_IMPLEMENTATION=govern.mirror.mlserver.captured_repository
    MLSERVER_MODEL_REPOSITORY_IMPLEMENTATION_ARGS='{"config": "/etc/govern/mirror.yaml"}'

The repository itself is MLServer's own, and the models may run in any number of its workers: the bodies are seen
where they enter and leave, in the process that holds the connections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from govern.errors import Unavailable
from govern.mirror.asgi import MirrorMiddleware
from govern.mirror.reload import Reload, follow

#: Set on the function that makes MLServer's application once it is ours: MLServer makes its repository twice.
_MARK: Final = "_captured_by_govern"


def captured_repository(root: str | None, config: str | None = None, **arguments: Any) -> Any:
    """MLServer's own model repository; from now on its REST servers are captured.

    Args:
        root: as MLServer gives it.
        config: the YAML file of capture, of which new rules are taken over; the environment variables count, too.
        arguments: what else the repository takes.

    Raises:
        ConfigError: the configuration is wrong.
        Unavailable: this MLServer makes its application in another way than the ones that are known.
    """
    from mlserver.repository import SchemalessModelRepository

    _capture(follow(Path(config) if config else None))
    return SchemalessModelRepository(root, **arguments)


def _capture(config: Reload) -> None:
    from mlserver.rest import server

    create = getattr(server, "create_app", None)
    if create is None:
        raise Unavailable(
            "capture inside MLServer",
            why="this release does not make its REST application with mlserver.rest.server.create_app",
            fix="use MLServer 1.7, or put `govern mirror proxy` in front of it",
        )
    if hasattr(create, _MARK):
        return

    def create_captured(*args: Any, **options: Any) -> Any:
        app = create(*args, **options)
        app.add_middleware(MirrorMiddleware, config=config)
        return app

    setattr(create_captured, _MARK, True)
    server.create_app = create_captured
