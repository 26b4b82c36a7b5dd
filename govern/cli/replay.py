"""`govern replay`: compute past verdicts once more and compare them with what was recorded."""

from __future__ import annotations

import getpass
import json
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from govern import record as records
from govern.bus import Bus, open_bus
from govern.bus.topics import topic
from govern.cli._artifacts import TrustedOption, trusting
from govern.cli._bounds import Bounds
from govern.cli._common import EXIT_FAILURE, BusOption, NamespaceOption, run
from govern.codecs import cloudevents
from govern.errors import NotFound
from govern.ids import uuid7
from govern.record import Access, Verdict
from govern.runtime.chained.linked import link
from govern.runtime.loader import load
from govern.runtime.past import Past
from govern.runtime.replay import Replayed, verdict_digest

#: Fields of one verdict that are shown; `--json` writes them all.
_FIELDS_SHOWN: Final = 5
_NS: Final = 10**9


def replay(
    files: Annotated[list[Path], typer.Argument(help="Pipeline files (YAML), with the artifacts that judged.")],
    bus: BusOption,
    namespace: NamespaceOption = "default",
    since: Annotated[
        str, typer.Option("--from", help="Windows that ended here or later: a time (RFC 3339), or partition:offset.")
    ] = "",
    until: Annotated[str, typer.Option("--to", help="Windows that ended before this time or place.")] = "",
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Only the verdict of this id, or how it begins.")
    ] = None,
    purpose: Annotated[str, typer.Option("--purpose", help="Why you look; recorded with the access.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for each verdict.")] = False,
    trusted: TrustedOption = None,
) -> None:
    """Recompute past verdicts from the inferences that they name; exit 1 when one differs from what was recorded.

    A difference is explained: another detector, rows that retention has deleted, bodies that cannot be read, or the
    fields and both their values. That you looked goes on record.
    """
    bounds = Bounds.read(since, until)
    check = trusting(trusted or [])
    found = link([loaded for file in files for loaded in load(file, check=check)])
    pipelines = {loaded.plan.name: loaded for loaded in found.pipelines}

    def wanted(verdict: Verdict) -> bool:
        return bounds.hold(verdict.window) and (not ids or any(verdict.id.startswith(one) for one in ids))

    async def work() -> None:
        outcomes: Counter[str] = Counter()
        async with open_bus(bus, client_id="govern-replay") as connection:
            past = Past(connection, namespace)
            verdicts = await past.verdicts(wanted)
            if not verdicts:
                raise NotFound(
                    f"verdicts of namespace {namespace!r}",
                    why=f"topic {topic(namespace, 'verdicts')} has none that you ask for",
                    fix="widen --from and --to; the topic keeps them for a limited time, the audit log for longer",
                )
            await _record_access(connection, namespace, f"{len(verdicts)} verdicts, {since}..{until}", purpose)
            async for one in past.replay(verdicts, pipelines):
                outcomes[one.outcome] += 1
                if as_json:
                    typer.echo(json.dumps(_plain(one)))
                elif one.outcome != "identical":
                    _tell(one)
        if not as_json:
            _sum_up(outcomes)
        if outcomes.keys() - {"identical"}:
            raise typer.Exit(EXIT_FAILURE)

    run(work())


def _tell(one: Replayed) -> None:
    console = Console(highlight=False, soft_wrap=True)
    verdict, where = one.recorded, one.recorded.window
    ended = datetime.fromtimestamp(where.t_last / _NS, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    place = f"{where.topic}[{where.partition}]@{where.first_offset}-{where.last_offset}"
    console.print(f"[bold red]{one.outcome}[/] ", end="")
    console.print(f"{verdict.id} {verdict.pipeline}/{verdict.step} {ended} {place}", markup=False)
    console.print(f"  {one.why}", markup=False)
    if one.under_another_plan:
        console.print(f"  recorded under plan {one.recorded_plan[:12]}, you replay plan {one.replayed_plan[:12]}")
    for each in one.differences[:_FIELDS_SHOWN]:
        console.print(f"  {each.field}: recorded {each.recorded}, computed {each.computed}", markup=False)
    if len(one.differences) > _FIELDS_SHOWN:
        console.print(f"  {len(one.differences) - _FIELDS_SHOWN:,} more fields")


def _sum_up(outcomes: Counter[str]) -> None:
    others = "".join(f", {count:,} {name}" for name, count in sorted(outcomes.items()) if name != "identical")
    typer.echo(f"{outcomes.total():,} verdicts replayed: {outcomes['identical']:,} identical{others}")


def _plain(one: Replayed) -> dict[str, object]:
    return {
        "id": one.recorded.id,
        "pipeline": one.recorded.pipeline,
        "step": one.recorded.step,
        "outcome": one.outcome,
        "digest": verdict_digest(one.recorded),
        "why": one.why,
        "recorded_plan": one.recorded_plan,
        "replayed_plan": one.replayed_plan,
        "differences": [asdict(each) for each in one.differences],
    }


async def _record_access(bus: Bus, namespace: str, subject: str, purpose: str) -> None:
    access = Access(
        schema_version=records.SCHEMA_VERSION,
        id=uuid7(),
        namespace=namespace,
        actor=f"cli:{getpass.getuser()}",
        action="replay",
        subject=subject,
        t_access=time.time_ns(),
        purpose=purpose,
    )
    await bus.publish(topic(namespace, "access"), [cloudevents.to_message(access, source="/govern/replay")])
