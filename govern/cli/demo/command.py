"""`govern demo`: the stages in their order."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Final

import typer

from govern.bus import open_bus
from govern.bus.topics import specs
from govern.cli._common import EXIT_FAILURE, run
from govern.cli.demo.checks import check_extras, check_urls
from govern.cli.demo.plan import check_rows, plan
from govern.cli.demo.stages.findings import findings
from govern.cli.demo.stages.finish import leave_running, sum_up
from govern.cli.demo.stages.person import explain, refused_person
from govern.cli.demo.stages.prepare import fit_watchers, train_model
from govern.cli.demo.stages.proof import prove, tamper
from govern.cli.demo.stages.replay import Replay
from govern.cli.demo.stages.start import started
from govern.cli.demo.story import Story
from govern.cli.demo.watch import Watch
from govern.cli.demo.work import Work
from govern.ids import uuid7

#: The shell's convention for a command that Ctrl-C ended.
EXIT_INTERRUPTED: Final = 130
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
    check_extras()
    check_rows(rows)
    if bus is not None or db is not None:
        check_urls(bus or "embedded:///bus.db", db or "sqlite:////audit.db")
    story = Story.on_terminal()
    folder = Work.open(work)
    ended = asyncio.Event()
    run(_demo(story, folder, ended, rows=rows, bus=bus, db=db, once=once, seed=seed))
    story.console.print(f"[dim]Stopped. The files are in {folder.folder}[/]", soft_wrap=True)
    if not ended.is_set():
        raise typer.Exit(EXIT_INTERRUPTED)
    if story.failed:
        raise typer.Exit(EXIT_FAILURE)


async def _demo(
    story: Story,
    work: Work,
    ended: asyncio.Event,
    *,
    rows: int,
    bus: str | None,
    db: str | None,
    once: bool,
    seed: int,
) -> None:
    """All stages; sets `ended` after the last."""
    # On a bus that others use, too, each run is a tenant of its own.
    namespace = "demo" if bus is None and db is None else f"demo-{uuid7()[-8:]}"
    bus_url, database_url = bus or work.bus_url, db or work.database_url
    _welcome(story, work, bus, db)
    async with open_bus(bus_url, client_id="govern-demo") as connection:
        await connection.ensure_topics(specs(namespace))
        prepared = train_model(story, work, seed=seed)
        segments = plan(prepared, rows, seed=seed)
        await fit_watchers(story, work, namespace=namespace)
        async with started(story, work, namespace=namespace, bus_url=bus_url, database_url=database_url) as stack:
            watch = Watch(connection, namespace)
            replayed = await Replay(story, stack, connection, watch, segments).run(prepared.schema)
            await findings(story, stack, watch.seen, replayed, prepared.reference)
            person = refused_person(replayed)
            await explain(story, stack, watch, person, prepared.schema)
            case = await prove(story, stack, person.request_id, prepared.schema)
            await tamper(story, stack, case)
            if not once:
                await leave_running(story, stack, person.request_id)
            sum_up(story, stack)
            ended.set()
            if not once:
                story.console.print("[bold]Ctrl-C ends it.[/]")
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
