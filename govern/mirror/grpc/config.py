"""The section `grpc` of capture's configuration."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from govern.mirror.listening import split_address

_PORT: Final = {"http": 80, "https": 443}


class GrpcConfig(BaseModel):
    """Where the gRPC proxy listens and what it relays to; all else it shares with the HTTP proxy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = Field(default="0.0.0.0:8081", description="host:port on which the proxy accepts calls.")
    upstream: str = Field(
        default="http://127.0.0.1:8001",
        description="http:// or https://host:port of the model server's gRPC port.",
    )

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("upstream")
    @classmethod
    def _upstream(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("it holds a user or a password: name the server only")
        parts = urlsplit(value)
        if parts.scheme not in _PORT or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise ValueError("give http://host:port or https://host:port, without a path")
        _ = parts.port
        return value

    @property
    def upstream_address(self) -> tuple[str, int]:
        parts = urlsplit(self.upstream)
        return parts.hostname or "", parts.port or _PORT[parts.scheme]

    @property
    def upstream_is_https(self) -> bool:
        return urlsplit(self.upstream).scheme == "https"
