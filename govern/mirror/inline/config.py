"""The section `inline` of capture's configuration."""

from __future__ import annotations

import ipaddress
from http import HTTPStatus
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from govern.mirror.inline.told import PREFIX

When = Literal["request", "response"]
_NAME = r"^[A-Za-z0-9_.-]{1,128}$"


class InlineStep(BaseModel):
    """One step, and what its word is worth."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: str = Field(pattern=_NAME, description="Name of the step in the pipeline.")
    when: When = Field(
        default="request",
        description="request: before the model is called, which a block saves; response: with the model's answer.",
    )
    deadline_ms: int = Field(default=50, gt=0, le=60_000, description="Longest wait for the step, in milliseconds.")
    on_failure: Literal["open", "closed"] = Field(
        default="open", description="A step that gives no judgement: open = the call passes, closed = it is refused."
    )
    on_alarm: Literal["annotate", "block"] = Field(
        default="annotate", description="An alarm: annotate = a header says so, block = the caller gets block_status."
    )

    @property
    def header(self) -> str:
        """The response header that tells what the step said."""
        return f"{PREFIX}{self.step.lower()}"


class InlineConfig(BaseModel):
    """Which steps the HTTP proxy asks before it answers, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(default="http://127.0.0.1:8085", description="http://host:port of `govern serve`.")
    pipeline: str = Field(pattern=_NAME, description="Name of the pipeline that the steps are in.")
    steps: tuple[InlineStep, ...] = Field(min_length=1, description="The steps; those of one moment are asked at once.")
    block_status: int = Field(default=403, ge=400, le=599, description="HTTP status of a call that an alarm blocks.")
    body_bytes: int = Field(
        default=448 * 1024,
        gt=0,
        description="Longest body that is held and judged. A longer one is a failure of the step, see on_failure.",
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or "@" in value:
            raise ValueError("give http://host:port, without a path")
        _ = parts.port
        return value

    @field_validator("block_status")
    @classmethod
    def _known(cls, value: int) -> int:
        HTTPStatus(value)
        return value

    @model_validator(mode="after")
    def _once(self) -> Self:
        headers = [step.header for step in self.steps]
        twice = next((header for header in headers if headers.count(header) > 1), None)
        if twice is not None:
            raise ValueError(f"steps: two would answer with the header {twice}; name each step once")
        return self

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    @property
    def in_the_pod(self) -> bool:
        """Whether what is judged stays within the network of the pod."""
        host, _ = self.address
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def steps_at(self, when: When) -> tuple[InlineStep, ...]:
        return tuple(step for step in self.steps if step.when == when)
