"""From Seldon's topics to govern's inferences topic, exactly once.

Records, and the places in Seldon's topics after them, are published in one transaction on govern's bus; on a start
the places are read back. Seldon's Kafka is only read, so it may be another cluster than the bus, or the bus no Kafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Final

from opentelemetry.trace import Tracer

from govern.bus.protocol import Bus, BusError, Partition
from govern.bus.topics import topic
from govern.mirror.config import MirrorConfig
from govern.mirror.in_force import InForce
from govern.mirror.messages import Messages
from govern.mirror.redaction.redactor import Redactor
from govern.mirror.seldon.exported import SeldonMetrics
from govern.mirror.seldon.ledger import Ledger
from govern.mirror.seldon.session import Session
from govern.mirror.seldon.source import SeldonSource
from govern.mirror.seldon.topics import Selection

_log: Final = logging.getLogger(__name__)

#: Waits between attempts to reach Kafka or the bus, doubled each time and shortened at random by up to a half.
_BACK_OFF_MIN_S: Final = 0.2
_BACK_OFF_MAX_S: Final = 10.0


class SeldonReader:
    """Reads one Seldon Core v2 installation. One process does; a second one fences the first.

    Args:
        open_bus: makes a new connection to govern's bus; called again after each loss.
        open_source: the same to Seldon's Kafka.
        metrics: where to count.
        tracer: emits one span per inference when there is one.

    Raises:
        ConfigError: the rules of redaction need a key or a file that is missing or unusable.
    """

    def __init__(
        self,
        config: MirrorConfig,
        *,
        open_bus: Callable[[], Bus],
        open_source: Callable[[Selection], SeldonSource],
        metrics: SeldonMetrics,
        tracer: Tracer | None = None,
    ) -> None:
        seldon = config.seldon
        namespace = seldon.namespace or config.namespace
        self._namespace = config.namespace
        self._open_bus = open_bus
        self._open_source = open_source
        self._metrics = metrics
        self._selection = Selection(seldon, namespace)
        self._agent = f"seldon-topics/{seldon.name or f'{seldon.prefix}.{namespace}'}"
        origin = f"/govern/{self._agent}"
        self._messages = Messages(origin, tracer)
        self._rules = InForce(
            config,
            Redactor(config.redaction, body_bytes=config.body_bytes),
            streams=("inferences", "positions"),
            subject=f"capture/{self._agent}",
            source=origin,
        )

    def apply(self, config: MirrorConfig) -> None:
        """Follow another configuration's rules from the next transaction on, and put that on record.

        Raises:
            ConfigError: the rules of redaction need a key or a file that is missing or unusable.
        """
        self._rules.apply(config)

    def refused(self, standing: bool) -> None:
        """Show whether the configuration file, as it is now, is refused."""
        self._rules.refuses = standing
        self._metrics.refused(standing)

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; halves that wait then are read again by the next run.

        Raises:
            BusError: the bus refuses for good (topics with other settings, another reader of the same name).
        """
        back_off_s = _BACK_OFF_MIN_S
        while not stop.is_set():
            began = time.monotonic()
            try:
                async with self._open_bus() as bus, self._open_source(self._selection) as source:
                    await self._session(bus, source, stop)
                    return
            except (BusError, OSError) as error:
                if isinstance(error, BusError) and not error.retriable:
                    raise
                _log.warning("nothing can be read or published now, messages wait in their topics: %s", error)
            if time.monotonic() - began > _BACK_OFF_MAX_S:
                back_off_s = _BACK_OFF_MIN_S  # it had worked for a while
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), back_off_s * random.uniform(0.5, 1))  # noqa: S311 - no secret
            back_off_s = min(2 * back_off_s, _BACK_OFF_MAX_S)

    async def _session(self, bus: Bus, source: SeldonSource, stop: asyncio.Event) -> None:
        """Read over one pair of connections."""
        await self._rules.ensure_topics(bus)
        transactor = await bus.transactor(f"govern.{self._agent}.{self._namespace}")
        try:
            # After the fence: nobody else can change it now.
            table = await bus.read_table(Partition(topic(self._namespace, "positions"), 0))
            ledger = Ledger(
                bus,
                transactor,
                table,
                namespace=self._namespace,
                rules=self._rules,
                agent=self._agent,
                messages=self._messages,
            )
            await Session(self._rules, source, self._selection, ledger, self._metrics).run(stop)
        finally:
            await transactor.close()
