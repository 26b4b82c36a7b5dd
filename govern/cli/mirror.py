"""`govern mirror`: capture in front of a model server, and carry what was captured to the bus."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer

from govern.errors import MissingExtra
from govern.mirror.config import MirrorConfig, load
from govern.mirror.proxy import Proxy
from govern.mirror.recorder import open_recorder
from govern.telemetry.logging import configure

app = typer.Typer(no_args_is_help=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; see MirrorConfig.")]
ServiceOption = Annotated[str | None, typer.Option(help="Name of the inference service.")]
SpoolOption = Annotated[Path | None, typer.Option("--spool-dir", help="Folder of the spool, on tmpfs.")]
DiskOption = Annotated[Path | None, typer.Option("--disk-dir", help="Where segments go while the bus is away.")]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Tenant [env GOVERN_NAMESPACE].")]
PodOption = Annotated[str | None, typer.Option(help="Name of the pod; default: the host's name.")]


@app.command()
def proxy(
    config: ConfigOption = None,
    listen: Annotated[str | None, typer.Option(help="host:port to accept requests on.")] = None,
    upstream: Annotated[str | None, typer.Option(help="http://host:port of the model server.")] = None,
    namespace: NamespaceOption = None,
    service: ServiceOption = None,
    model: Annotated[str | None, typer.Option(help="Model; default: as the request's path names it.")] = None,
    revision: Annotated[str | None, typer.Option(help="The model's revision.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="default, canary or shadow.")] = None,
    pod: PodOption = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Share of requests to capture, 0 to 1.")] = None,
    spool_dir: SpoolOption = None,
) -> None:
    """Relay requests to a model server and capture every inference, until SIGTERM or Ctrl-C."""
    settings = load(
        config,
        flags={
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
        },
    )
    configure(level="INFO", json=not sys.stderr.isatty())
    _run(_proxy(settings))


async def _proxy(settings: MirrorConfig) -> None:
    host, _ = settings.listen_address

    def started(port: int) -> None:
        typer.echo(f"listening on http://{host}:{port}, relaying to {settings.upstream}", err=True)

    recorder = open_recorder(settings)
    try:
        await Proxy(settings, recorder).serve(_stop_on_signals(), started=started)
    finally:
        recorder.close()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop


def _run(main: Coroutine[object, object, None]) -> None:
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError as error:
        main.close()
        raise MissingExtra("mirror", needed_by="govern mirror") from error
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)
