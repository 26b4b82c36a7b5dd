"""The fleet as those see it who change it: what there is, apply, delete. Every change is on record, with its actor."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, Literal, TypeVar

from msgspec.structs import replace

from govern import record as records
from govern.bus import Bus, Outgoing, Partition, Transactor
from govern.bus.protocol import Fenced
from govern.bus.topics import needed, topic
from govern.codecs import cloudevents
from govern.errors import ArtifactError, ConfigError, NotFound
from govern.ids import uuid7
from govern.record import ConfigChange
from govern.runtime.fleet.contents import ContentReader
from govern.runtime.fleet.entry import (
    CONTENTS,
    ENTRIES,
    Content,
    Entry,
    content_messages,
    contents_of,
    decode_entry,
    entry_message,
    tombstones,
)
from govern.runtime.fleet.pack import Packed

Change = Literal["created", "changed", "unchanged", "deleted"]

#: Pipelines are published together up to so many bytes: a transaction mostly waits for the broker.
_TRANSACTION_BYTES: Final = 8 * 1024 * 1024
#: How often one begins anew whom others who change the fleet have fenced, and how long it waits at most, seconds.
_ATTEMPTS: Final = 20
_BACKOFF_S: Final = 2.0

T = TypeVar("T")


class Fleet:
    """
    Args:
        bus: entered by the caller.
        actor: who changes it.
        source: which program, as a `ConfigChange` says it.
    """

    def __init__(self, bus: Bus, namespace: str, *, actor: str, source: str = "/govern/pipeline") -> None:
        self._bus = bus
        self._namespace = namespace
        self._actor = actor
        self._source = source
        self._topic = topic(namespace, "pipelines")

    async def entries(self) -> dict[str, Entry]:
        """What there is, by name.

        Raises:
            BadInput: an entry is of another format version.
            UnknownTopic: the namespace has no such topic.
        """
        table = await self._bus.read_table(Partition(self._topic, ENTRIES))
        return {name: decode_entry(name, value) for name, value in sorted((k.decode(), v) for k, v in table.items())}

    async def entry(self, name: str) -> Entry:
        """
        Raises:
            NotFound: there is no such pipeline.
        """
        return _found(await self.entries(), name)

    async def contents(self, entry: Entry) -> dict[str, bytes]:
        """Path -> content of each of an entry's files.

        Raises:
            ArtifactError: one is damaged, or was deleted meanwhile.
        """
        wanted = {content.digest for content in entry.contents}
        reader = ContentReader(self._bus, Partition(self._topic, CONTENTS))
        found: dict[str, bytes] = {}
        async for digest, data in reader.more():
            if data is None:
                found.pop(digest, None)
            elif digest in wanted:
                found[digest] = data
        for path, content in entry.files.items():
            if content.digest not in found:
                raise ArtifactError(
                    f"pipeline {entry.name!r} of the fleet: {path} cannot be used",
                    why=f"the topic {self._topic} does not hold all of it",
                    fix="delete the pipeline from the fleet and apply it again",
                )
        return {path: found[content.digest] for path, content in entry.files.items()}

    async def apply(self, packed: Sequence[Packed]) -> dict[str, Change]:
        """Put these into the fleet, in the place of those of the same names; say what that changed.

        A pipeline that is there as it is, is left alone. What was published before a failure stays: apply again.

        Raises:
            ConfigError: one would have the name of a part of another, or a part that of another; nothing is applied.
        """
        await self._bus.ensure_topics(needed(self._namespace, ["pipelines", "config"], message_bytes=0))
        changes: dict[str, Change] = {}

        async def work(transactor: Transactor) -> None:
            there = await self.entries()
            _require_own_names([one.entry for one in packed], there)
            for batch in _batches([one for one in packed if _differs(one, there)]):
                after = there | {one.entry.name: self._signed(one.entry) for one in batch}
                known = contents_of(there.values())
                new = {c: data for one in batch for c, data in one.contents.items() if c not in known}
                batch_changes: dict[str, Change] = {
                    one.entry.name: "changed" if one.entry.name in there else "created" for one in batch
                }
                await self._publish(transactor, there, after, batch_changes, new)
                changes.update(batch_changes)
                there = after

        await self._alone(work)
        return {one.entry.name: changes.get(one.entry.name, "unchanged") for one in packed}

    async def delete(self, names: Collection[str]) -> None:
        """
        Raises:
            NotFound: there is no such pipeline; nothing is deleted.
        """

        async def work(transactor: Transactor) -> None:
            there = await self.entries()
            gone = [_found(there, name) for name in names]
            after = {name: entry for name, entry in there.items() if name not in names}
            await self._publish(transactor, there, after, {entry.name: "deleted" for entry in gone}, {})

        await self._alone(work)

    async def _publish(
        self,
        transactor: Transactor,
        before: dict[str, Entry],
        after: dict[str, Entry],
        changes: dict[str, Change],
        new: dict[Content, bytes],
    ) -> None:
        unnamed = contents_of(before.values()) - contents_of(after.values())
        entries = [
            entry_message(after[name]) if name in after else Outgoing(key=name.encode(), value=None, partition=ENTRIES)
            for name in changes
        ]
        said = [
            cloudevents.to_message(self._change(after.get(name) or before[name], change), source=self._source)
            for name, change in changes.items()
        ]
        async with transactor.transaction() as transaction:
            await transaction.publish(self._topic, [*content_messages(new), *entries, *tombstones(unnamed)])
            await transaction.publish(topic(self._namespace, "config"), said)

    def _signed(self, entry: Entry) -> Entry:
        return replace(entry, t_applied=time.time_ns(), actor=self._actor)

    def _change(self, entry: Entry, change: Change) -> ConfigChange:
        return ConfigChange(
            schema_version=records.SCHEMA_VERSION,
            id=uuid7(),
            namespace=self._namespace,
            subject=f"pipeline/{entry.name}",
            action=change,
            digest=entry.digest,
            actor=self._actor,
            t_change=time.time_ns(),
            detail=f"in the fleet, over {entry.service}/{entry.model}",
        )

    async def _alone(self, work: Callable[[Transactor], Awaitable[None]]) -> None:
        """Do it as the only one who changes the fleet. Whoever begins fences others, who begin anew."""
        for attempt in range(_ATTEMPTS):
            transactor = await self._bus.transactor(f"govern-fleet.{self._namespace}")
            try:
                await work(transactor)
            except Fenced:
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(random.uniform(0, _BACKOFF_S))  # noqa: S311 - jitter, no secret
            else:
                return
            finally:
                await transactor.close()


def _found(there: dict[str, Entry], name: str) -> Entry:
    if name not in there:
        raise NotFound(
            f"pipeline {name!r}",
            why=f"the fleet holds {len(there)} pipelines, and none of this name",
            fix="see `govern pipeline ls`",
        )
    return there[name]


def _require_own_names(applied: Sequence[Entry], there: Mapping[str, Entry]) -> None:
    """Workers run each part under its own name, and would refuse one of two pipelines that share a name."""
    after = {**there, **{one.name: one for one in applied}}
    owner = {part: one.name for one in after.values() for part in one.parts}
    for one in applied:
        if one.name in owner:
            raise ConfigError(
                f"pipeline {one.name!r} cannot be applied",
                why=f"pipeline {owner[one.name]!r} is cut where steps are placed, and its part has that name",
                fix="rename one of the two (metadata.name)",
            )
        for part in one.parts:
            if part in after or owner[part] != one.name:
                other = part if part in after else owner[part]
                raise ConfigError(
                    f"pipeline {one.name!r} cannot be applied",
                    why=f"its part {part!r} has the name of {'a part of ' if other != part else ''}pipeline {other!r}",
                    fix="rename one of the two (metadata.name), or the step after which the part is named",
                )


def _differs(packed: Packed, there: dict[str, Entry]) -> bool:
    before = there.get(packed.entry.name)
    return before is None or (before.digest, before.files, before.document, before.parts) != (
        packed.entry.digest,
        packed.entry.files,
        packed.entry.document,
        packed.entry.parts,
    )


def _batches(packed: Sequence[Packed]) -> list[list[Packed]]:
    """Neighbours together, up to the size of a transaction."""
    batches: list[list[Packed]] = []
    size = _TRANSACTION_BYTES
    for one in packed:
        if size + one.entry.size > _TRANSACTION_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(one)
        size += one.entry.size
    return batches
