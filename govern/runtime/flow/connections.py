"""The steps of a pipeline that are called, and the clients of the models that they call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import httpx

from govern.errors import MissingExtra
from govern.pipeline.spec import ModelSpec
from govern.pipeline.spec import Step as StepSpec
from govern.runtime.flow.message import Step
from govern.runtime.flow.steps.combiner import Combiner
from govern.runtime.flow.steps.rest_model import RestModel
from govern.runtime.flow.steps.router import Router
from govern.runtime.flow.steps.transformer import transformer

if TYPE_CHECKING:
    import grpc

#: Connections that a pipeline keeps to its models, and how many of them while nobody asks: httpx's own.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)


class Connections:
    """Of one pipeline, one client for each server of models; `stack` closes them."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self._http: httpx.AsyncClient | None = None
        self._channels: dict[str, grpc.aio.Channel] = {}

    def step(self, spec: StepSpec) -> Step | None:
        """What a step does; None for one that is not called (a detector, an explainer, a captured model).

        Raises:
            ConfigError: a transformer's function is not what the file says.
            MissingExtra: a model is called over gRPC, and grpcio is absent.
        """
        if spec.model is not None and spec.model.url is not None:
            return self._model(spec.name, spec.model)
        if spec.transformer is not None:
            return transformer(spec.name, spec.transformer)
        if spec.router is not None:
            return Router(spec.name, spec.router)
        if spec.combiner is not None:
            return Combiner(spec.combiner)
        return None

    def _model(self, step: str, spec: ModelSpec) -> Step:
        assert spec.url is not None, "a model that is not called has no connection"
        if spec.url.startswith("http"):
            return RestModel(step, spec, self._client)
        try:
            from govern.runtime.flow.steps import grpc_model
        except ModuleNotFoundError as error:
            raise MissingExtra("serve", needed_by=f"step {step!r}, which calls {spec.url},") from error
        return grpc_model.GrpcModel(step, spec, partial(self._channel, spec.url.rstrip("/"), grpc_model.channel))

    def _channel(self, url: str, make: Callable[[str], grpc.aio.Channel]) -> grpc.aio.Channel:
        if url not in self._channels:
            self._channels[url] = make(url)
            self.stack.push_async_callback(self._channels[url].close)
        return self._channels[url]

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            # Each step has a timeout of its own; no proxy and no .netrc of whoever started the process.
            self._http = httpx.AsyncClient(timeout=None, limits=_LIMITS, trust_env=False)  # noqa: S113
            self.stack.push_async_callback(self._http.aclose)
        return self._http
