"""Who a process is in its consumer groups: static membership (KIP-345), of which aiokafka keeps a part.

A member with an instance id does not leave its group when it ends, and whoever joins with the same id within the
session time-out gets its partitions back without a rebalance. aiokafka's member that the broker no longer knows joins
anew as a stranger, who takes the id from its holder: two processes with one id would take it from each other for ever.
Here a member that had the id asks for it by the member id that the broker had given it, and is refused when another
process has the instance id by then. So the newest process has it, and the one before ends with an error.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import UnknownMemberIdError, for_code
from aiokafka.protocol.group import JoinGroupRequest

from govern.bus.kafka_errors import FencedInstanceIdError
from govern.errors import ConfigError

#: After how long without a heartbeat a member's partitions go to others, seconds: Kafka's least (a crashed worker is
#: replaced after that time) plus room for a detector that keeps the event loop busy.
SESSION_TIMEOUT_S: Final = 10.0
#: What may be asked for, seconds: below, a heartbeat comes more often than four times a second; above, brokers refuse
#: (their group.max.session.timeout.ms). Most brokers also refuse less than 6 s (group.min.session.timeout.ms).
SESSION_TIMEOUT_BOUNDS_S: Final = (1.0, 1800.0)
#: Kafka's own rule for the id.
_INSTANCE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class KafkaMember:
    """How a process takes part in its consumer groups.

    Attributes:
        instance_id: its name in them, which it has again after a restart; None = a new member at each start.
        session_timeout_s: after how long without a sign of life its partitions go to others.
    """

    instance_id: str | None = None
    session_timeout_s: float = SESSION_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.instance_id is not None and not _INSTANCE_ID.fullmatch(self.instance_id):
            raise ConfigError(
                f"group instance id {self.instance_id!r}",
                why="Kafka takes 1 to 249 letters, digits, dots, underscores and hyphens",
                fix="give the pod's name, for example",
            )
        least, most = SESSION_TIMEOUT_BOUNDS_S
        if not least <= self.session_timeout_s <= most:
            raise ConfigError(
                f"session timeout of {self.session_timeout_s:g} s",
                why=f"it is from {least:g} to {most:g} s",
                fix="leave it out for 10 s; longer than a restart takes, where members have an instance id",
            )


class StaticCoordinator(GroupCoordinator):  # type: ignore[misc]
    """aiokafka's member of a group, which does not take its instance id back from a newer process."""

    member_id: str
    #: Group -> the member id that the broker last gave this process; outlives the subscription.
    _known_as: MutableMapping[str, str]
    _superseded: bool

    @classmethod
    def adopt(cls, consumer: AIOKafkaConsumer, known_as: MutableMapping[str, str]) -> None:
        """Make it the coordinator of a consumer that was started and has not subscribed: aiokafka takes none."""
        coordinator = consumer._coordinator
        coordinator.__class__ = cls
        coordinator._known_as = known_as
        coordinator._superseded = False

    def check_errors(self) -> None:
        if self._superseded:
            raise FencedInstanceIdError(self._group_instance_id)
        super().check_errors()

    async def _do_rejoin_group(self, subscription: Any) -> bool:
        self.member_id = self.member_id or self._known_as.get(self.group_id, JoinGroupRequest.UNKNOWN_MEMBER_ID)
        joined: bool = await super()._do_rejoin_group(subscription)
        return joined

    async def _send_req(self, request: Any) -> Any:
        response = await super()._send_req(request)
        error = for_code(getattr(response, "error_code", 0))
        if error is FencedInstanceIdError:
            self._superseded = True
        elif isinstance(request, JoinGroupRequest):
            if error is UnknownMemberIdError:  # nobody has the instance id: the session timed out
                self._known_as.pop(self.group_id, None)
            elif response.member_id:
                self._known_as[self.group_id] = response.member_id
        return response
