"""`govern mirror`: capture in front of a model server, and carry what was captured to the bus."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from govern.bus import open_bus
from govern.cli._common import OtlpOption
from govern.cli._mirror import (
    BusOption,
    ConfigOption,
    DiskOption,
    NamespaceOption,
    PodOption,
    PrintConfigOption,
    ServiceOption,
    SpoolOption,
    configured,
    require_bus,
    run,
    stop_on_signals,
)
from govern.cli.mirror_backfill import backfill
from govern.cli.mirror_detokenise import detokenise
from govern.cli.mirror_grpc import grpc
from govern.cli.mirror_schema import schema
from govern.cli.mirror_seldon_topics import seldon_topics
from govern.cli.mirror_sink import sink
from govern.cli.mirror_spool import app as spool_app
from govern.cli.mirror_unseal import unseal
from govern.mirror.config import MirrorConfig
from govern.mirror.exported import CaptureMetrics, SnapshotRegistry
from govern.mirror.folder import make_private
from govern.mirror.proxy import Proxy
from govern.mirror.recorder import open_recorder
from govern.mirror.reload import Reload, reloading
from govern.mirror.shipper import Shipper
from govern.mirror.slices import LONG_NS, SHORT_NS
from govern.telemetry.http import serve_metrics
from govern.telemetry.logging import configure
from govern.telemetry.metrics import Metrics
from govern.telemetry.tracing import tracer_provider

app = typer.Typer(no_args_is_help=True)
app.add_typer(spool_app, name="spool")
app.command("grpc")(grpc)
app.command("schema")(schema)
app.command("detokenise")(detokenise)
app.command("unseal")(unseal)
app.command("seldon-topics")(seldon_topics)
app.command("sink")(sink)
app.command("backfill")(backfill)


@app.command()
def proxy(
    config: ConfigOption = None,
    listen: Annotated[str | None, typer.Option(help="host:port to accept requests on.")] = None,
    upstream: Annotated[str | None, typer.Option(help="http:// or https://host:port of the model server.")] = None,
    namespace: NamespaceOption = None,
    service: ServiceOption = None,
    model: Annotated[str | None, typer.Option(help="Model; default: as the request's path names it.")] = None,
    revision: Annotated[str | None, typer.Option(help="The model's revision.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="default, canary or shadow.")] = None,
    pod: PodOption = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Share of requests to capture, 0 to 1.")] = None,
    spool_dir: SpoolOption = None,
    print_config: PrintConfigOption = False,
) -> None:
    """Relay requests to a model server and capture every inference, until SIGTERM or Ctrl-C."""
    flags = {
        "listen": listen,
        "upstream": upstream,
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
    run(_proxy(settings, Reload(config, flags, settings)), slice_ns=SHORT_NS)


async def _proxy(settings: MirrorConfig, reload: Reload) -> None:
    host, _ = settings.listen_address

    def started(port: int) -> None:
        scheme = "https" if settings.tls.cert else "http"
        typer.echo(f"listening on {scheme}://{host}:{port}, relaying to {settings.upstream}", err=True)

    recorder = open_recorder(settings)
    try:
        async with reloading(reload, recorder):
            await Proxy(settings, recorder).serve(stop_on_signals(), started=started)
    finally:
        recorder.close()


@app.command()
def ship(
    config: ConfigOption = None,
    bus: BusOption = None,
    namespace: NamespaceOption = None,
    service: ServiceOption = None,
    pod: PodOption = None,
    spool_dir: SpoolOption = None,
    disk_dir: DiskOption = None,
    metrics_listen: Annotated[str | None, typer.Option(help="host:port of /metrics.")] = None,
    otlp: OtlpOption = None,
    print_config: PrintConfigOption = False,
) -> None:
    """Carry what was captured to the bus, until SIGTERM or Ctrl-C, and then until the agents of the spool end."""
    flags = {
        "bus": bus,
        "namespace": namespace,
        "service": service,
        "pod": pod,
        "spool_dir": spool_dir,
        "disk_dir": disk_dir,
        "metrics_listen": metrics_listen,
    }
    settings = configured(config, show=print_config, flags=flags)
    require_bus(settings)
    configure(level="INFO", json=not sys.stderr.isatty())
    run(_ship(settings, otlp, Reload(config, flags, settings)), slice_ns=LONG_NS)


async def _ship(settings: MirrorConfig, otlp: str | None, reload: Reload) -> None:
    registry = SnapshotRegistry()
    host, port = settings.metrics_address
    make_private(settings.spool_dir)
    with ExitStack() as stack:
        served = stack.enter_context(serve_metrics(registry, host, port))
        provider = tracer_provider("govern-shipper", endpoint=otlp)
        stack.callback(provider.shutdown)
        shipper = Shipper(
            settings,
            open_bus=lambda: open_bus(settings.bus, client_id="govern-shipper", message_bytes=settings.message_bytes),
            metrics=CaptureMetrics(Metrics(registry), registry.updating, settings.spool_dir),
            tracer=provider.get_tracer("govern.mirror") if otlp else None,
        )
        typer.echo(f"shipping {settings.spool_dir} to {settings.bus}, metrics on {served.url}/metrics", err=True)
        async with reloading(reload, shipper):
            await shipper.run(stop_on_signals())
