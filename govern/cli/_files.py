"""Files that a person names: written whole or not at all, and a failure says which file and what to do."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from govern.errors import ConfigError, Unavailable


def write_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file, and its folder if need be. What was there before stays until the new content is on the disk.

    Raises:
        Unavailable: it cannot be written; nothing of it is left behind.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # A pipe or a device (/dev/stdout, >(gzip)) takes no rename; what /dev/stdout is directed to may be a file.
    in_place = path.exists() and (not path.is_file() or path.parts[:2] in (("/", "dev"), ("/", "proc")))
    in_place = in_place and not path.is_relative_to("/dev/shm")  # noqa: S108 - an ordinary folder, in memory
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path if in_place else draft).open("wb") as file:
            file.writelines(chunks)
            file.flush()
            if not in_place:
                os.fsync(file.fileno())
        if not in_place:
            draft.replace(path)
    except OSError as error:
        raise Unavailable(
            f"file {path} cannot be written",
            why=error.strerror or str(error),
            fix="free space there, or name a file in a folder that this user can write to",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # it is the file by now, or never was one
            draft.unlink()


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(
            f"file {path} cannot be read", why=why or str(error), fix="name an existing text file"
        ) from error
