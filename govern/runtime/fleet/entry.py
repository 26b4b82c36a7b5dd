"""What the topic `govern.<namespace>.pipelines` holds: a fleet of pipelines, each with all that a worker needs for it.

Partition 0: an entry for each pipeline, keyed by its name (JSON). It names the files that belong to the pipeline (the
document as it was written, the schema, those of its artifacts), each by the SHA-256 of its content. Partition 1: the
contents, in pieces that a broker takes, keyed `<sha256>/<piece>/<pieces>`; pipelines with a file in common share it. So
who wants to know what there is reads entries only.

An entry is published in one transaction with the contents that no entry named before, and those that none names any
more are deleted with the entry that was the last to name them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from govern.bus.protocol import Outgoing
from govern.errors import BadInput
from govern.runtime.checkpoint import PIECE_BYTES

FORMAT_VERSION: Final = 1
#: Partitions of the topic.
ENTRIES: Final = 0
CONTENTS: Final = 1
_SHA256: Final = re.compile("[0-9a-f]{64}")
#: As `govern.pipeline.spec` has it: a folder of a worker is named so.
_NAME: Final = re.compile("[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class Content(msgspec.Struct, frozen=True):
    """A file's content: SHA-256, hex, and bytes."""

    digest: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> Content:
        return cls(hashlib.sha256(data).hexdigest(), len(data))

    @property
    def keys(self) -> list[bytes]:
        """Of the messages that carry it, in order. An empty file is one empty piece."""
        count = max(1, -(-self.size // PIECE_BYTES))
        return [f"{self.digest}/{number}/{count}".encode() for number in range(count)]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A pipeline of the fleet.

    Attributes:
        digest: of its plan, artifacts included.
        parts: names of the parts that it is cut into, but for the one of its own name.
        document: which of the files is the pipeline's document.
        files: path -> content. The document lies as deep as the paths in it go up, so that none leaves the folder.
        t_applied: Unix time in nanoseconds.
        actor: who applied it.
    """

    format_version: int
    name: str
    digest: str
    service: str
    model: str
    document: str
    files: dict[str, Content]
    t_applied: int
    actor: str
    parts: tuple[str, ...] = ()

    @property
    def contents(self) -> frozenset[Content]:
        return frozenset(self.files.values())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(content.size for content in self.contents)


def contents_of(entries: Iterable[Entry]) -> frozenset[Content]:
    return frozenset(content for entry in entries for content in entry.contents)


def entry_message(entry: Entry) -> Outgoing:
    return Outgoing(key=entry.name.encode(), value=msgspec.json.encode(entry), partition=ENTRIES)


def decode_entry(name: str, data: bytes) -> Entry:
    """The entry of the pipeline of this name.

    Raises:
        BadInput: the bytes are no entry of this format version, or another pipeline's.
    """
    what = f"entry of pipeline {name!r}"
    fix = "use the release that applied it, or apply the pipeline again with this one"
    try:
        version = msgspec.json.decode(data, type=_Versioned).format_version
        if version != FORMAT_VERSION:
            raise BadInput(
                f"{what} has format_version {version}",
                why=f"this release reads version {FORMAT_VERSION}",
                fix=fix,
            )
        entry = msgspec.json.decode(data, type=Entry)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{what} cannot be read", why=str(error), fix=fix) from error
    if entry.name != name or not _NAME.fullmatch(name) or entry.document not in entry.files:
        why = f"it names itself {entry.name!r} and its document {entry.document!r}"
        raise BadInput(f"{what} cannot be read", why=why, fix=fix)
    for content in entry.contents:
        if not _SHA256.fullmatch(content.digest):
            raise BadInput(f"{what} cannot be read", why=f"{content.digest!r} is no SHA-256", fix=fix)
    return entry


class _Versioned(msgspec.Struct):
    format_version: int


def content_messages(contents: Mapping[Content, bytes]) -> Iterator[Outgoing]:
    for content, data in contents.items():
        for number, key in enumerate(content.keys):
            piece = data[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
            yield Outgoing(key=key, value=piece, partition=CONTENTS)


def tombstones(contents: Iterable[Content]) -> list[Outgoing]:
    return [Outgoing(key=key, value=None, partition=CONTENTS) for content in contents for key in content.keys]


def parse_content_key(key: bytes) -> tuple[str, int, int] | None:
    """Digest, number of the piece and how many there are; None when the key is of something else."""
    digest, *numbers = key.decode("latin-1").split("/")
    if (
        not _SHA256.fullmatch(digest)
        or len(numbers) != 2
        or not all(one.isascii() and one.isdigit() for one in numbers)
    ):
        return None
    return digest, int(numbers[0]), int(numbers[1])
