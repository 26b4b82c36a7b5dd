"""`govern detector adopt`: an artifact from a folder that alibi-detect saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from detectors import artifacts
from detectors.alibi import saved
from govern.schema import FeatureSchema


def adopt(
    folder: Annotated[Path, typer.Argument(help="What alibi_detect.saving.save_detector wrote.")],
    schema: Annotated[Path, typer.Option("--schema", help="Of the rows that it is to judge, in its columns' order.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the artifact.")],
    context: Annotated[list[str] | None, typer.Option(help="Feature that it is given beside the others.")] = None,
    min_instances: Annotated[
        int | None, typer.Option(min=1, help="Fewest rows of a window; 20 for drift, else 1.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or float64; its reference's by default.")] = None,
    deadline_s: Annotated[float, typer.Option(help="Seconds in which it must have judged a window.")] = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Of its random numbers.")] = 0,
) -> None:
    """Record the digest of every file of a detector that alibi-detect saved, and make an artifact of it.

    The detector is loaded once, in a process apart, which runs what code it holds: adopt what you trust.
    """
    detector = saved.adopt(
        folder,
        FeatureSchema.load(schema),
        context=context or (),
        min_instances=min_instances,
        dtype=dtype,
        deadline_s=deadline_s,
        seed=seed,
    )
    artifacts.save(detector, out)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Adopted [bold]{escape(detector.detector)}[/] ({detector.kind}) as {escape(str(out))}.")
    console.print(f"In a pipeline: detector: {{type: {detector.method}, artifact: ...}}; sha256 {detector.digest}")
