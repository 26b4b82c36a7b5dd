"""The section `seldon` of the configuration: which topics of a Seldon Core v2 installation to record."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from govern.bus.url import NO_SECRETS, holds_a_secret

#: Headers of Seldon that say how a message came about; none of them holds a caller's data.
_HEADERS = ("pipeline", "x-pipeline-version", "x-seldon-route", "seldon-infer-type", "seldon-pipeline-errors")


class SeldonConfig(BaseModel):
    """Where Seldon's topics lie, which of them count, and how long a half waits for the other one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bus: str = Field(default="", description="kafka://host:port of Seldon's Kafka; empty = the cluster of `bus`.")
    prefix: str = Field(
        default="seldon", pattern=r"^[A-Za-z0-9._-]+$", description="How Seldon's topics begin (its topicPrefix)."
    )
    namespace: str = Field(
        default="", pattern=r"^[A-Za-z0-9_-]{0,63}$", description="Seldon's namespace; empty = the one of `namespace`."
    )
    name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,200}$",
        description="Under what name the place in the topics is kept; empty = prefix and namespace. Needed where two "
        "installations with the same prefix and namespace are recorded into one namespace of govern.",
    )
    models: tuple[str, ...] = Field(default=("*",), description="Models to record: names, or patterns with * and ?.")
    pipelines: tuple[str, ...] = Field(default=("*",), description="Pipelines to record, likewise.")
    within: tuple[str, ...] = Field(
        default=("*",),
        description="Record a model's calls only from these pipelines (names or patterns): pipelines share the topics "
        "of a model. A call outside any pipeline is recorded when * is among them.",
    )
    start: Literal["earliest", "latest"] = Field(
        default="earliest", description="Where the very first start begins: with all that Kafka still has, or now."
    )
    join_s: float = Field(
        default=60.0, gt=0, description="How long a half waits for the other one; then it is recorded alone."
    )
    open_halves: int = Field(
        default=20_000, gt=0, description="How many halves wait at most; past that the oldest are recorded alone."
    )
    open_bytes: int = Field(
        default=64 * 1024 * 1024, gt=0, description="How many bytes of bodies wait at most, likewise."
    )
    discover_s: float = Field(default=10.0, gt=0, description="How often to look for new topics and partitions.")
    headers: tuple[str, ...] = Field(
        default=_HEADERS, description="Headers of Seldon's messages that a record keeps, lower case."
    )

    @field_validator("bus")
    @classmethod
    def _is_kafka(cls, value: str) -> str:
        if holds_a_secret(value):
            raise ValueError(NO_SECRETS)
        if value and not value.startswith("kafka://"):
            raise ValueError("Seldon's topics lie on Kafka: give kafka://host:port")
        return value

    @field_validator("headers")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower() for name in value)
