"""Stage 3: the processes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from govern.cli.demo.stack import Stack
from govern.cli.demo.story import Story
from govern.cli.demo.work import Work

#: What each process is for, in the order in which a request meets them.
ROLES: Final[dict[str, str]] = {
    "proxy": "stands in front of the model: passes every request on, and keeps a copy of request and answer",
    "model": "answers; knows nothing of govern (Open Inference Protocol V2, as KServe and Triton speak it)",
    "shipper": "carries the copies to the bus, each exactly once",
    "worker": "runs the pipeline of watchers over what the bus brings",
    "explainer": "says why, when somebody asks or when a watcher flags a person",
    "audit-writer": "appends all of it to the log that cannot be changed unnoticed",
    "audit-api": "shows the log to auditors, and writes down that they looked",
}


@asynccontextmanager
async def started(story: Story, work: Work, *, namespace: str, bus_url: str, database_url: str) -> AsyncIterator[Stack]:
    """The running processes; they end with the block."""
    story.stage(
        "The processes, as in production",
        "Each is a command of its own, with its own log, and is started again when it dies.",
    )
    began = time.monotonic()
    async with Stack.running(work, namespace=namespace, bus_url=bus_url, database_url=database_url) as stack:
        story.facts(
            [
                (name, f"{ROLES[name]} [dim](pid {stack.processes[name]})[/]")
                for name in ROLES
                if name in stack.processes
            ]
        )
        story.check(
            f"{len(stack.names)} processes answer, {time.monotonic() - began:.0f} s after they were started",
            all(stack.is_ready(name) for name in stack.names),
        )
        yield stack
