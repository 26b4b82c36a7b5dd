"""Inferences by request id, found through the audit log's index."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from audit.keys import load_encryption
from audit.query import AuditQuery, Entry, Filter
from audit.reading import querying
from audit.seal import KeyEncryptionKey
from govern.bus import Bus, Partition
from govern.codecs.cloudevents import from_message
from govern.record import Inference, Payload


@contextmanager
def audited_inferences(bus: Bus, database: str, namespace: str, keys: Path | None) -> Iterator[AuditedInferences]:
    """The inferences of a log, while the block lasts.

    Raises:
        ConfigError, NotFound: there is no such log in the database, or no such keys.
        StoreUnavailable: the database is away.
    """
    with querying(database, namespace) as query:
        yield AuditedInferences(bus, query, None if keys is None else load_encryption(keys))


class _Place(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class _Leaf(msgspec.Struct):
    source: _Place
    record: dict[str, object]


class AuditedInferences:
    """The inference of a request, by id, in time that does not grow with the stream.

    The log says where the bus had the record. When the bus has let it go, the body comes out of the log's sealed
    box, for which the encryption key is needed.

    Args:
        encryption: opens the boxes; None = only what the bus still has.
    """

    def __init__(self, bus: Bus, query: AuditQuery, encryption: KeyEncryptionKey | None = None) -> None:
        self._bus = bus
        self._query = query
        self._encryption = encryption

    async def find(self, namespace: str, request_id: str) -> Inference | None:
        """The newest inference with this request id (or inference id); None when the log has none.

        Raises:
            StoreUnavailable, BusError: the database or the bus is away.
        """
        entry = await asyncio.to_thread(self._entry, request_id)
        if entry is None:
            return None
        leaf = msgspec.json.decode(entry.leaf, type=_Leaf)
        place = leaf.source
        for message in await self._bus.read(Partition(place.topic, place.partition), place.offset, max_messages=1):
            if message.offset == place.offset:
                found = from_message(message)
                return found if isinstance(found, Inference) else None
        return await asyncio.to_thread(self._from_log, entry, leaf.record)

    def _entry(self, request_id: str) -> Entry | None:
        with self._query.snapshot() as view:
            for wanted in (
                Filter(kind="inference", request_id=request_id),
                Filter(kind="inference", record_id=request_id),
            ):
                for entry in view.page(wanted, limit=1, newest_first=True).entries:
                    return entry
        return None

    def _from_log(self, entry: Entry, record: dict[str, object]) -> Inference | None:
        if self._encryption is None:
            return None
        with self._query.snapshot() as view:
            opened = view.open_box(entry.index, self._encryption)
        if opened is None:
            return None
        # ProtoJSON: 64-bit integers are text, hence the lax conversion; the bodies are not in the leaf.
        bare = msgspec.convert(record, Inference, strict=False)
        request = msgspec.structs.replace(bare.request, body=opened.values.get("request.body", b""))
        return msgspec.structs.replace(bare, request=request, response=Payload())
