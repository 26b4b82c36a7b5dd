"""`govern serve`: the steps of pipelines as models of Open Inference Protocol V2."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer
from prometheus_client import CollectorRegistry

from explainers.artifacts import folders
from explainers.served import explainer_sources
from govern.bus import open_bus
from govern.cli._artifacts import TrustedOption, trusting
from govern.cli._common import (
    MetricsHostOption,
    MetricsPortOption,
    NamespaceOption,
    OtlpOption,
    run_until_signal,
    telemetry,
)
from govern.cli._explainers import (
    ModelFileOption,
    ModelNameOption,
    ModelUrlOption,
    ModelVersionOption,
    read_explainer,
)
from govern.errors import BadInput, ConfigError, MissingExtra
from govern.runtime.flow.feedback import learning
from govern.runtime.flow.model import FlowModel
from govern.runtime.flow.sources import sources
from govern.runtime.serving.application import create_app
from govern.runtime.serving.calls import AT_ONCE, MAX_BYTES, Calls
from govern.runtime.serving.repository import Repository
from govern.web.listening import listen, serve

DEFAULT_HTTP: Final = "127.0.0.1:8085"


def serve_command(
    files: Annotated[list[Path], typer.Argument(help="Pipeline files (YAML).")],
    http: Annotated[str, typer.Option(help="host:port of REST; port 0 takes a free one.")] = DEFAULT_HTTP,
    grpc: Annotated[
        str | None, typer.Option(help="host:port of gRPC, with health and reflection; port 0 takes a free one.")
    ] = None,
    explainers: Annotated[
        Path | None, typer.Option(help="Folder of fitted explainers: serve the explainer steps too.")
    ] = None,
    model_url: ModelUrlOption = "",
    model_name: ModelNameOption = "",
    model_version: ModelVersionOption = "",
    model: ModelFileOption = None,
    bus: Annotated[
        str | None,
        typer.Option(envvar="GOVERN_BUS", help="Where the feedback is that routers learn from: kafka://host:port."),
    ] = None,
    namespace: NamespaceOption = "default",
    name: Annotated[
        str,
        typer.Option(envvar="GOVERN_SERVE_NAME", help="The server's; under it is kept what its routers have learned."),
    ] = "serve",
    at_once: Annotated[int, typer.Option(min=1, help="Calls that are computed at once.")] = AT_ONCE,
    max_bytes: Annotated[int, typer.Option(min=1, help="Longest request, in bytes.")] = MAX_BYTES,
    metrics_host: MetricsHostOption = "127.0.0.1",
    metrics_port: MetricsPortOption = 0,
    otlp: OtlpOption = None,
    trusted: TrustedOption = None,
) -> None:
    """Serve pipelines over Open Inference Protocol V2, until SIGTERM or Ctrl-C.

    Of a pipeline that watches a captured stream the steps are served, each as <pipeline>-<step>; one without `source`
    is served whole, under its own name.
    """
    check = trusting(trusted or [])

    async def main(stop: asyncio.Event) -> None:
        with ExitStack() as stack:
            listening = stack.enter_context(listen(*_address(http, "--http")))
            metrics, _ = telemetry(stack, "govern-serve", CollectorRegistry(), (metrics_host, metrics_port), otlp)
            connections = AsyncExitStack()
            read = [sources(file, connections, check=check) for file in files]
            served = [source for _, found in read for source in found]
            if explainers is not None:
                client = stack.enter_context(httpx.Client())
                readers = {
                    name: partial(read_explainer, path, client, model_url, model_name, model_version, model)
                    for name, path in folders(explainers).items()
                }
                served += explainer_sources(itertools.chain.from_iterable(watching for watching, _ in read), readers)
            repository = Repository(served)
            calls = Calls(at_once=at_once, max_bytes=max_bytes, metrics=metrics)
            host, port = listening.getsockname()[:2]
            async with connections, _learning(bus, namespace, name, repository), _grpc(grpc, repository, calls):
                listening.listen()  # so that whoever reads the next line and calls at once waits, and is answered
                typer.echo(f"serving {', '.join(repository) or 'nothing'} on http://{host}:{port}", err=True)
                await serve(create_app(repository, calls), listening, stop)

    run_until_signal(main)


@asynccontextmanager
async def _learning(bus: str | None, namespace: str, name: str, repository: Repository) -> AsyncIterator[None]:
    """Routers learn from feedback while the block runs."""

    def learners() -> list[FlowModel]:
        return [model for model in repository.values() if isinstance(model, FlowModel) and model.routers]

    if not learners():
        yield
        return
    if bus is None:
        names = ", ".join(model.metadata.name for model in learners())
        raise ConfigError(
            f"routers of {names} learn from feedback, and there is no bus to read it from",
            why="they would never do better than chance",
            fix="set GOVERN_BUS or --bus, or choose the strategy `weighted`",
        )
    async with learning(lambda: open_bus(bus, client_id="govern-serve"), namespace, name, learners):
        yield


@asynccontextmanager
async def _grpc(address: str | None, repository: Repository, calls: Calls) -> AsyncIterator[None]:
    if address is None:
        yield
        return
    try:
        from govern.runtime.serving.grpc_server import serving
    except ModuleNotFoundError as error:
        raise MissingExtra("serve", needed_by="govern serve --grpc") from error
    host, port = _address(address, "--grpc")
    async with serving(repository, calls, host, port) as bound:
        typer.echo(f"listening on grpc://{host}:{bound}", err=True)
        yield


def _address(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 65536):
        raise BadInput(f"{option} {text!r}", why="it is host:port", fix="write, for example, 127.0.0.1:8085")
    return host.strip("[]"), int(port)
