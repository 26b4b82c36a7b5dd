"""Files that are followed: what changes while a process is still starting is not missed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from govern.errors import BadInput
from govern.runtime import follow
from govern.runtime.loader import LoadedPipeline


async def test_a_change_during_the_start_is_seen_and_a_wrong_file_changes_nothing(
    tmp_path: Path, pipeline: LoadedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_EVERY_S", 0.01)
    file = tmp_path / "followed.yaml"
    file.write_text("first")
    files = follow.Files([file])
    file.write_text("second")  # the process has read the first, and does not follow yet
    read: asyncio.Queue[str] = asyncio.Queue()
    taken: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read_anew() -> list[LoadedPipeline]:
        text = file.read_text()
        loop.call_soon_threadsafe(read.put_nowait, text)
        if text == "wrong":
            raise BadInput("the file", why="it is wrong", fix="correct it")
        return [pipeline]

    async with asyncio.timeout(60), follow.following(files, read_anew, lambda found: taken.put_nowait(len(found))):
        assert (await read.get(), await taken.get()) == ("second", 1)
        (tmp_path / "new").write_text("wrong")
        (tmp_path / "new").replace(file)
        assert await read.get() == "wrong"
        os.kill(os.getpid(), signal.SIGHUP)  # whoever asks is heard, though nothing has changed
        assert await read.get() == "wrong"
        assert taken.empty()
        file.unlink()
        (tmp_path / "new").write_text("third")
        (tmp_path / "new").replace(file)
        while await read.get() != "third":
            pass
        assert await taken.get() == 1
