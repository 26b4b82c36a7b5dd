"""`govern mirror sink`: record what the loggers of KServe and Seldon Core v1 send as CloudEvents."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from govern.cli._mirror import (
    ConfigOption,
    NamespaceOption,
    PodOption,
    PrintConfigOption,
    SpoolOption,
    configured,
    run,
    stop_on_signals,
)
from govern.mirror.config import MirrorConfig
from govern.mirror.reload import Reload, reloading
from govern.mirror.slices import SHORT_NS
from govern.telemetry.logging import configure
from govern.telemetry.metrics import Metrics


def sink(
    config: ConfigOption = None,
    listen: Annotated[str | None, typer.Option(help="host:port to accept events on.")] = None,
    namespace: NamespaceOption = None,
    join_s: Annotated[float | None, typer.Option("--sink-join-s", help="How long a half waits for the other.")] = None,
    pod: PodOption = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Share of inferences to record, 0 to 1.")] = None,
    spool_dir: SpoolOption = None,
    print_config: PrintConfigOption = False,
) -> None:
    """Take CloudEvents of KServe's and Seldon's loggers, join their halves and record them, until SIGTERM or Ctrl-C."""
    flags = {
        "listen": listen,
        "namespace": namespace,
        "sink.join_s": join_s,
        "pod": pod,
        "sampling_rate": sampling_rate,
        "spool_dir": spool_dir,
    }
    settings = configured(config, show=print_config, flags=flags)
    configure(level="INFO", json=not sys.stderr.isatty())
    run(_serve(settings, Reload(config, flags, settings)), slice_ns=SHORT_NS)


async def _serve(settings: MirrorConfig, reload: Reload) -> None:
    # An HTTP framework and its server, which the other commands of `govern mirror` start without.
    from govern.mirror.sink.server import serve
    from govern.mirror.sink.sink import Sink

    host, _ = settings.listen_address

    def started(port: int) -> None:
        typer.echo(f"taking events on http://{host}:{port}, recording to {settings.spool_dir}", err=True)

    registry = CollectorRegistry()
    opened = Sink(settings, Metrics(registry))
    try:
        async with reloading(reload, opened):
            await serve(opened, registry, stop_on_signals(), started=started)
    finally:
        opened.close()
