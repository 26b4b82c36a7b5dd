"""ASGI middleware: the same capture as the proxy's, inside a FastAPI or Starlette application, without a hop.

from govern.mirror.asgi import MirrorMiddleware
from govern.mirror.reload import follow

app.add_middleware(MirrorMiddleware, config=follow(Path("mirror.yaml")))
"""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from govern.errors import Unavailable
from govern.mirror.config import MirrorConfig
from govern.mirror.recorder import Exchange, Recorder, open_recorder
from govern.mirror.reload import Reload, Watch

_log: Final = logging.getLogger(__name__)

#: How soon to try a spool again that could not be opened.
_TRY_AGAIN_S: Final = 10.0

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
        # A copy: whoever else was given the same has read other states of the file.
        self._source = copy.copy(config) if isinstance(config, Reload) else Reload(None, {}, config)
        self._watch: Watch | None = None
        self._recorder: Recorder | None = None
        self._pid = 0
        self._try_again = 0.0

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
        recorder = self._open()
        if recorder is None:
            return None
        target = scope.get("raw_path") or scope["path"].encode()
        return recorder.begin_from(scope["method"], target, scope["headers"])

    def _open(self) -> Recorder | None:
        pid = os.getpid()
        if self._recorder is not None and self._pid == pid:
            return self._recorder
        self._recorder = None
        if time.monotonic() >= self._try_again:
            try:
                self._recorder = open_recorder(self._source.config, source="middleware")
                self._watch = Watch(self._source, self._recorder)
                self._pid = pid
            except Exception as error:  # noqa: BLE001 - a failure of capture must never reach the application
                self._try_again = time.monotonic() + _TRY_AGAIN_S
                foreseen = isinstance(error, Unavailable)
                _log.error("inferences are not captured: %s", error, exc_info=not foreseen)
        return self._recorder

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        recorder = self._open()

        async def told(message: Message) -> None:
            if recorder is not None and message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                if self._watch is not None:
                    self._watch.end()
                recorder.close()
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
