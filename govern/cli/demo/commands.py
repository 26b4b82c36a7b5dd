"""Running `govern` commands: the demo uses what a user would type."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from govern.errors import Unavailable

#: One thread for each process: there are more processes than cores, and threads that wait for one another on a busy
#: machine cost more than they gain.
ENVIRONMENT: Final = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
#: Far above what any of them takes, so that only a hanging one ends the demo.
TIMEOUT_S: Final = 180.0


def environment(added: Mapping[str, str]) -> dict[str, str]:
    """Of a child: this process's, without the settings of another govern that may run here."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GOVERN_")}
    return {**own, **ENVIRONMENT, **added}


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ended. `output` is what it printed, errors included."""

    shown: str
    returncode: int
    output: str


def govern(*arguments: str) -> tuple[str, ...]:
    """The program and arguments of a govern command. -P: the current folder is no place to import from."""
    return (sys.executable, "-P", "-m", "govern.cli.main", *arguments)


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """The same of a module of this package."""
    return (sys.executable, "-P", "-m", name, *arguments)


async def run(
    arguments: Sequence[str],
    *,
    added: Mapping[str, str] = MappingProxyType({}),
    width: int = 94,
    may_fail: bool = False,
) -> Ran:
    """Run `govern ARGUMENT...` to its end.

    Args:
        added: to the environment.
        width: columns that it may fill.
        may_fail: whether another return code than 0 is an answer, too.

    Raises:
        Unavailable: it failed, or did not end.
    """
    shown = f"govern {' '.join(arguments)}"
    process = await asyncio.create_subprocess_exec(
        *govern(*arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment({**added, "COLUMNS": str(width)}),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError as error:
        raise Unavailable(shown, why=f"it did not end within {TIMEOUT_S:.0f} s", fix="run it by hand") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    ran = Ran(shown, process.returncode or 0, output.decode(errors="replace"))
    if ran.returncode and not may_fail:
        raise Unavailable(
            f"`{shown}` failed with code {ran.returncode}", why=ran.output.strip()[-2000:], fix="run it by hand"
        )
    return ran
