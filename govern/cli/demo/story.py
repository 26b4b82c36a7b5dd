"""How the demo talks: numbered stages, plain sentences, facts, and checks that count."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

#: Lines longer than this are hard to read, however wide the terminal is.
MAX_WIDTH: Final = 100
_INDENT: Final = 4


@dataclass(slots=True)
class Story:
    """Prints to one console, and remembers which checks failed.

    Attributes:
        failed: "stage: claim" of each check that did not hold.
    """

    console: Console
    failed: list[str] = field(default_factory=list)
    checks: int = 0
    _number: int = 0
    _title: str = ""
    _began: float = field(default_factory=time.monotonic)

    @classmethod
    def on_terminal(cls) -> Story:
        console = Console(highlight=False)
        if console.width > MAX_WIDTH or not console.is_terminal:
            console = Console(highlight=False, width=MAX_WIDTH)
        return cls(console)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def stage(self, title: str, why: str) -> None:
        """Begin a stage: what happens now, and why it matters."""
        self._number += 1
        self._title = title
        self.console.print()
        self.console.print(f"[bold cyan]{self._number}[/]  [bold]{title}[/]   [dim]{self.elapsed_s:.0f} s[/]")
        self.console.print(Padding(Text(why, style="dim"), (0, 0, 0, _INDENT), expand=False))

    def say(self, text: str) -> None:
        """A paragraph. Rich markup."""
        self.console.print(Padding(text, (0, 0, 0, _INDENT), expand=False))

    def bullet(self, text: str) -> None:
        """One item of a list, as plain text."""
        line = Table.grid(padding=(0, 1))
        line.add_row("•", Text(text))
        self.console.print(Padding(line, (0, 0, 0, _INDENT), expand=False))

    def gap(self) -> None:
        self.console.print()

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values in two columns."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for name, value in rows:
            table.add_row(name, value)
        self.console.print(Padding(table, (0, 0, 0, _INDENT), expand=False))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(*columns, box=None, header_style="dim", padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*row)
        self.console.print(Padding(table, (0, 0, 0, _INDENT), expand=False))

    def command(self, arguments: Sequence[str], folder: Path) -> None:
        """A govern command as it would be typed in the folder."""
        words = (one.replace(f"{folder}/", "") for one in arguments)
        line = Text(f"$ govern {shlex.join(words)}", style="dim")
        self.console.print(Padding(line, (0, 0, 0, _INDENT), expand=False))

    def quote(self, text: str) -> None:
        """What a command printed, as it is."""
        self.console.print(Padding(Text(text.rstrip(), style="dim"), (0, 0, 0, _INDENT + 2), expand=False))

    def check(self, claim: str, holds: bool) -> None:
        """State what was checked, and whether it holds. A failed check makes the demo's exit code 1."""
        self.checks += 1
        if not holds:
            self.failed.append(f"{self._number} {self._title}: {claim}")
        mark = "[bold green]✓[/]" if holds else "[bold red]✗ NOT SO:[/]"
        line = Table.grid(padding=(0, 1))
        line.add_row(mark, claim)
        self.console.print(Padding(line, (0, 0, 0, _INDENT), expand=False))
