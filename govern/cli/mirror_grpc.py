"""`govern mirror grpc`: the gRPC proxy sidecar."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from govern.cli._mirror import (
    ConfigOption,
    NamespaceOption,
    PodOption,
    PrintConfigOption,
    ServiceOption,
    SpoolOption,
    configured,
    run,
    stop_on_signals,
)
from govern.mirror.config import MirrorConfig
from govern.mirror.grpc.proxy import GrpcProxy
from govern.mirror.recorder import open_recorder
from govern.mirror.reload import Reload, reloading
from govern.mirror.slices import SHORT_NS
from govern.telemetry.logging import configure


def grpc(
    config: ConfigOption = None,
    listen: Annotated[str | None, typer.Option(help="host:port to accept calls on.")] = None,
    upstream: Annotated[
        str | None, typer.Option(help="http:// or https://host:port of the model server's gRPC port.")
    ] = None,
    namespace: NamespaceOption = None,
    service: ServiceOption = None,
    model: Annotated[str | None, typer.Option(help="Model; default: as the call's first message names it.")] = None,
    revision: Annotated[str | None, typer.Option(help="The model's revision.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="default, canary or shadow.")] = None,
    pod: PodOption = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Share of calls to capture, 0 to 1.")] = None,
    spool_dir: SpoolOption = None,
    print_config: PrintConfigOption = False,
) -> None:
    """Relay gRPC calls to a model server and capture every inference, until SIGTERM or Ctrl-C."""
    flags = {
        "grpc.listen": listen,
        "grpc.upstream": upstream,
        "namespace": namespace,
        "service": service,
        "model": model,
        "revision": revision,
        "endpoint": endpoint,
        "pod": pod,
        "sampling_rate": sampling_rate,
        "spool_dir": spool_dir,
    }
    settings = configured(config, show=print_config, flags=flags)
    configure(level="INFO", json=not sys.stderr.isatty())
    run(_grpc(settings, Reload(config, flags, settings)), slice_ns=SHORT_NS)


async def _grpc(settings: MirrorConfig, reload: Reload) -> None:
    host = settings.grpc.listen.rpartition(":")[0]

    def started(port: int) -> None:
        typer.echo(f"listening on {host}:{port}, relaying gRPC to {settings.grpc.upstream}", err=True)

    recorder = open_recorder(settings, source="grpc")
    try:
        async with reloading(reload, recorder):
            await GrpcProxy(settings, recorder).serve(stop_on_signals(), started=started)
    finally:
        recorder.close()
