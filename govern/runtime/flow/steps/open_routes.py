"""Requests of a router whose reward may still come, and the routes that they took: in chunks, as they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Requests whose reward may still come, the oldest forgotten first: what a router remembers is bounded.
OPEN_REQUESTS_MAX: Final = 100_000
#: Requests in a chunk. A reward has the chunk of its request written anew; a start reads a message for each chunk.
CHUNK: Final = 256
#: Longest id of a request that is remembered, characters: a chunk is one message of the bus, whatever callers send.
ID_CHARS_MAX: Final = 256


class OpenRoutes:
    """Request id -> route. Chunks are numbered in the order in which they were begun."""

    def __init__(self) -> None:
        self._chunks: dict[int, dict[str, str]] = {}
        self._chunk_of: dict[str, int] = {}
        self._newest = 0
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._chunk_of)

    def get(self, request_id: str) -> str | None:
        number = self._chunk_of.get(request_id)
        return None if number is None else self._chunks[number][request_id]

    def put(self, request_id: str, route: str) -> None:
        """Remember a request as the newest, and forget the oldest when there are too many."""
        if len(request_id) > ID_CHARS_MAX:
            return
        self.remove(request_id)
        if len(self._chunks.get(self._newest, ())) >= CHUNK:
            self._newest += 1
        self._chunks.setdefault(self._newest, {})[request_id] = route
        self._chunk_of[request_id] = self._newest
        self._changed.add(self._newest)
        if len(self) > OPEN_REQUESTS_MAX:
            self.remove(next(iter(next(iter(self._chunks.values())))))

    def remove(self, request_id: str) -> None:
        number = self._chunk_of.pop(request_id, None)
        if number is not None:
            del self._chunks[number][request_id]
            if not self._chunks[number]:
                del self._chunks[number]
            self._changed.add(number)

    def restore(self, chunks: Mapping[int, Mapping[str, str]]) -> None:
        """Take over what one before it remembered, as older than what is remembered already."""
        since = [pair for chunk in self._chunks.values() for pair in chunk.items()]
        self._chunks = {number: dict(chunks[number]) for number in sorted(chunks)}
        self._chunk_of = {request_id: number for number, chunk in self._chunks.items() for request_id in chunk}
        self._newest = max(self._chunks, default=0)
        self._changed = set()
        for request_id, route in since:
            self.put(request_id, route)

    def chunks(self) -> dict[int, dict[str, str]]:
        return {number: dict(chunk) for number, chunk in self._chunks.items()}

    def changed(self) -> dict[int, dict[str, str] | None]:
        """The chunks that have changed since the last call; None = there is none of this number any more."""
        numbers, self._changed = self._changed, set()
        return {number: dict(self._chunks[number]) if number in self._chunks else None for number in sorted(numbers)}
