"""Everything that is wrong with pipeline files, as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from govern.errors import GovernError
from govern.pipeline import PipelineError, Problem


def tell(console: Console, error: GovernError) -> int:
    """Print what a file's error says, problem by problem; return how many they are."""
    if isinstance(error, PipelineError):
        for problem in error.problems:
            tell_problem(console, problem)
        return len(error.problems)
    console.print(f"[bold red]{escape(error.what)}[/]")
    console.print(f"    why: {escape(error.why)}\n    [green]fix: {escape(error.fix)}[/]")
    return 1


def tell_problem(console: Console, problem: Problem) -> None:
    at = f"[bold]{escape(problem.place)}[/] " + (f"[yellow]{escape(problem.field)}[/] " if problem.field else "")
    console.print(f"{at}[bold red]{escape(problem.what)}[/]")
    console.print(f"    why: {escape(problem.why)}\n    [green]fix: {escape(problem.fix)}[/]")
