"""Files that commands write for a person."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from govern.cli._files import read_text, write_whole
from govern.errors import ConfigError, Unavailable


def test_a_full_disk_leaves_what_was_there(full_disk: Path) -> None:
    path = full_disk / "case.json"
    write_whole(path, [b"old"])
    with pytest.raises(Unavailable, match=r"case\.json cannot be written") as caught:
        write_whole(path, [b"x" * 100_000])
    assert "No space left" in caught.value.why
    assert path.read_bytes() == b"old"
    assert list(full_disk.iterdir()) == [path]


def test_content_that_fails_to_come_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "export.ndjson"
    write_whole(path, [b"old"])

    def broken() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError):
        write_whole(path, broken())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, [b"a", b"b"])
    reader.join()
    assert read == [b"ab"]
    assert pipe.is_fifo()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="file/case"):
        write_whole(tmp_path / "file" / "case.json", [])


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["absent", "no text"])
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"key\.txt cannot be read"):
        read_text(path)


def test_an_open_file_by_its_number_is_written_in_place(tmp_path: Path) -> None:
    """As /dev/stdout is, whose name is a link that no rename may replace."""
    with (tmp_path / "out").open("wb") as out:
        write_whole(Path(f"/dev/fd/{out.fileno()}"), [b"a", b"b"])
    assert (tmp_path / "out").read_bytes() == b"ab"
