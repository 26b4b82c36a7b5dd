"""Who looked: each read of the log is put on the bus, and is durable there, before anything is shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from govern import record as records
from govern.bus import Bus
from govern.bus.protocol import BusError
from govern.bus.topics import topic
from govern.codecs.cloudevents import to_message
from govern.errors import Unavailable
from govern.ids import uuid7

#: A reader waits this long for the bus. Past it the answer is 503: no record, no data.
_PATIENCE_S: Final = 5.0


class AccessNotRecorded(Unavailable):
    """The read could not be recorded, and so was not made."""

    code = "access-not-recorded"


class AccessRecorder:
    """Publishes the accesses of one namespace. The audit writer makes entries of them."""

    def __init__(self, bus: Bus, *, namespace: str, source: str, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._bus = bus
        self._namespace = namespace
        self._source = source
        self._clock_ns = clock_ns

    async def record(self, *, actor: str, role: str, action: str, subject: str, purpose: str = "") -> None:
        """Return once the access is durable on the bus.

        Args:
            action: "query", "entry", "case", "export", "statistics", "checkpoint", "proof", "verifier-key".
            subject: the request id for "case" and "entry", else what was asked for.

        Raises:
            AccessNotRecorded: the bus is away or too slow.
        """
        now_ns = self._clock_ns()
        access = records.Access(
            schema_version=records.SCHEMA_VERSION,
            id=uuid7(now_ns),
            namespace=self._namespace,
            actor=actor,
            role=role,
            action=action,
            subject=subject,
            t_access=now_ns,
            purpose=purpose,
        )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._bus.publish(topic(self._namespace, "access"), [to_message(access, source=self._source)])
        except (BusError, TimeoutError) as error:
            raise AccessNotRecorded(
                f"{action} of {subject!r}" if subject else action,
                why=f"every read is recorded before it is answered, and the bus does not take the record: "
                f"{error.why if isinstance(error, BusError) else f'no answer in {_PATIENCE_S} s'}",
                fix="try again when the bus is back",
            ) from error
