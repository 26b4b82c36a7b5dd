"""What the benchmarks of capture print: tables for a terminal or, in Markdown, for docs/capture/performance.md."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Of the first column, on a terminal.
NAME_WIDTH: Final = 30
#: What of Python's packages a request passes through.
PACKAGES: Final = ("uvloop", "httptools", "uvicorn", "fastapi", "scikit-learn", "cryptography")


class Table:
    """Rows, printed as they come: a run takes minutes, and who waits may watch."""

    def __init__(self, *titles: str, markdown: bool) -> None:
        self._markdown = markdown
        self._widths = [max(len(title), 9) for title in titles[1:]]
        self.row(*titles)
        if markdown:
            self.row("---", *("---:" for _ in self._widths))

    def row(self, name: str, *cells: str) -> None:
        if self._markdown:
            print("|", " | ".join((name, *cells)), "|", flush=True)
        else:
            columns = (f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=True))
            print("  ".join((f"{name:<{NAME_WIDTH}}", *columns)), flush=True)


def told(lines: Iterator[str], *, markdown: bool) -> None:
    """Print what follows from a table."""
    print()
    for line in lines:
        print(f"- {line}" if markdown else line)


def circumstances(module: str, **programs: str) -> None:
    """Print what a figure means nothing without: the command, the day, the machine and the versions.

    Args:
        module: that is run.
        programs: with the flag that makes each tell its version.
    """
    print(
        f"`{' '.join(['python', '-m', module, *sys.argv[1:]])}`,", datetime.datetime.now().strftime("%d %B %Y, %H:%M")
    )
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    ahead = "; in the scheduler's real-time class" if os.sched_getscheduler(0) == os.SCHED_RR else ""
    print(f"{cpu()}, {os.cpu_count()} cores, Linux {platform.release()}; load average before: {load}{ahead}.")
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    print(", ".join([*versions, *(version(*each) for each in programs.items())]) + ".\n", flush=True)


def cpu() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.machine()


def version(program: str, flag: str) -> str:
    """As the program tells it in its first line: wrk's ends with a copyright, nginx's begins with its own words."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        return f"no {program}"
    ran = subprocess.run([path, flag], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return ran.stdout.splitlines()[0].removeprefix("nginx version: ").partition(" [")[0]
