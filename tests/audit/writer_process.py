"""A process that writes a log until it is killed: `python -m tests.audit.writer_process BUS DB NAMESPACE KEYS`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from audit import keys
from audit.database import open_engine
from audit.store import AuditStore
from audit.writer import AuditWriter
from govern.bus import open_bus
from govern.telemetry.metrics import Metrics


async def main(bus_url: str, database: str, namespace: str, folder: str) -> None:
    engine = open_engine(database, "write")
    store = AuditStore(engine, namespace=namespace, keys=keys.load(Path(folder)))
    store.open()
    async with open_bus(bus_url) as bus:
        writer = AuditWriter(bus=bus, store=store, metrics=Metrics(CollectorRegistry()), batch_s=0.01)
        await writer.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
