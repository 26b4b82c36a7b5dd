"""Reads of the database itself, without the API: recorded on the bus first, all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from audit.access import AccessRecorder
from audit.database import open_engine
from audit.query import AuditQuery, View
from govern.bus import open_bus
from govern.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read, by whom, and why."""

    actor: str
    action: str
    subject: str
    purpose: str


@contextmanager
def querying(url: str, namespace: str) -> Iterator[AuditQuery]:
    """The reading side of a log.

    Raises:
        ConfigError, NotFound: there is no such log in the database.
        StoreUnavailable: the database is away.
    """
    engine = open_engine(url, "read")
    try:
        query = AuditQuery(engine, namespace=namespace)
        query.require()
        yield query
    finally:
        engine.dispose()


def read_recorded(query: AuditQuery, bus_url: str | None, reading: Reading, look: Callable[[View], T]) -> T:
    """Look at the log, once the bus holds the record of it.

    Raises:
        ConfigError: no bus is named.
        AccessNotRecorded: the bus is away; nothing was read.
    """
    if bus_url is None:
        raise ConfigError(
            "this read cannot be recorded",
            why="every read of the audit log is itself logged, and no bus was named for that",
            fix="set GOVERN_BUS (or --bus), or ask the API",
        )
    url = bus_url

    async def record() -> None:
        async with open_bus(url, client_id="govern-audit-cli") as bus:
            recorder = AccessRecorder(bus, namespace=query.namespace, source="/govern/audit/cli")
            await recorder.record(
                actor=reading.actor,
                role="operator",
                action=reading.action,
                subject=reading.subject,
                purpose=reading.purpose,
            )

    asyncio.run(record())
    with query.snapshot() as view:
        return look(view)
