"""Jobs in an order, run side by side as if one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from govern.runtime.flow.joins import Undecided


class Job(Protocol):
    """A piece of work that may have to wait for others before it in the order, never for those behind it."""

    def decide(self) -> Undecided | object:
        """WAIT, NEVER, or anything else when it can run. Asked again whenever another job is settled."""
        ...

    def skip(self) -> None:
        """It will not run."""
        ...

    async def run(self) -> None: ...


async def run(jobs: Sequence[Job]) -> None:
    """Run every job as soon as it can run.

    What is raised is what would have been raised if each job had run to its end before the next one was looked at: the
    failure of the first job in the order that fails. Once one has failed, the jobs behind it are cancelled and those
    before it are seen through, because one of them may fail, too.

    Cancelled, it cancels what runs, waits until that is over, and is cancelled itself.
    """
    waiting = list(enumerate(jobs))
    running: dict[asyncio.Task[None], int] = {}
    failed_at, failure = len(jobs), None
    try:
        while True:
            waiting = [(at, job) for at, job in waiting if at < failed_at and not _settled(job, at, running)]
            if not running:
                break
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                at = running.pop(task)
                error = asyncio.CancelledError() if task.cancelled() else task.exception()
                if error is not None and at < failed_at:
                    _cancel(running, after=at, until=failed_at)
                    failed_at, failure = at, error
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    if failure is not None:
        raise failure


def _cancel(running: dict[asyncio.Task[None], int], *, after: int, until: int) -> None:
    """Those behind `after`, but not those behind `until` again."""
    for task, at in running.items():
        if after < at < until:
            task.cancel()


def _settled(job: Job, at: int, running: dict[asyncio.Task[None], int]) -> bool:
    match job.decide():
        case Undecided.WAIT:
            return False
        case Undecided.NEVER:
            job.skip()
        case _:
            running[asyncio.ensure_future(job.run())] = at
    return True
