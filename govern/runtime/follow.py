"""Pipelines that follow their files while a worker runs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from govern import looking
from govern.errors import GovernError
from govern.runtime.loader import LoadedPipeline
from govern.telemetry.logging import get_logger

#: How often the files are looked at: a ConfigMap takes up to a minute to reach a pod anyway.
LOOK_EVERY_S: Final = 2.0

log = get_logger("govern.worker")


class Files:
    """The pipeline files that a process follows.

    Make it before they are read: what changes afterwards is then seen, however long the reading takes.

    Args:
        paths: what lies beside them (schema, artifacts) is read anew with them, but not looked at.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._known = self._digest()

    def changed(self) -> bool:
        """Whether one of them says something else than at the last look."""
        before, self._known = self._known, self._digest()
        return self._known != before

    def _digest(self) -> bytes:
        """Of what the files hold; of one that is not there, of nothing."""
        digest = hashlib.sha256()
        for path in self._paths:
            try:
                content = path.read_bytes()
            except OSError:
                content = b""
            digest.update(hashlib.sha256(content).digest())
        return digest.digest()


@contextlib.asynccontextmanager
async def following(
    files: Files,
    read: Callable[[], Sequence[LoadedPipeline]],
    take_over: Callable[[Sequence[LoadedPipeline]], None],
) -> AsyncIterator[None]:
    """While the block runs, read the pipelines anew when a file's content changes, and on SIGHUP.

    Files that are wrong leave the running pipelines in force; the log says why.

    Args:
        read: called in a thread; raises GovernError when the files are wrong.
    """
    with looking.on_hangup() as asked:
        task = asyncio.create_task(_follow(files, read, take_over, asked))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _follow(
    files: Files,
    read: Callable[[], Sequence[LoadedPipeline]],
    take_over: Callable[[Sequence[LoadedPipeline]], None],
    asked: asyncio.Event,
) -> None:
    while True:
        signalled = await looking.due(asked, LOOK_EVERY_S)
        if not await asyncio.to_thread(files.changed) and not signalled:
            continue
        try:
            take_over(await asyncio.to_thread(read))
        except GovernError as error:
            log.error("the pipelines in force stay", what=error.what, why=error.why, fix=error.fix)
        except Exception:
            log.exception("the pipelines in force stay")
