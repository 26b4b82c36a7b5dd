"""`govern pipeline import`: pipelines that watch what manifests of Seldon Core and KServe serve, or do the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml
from rich.console import Console
from rich.markup import escape

from govern.cli._common import EXIT_BAD_INPUT
from govern.cli._files import write_whole
from govern.pipeline.errors import Problem
from govern.pipeline.manifests import read_manifests, watch, whole

#: Pipelines were written, and some of what the manifests say is not in them.
EXIT_LOSSES: Final = 3


def import_(
    files: Annotated[list[Path], typer.Argument(help="Manifests of Seldon Core v1 and v2 or KServe (YAML or JSON).")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: standard output.")] = None,
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            metavar="URL",
            help="Import the serving graphs whole instead, each model called at this address; "
            "{model}, {service} and {namespace} are filled in.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing when anything is lost.")] = False,
) -> None:
    """Write a pipeline for each model that manifests serve, and say what of them it cannot hold.

    With --models, write a pipeline for each serving graph instead, which routes, joins and calls as the graph does.

    Exits with 0 when all is imported, 3 when something is lost, 2 when a manifest cannot be read: nothing is written
    then.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    graphs, report = read_manifests(files)
    documents: list[dict[str, Any]] = []
    if not report.errors:
        documents = watch(graphs) if models is None else whole(graphs, models)
    _tell(console, report.errors, "red")
    if report.errors:
        console.print(f"[bold red]{_count(len(report.errors), 'error')}[/], nothing is written")
        raise typer.Exit(EXIT_BAD_INPUT)
    _tell(console, report.losses, "yellow")
    if not documents:
        nothing = "no model to watch" if models is None else "no graph to import whole"
        console.print(f"[bold red]{nothing}[/], nothing is written")
        raise typer.Exit(EXIT_BAD_INPUT)
    refused = strict and bool(report.losses)
    if not refused:
        text = yaml.safe_dump_all(documents, sort_keys=False)
        typer.echo(text, nl=False) if out is None else write_whole(out, [text.encode()])
    ending = "nothing is written" if refused else f"{_count(len(documents), 'pipeline')} written"
    console.print(f"{_count(len(report.losses), 'loss', 'losses')}, {ending}")
    if report.losses:
        raise typer.Exit(EXIT_LOSSES)


def _tell(console: Console, problems: Sequence[Problem], colour: str) -> None:
    for problem in sorted(problems, key=lambda one: (str(one.file), one.line, one.column)):
        at = f"[bold]{escape(problem.place)}[/] " + (f"[cyan]{escape(problem.field)}[/] " if problem.field else "")
        console.print(f"{at}[bold {colour}]{escape(problem.what)}[/]")
        console.print(f"    why: {escape(problem.why)}\n    [green]fix: {escape(problem.fix)}[/]")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
