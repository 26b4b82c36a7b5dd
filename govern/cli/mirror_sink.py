"""`govern mirror sink`: record what the loggers of KServe and Seldon Core v1 send as CloudEvents."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from govern.cli._common import run_until_signal
from govern.cli._mirror import ConfigOption, PrintConfigOption, configured
from govern.mirror.config import MirrorConfig
from govern.mirror.sink.server import serve
from govern.mirror.sink.sink import Sink
from govern.telemetry.logging import configure
from govern.telemetry.metrics import Metrics


def sink(
    config: ConfigOption = None,
    listen: Annotated[str | None, typer.Option(help="host:port to accept events on.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Tenant [env GOVERN_NAMESPACE].")] = None,
    join_s: Annotated[float | None, typer.Option("--sink-join-s", help="How long a half waits for the other.")] = None,
    pod: Annotated[str | None, typer.Option(help="Name of the pod; default: the host's name.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Share of inferences to record, 0 to 1.")] = None,
    spool_dir: Annotated[Path | None, typer.Option("--spool-dir", help="Folder of the spool, on tmpfs.")] = None,
    print_config: PrintConfigOption = False,
) -> None:
    """Take CloudEvents of KServe's and Seldon's loggers, join their halves and record them, until SIGTERM or Ctrl-C."""
    settings = configured(
        config,
        show=print_config,
        flags={
            "listen": listen,
            "namespace": namespace,
            "sink.join_s": join_s,
            "pod": pod,
            "sampling_rate": sampling_rate,
            "spool_dir": spool_dir,
        },
    )
    configure(level="INFO", json=not sys.stderr.isatty())

    async def run(stop: asyncio.Event) -> None:
        await _serve(settings, stop)

    run_until_signal(run)


async def _serve(settings: MirrorConfig, stop: asyncio.Event) -> None:
    host, _ = settings.listen_address

    def started(port: int) -> None:
        typer.echo(f"taking events on http://{host}:{port}, recording to {settings.spool_dir}", err=True)

    registry = CollectorRegistry()
    opened = Sink(settings, Metrics(registry))
    try:
        await serve(opened, registry, stop, started=started)
    finally:
        opened.close()
