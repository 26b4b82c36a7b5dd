"""`govern mirror backfill`: publish the inferences that another system has recorded in files."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from govern.bus import Partition, open_bus
from govern.bus.topics import Stream, needed, topic
from govern.cli._common import run
from govern.cli._mirror import BusOption, ConfigOption, NamespaceOption, PrintConfigOption, configured
from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig

if TYPE_CHECKING:
    from govern.backfill.row import Format
    from govern.backfill.run import Report


class Source(StrEnum):
    sagemaker = "sagemaker"
    databricks = "databricks"
    kserve_blobs = "kserve-blobs"


def backfill(
    source: Annotated[Source, typer.Argument(help="Whose files they are.")],
    files: Annotated[list[Path], typer.Argument(help="Files, or folders of which every file is read.")],
    config: ConfigOption = None,
    print_config: PrintConfigOption = False,
    bus: BusOption = None,
    namespace: NamespaceOption = None,
    service: Annotated[str | None, typer.Option(help="Name of the service; default: as the rows name it.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model; default: as the rows name it.")] = None,
    revision: Annotated[str | None, typer.Option(help="The model's revision; default: as the rows name it.")] = None,
    sampling_rate: Annotated[float | None, typer.Option(help="Share of inferences to record, 0 to 1.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and count, publish nothing.")] = False,
) -> None:
    """Publish what another system has recorded, each row once however often this is run."""
    settings = configured(
        config,
        show=print_config,
        flags={
            "bus": bus,
            "namespace": namespace,
            "service": service,
            "model": model,
            "revision": revision,
            "sampling_rate": sampling_rate,
        },
    )
    if not (settings.bus or dry_run):
        raise ConfigError("bus", why="records need one", fix="set GOVERN_BUS, --bus or `bus:` in the file")
    run(_publish(settings, source, _files(files), dry_run=dry_run, service_named=service is not None))


async def _publish(
    settings: MirrorConfig, source: Source, files: list[Path], *, dry_run: bool, service_named: bool
) -> None:
    # Imported here, because every other command of `govern mirror` stays small without pyarrow.
    from govern.backfill.ledger import BusLedger, DryLedger, Ledger
    from govern.backfill.run import Backfill
    from govern.mirror.fan_out import FanOut

    format_ = _format(source)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(source.value, total=sum(path.stat().st_size for path in files))

        def show(n_bytes: int, rows: int) -> None:
            bar.update(task, advance=n_bytes, description=f"{source.value}, {rows:,} rows")

        async def read(ledger: Ledger) -> Report:
            return await Backfill(
                settings,
                format_,
                ledger,
                service_named=service_named,
                progress=show,
            ).run(files)

        if dry_run:
            report = await read(DryLedger())
        else:
            positions = topic(settings.namespace, "positions")
            fan_out = FanOut(settings.fan_out)
            streams: tuple[Stream, ...] = ("inferences", "dead-letter", "positions")
            async with open_bus(settings.bus, client_id="govern-backfill", message_bytes=settings.message_bytes) as bus:
                await bus.ensure_topics(
                    needed(settings.namespace, streams, message_bytes=settings.message_bytes, beside=fan_out.specs)
                )
                transactor = await bus.transactor(f"govern.backfill.{settings.namespace}")
                table = await bus.read_table(Partition(positions, 0))  # after the fence: nobody else changes it
                report = await read(
                    BusLedger(transactor, table, namespace=settings.namespace, format_=source.value, fan_out=fan_out)
                )
    _tell(report, dry_run=dry_run)


def _format(source: Source) -> Format[Any]:
    from govern.backfill.databricks import DATABRICKS
    from govern.backfill.kserve import KSERVE
    from govern.backfill.sagemaker import SAGEMAKER

    formats: dict[Source, Format[Any]] = {
        Source.sagemaker: SAGEMAKER,
        Source.databricks: DATABRICKS,
        Source.kserve_blobs: KSERVE,
    }
    return formats[source]


def _files(given: list[Path]) -> list[Path]:
    """The files, those of a folder by name, so that a request of KServe's comes right before its response."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigError(f"{path}", why="there is no such file or folder", fix="name an existing one")
    return found


def _tell(report: Report, *, dry_run: bool) -> None:
    would = "would be published" if dry_run else "published"
    typer.echo(
        f"{report.files:,} files ({report.known_files:,} of them known already), {report.rows:,} rows: "
        f"{report.records:,} inferences {would}, {report.alone:,} of them with one side only, "
        f"{report.sampled_out:,} sampled out, {report.refused.total():,} refused"
    )
    for why, count in report.refused.most_common():
        typer.echo(f"  {count:,} refused: {why}")
