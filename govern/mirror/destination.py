"""The section `destinations` of the configuration: further buses that get the records, each at its own pace."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from govern.bus import Bus, open_bus
from govern.bus.topics import topic
from govern.bus.url import NO_SECRETS, holds_a_secret, kafka_of
from govern.errors import ConfigError
from govern.mirror.fan_out import Filter, Target
from govern.mirror.redaction.config import RedactionConfig


class Destination(BaseModel):
    """One further bus: another team's cluster, or a file on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Names its place in the spool and stands in its metrics."
    )
    bus: str = Field(description="kafka://host:port or embedded:///file.db.")
    namespace: str = Field(
        default="", pattern=r"^[A-Za-z0-9_-]{0,63}$", description="Names the topics there; empty = as on the main bus."
    )
    filter: Filter = Field(default=Filter(), description="Which records go there; without one, all inferences.")
    redaction: RedactionConfig = Field(
        default=RedactionConfig(), description="What is taken out for it, of what the main rules have left."
    )
    fan_out: tuple[Target, ...] = Field(
        default=(), description="Further topics there, in the same transaction, of the records that go there."
    )
    message_bytes: int = Field(default=1_000_000, gt=0, description="Longest message that this bus takes.")

    @field_validator("bus")
    @classmethod
    def _is_a_bus(cls, value: str) -> str:
        if holds_a_secret(value):
            raise ValueError(NO_SECRETS)
        parts = urlsplit(value)
        if parts.scheme == "embedded" and parts.path.startswith("/"):
            return value
        try:
            kafka_of(value)
        except ConfigError as error:
            raise ValueError(f"{error.why}; {error.fix}, or embedded:///absolute/file.db") from error
        return value

    @model_validator(mode="after")
    def _takes_out_only(self) -> Self:
        if any(rule.action == "encrypt" for rule in self.redaction.rules):
            raise ValueError(
                "redaction: encrypt is for the audit store, under the main rules; here use drop or withhold"
            )
        return self

    def topics(self, namespace: str) -> list[str]:
        """Names of the topics that get inferences there.

        Args:
            namespace: of the main bus.
        """
        return [topic(self.namespace or namespace, "inferences"), *(target.name for target in self.fan_out)]

    def open(self) -> Bus:
        return open_bus(self.bus, client_id="govern-shipper", message_bytes=self.message_bytes)
