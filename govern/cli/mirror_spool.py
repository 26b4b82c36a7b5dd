"""`govern mirror spool`: look into a spool and empty it, for the person on call."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from govern.bus import open_bus
from govern.cli._common import EXIT_FAILURE
from govern.cli._mirror import (
    BusOption,
    ConfigOption,
    DiskOption,
    NamespaceOption,
    PrintConfigOption,
    SpoolOption,
    configured,
    require_bus,
    run,
)
from govern.mirror import folder
from govern.mirror.config import MirrorConfig
from govern.mirror.exported import CaptureMetrics, SnapshotRegistry
from govern.mirror.inspect import count_records, inspect_agents, inspect_segments
from govern.mirror.shipper import Drained, Shipper
from govern.mirror.slices import LONG_NS
from govern.mirror.standing import known_destinations
from govern.telemetry.logging import configure
from govern.telemetry.metrics import Metrics

app = typer.Typer(no_args_is_help=True, help="Look into the spool of this pod, or empty it.")


@app.command("ls")
def spool_ls(
    config: ConfigOption = None,
    spool_dir: SpoolOption = None,
    disk_dir: DiskOption = None,
    print_config: PrintConfigOption = False,
) -> None:
    """Show the spool's agents and segments, in memory and on disk, and how far each destination is."""
    settings = configured(config, show=print_config, flags={"spool_dir": spool_dir, "disk_dir": disk_dir})
    agents = Table("agent", "alive", "seen", "captured", "sampled out", "dropped", title="agents")
    present = inspect_agents(settings.spool_dir)
    for agent in present:
        counts = agent.counts
        agents.add_row(
            agent.info.agent,
            "yes" if agent.alive else "no",
            *(f"{number:,}" for number in (counts.seen, counts.captured, counts.sampled_out, counts.dropped)),
        )
    lying = Table("segment", "records from", "bytes", "sealed", title="segments")
    for segment in inspect_segments(_folders(settings)):
        header = segment.header
        lying.add_row(str(segment.path), f"{header.first_seq:,}", f"{header.end:,}", "yes" if header.sealed else "no")
    Console().print(agents, lying)
    destinations = Table("destination", "waiting", "sent", "filtered", "dropped", title="destinations")
    captured = {agent.info.agent: (agent.info, agent.counts.captured) for agent in present if agent.counted}
    for name, known in known_destinations(settings.spool_dir).items():
        waiting = sum(max(0, count - known.standing(agent).position.next_seq) for agent, (_, count) in captured.items())
        tally = known.tally({agent: info for agent, (info, _) in captured.items()})
        destinations.add_row(name, *(f"{number:,}" for number in (waiting, *tally)))
    if destinations.rows:
        Console().print(destinations)
    limits = [settings.spool_bytes, settings.disk_bytes]
    for each, limit in zip(_folders(settings), limits, strict=False):
        typer.echo(f"{each} holds {folder.held_bytes(each):,} of {limit:,} bytes")


@app.command("verify")
def spool_verify(
    config: ConfigOption = None,
    spool_dir: SpoolOption = None,
    disk_dir: DiskOption = None,
    print_config: PrintConfigOption = False,
) -> None:
    """Read every record of the spool, in memory and on disk, and check its checksum; exit 1 when one is damaged.

    Of each destination it says how many of them it has yet to get.
    """
    settings = configured(config, show=print_config, flags={"spool_dir": spool_dir, "disk_dir": disk_dir})
    n_records = n_damaged = 0
    missing = dict.fromkeys(known := known_destinations(settings.spool_dir), 0)
    for segment in inspect_segments(_folders(settings)):
        checked = segment.verify()
        for name in known:
            missing[name] += count_records(segment.path, known[name].standing(segment.header.agent).position.next_seq)
        n_records += checked.n_records
        for damage in checked.damaged:
            n_damaged += 1
            typer.echo(f"{segment.path}: bytes {damage.start} to {damage.stop} are no record", err=True)
    typer.echo(f"{n_records:,} records are whole, {n_damaged:,} places are damaged")
    for name, count in missing.items():
        typer.echo(f"{name} has yet to get {count:,} of them")
    if n_damaged:
        raise typer.Exit(EXIT_FAILURE)


@app.command("drain")
def spool_drain(
    config: ConfigOption = None,
    bus: BusOption = None,
    namespace: NamespaceOption = None,
    spool_dir: SpoolOption = None,
    disk_dir: DiskOption = None,
    drain_s: Annotated[float | None, typer.Option(help="How long it may take, seconds.")] = None,
    print_config: PrintConfigOption = False,
) -> None:
    """Publish what lies in a spool and end; exit 1 when something had to stay.

    To the main bus and to every destination. Also a spool whose pod is dead, of which only the disk folder is left.
    While another shipper works on it, this is refused. What is on a bus already is not published there again.
    """
    flags = {"bus": bus, "namespace": namespace, "spool_dir": spool_dir, "disk_dir": disk_dir, "drain_s": drain_s}
    settings = configured(config, show=print_config, flags=flags)
    require_bus(settings)
    configure(level="WARNING", json=not sys.stderr.isatty())
    run(_drain(settings), slice_ns=LONG_NS)


async def _drain(settings: MirrorConfig) -> None:
    registry = SnapshotRegistry()
    with _spool_of(settings) as spool:
        drained = await Shipper(
            spool,
            open_bus=lambda: open_bus(settings.bus, client_id="govern-shipper", message_bytes=settings.message_bytes),
            metrics=CaptureMetrics(Metrics(registry), registry.updating, spool.spool_dir),
        ).drain()
    typer.echo(described(drained))
    for name, there in drained.destinations.items():
        typer.echo(f"{name}: {described(there)}")
    if any(each.waiting or each.lost for each in (drained, *drained.destinations.values())):
        raise typer.Exit(EXIT_FAILURE)


@contextlib.contextmanager
def _spool_of(settings: MirrorConfig) -> Iterator[MirrorConfig]:
    """The settings; where the memory folder went with its pod, with an empty one for as long as this takes."""
    if settings.spool_dir.exists():
        folder.make_private(settings.spool_dir)
        yield settings
        return
    with TemporaryDirectory(prefix="govern-drain-") as empty:
        yield settings.model_copy(update={"spool_dir": Path(empty)})


def described(drained: Drained) -> str:
    text = (
        f"{drained.shipped:,} records are on the bus now, {drained.waiting:,} wait in the spool, "
        f"{drained.lost:,} could not be read"
    )
    return f"{text}; {drained.alive:,} agents are still writing" if drained.alive else text


def _folders(settings: MirrorConfig) -> list[Path]:
    return [settings.spool_dir] + ([settings.disk_dir] if settings.disk_dir else [])
