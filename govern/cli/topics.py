"""`govern topics`: create and list the topics of a namespace."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from govern.bus import Partition, TopicSpec, open_bus
from govern.bus.topics import specs
from govern.cli._common import BusOption, NamespaceOption, run

app = typer.Typer(no_args_is_help=True)


@app.command()
def create(
    bus: BusOption,
    namespace: NamespaceOption = "default",
    partitions: Annotated[int, typer.Option(min=1, help="Of the inferences topic: the most workers at once.")] = 4,
) -> None:
    """Create what is missing; refuse topics that exist with other settings."""

    async def work() -> None:
        async with open_bus(bus, client_id="govern-topics") as connection:
            await connection.ensure_topics(specs(namespace, partitions=partitions))

    run(work())


@app.command("list")
def list_(bus: BusOption, namespace: NamespaceOption = "default") -> None:
    """Show each topic's partitions, how many messages it took and how long it keeps them."""

    async def work() -> None:
        table = Table("topic", "partitions", "end offsets", "kept")
        async with open_bus(bus, client_id="govern-topics") as connection:
            for spec in specs(namespace):
                count = await connection.partitions(spec.name)
                ends = [await connection.end_offset(Partition(spec.name, number)) for number in range(count)]
                table.add_row(spec.name, str(count), " ".join(map(str, ends)), _kept(spec))
        Console().print(table)

    run(work())


def _kept(spec: TopicSpec) -> str:
    if spec.compacted:
        return "newest of each key"
    return "for ever" if spec.retention_ms is None else f"{spec.retention_ms / 86_400_000:g} days"
