"""What the commands of `govern mirror` share: the options of the configuration, and reading it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Annotated

import typer

from govern.errors import ConfigError, MissingExtra
from govern.mirror.config import MirrorConfig, load_with_sources
from govern.mirror.effective import as_yaml
from govern.mirror.slices import ask_for_slices

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; its fields: govern mirror schema")
]
PrintConfigOption = Annotated[
    bool,
    typer.Option("--print-config", help="Print the configuration in force and where each value is from, and end."),
]

ServiceOption = Annotated[str | None, typer.Option(help="Name of the inference service.")]
SpoolOption = Annotated[Path | None, typer.Option("--spool-dir", help="Folder of the spool, on tmpfs.")]
DiskOption = Annotated[Path | None, typer.Option("--disk-dir", help="Where segments go while the bus is away.")]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="Tenant (env var: GOVERN_NAMESPACE).")]
PodOption = Annotated[str | None, typer.Option(help="Name of the pod; default: the host's name.")]
BusOption = Annotated[
    str | None, typer.Option("--bus", help="kafka://host:port or embedded:///file.db (env var: GOVERN_BUS).")
]


def configured(path: Path | None, *, show: bool, flags: Mapping[str, object]) -> MirrorConfig:
    """The configuration of a command; with `show` it is printed, and the command ends.

    Args:
        flags: values by dotted name; None stands for a flag that was not given.
    """
    loaded = load_with_sources(path, flags=flags)
    if show:
        typer.echo(as_yaml(loaded), nl=False)
        raise typer.Exit
    return loaded.config


def require_bus(settings: MirrorConfig) -> None:
    """
    Raises:
        ConfigError: none is configured.
    """
    if not settings.bus:
        raise ConfigError("bus", why="the shipper needs one", fix="set GOVERN_BUS, --bus or `bus:` in the file")


def run(main: Coroutine[object, object, None], *, slice_ns: int) -> None:
    """Run the main task of a process that carries traffic or ships.

    Args:
        slice_ns: how long others may have to wait for it (`govern.mirror.slices`).
    """
    try:
        from uvloop import new_event_loop
    except ModuleNotFoundError as error:
        main.close()
        raise MissingExtra("mirror", needed_by="govern mirror") from error
    ask_for_slices(slice_ns)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)


def stop_on_signals() -> asyncio.Event:
    """Set by SIGINT and SIGTERM."""
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop
