"""Which inferences are kept: a hash of the request id decides, so that every replica decides alike.

The hash puts each request at a point of [0, 1). Below `rate` it is kept, whatever comes of it; from `errors_rate` on it
is left out, and nothing of it is copied or held. In between only an error is kept, so its bodies are held (not
copied, not hashed) until its outcome is known. With `errors_rate` 0 every decision is made at the head.
"""

from __future__ import annotations

import hashlib
from enum import Enum
from fnmatch import fnmatchcase
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from govern.record import Sampling


class Rate(BaseModel):
    """The share of some models' requests to keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str = Field(default="*", description="Name of the service; * stands for any characters.")
    model: str = Field(default="*", description="Name of the model; * stands for any characters.")
    rate: float = Field(ge=0, le=1, description="Share of their requests to keep.")


class SamplingConfig(BaseModel):
    """The section `sampling`, beside the one `sampling_rate` for all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rates: tuple[Rate, ...] = Field(
        default=(), description="Rates of services and models; the first that fits counts, else sampling_rate."
    )
    errors_rate: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of failed requests to keep, if it is more than their rate; 1 = every one, 0 = no exception.",
    )
    error_status: int = Field(
        default=400,
        ge=100,
        le=600,
        description="Responses from this status on are errors; so is an exchange that did not complete.",
    )
    held_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=0,
        description="What the bodies of requests may take in memory that are kept only if they fail. Past it such a "
        "record holds a shorter prefix of its bodies, with their size and digest, and says so (truncated).",
    )


class Fate(Enum):
    """What the head of a request decides."""

    KEPT = "kept"
    LEFT_OUT = "left out"
    #: Kept if it fails.
    OPEN = "open"


class Shares(NamedTuple):
    """The shares of one model's requests that are kept; `errors` is never below `rate`."""

    rate: float
    errors: float

    def fate(self, request_id: str) -> Fate:
        if self.rate >= 1:
            return Fate.KEPT
        point = point_of(request_id)
        if point < self.rate:
            return Fate.KEPT
        return Fate.OPEN if point < self.errors else Fate.LEFT_OUT

    def label(self, *, failed: bool) -> Sampling:
        """What a record says: its share is the probability with which a request of its outcome was kept."""
        if self.rate >= 1:
            return Sampling(rate=1.0, strategy="all")
        if failed and self.errors > self.rate:
            return Sampling(rate=self.errors, strategy="errors")
        return Sampling(rate=self.rate, strategy="hash")


def shares(default: float, config: SamplingConfig, *, service: str, model: str) -> Shares:
    """Those of one model.

    Args:
        default: the rate where none of the section fits.
    """
    fits = (each.rate for each in config.rates if fnmatchcase(service, each.service) and fnmatchcase(model, each.model))
    rate = next(fits, default)
    return Shares(rate, max(rate, config.errors_rate))


def point_of(request_id: str) -> float:
    """Where in [0, 1) a request is, uniformly distributed over all ids."""
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:8], "big") / 2**64
