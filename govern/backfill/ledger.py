"""What is on the bus of a backfill: records, dead letters and how far each file is read, always changed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from govern.bus.protocol import Outgoing, Transactor
from govern.bus.topics import topic
from govern.codecs.cloudevents import to_message
from govern.mirror.fan_out import FanOut
from govern.mirror.place import Stored
from govern.record import DeadLetter, Inference

SOURCE: Final = "/govern/backfill"


class Ledger(Protocol):
    def stored(self, file: str) -> Stored | None:
        """How far a file, named by its digest, was read; None when it never was."""
        ...

    async def commit(
        self, records: Sequence[Inference], letters: Sequence[DeadLetter], places: Mapping[str, Stored]
    ) -> None: ...


class BusLedger:
    """On the bus, for one holder of the transactional id.

    Args:
        table: the positions topic as it was when the id was taken.
        format_: name of the files' format; a file read as another one is another file.
    """

    def __init__(
        self, transactor: Transactor, table: Mapping[bytes, bytes], *, namespace: str, format_: str, fan_out: FanOut
    ) -> None:
        self._transactor = transactor
        self._namespace = namespace
        self._fan_out = fan_out
        self._prefix = f"backfill/{format_}/"
        self._files = {
            key.decode(): msgspec.json.decode(value, type=Stored)
            for key, value in table.items()
            if key.startswith(self._prefix.encode())
        }

    def stored(self, file: str) -> Stored | None:
        return self._files.get(self._prefix + file)

    async def commit(
        self, records: Sequence[Inference], letters: Sequence[DeadLetter], places: Mapping[str, Stored]
    ) -> None:
        moved = {self._prefix + file: stored for file, stored in places.items()}
        async with self._transactor.transaction() as transaction:
            if records:
                messages = [to_message(record, source=SOURCE) for record in records]
                await transaction.publish(topic(self._namespace, "inferences"), messages)
                beside = self._fan_out.beside(zip(records, messages, strict=True))
                for name, copies in beside.items():
                    await transaction.publish(name, copies)
            if letters:
                refused = [to_message(letter, source=SOURCE) for letter in letters]
                await transaction.publish(topic(self._namespace, "dead-letter"), refused)
            await transaction.publish(
                topic(self._namespace, "positions"),
                [Outgoing(key=key.encode(), value=msgspec.json.encode(stored)) for key, stored in moved.items()],
            )
        self._files.update(moved)


class DryLedger:
    """Nowhere: nothing was read, and nothing is published."""

    def stored(self, file: str) -> Stored | None:
        return None

    async def commit(
        self, records: Sequence[Inference], letters: Sequence[DeadLetter], places: Mapping[str, Stored]
    ) -> None:
        return
