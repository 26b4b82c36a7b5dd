"""`govern pipeline`: check pipeline files, draw them, and import other systems' manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from govern.cli.pipeline_import import import_
from govern.errors import GovernError
from govern.pipeline import PipelineError, Plan, PlannedStep, load_pipelines, plan

app = typer.Typer(no_args_is_help=True)
app.command("import")(import_)

_STYLES: Final = {"drift": "cyan", "outlier": "magenta", "adversarial": "red", "explainer": "green", "model": "blue"}


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Pipeline files (YAML).")],
    artifacts: Annotated[bool, typer.Option("--artifacts", help="Fitted artifacts must be there, too.")] = False,
) -> None:
    """Say everything that is wrong with pipeline files, each with its line and what to do."""
    console = Console(highlight=False, soft_wrap=True)
    wrong = 0
    for file in files:
        try:
            plans = [plan(one) for one in load_pipelines(file, artifacts=artifacts)]
        except PipelineError as error:
            wrong += len(error.problems)
            for problem in error.problems:
                at = f"[bold]{escape(problem.place)}[/] " + (
                    f"[yellow]{escape(problem.field)}[/] " if problem.field else ""
                )
                console.print(f"{at}[bold red]{escape(problem.what)}[/]")
                console.print(f"    why: {escape(problem.why)}\n    [green]fix: {escape(problem.fix)}[/]")
        except GovernError as error:
            wrong += 1
            console.print(f"[bold red]{escape(error.what)}[/]")
            console.print(f"    why: {escape(error.why)}\n    [green]fix: {escape(error.fix)}[/]")
        else:
            for one in plans:
                console.print(
                    f"[green]ok[/] {escape(str(file))}: {one.name}, {len(one.steps)} steps, {one.digest[:12]}"
                )
    if wrong:
        console.print(f"[bold red]{wrong} error{'s' if wrong > 1 else ''}[/]")
        raise typer.Exit(2)


@app.command()
def show(file: Annotated[Path, typer.Argument(help="Pipeline file (YAML).")]) -> None:
    """Draw the graphs of a file: what each step reads, when its windows close, what it triggers."""
    console = Console(highlight=False)
    for pipeline in load_pipelines(file, schema=False):
        console.print(draw(plan(pipeline)))


def draw(one: Plan) -> Tree:
    """The graph as a tree: a step hangs below the detector that triggers it, else below the pipeline's inputs."""
    root = Tree(
        f"[bold]{one.name}[/].inputs  [dim]the inferences of {escape(one.source.service)}/{escape(one.source.model)}[/]"
    )
    branches = {step.name: Tree(_label(step)) for step in one.steps}
    for step in one.steps:
        triggered_by = {name for name, _ in step.triggers}
        for parent in [branches[name] for name in sorted(triggered_by)] or [root]:
            parent.children.append(branches[step.name])
    return root


def _label(step: PlannedStep) -> str:
    text = f"[bold {_STYLES[step.kind]}]{step.name}[/]  "
    if step.detector is not None:
        text += (
            f"{step.kind} · {escape(step.detector.type)} · window {step.batch_size} rows or {step.window_ms / 1000:g} s"
        )
    elif step.explainer is not None:
        text += f"explainer · {escape(step.explainer.name)} · up to {step.explainer.max_per_window} a window"
    else:
        text += "model · its captured responses"
    if step.kind != "explainer" and step.after:
        text += (
            f"\n[dim]reads also {escape(', '.join(step.needs_outputs) or 'all outputs')} of {', '.join(step.after)}[/]"
        )
    if step.triggers:
        text += f"\n[dim]when there are {escape(', '.join(tensor for _, tensor in step.triggers))}[/]"
    return text
