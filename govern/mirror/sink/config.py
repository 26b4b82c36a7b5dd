"""The section `sink` of capture's configuration."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SinkConfig(BaseModel):
    """How events are taken and halves are joined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    join_s: float = Field(
        default=30.0,
        gt=0,
        description="How long a half waits for the other one; then it is recorded alone, with the other named missing. "
        "Longer than the slowest inference and a redelivery by the broker.",
    )
    pending: int = Field(
        default=20_000, ge=1, description="How many inferences may wait for their other half; past it: 503."
    )
    pending_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=0,
        description="What their bodies may take, once in the process and twice in the journal; past it: 503.",
    )
    remembered: int = Field(
        default=100_000,
        ge=0,
        description="How many finished inferences are remembered, so that an event that is delivered again is known. "
        "Each takes some 200 bytes.",
    )
    remember_s: float = Field(default=600.0, ge=0, description="For how long they are, at most.")
    event_bytes: int = Field(
        default=128 * 1024 * 1024, ge=1024, description="The longest event that is read; past it: 413."
    )
    buffer_bytes: int = Field(
        default=256 * 1024 * 1024,
        ge=1024,
        description="What the events that are being read may take in memory together; past it: 503. A binary event "
        "takes up to body_bytes, a structured one all of it.",
    )
    qualify: bool = Field(
        default=False,
        description="Name services <name>.<Kubernetes namespace>: for a tenant whose namespaces have services of the "
        "same name.",
    )
    on_stop: Literal["record", "keep"] = Field(
        default="record",
        description="At SIGTERM halves that wait are recorded alone, because a pod's memory goes with it; or kept for "
        "the next start, where the spool's folder outlives the process.",
    )

    @model_validator(mode="after")
    def _buffer_holds_an_event(self) -> Self:
        if self.buffer_bytes < self.event_bytes:
            raise ValueError(f"buffer_bytes: give at least event_bytes, {self.event_bytes}")
        return self
