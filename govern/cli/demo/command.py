"""`govern demo`: the stages in their order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Final

import typer

from govern.bus import open_bus
from govern.bus.topics import specs
from govern.cli._common import EXIT_FAILURE, run
from govern.cli.demo.plan import plan
from govern.cli.demo.stack import Stack
from govern.cli.demo.stages.findings import findings
from govern.cli.demo.stages.prepare import fit_watchers, train_model
from govern.cli.demo.stages.replay import Replay
from govern.cli.demo.story import Story
from govern.cli.demo.watch import Watch
from govern.cli.demo.work import Work
from govern.ids import uuid7

#: What fits into two minutes on two cores.
DEFAULT_ROWS: Final = 9000


def demo(
    rows: Annotated[int, typer.Option(help="People to replay, a third from each of 2016, 2017, 2018.")] = DEFAULT_ROWS,
    work: Annotated[Path | None, typer.Option(help="Empty folder for all files; default: a temporary one.")] = None,
    bus: Annotated[str | None, typer.Option(help="kafka://host:port instead of a bus in one file.")] = None,
    db: Annotated[str | None, typer.Option(help="postgresql+psycopg://user@host/db instead of SQLite.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Exit at the end; 0 only if everything held.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the model, the sample and the attack.")] = 0,
) -> None:
    """See it all work on real data, on this machine, in two minutes."""
    story = Story.on_terminal()
    run(_demo(story, Work.open(work), rows=rows, bus=bus, db=db, once=once, seed=seed))
    if story.failed:
        raise typer.Exit(EXIT_FAILURE)


async def _demo(story: Story, work: Work, *, rows: int, bus: str | None, db: str | None, once: bool, seed: int) -> None:
    # On a bus that others use, too, each run is a tenant of its own.
    namespace = "demo" if bus is None else f"demo-{uuid7()[-8:]}"
    _welcome(story, work, bus, db)
    prepared = train_model(story, work, seed=seed)
    segments = plan(prepared, rows, seed=seed)
    await fit_watchers(story, work, namespace=namespace)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(open_bus(bus or work.bus_url, client_id="govern-demo"))
        await connection.ensure_topics(specs(namespace))
        running = await stack.enter_async_context(
            Stack.running(work, namespace=namespace, bus_url=bus or work.bus_url, database_url=db or work.database_url)
        )
        watch = Watch(connection, namespace)
        replayed = await Replay(story, running, connection, watch, segments).run(prepared.schema)
        await findings(story, running, watch.seen, replayed, prepared.reference)
        if not once:
            await asyncio.Event().wait()


def _welcome(story: Story, work: Work, bus: str | None, db: str | None) -> None:
    story.console.print("\n[bold]govern[/] watches a model that decides about people, and keeps the proof.")
    story.console.print(
        "Everything below happens now, on this machine, in real processes. Ctrl-C ends it at any time.", style="dim"
    )
    story.facts(
        [
            ("files", str(work.folder)),
            ("bus", bus or "in one file (--bus kafka://host:port takes Apache Kafka instead)"),
            ("database", db or "in one file (--db postgresql+psycopg://user@host/db takes PostgreSQL instead)"),
        ]
    )
