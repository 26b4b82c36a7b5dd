"""The rows that `govern fit` learns from: of a file, a database or a topic."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from detectors.fit import draft_or_kept, kept_schema
from govern.bus import Message, open_bus
from govern.cli._bounds import Bounds
from govern.cli._times import Ranges, per_day, without
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import Inference, Window
from govern.runtime.recorded import Recorded, Stream, Wanted
from govern.schema import FeatureSchema
from govern.table import Table, frame_of

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


@dataclass(frozen=True, slots=True)
class Reference:
    """
    Attributes:
        kept: whether the schema's file was there; otherwise it was inferred.
        origin: of the rows, in words.
        lineage: of the rows, for the manifests of artifacts (`govern.artifact.LINEAGE`).
        left_out: what could not be used, and why, a phrase each.
        rows_per_day: by the times of all rows, of which these may be a part; 0: they do not say.
    """

    frame: Frame
    schema: FeatureSchema
    kept: bool
    origin: str
    lineage: dict[str, Any]
    left_out: tuple[str, ...]
    rows_per_day: int = 0


def of_table(
    table: Table,
    source: dict[str, Any] | None,
    model: str,
    schema: Path,
    *,
    query: str = "",
    exclude: Sequence[str],
    protected: Sequence[str],
    pii: Sequence[str],
    outputs: Mapping[str, str],
    time_column: str,
    ranges: Ranges,
    rows: int,
    seed: int,
) -> Reference:
    """
    Args:
        source: the file, for the lineage; None: a database gave it to the query.

    Raises:
        BadInput: the table lacks a column or holds what is none of its feature, or the kept schema says otherwise.
    """
    timed = without(table, time_column, ranges)
    drawn = timed.table.sample(rows, seed=seed) if rows else timed.table
    left = [*exclude, *([time_column] if time_column else [])]
    described, kept = draft_or_kept(drawn, schema, model, exclude=left, protected=protected, pii=pii, outputs=outputs)
    frame = frame_of(drawn, described, outputs)
    said = (f"{timed.left_out:,} rows are of ranges that are left out, or have no {time_column}",)
    return Reference(
        frame,
        described,
        kept,
        f"{len(frame):,} rows of {table.origin}",
        _lineage(source or {"database": table.origin, "query": query}, frame, timed.span, ranges, seed),
        said if timed.left_out else (),
        per_day(len(timed.table), timed.span, ranges),
    )


def of_file(path: Path) -> dict[str, Any]:
    """A file as lineage tells it.

    Raises:
        BadInput: it cannot be read any more.
    """
    try:
        with path.open("rb") as file:
            return {"path": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise BadInput(f"table {path} cannot be read", why=str(error), fix="leave it there while it is read") from error


def of_topic(drawn: tuple[FeatureSchema, bool, Recorded], asked: Wanted, topic: str, seed: int) -> Reference:
    """What `recorded` found."""
    schema, kept, found = drawn
    source = {
        "topic": topic,
        "model": asked.model,
        "service": asked.service,
        "revision": asked.revision,
        "offsets": {str(partition): [span.first, span.last] for partition, span in sorted(found.spans.items())},
    }
    return Reference(
        found.frame,
        schema,
        kept,
        f"{len(found.frame):,} of {found.rows:,} rows of {found.inferences:,} inferences of {asked.model}",
        _lineage(source, found.frame, (found.t_first, found.t_last), tuple(asked.left_out), seed),
        tuple(found.left_out),
        per_day(found.rows, (found.t_first, found.t_last), tuple(asked.left_out)),
    )


def _lineage(source: dict[str, Any], frame: Frame, span: Sequence[int], ranges: Ranges, seed: int) -> dict[str, Any]:
    told: dict[str, Any] = {"source": source, "rows": len(frame), "seed": seed}
    if span:
        told["times"] = [_rfc3339(one) for one in span]
    if ranges:
        told["excluded"] = [f"{_rfc3339(first)}/{_rfc3339(end)}" for first, end in ranges]
    return told


def _rfc3339(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).isoformat().replace("+00:00", "Z")


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


def wanted(model: str, service: str, revision: str, since: str, until: str, ranges: Ranges) -> Wanted:
    """
    Raises:
        BadInput: one of the ends is wrong.
    """
    bounds = Bounds.read(since, until)

    def within(message: Message, inference: Inference) -> bool:
        return bounds.hold(Window(partition=message.partition, last_offset=message.offset, t_last=inference.t_response))

    return Wanted(model, service, revision, within, ranges)


def tell(reference: Reference, console: Console) -> None:
    """Say what of the rows could not be used, and why."""
    where = "topic" if "topic" in reference.lineage["source"] else "table"
    for phrase in reference.left_out:
        console.print(f"Left out of the {where}: {escape(phrase)}")
