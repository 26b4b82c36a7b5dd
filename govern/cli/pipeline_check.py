"""`govern pipeline check`: everything that is wrong with pipeline files, and who runs those that are right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from govern.cli._problems import tell, tell_problem
from govern.errors import GovernError
from govern.pipeline import Pipeline, Problem
from govern.pipeline.checks import chains, placed
from govern.pipeline.cut import cut
from govern.pipeline.document import Document
from govern.pipeline.groups import is_placed
from govern.pipeline.load import load_documents
from govern.pipeline.said import placement
from govern.pipeline.topology import digest
from govern.runtime.vocabulary import RUNTIMES


def check(
    files: Annotated[list[Path], typer.Argument(help="Pipeline files (YAML).")],
    artifacts: Annotated[bool, typer.Option("--artifacts", help="Fitted artifacts must be there, too.")] = False,
) -> None:
    """Say everything that is wrong with pipeline files, each with its line and what to do.

    Of a pipeline that is right it says which command runs it and what in it that command has no use for; of one that
    none runs, why. Pipelines that read each other are checked together.
    """
    console = Console(highlight=False, soft_wrap=True)
    wrong = 0
    together: list[chains.Found] = []
    for file in files:
        try:
            found = load_documents(file, artifacts=artifacts)
        except GovernError as error:
            wrong += tell(console, error)
        else:
            together += found
    between = chains.check(together) or placed.clashes(together)
    wrong += len(between)
    for problem in between:
        tell_problem(console, problem)
    files_wrong = {problem.file for problem in between}
    for document, pipeline in together:
        if document.file not in files_wrong:
            _right(console, document, pipeline)
            _note(console, "not given", _absent(document, pipeline, together))
    if wrong:
        console.print(f"[bold red]{wrong} error{'s' if wrong > 1 else ''}[/]")
        raise typer.Exit(2)


def _right(console: Console, document: Document, pipeline: Pipeline) -> None:
    refused = {runtime: runtime.refuses(document, pipeline) for runtime in RUNTIMES}
    runs = [runtime for runtime, problems in refused.items() if not problems]
    by = "[yellow]no command of this release runs it[/]"
    if runs:
        by = f"run by {' and '.join(runtime.command for runtime in runs)}"
    count = f"{len(pipeline.spec.steps)} step{'s' if len(pipeline.spec.steps) > 1 else ''}"
    console.print(f"[green]ok[/] {escape(str(document.file))}: {pipeline.name}, {count}, {digest(pipeline)[:12]}, {by}")
    for part in cut(pipeline) if is_placed(pipeline) else ():
        console.print(f"    [dim]part {escape(placement(part))}[/]")
    for runtime in runs:
        _note(console, f"in {runtime.command}", runtime.ignores(document, pipeline))
    for runtime, problems in refused.items():
        if not runs:
            _note(console, f"not {runtime.command}", problems)


def _absent(document: Document, pipeline: Pipeline, together: Sequence[chains.Found]) -> list[Problem]:
    """What it reads of pipelines that may be elsewhere, and were not looked at."""
    names = {one.name: one for _, one in together}
    return [
        document.problem(where, f"pipeline {name!r}", "none of these files has it", "give its file, too")
        for name, where in chains.absent(pipeline, names).items()
    ]


def _note(console: Console, words: str, problems: Sequence[Problem]) -> None:
    for problem in sorted(problems, key=lambda one: (one.line, one.column)):
        where = f"{problem.line}:{problem.column} {escape(problem.field)}"
        console.print(f"    [dim]{words}: {where} {escape(problem.what)}: {escape(problem.why)}[/]")
