"""`govern mirror seldon-topics`: record what Seldon Core v2 sends through its own Kafka topics."""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from govern.bus import open_bus
from govern.bus.kafka_access import KafkaAccess
from govern.bus.url import kafka_of
from govern.cli._common import OtlpOption, run_until_signal
from govern.cli._mirror import BusOption, ConfigOption, NamespaceOption, PrintConfigOption, configured
from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig
from govern.mirror.exported import SnapshotRegistry
from govern.mirror.reload import Reload, reloading
from govern.telemetry.http import serve_metrics
from govern.telemetry.logging import configure
from govern.telemetry.metrics import Metrics
from govern.telemetry.tracing import tracer_provider


def seldon_topics(
    config: ConfigOption = None,
    print_config: PrintConfigOption = False,
    bus: BusOption = None,
    namespace: NamespaceOption = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Share of inferences to record, 0 to 1.")] = None,
    metrics_listen: Annotated[str | None, typer.Option(help="host:port of /metrics.")] = None,
    otlp: OtlpOption = None,
) -> None:
    """Record the inferences in Seldon Core v2's Kafka topics, until SIGTERM or Ctrl-C."""
    flags = {
        "bus": bus,
        "namespace": namespace,
        "sampling_rate": sampling_rate,
        "metrics_listen": metrics_listen,
    }
    settings = configured(config, show=print_config, flags=flags)
    if not settings.bus:
        raise ConfigError("bus", why="records need one", fix="set GOVERN_BUS, --bus or `bus:` in the file")
    kafka = settings.seldon.bus or settings.bus
    if not kafka.startswith("kafka://"):
        raise ConfigError(
            "seldon.bus",
            why=f"Seldon's topics lie on Kafka, and the bus is {settings.bus}",
            fix="name Seldon's cluster: kafka://host:port",
        )
    brokers = kafka_of(kafka, setting="seldon.bus" if settings.seldon.bus else "bus URL")
    configure(level="INFO", json=not sys.stderr.isatty())
    reload = Reload(config, flags, settings)

    async def serve(stop: asyncio.Event) -> None:
        await _serve(settings, brokers, otlp, reload, stop)

    run_until_signal(serve)


async def _serve(
    settings: MirrorConfig, brokers: tuple[str, KafkaAccess], otlp: str | None, reload: Reload, stop: asyncio.Event
) -> None:
    # Kafka's client, which the other commands of `govern mirror` start without.
    from govern.mirror.seldon.exported import SeldonMetrics
    from govern.mirror.seldon.reader import SeldonReader
    from govern.mirror.seldon.source import SeldonSource

    bootstrap, access = brokers
    registry = SnapshotRegistry()
    host, port = settings.metrics_address
    with ExitStack() as stack:
        served = stack.enter_context(serve_metrics(registry, host, port))
        provider = tracer_provider("govern-seldon-topics", endpoint=otlp)
        stack.callback(provider.shutdown)
        reader = SeldonReader(
            settings,
            open_bus=lambda: open_bus(
                settings.bus, client_id="govern-seldon-topics", message_bytes=settings.message_bytes
            ),
            open_source=lambda selection: SeldonSource(bootstrap, selection, access=access),
            metrics=SeldonMetrics(Metrics(registry), registry.updating, settings),
            tracer=provider.get_tracer("govern.mirror") if otlp else None,
        )
        typer.echo(f"recording kafka://{bootstrap} to {settings.bus}, metrics on {served.url}/metrics", err=True)
        async with reloading(reload, reader):
            await reader.run(stop)
