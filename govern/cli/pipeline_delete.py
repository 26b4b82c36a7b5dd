"""`govern pipeline delete`: take pipelines out of the fleet."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from govern.bus import open_bus
from govern.cli._common import BusOption, NamespaceOption, run
from govern.runtime.fleet.fleet import Fleet


def delete(
    names: Annotated[list[str], typer.Argument(help="The pipelines.")],
    bus: BusOption,
    namespace: NamespaceOption = "default",
) -> None:
    """Take pipelines out of the fleet: workers stop judging by them, and what their open windows hold is given up."""

    async def work() -> None:
        async with open_bus(bus, client_id="govern-pipeline") as connection:
            await Fleet(connection, namespace, actor=f"cli:{getpass.getuser()}").delete(names)
        for name in dict.fromkeys(names):
            typer.echo(f"{name} deleted")

    run(work())
