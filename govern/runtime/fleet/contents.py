"""Contents as the topic carries them, put together and verified."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Final

from govern.bus import Bus, Partition
from govern.runtime.fleet.entry import parse_content_key

#: Pieces in one read: at half a megabyte each, 16 MB.
_READ_PIECES: Final = 32


class ContentReader:
    """Reads on from where it last ended."""

    def __init__(self, bus: Bus, partition: Partition) -> None:
        self._bus = bus
        self._partition = partition
        self._position = 0
        self._pieces: dict[str, dict[int, bytes]] = {}

    async def more(self) -> AsyncIterator[tuple[str, bytes | None]]:
        """Each content that has become whole since, by its digest; None for a deleted one. Not a damaged one."""
        while messages := await self._bus.read(self._partition, self._position, max_messages=_READ_PIECES):
            for message in messages:
                self._position = message.offset + 1
                parsed = parse_content_key(message.key)
                if parsed is None:
                    continue
                digest, number, count = parsed
                if message.value is None:
                    self._pieces.pop(digest, None)
                    yield digest, None
                    continue
                pieces = self._pieces.setdefault(digest, {})
                pieces[number] = message.value
                if len(pieces) < count:
                    continue
                data = b"".join(pieces[each] for each in sorted(self._pieces.pop(digest)))
                if hashlib.sha256(data).hexdigest() == digest:
                    yield digest, data
