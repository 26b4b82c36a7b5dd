"""The live view of the replay: a block that is drawn anew on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_INDENT: Final = 4
#: Where there is no terminal, a line at each of these shares of the way.
_PLAIN_STEP: Final = 0.125
_DRAWINGS_PER_S: Final = 4


@dataclass(frozen=True, slots=True)
class Status:
    """The figures of one moment.

    Attributes:
        flagged: step -> (rows flagged, rows judged).
    """

    phase: str
    people: int
    requests: int
    seen: int
    captured: int
    sampled_out: int
    dropped: int
    on_bus: int
    flagged: dict[str, tuple[int, int]]
    drift_windows: int
    drift_alarms: int
    dead_letters: int
    audit_entries: int

    def rows(self) -> list[tuple[str, str]]:
        parts = f"{self.captured:,} captured + {self.sampled_out:,} sampled out + {self.dropped:,} dropped"
        rows = [("capture", f"{self.seen:,} seen = {parts}; {self.on_bus:,} on the bus")]
        rows.append(("drift", f"{self.drift_alarms} of {self.drift_windows} windows differ from 2015"))
        rows += [
            (step, f"{flagged:,} of {judged:,} people flagged")
            for step, (flagged, judged) in sorted(self.flagged.items(), reverse=True)
        ]
        rows.append(("dead letters", f"{self.dead_letters} records that could not be judged, kept with the reason"))
        rows.append(("audit log", f"{self.audit_entries:,} entries"))
        return rows


class View:
    """Shows how far the replay is.

    Args:
        total: people to send.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._progress = Progress(
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("people"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task = self._progress.add_task("", total=total)
        self._live: Live | None = None
        self._next_line = 0.0
        self._began = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=_DRAWINGS_PER_S, transient=True) as self._live:
            yield
        self._live = None

    def update(self, status: Status) -> None:
        self._progress.update(self._task, completed=status.people, description=status.phase)
        if self._live is not None:
            self._live.update(self._block(status))
            return
        share = status.people / self._total
        if share >= self._next_line:
            self._next_line = share - share % _PLAIN_STEP + _PLAIN_STEP
            passed_s = time.monotonic() - self._began
            self.event(
                f"[dim]{passed_s:>4.0f} s  {status.phase:<19}{status.people:>7,} of {self._total:,} people;"
                f" {status.on_bus:,} captured, {status.audit_entries:,} in the audit log[/]"
            )

    def event(self, text: str) -> None:
        """A line that stays. Rich markup."""
        self._console.print(Padding(text, (0, 0, 0, _INDENT), expand=False))

    def _block(self, status: Status) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column()
        for name, value in status.rows():
            table.add_row(name, value)
        return Padding(Group(self._progress, table), (1, 0, 0, _INDENT))
