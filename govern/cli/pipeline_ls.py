"""`govern pipeline ls`: what the fleet holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from govern.bus import open_bus
from govern.cli._common import BusOption, NamespaceOption, run
from govern.runtime.fleet.fleet import Fleet


def ls(
    bus: BusOption,
    namespace: NamespaceOption = "default",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the pipelines of the fleet: what each watches, its digest, its size, and who applied it when."""

    async def work() -> None:
        async with open_bus(bus, client_id="govern-pipeline") as connection:
            entries = await Fleet(connection, namespace, actor="").entries()
        if as_json:
            for entry in entries.values():
                typer.echo(msgspec.json.encode(entry))
            return
        table = Table("pipeline", "watches", "digest", "bytes", "applied", "by")
        for entry in entries.values():
            applied = datetime.fromtimestamp(entry.t_applied / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
            source = f"{entry.service}/{entry.model}"
            table.add_row(entry.name, source, entry.digest[:12], f"{entry.size:,}", applied, entry.actor)
        Console(soft_wrap=True).print(table)

    run(work())
