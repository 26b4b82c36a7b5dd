"""New rules of a shipper that runs: those of the main bus and, with them, which destinations are followed for."""

from __future__ import annotations

from collections.abc import Callable

from govern.bus.protocol import Bus, Transactor
from govern.mirror.cipher import refuse_without_restart
from govern.mirror.config import MirrorConfig
from govern.mirror.in_force import InForce
from govern.mirror.leaving import Leaving
from govern.mirror.publisher import STREAMS, Publisher, outlet_of


class TakingOver:
    """The rules in force, and those that are to take their place.

    Args:
        follow: called with the configuration whose rules are in force now.

    Attributes:
        rules: of the main bus.
    """

    def __init__(
        self, config: MirrorConfig, leaving: Leaving, *, source: str, follow: Callable[[MirrorConfig], None]
    ) -> None:
        self._config = config
        self._leaving = leaving
        self._follow = follow
        self.rules = InForce(
            config,
            leaving.redactor,
            streams=STREAMS,
            subject=f"capture/{config.service}",
            source=source,
        )

    def apply(self, config: MirrorConfig) -> None:
        """Want another configuration's rules.

        Raises:
            ConfigError: the rules of redaction need a restart, or a key or a file that is missing or unusable.
        """
        refuse_without_restart(self._config, config)
        for destination in config.destinations:
            outlet_of(destination, config)
        self.rules.apply(config)

    async def before_round(self, publisher: Publisher, bus: Bus, transactor: Transactor) -> None:
        """Take over what is wanted, if anything.

        Raises:
            BusError: one that may not come again; the rules stay wanted.
        """

        def follow() -> None:
            self._leaving.redactor, publisher.fan_out = self.rules.redactor, self.rules.fan_out
            self._follow(self.rules.config)

        await self.rules.take_over(bus, transactor, follow=follow)
