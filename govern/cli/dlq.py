"""`govern dlq`: what could not be processed: list it, look at it, give it back."""

from __future__ import annotations

import getpass
import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from govern import record as records
from govern.bus import Bus, Message, open_bus
from govern.bus.topics import topic
from govern.cli._common import EXIT_FAILURE, BusOption, NamespaceOption, run
from govern.cli._files import write_whole
from govern.codecs import cloudevents
from govern.errors import BadInput
from govern.ids import uuid7
from govern.record import Access, DeadLetter
from govern.runtime.letters import Letter, Letters, Outcome

app = typer.Typer(no_args_is_help=True)

PipelineOption = Annotated[str, typer.Option("--pipeline", help="Only those of this pipeline.")]
StepOption = Annotated[str, typer.Option("--step", help="Only those of this step.")]
CodeOption = Annotated[str, typer.Option("--code", help="Only those with this reason, such as undecodable-payload.")]

#: An original is shown up to here; `--raw` writes all of it.
_SHOWN_BYTES: Final = 4000
#: Longer texts would break the table's columns.
_ID_SHOWN: Final = 12


@app.command("ls")
def ls(
    bus: BusOption,
    namespace: NamespaceOption = "default",
    pipeline: PipelineOption = "",
    step: StepOption = "",
    code: CodeOption = "",
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many of the newest to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, without the originals.")] = False,
) -> None:
    """List dead letters, newest last, and count them by reason."""

    async def work() -> None:
        async with open_bus(bus, client_id="govern-dlq") as connection:
            found = [
                one
                async for one in Letters(connection, namespace, actor=_actor()).all()
                if _is(one, pipeline, step, code)
            ]
        if as_json:
            for one in found[-last:]:
                typer.echo(json.dumps(_plain(one)))
        else:
            _list(found, last)

    run(work())


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="A letter's id, or how it begins.")],
    bus: BusOption,
    namespace: NamespaceOption = "default",
    raw: Annotated[Path | None, typer.Option("--raw", help="Write the original's bytes to this file.")] = None,
    purpose: Annotated[str, typer.Option("--purpose", help="Why you look; recorded with the access.")] = "",
) -> None:
    """Show one dead letter with its reason and its original. That you looked goes on record."""

    async def work() -> None:
        async with open_bus(bus, client_id="govern-dlq") as connection:
            letter = await Letters(connection, namespace, actor=_actor()).one(letter_id)
            await _record_access(connection, namespace, letter, purpose)
        if raw is not None:
            write_whole(raw, [letter.record.value])
        _show(letter)

    run(work())


@app.command("retry")
def retry_(
    bus: BusOption,
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Letters' ids, or how they begin.")
    ] = None,
    namespace: NamespaceOption = "default",
    every: Annotated[bool, typer.Option("--all", help="Every letter that the other options leave.")] = False,
    pipeline: PipelineOption = "",
    step: StepOption = "",
    code: CodeOption = "",
    again: Annotated[bool, typer.Option("--again", help="Also those that were retried before.")] = False,
) -> None:
    """Give dead letters back to the pipeline or step that could not read them; exit 1 when one had to stay.

    Each original is published once more on its topic, for that pipeline or step alone, and counts in the window that
    is open now. Mend the cause first: what fails again becomes a new dead letter.
    """
    if bool(letter_ids) == every:
        raise BadInput(
            "letters to retry",
            why="both ids and --all were given" if every else "neither ids nor --all were given",
            fix="name letters, or write --all (with --pipeline, --step, --code to choose)",
        )

    async def work() -> None:
        async with open_bus(bus, client_id="govern-dlq") as connection:
            letters = Letters(connection, namespace, actor=_actor())
            asked = [await letters.one(one) for one in letter_ids or ()]
            if every:
                asked = [one async for one in letters.all() if _is(one, pipeline, step, code)]
            outcome = await letters.retry(asked, again=again)
        _tell(outcome)
        if outcome.left:
            raise typer.Exit(EXIT_FAILURE)

    run(work())


def _is(letter: Letter, pipeline: str, step: str, code: str) -> bool:
    record = letter.record
    return all(
        wanted in ("", found)
        for wanted, found in ((pipeline, record.pipeline), (step, record.step), (code, record.code))
    )


def _list(found: list[Letter], last: int) -> None:
    console = Console(highlight=False)
    table = Table("id", "failed", "reason", "pipeline/step", "what", "retried")
    for one in found[-last:]:
        record = one.record
        table.add_row(
            record.id[:_ID_SHOWN],
            _when(record.t_failed),
            record.code,
            escape("/".join(filter(None, (record.pipeline, record.step))) or "-"),
            escape(record.what),
            _when(one.retried.t) if one.retried else "no",
        )
    if found:
        console.print(table)
    counts = Counter(one.record.code for one in found)
    reasons = ", ".join(f"{count:,} {code}" for code, count in counts.most_common())
    console.print(f"{len(found):,} dead letters{f': {reasons}' if reasons else ''}", soft_wrap=True)


def _show(letter: Letter) -> None:
    console = Console(highlight=False, soft_wrap=True)
    record = letter.record
    place = f"{record.source_topic}[{record.source_partition}]@{record.source_offset}"
    retried = f"{_when(letter.retried.t)} by {letter.retried.actor}" if letter.retried else "no"
    for name, text in (
        ("id", record.id),
        ("what", record.what),
        ("why", record.why),
        ("fix", record.fix),
        ("reason", record.code),
        ("failed", _when(record.t_failed)),
        ("pipeline", record.pipeline or "every pipeline"),
        ("step", record.step or "every step"),
        ("original", f"{place}, {max(record.value_size, len(record.value)):,} bytes"),
        ("retried", retried),
    ):
        console.print(f"[bold]{name:>9}[/]  ", end="")
        console.print(text, markup=False)
    console.print(_original(record), markup=False)


def _original(letter: DeadLetter) -> str:
    """The original as text: a record field by field, anything else as far as it is text."""
    message = Message(
        topic=letter.source_topic,
        partition=letter.source_partition,
        offset=letter.source_offset,
        timestamp_ms=0,
        key=letter.key,
        value=letter.value,
        headers=tuple(letter.headers.items()),
    )
    try:
        record = cloudevents.from_message(message)
    except BadInput:
        text = _text(letter.value)
    else:
        text = json.dumps(_readable(msgspec.to_builtins(record, builtin_types=(bytes,))), indent=2, ensure_ascii=False)
    return text


def _readable(value: object) -> object:
    match value:
        case bytes():
            return _text(value)
        case dict():
            return {name: _readable(one) for name, one in value.items()}
        case list() | tuple():
            return [_readable(one) for one in value]
        case _:
            return value


def _text(data: bytes) -> str:
    shown = data[:_SHOWN_BYTES]
    try:
        text = shown.decode()
    except UnicodeDecodeError:
        text = shown.hex(" ", 4)
    return text if len(data) <= _SHOWN_BYTES else f"{text} ... {len(data) - _SHOWN_BYTES:,} more bytes"


def _tell(outcome: Outcome) -> None:
    typer.echo(f"{len(outcome.given_back):,} dead letters are given back, {len(outcome.left):,} stay")
    for letter, why in outcome.left:
        typer.echo(f"{letter.record.id[:_ID_SHOWN]}: {why}", err=True)


def _plain(letter: Letter) -> dict[str, object]:
    fields = msgspec.to_builtins(letter.record, builtin_types=(bytes,))
    for name in ("key", "value", "headers"):
        fields.pop(name, None)
    return {**fields, "retried": None if letter.retried is None else msgspec.to_builtins(letter.retried)}


async def _record_access(bus: Bus, namespace: str, letter: Letter, purpose: str) -> None:
    access = Access(
        schema_version=records.SCHEMA_VERSION,
        id=uuid7(),
        namespace=namespace,
        actor=_actor(),
        action="dead-letter",
        subject=letter.record.id,
        t_access=time.time_ns(),
        purpose=purpose,
    )
    await bus.publish(topic(namespace, "access"), [cloudevents.to_message(access, source="/govern/dlq")])


def _actor() -> str:
    return f"cli:{getpass.getuser()}"


def _when(t_ns: int) -> str:
    return datetime.fromtimestamp(t_ns / 1e9, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
