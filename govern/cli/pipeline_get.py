"""`govern pipeline get`: a pipeline of the fleet as it was applied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from govern.bus import open_bus
from govern.cli._common import BusOption, NamespaceOption, run
from govern.cli._files import write_whole
from govern.runtime.fleet.fleet import Fleet


def get(
    name: Annotated[str, typer.Argument(help="The pipeline.")],
    bus: BusOption,
    namespace: NamespaceOption = "default",
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to write it to, with its schema and artifacts.")
    ] = None,
) -> None:
    """Print a pipeline's document as it was written, or write all of its files to a folder."""

    async def work() -> None:
        async with open_bus(bus, client_id="govern-pipeline") as connection:
            fleet = Fleet(connection, namespace, actor="")
            entry = await fleet.entry(name)
            contents = await fleet.contents(entry)
        if to is None:
            typer.echo(contents[entry.document].decode(), nl=False)
            return
        for path, data in contents.items():
            write_whole(to / path, [data])
        typer.echo(to / entry.document)

    run(work())
