"""What `govern fit --suggest` writes: a schema and a pipeline file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from msgspec.structs import replace as with_fields
from rich.console import Console
from rich.markup import escape

from detectors.suggest import pipeline_file, steps, useless, window
from govern.cli._files import write_whole
from govern.cli._references import Reference
from govern.errors import BadInput
from govern.frame import Frame

#: The file's name where only a folder is given.
PIPELINE_FILE: Final = "pipeline.yaml"


def new_file(pipeline: Path | None, out: Path | None) -> Path:
    """Where the pipeline goes.

    Raises:
        BadInput: nobody says where, or a file is there that a person may have edited.
    """
    if pipeline is None and out is None:
        raise BadInput("--pipeline is missing", why="--suggest writes a pipeline file", fix="add --pipeline FILE.yaml")
    file = pipeline or Path(out or ".") / PIPELINE_FILE
    if file.exists():
        raise BadInput(f"{file} is there already", why="--suggest writes a new file", fix="name another, or remove it")
    return file


def write_suggestion(
    found: Reference,
    schema: Path,
    pipeline: Path,
    model: str,
    service: str,
    detect: float,
    rows_per_day: int,
    console: Console,
    progress: Callable[[int], None],
) -> None:
    """Write both, and say what to do with them. Features that teach nothing are left out of a schema that is new.

    Raises:
        BadInput: nothing is left, or too few rows.
    """
    left = useless(found.frame)
    for name, why in left.items():
        console.print(
            f"Left out of the schema: {escape(name)}, {why}." if not found.kept else f"{escape(name)}: {why}."
        )
    frame = _without(found.frame, set(left))
    size = window(frame, detect, rows_per_day, progress)
    text = pipeline_file(
        list(steps(frame, size.level, rows_per_day)),
        size,
        model=model,
        service=service or model,
        schema=os.path.relpath(schema, pipeline.parent),
        origin=found.origin,
        rows_per_day=rows_per_day,
    )
    if not found.kept:
        write_whole(schema, [frame.schema.to_yaml().encode()])
    write_whole(pipeline, [text.encode()])
    console.print(escape(f"{size.why}."))
    console.print(f"Wrote {escape(str(pipeline))} and {escape(str(schema))}: read them, then fit with --pipeline.")


def _without(frame: Frame, names: set[str]) -> Frame:
    kept = [place for place, name in enumerate(frame.schema.names) if name not in names]
    if not kept:
        raise BadInput("the reference", why="no column of it teaches a detector anything", fix="give other rows")
    return replace(
        frame,
        schema=with_fields(frame.schema, features=tuple(frame.schema.features[place] for place in kept)),
        columns=tuple(frame.columns[place] for place in kept),
        unseen={name: values for name, values in frame.unseen.items() if name not in names},
    )
