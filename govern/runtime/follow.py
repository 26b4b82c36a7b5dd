"""Pipelines that follow their files while a worker runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from govern.errors import GovernError
from govern.runtime.loader import LoadedPipeline
from govern.telemetry.logging import get_logger

#: How often the files are looked at: a ConfigMap takes up to a minute to reach a pod anyway.
LOOK_EVERY_S: Final = 2.0

log = get_logger("govern.worker")


@contextlib.asynccontextmanager
async def following(
    files: Sequence[Path],
    read: Callable[[], Sequence[LoadedPipeline]],
    take_over: Callable[[Sequence[LoadedPipeline]], None],
) -> AsyncIterator[None]:
    """While the block runs, read the pipelines anew when a file's content changes, and on SIGHUP.

    Files that are wrong leave the running pipelines in force; the log says why.

    Args:
        files: the pipeline files. What lies beside them (schema, artifacts) is read anew, too, but not looked at.
        read: called in a thread; raises GovernError when the files are wrong.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    task = asyncio.create_task(_follow(files, read, take_over, asked))
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _follow(
    files: Sequence[Path],
    read: Callable[[], Sequence[LoadedPipeline]],
    take_over: Callable[[Sequence[LoadedPipeline]], None],
    asked: asyncio.Event,
) -> None:
    known = await asyncio.to_thread(_digest, files)
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), LOOK_EVERY_S)
        found = await asyncio.to_thread(_digest, files)
        if found == known and not asked.is_set():
            continue
        asked.clear()
        known = found
        try:
            take_over(await asyncio.to_thread(read))
        except GovernError as error:
            log.error("the pipelines in force stay", what=error.what, why=error.why, fix=error.fix)
        except Exception:
            log.exception("the pipelines in force stay")


def _digest(files: Sequence[Path]) -> bytes:
    """Of what the files hold; of one that is not there, of nothing."""
    digest = hashlib.sha256()
    for file in files:
        try:
            content = file.read_bytes()
        except OSError:
            content = b""
        digest.update(hashlib.sha256(content).digest())
    return digest.digest()
