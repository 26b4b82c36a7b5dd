"""ASGI middleware: the same capture as the proxy's, inside a FastAPI or Starlette application, without a hop.

from govern.mirror.asgi import MirrorMiddleware
from govern.mirror.reload import follow

app.add_middleware(MirrorMiddleware, config=follow(Path("mirror.yaml")))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from govern.mirror.config import MirrorConfig
from govern.mirror.guest import Guest
from govern.mirror.recorder import Exchange
from govern.mirror.reload import Reload

# The types of the ASGI specification, version 3: messages are open dictionaries.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Ways to send a body past the application's messages. Where capture must see it, they are not offered.
_BLIND_SENDS = ("http.response.pathsend", "http.response.zerocopysend")


class MirrorMiddleware:
    """Captures the inferences of an application.

    Each server process becomes an agent of its own when its first event arrives, so after any fork. While the spool's
    folder is not usable the application runs uncaptured: the log says so, and it is tried again.

    Args:
        app: the application.
        config: `follow(path)`, and new rules in the file are taken over; or one that stays. `upstream`, `listen` and
            the timeouts do not matter here.
    """

    def __init__(self, app: App, config: MirrorConfig | Reload) -> None:
        self._app = app
        self._guest = Guest(config, source="middleware")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        exchange = self._begin(scope) if scope["type"] == "http" else None
        if exchange is None:
            await self._app(scope, receive, send)
            return
        extensions = scope.get("extensions")
        if extensions:
            offered = {name: value for name, value in extensions.items() if name not in _BLIND_SENDS}
            scope = {**scope, "extensions": offered}
        seen = _Observed(exchange, receive, send)
        try:
            await self._app(scope, seen.receive, seen.send)
        except BaseException as error:
            exchange.finish(seen.gone or f"the application ended with {type(error).__name__}")
            raise
        exchange.finish(seen.gone or "the application ended without a complete response")

    def _begin(self, scope: Scope) -> Exchange | None:
        recorder = self._guest.recorder()
        if recorder is None:
            return None
        target = scope.get("raw_path") or scope["path"].encode()
        return recorder.begin_from(scope["method"], target, scope["headers"])

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._guest.recorder()

        async def told(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                self._guest.close()
            await send(message)

        await self._app(scope, receive, told)


class _Observed:
    """The two ends of an exchange, as the application is given them."""

    __slots__ = ("_complete", "_exchange", "_receive", "_send", "gone")

    def __init__(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        self._exchange = exchange
        self._receive = receive
        self._send = send
        self._complete = False
        self.gone = ""

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._exchange.request_body(message.get("body", b""))
        elif message["type"] == "http.disconnect" and not self._complete:
            self.gone = "the client closed the connection before the response was complete"
        return message

    def send(self, message: Message) -> Awaitable[None]:  # the server's own coroutine, without one around it
        if message["type"] == "http.response.start":
            self._exchange.response_start(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._exchange.response_body(message.get("body", b""))
            if not message.get("more_body", False):
                self._complete = True
                self._exchange.finish(self.gone)  # before the last byte leaves
        return self._send(message)
