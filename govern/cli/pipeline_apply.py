"""`govern pipeline apply`: put pipelines into the fleet."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from govern.bus import open_bus
from govern.cli._common import EXIT_BAD_INPUT, BusOption, NamespaceOption, run
from govern.cli._problems import tell
from govern.errors import GovernError
from govern.runtime.fleet.fleet import Fleet
from govern.runtime.fleet.pack import Packed, pack
from govern.runtime.fleet.together import check_together
from govern.runtime.loader import LoadedPipeline, load_documented


def apply(
    files: Annotated[list[Path], typer.Argument(help="Pipeline files (YAML), beside their schema and artifacts.")],
    bus: BusOption,
    namespace: NamespaceOption = "default",
) -> None:
    """Put pipelines into the fleet, or change those of the same names; `govern worker --fleet` runs them.

    All files are checked first, artifacts included, as a worker checks them; nothing is applied when one is wrong.
    """
    packed = _checked(files, namespace)

    async def work() -> None:
        async with open_bus(bus, client_id="govern-pipeline") as connection:
            fleet = Fleet(connection, namespace, actor=f"cli:{getpass.getuser()}")
            for name, change in (await fleet.apply(packed)).items():
                typer.echo(f"{name} {change}")

    run(work())


def _checked(files: list[Path], namespace: str) -> list[Packed]:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    found: list[Packed] = []
    loaded: list[LoadedPipeline] = []
    wrong = 0
    for file in files:
        try:
            documented = load_documented(file)
            packed = [pack(one) for one in documented]
        except GovernError as error:
            wrong += tell(console, error)
        else:
            found += packed
            loaded += [part for one in documented for part in one.parts]
    if wrong:
        console.print(f"[bold red]{wrong} error{'s' if wrong > 1 else ''}, nothing is applied[/]")
        raise typer.Exit(EXIT_BAD_INPUT)
    check_together(loaded, namespace)
    return found
