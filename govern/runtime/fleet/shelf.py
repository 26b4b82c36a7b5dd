"""Where a worker keeps the contents of its fleet: a folder of files named by their SHA-256."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Self

from govern.errors import ArtifactError, Unavailable
from govern.runtime.fleet.entry import Content, Entry


@contextlib.contextmanager
def shelf(folder: Path | None) -> Iterator[Shelf]:
    """An open one in this folder; None = in a temporary one."""
    with contextlib.ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="govern-fleet-")))
        yield stack.enter_context(Shelf(where))


class Shelf:
    """Use it as a context manager: it is one process's while it is open.

    Raises:
        Unavailable: the folder cannot be written to, or another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contents = folder / "contents"
        self._laid_out = folder / "pipelines"

    def __enter__(self) -> Self:
        try:
            self._contents.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._laid_out, ignore_errors=True)
            self._lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise Unavailable(
                f"folder {self._folder} is in use",
                why="another worker keeps its fleet there",
                fix="give each worker a folder of its own",
            ) from error
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._lock)

    def keep(self, digests: Collection[str]) -> None:
        """Delete all others: what an earlier run left."""
        for path in self._contents.iterdir():
            if path.name not in digests:
                path.unlink()

    def __contains__(self, content: Content) -> bool:
        with contextlib.suppress(OSError):
            return (self._contents / content.digest).stat().st_size == content.size
        return False

    def put(self, digest: str, data: bytes) -> None:
        """Keep a content whose digest was verified.

        Raises:
            Unavailable: the disk is full.
        """
        draft = self._contents / f".{digest}"
        try:
            draft.write_bytes(data)
            draft.replace(self._contents / digest)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def drop(self, digest: str) -> None:
        (self._contents / digest).unlink(missing_ok=True)

    def damaged(self, entry: Entry) -> bool:
        """Whether a content is not what its name says; it is then no longer there."""
        found = False
        for content in entry.contents:
            path = self._contents / content.digest
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != content.digest:
                    path.unlink()
                    found = True
        return found

    @contextlib.contextmanager
    def laid_out(self, entry: Entry) -> Iterator[Path]:
        """While the block runs, the pipeline's files as they lay where it was applied; yields its document's path.

        Raises:
            ArtifactError: a file is missing, or the entry names one outside of its folder.
        """
        folder = self._laid_out / entry.name
        try:
            for name, content in entry.files.items():
                path = folder / name
                if not Path(os.path.normpath(path)).is_relative_to(folder):
                    raise _unusable(entry, name, "it would lie outside of the pipeline's folder")
                if content not in self:
                    raise _unusable(
                        entry, name, f"the bus holds no content of sha256 {content.digest}, or a damaged one"
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to((self._contents / content.digest).absolute())
            yield folder / entry.document
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _unwritable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"folder {self._folder} cannot be written to",
            why=error.strerror or str(error),
            fix="free space there, or name another folder",
        )


def _unusable(entry: Entry, name: str, why: str) -> ArtifactError:
    return ArtifactError(
        f"pipeline {entry.name!r} of the fleet: {name} cannot be used",
        why=why,
        fix="delete the pipeline from the fleet and apply it again",
    )
