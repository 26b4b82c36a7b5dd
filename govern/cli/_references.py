"""Where the rows come from that `govern fit` learns from, other than a file."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from detectors.fit import kept_schema
from govern.bus import Message, open_bus
from govern.cli._bounds import Bounds
from govern.errors import BadInput
from govern.record import Inference, Window
from govern.runtime.recorded import LeftOut, Recorded, Stream, Wanted
from govern.schema import FeatureSchema

#: Rows drawn from a topic unless told otherwise: 100 features of them are 80 MB.
ROWS: Final = 100_000


def require_one(file: Path | None, *, from_topic: bool, bus: str, sql: str, query: str) -> None:
    """Check that the rows come from one place.

    Raises:
        BadInput: from none or from two, from a topic of no bus, or from a database without a query.
    """
    if (file is not None) + from_topic + bool(query) != 1:
        raise BadInput(
            "the reference",
            why="no rows are named to learn from, or those of two places",
            fix="name a CSV or Parquet file, or add --from-topic --bus URL, or --sql URL --query SQL",
        )
    if from_topic and not bus:
        raise BadInput("--bus is missing", why="--from-topic reads a topic of it", fix="add --bus URL")
    if query and not sql:
        raise BadInput("--sql is missing", why="--query selects from a database", fix="add --sql URL")


def recorded(
    bus: str,
    namespace: str,
    wanted: Wanted,
    schema: Path,
    *,
    protected: Sequence[str],
    pii: Sequence[str],
    rows: int,
    seed: int,
    outputs: Collection[str],
    progress: Progress,
) -> tuple[FeatureSchema, bool, Recorded]:
    """The schema at `schema`, or one drawn from the requests; whether it was kept; and the rows.

    Raises:
        GovernError: the bus is away, the kept schema says otherwise than the options, or nothing can be used.
    """
    kept = kept_schema(schema, wanted.model, protected=protected, pii=pii)

    async def work() -> tuple[FeatureSchema, bool, Recorded]:
        async with open_bus(bus, client_id="govern-fit") as connection:
            stream = await Stream.open(connection, namespace)
            described = kept or await stream.describe(wanted, protected=protected, pii=pii)
            task = progress.add_task("reading", total=stream.messages)
            found = await stream.draw(
                wanted,
                described,
                rows=rows or ROWS,
                seed=seed,
                outputs=outputs,
                progress=lambda messages: progress.update(task, advance=messages),
            )
            return described, kept is not None, found

    return asyncio.run(work())


def wanted(model: str, service: str, revision: str, since: str, until: str) -> Wanted:
    """
    Raises:
        BadInput: one of the ends is wrong.
    """
    bounds = Bounds.read(since, until)

    def within(message: Message, inference: Inference) -> bool:
        return bounds.hold(Window(partition=message.partition, last_offset=message.offset, t_last=inference.t_response))

    return Wanted(model, service, revision, within)


def tell(left_out: LeftOut, console: Console) -> None:
    """Say what of the topic could not be used, and why."""
    for phrase in left_out:
        console.print(f"Left out of the topic: {escape(phrase)}")
