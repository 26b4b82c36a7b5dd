"""Configuration of capture: one YAML file, environment variables, command-line flags; the later wins.

A field `name` is `name:` in the file, `GOVERN_MIRROR_NAME` in the environment (`GOVERN_BUS` and `GOVERN_NAMESPACE`
are shared with the other commands), `--name` on the command line. Each way in has a section of its own, a model that is
defined beside it; how sections are read says `govern.mirror.loading`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from govern.bus.topics import topic
from govern.bus.url import NO_SECRETS, holds_a_secret
from govern.mirror.destination import Destination
from govern.mirror.fan_out import Target
from govern.mirror.folder import default_spool_dir
from govern.mirror.grpc.config import GrpcConfig
from govern.mirror.inline.config import InlineConfig
from govern.mirror.listening import split_address
from govern.mirror.loading import Loaded, read
from govern.mirror.redaction.config import RedactionConfig
from govern.mirror.sampling import SamplingConfig
from govern.mirror.segment import HEADER_BYTES, frame_bytes
from govern.mirror.seldon.config import SeldonConfig
from govern.mirror.sink.config import SinkConfig
from govern.mirror.tls import TlsConfig

#: What a record takes beside its two bodies: ids, path and content types, each of bounded length, and field names.
RECORD_OVERHEAD_BYTES: Final = 16 * 1024

_ENV_PREFIX: Final = "GOVERN_MIRROR_"
_SHARED_ENV: Final = {"bus": "GOVERN_BUS", "namespace": "GOVERN_NAMESPACE"}


class Rule(BaseModel):
    """Which requests are inferences. A request is captured when its method and its whole path match."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="Regular expression over the path; groups named model and version are taken over.")
    protocol: str = Field(default="unknown", description="v1, v2, seldon-v1, openai ... as the record names it.")
    method: str = Field(default="POST", description="HTTP method.")

    @field_validator("path")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return value


#: KServe V1 (predict, explain) and Open Inference Protocol V2 (infer, with or without a version); Seldon Core v1, as
#: its containers are called and as its ingress is; OpenAI's API, also below the prefix that KServe puts before it. The
#: paths of the last two name no model.
DEFAULT_RULES: Final = (
    Rule(path=r"/v1/models/(?P<model>[^/:]+):(predict|explain)", protocol="v1"),
    Rule(path=r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[^/]+))?/infer", protocol="v2"),
    Rule(path=r"(/seldon/[^/]+/[^/]+)?/api/v(0\.1|1\.0)/predictions", protocol="seldon-v1"),
    Rule(path=r"(/openai)?/v1/(chat/completions|completions|embeddings)", protocol="openai"),
    Rule(path=r"/inference\.GRPCInferenceService/Model(Stream)?Infer", protocol="v2-grpc"),
)


class MirrorConfig(BaseModel):
    """All that the proxy, the middleware and the shipper of one pod need to know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)  # one may hold a secret

    listen: str = Field(default="0.0.0.0:8080", description="host:port on which the proxy accepts requests.")
    upstream: str = Field(
        default="http://127.0.0.1:8000", description="http:// or https://host:port of the model server."
    )
    connect_timeout_s: float = Field(default=5.0, gt=0, description="Longest wait for a connection to the upstream.")
    upstream_idle_s: float = Field(
        default=4.0,
        gt=0,
        description="How long an unused upstream connection is kept. Less than the server's own limit (uvicorn: 5 s), "
        "so that a request never meets a connection that the server is closing.",
    )
    drain_s: float = Field(default=20.0, ge=0, description="After SIGTERM: longest wait for requests under way.")

    tls: TlsConfig = Field(default=TlsConfig(), description="TLS of the proxy, on both of its sides.")
    grpc: GrpcConfig = Field(default=GrpcConfig(), description="The gRPC proxy: where it listens, what it relays to.")

    inline: InlineConfig | None = Field(
        default=None, description="Steps that the HTTP proxy asks before it answers; without it nothing is asked."
    )

    namespace: str = Field(default="default", pattern=r"^[A-Za-z0-9_-]{1,63}$", description="Names the topics.")
    service: str = Field(default="model", min_length=1, max_length=253, description="The inference service.")
    model: str = Field(default="", max_length=253, description="The model; empty = as the request's path names it.")
    revision: str = Field(default="", max_length=253, description="Its revision; empty = the path's version.")
    endpoint: Literal["default", "canary", "shadow"] = Field(default="default", description="Which share of traffic.")
    pod: str = Field(default_factory=socket.gethostname, min_length=1, max_length=253, description="The pod's name.")

    rules: tuple[Rule, ...] = Field(default=DEFAULT_RULES, description="Which requests are inferences.")
    request_id_headers: tuple[str, ...] = Field(
        default=("x-request-id", "ce-id", "seldon-puid"),
        description="Headers that carry the caller's request id; the first one present counts.",
    )
    sampling_rate: float = Field(
        default=1.0, ge=0, le=1, description="Share of requests to capture, decided by a hash of the request id."
    )
    sampling: SamplingConfig = Field(
        default=SamplingConfig(), description="Rates of services, models and outcomes, where they differ from it."
    )
    sink: SinkConfig = Field(default=SinkConfig(), description="The CloudEvents sink, `govern mirror sink`.")
    headers: tuple[str, ...] = Field(
        default=("inference-header-content-length",),
        description="Headers of request and response that a record keeps; of the others no trace stays.",
    )
    body_bytes: int = Field(
        default=448 * 1024,
        ge=0,
        description="Longest prefix of each body to capture. Two of them must fit into one message of the bus.",
    )

    spool_dir: Path = Field(default_factory=default_spool_dir, description="Folder of the spool, on tmpfs.")
    segment_bytes: int = Field(default=4 * 1024 * 1024, description="Size of one segment of the spool.")
    spool_bytes: int = Field(default=128 * 1024 * 1024, description="What the spool may take in memory.")
    disk_dir: Path | None = Field(default=None, description="Where sealed segments go while the bus is away.")
    disk_bytes: int = Field(default=2 * 1024 * 1024 * 1024, ge=0, description="What they may take there.")

    bus: str = Field(default="", description="kafka://host:port or embedded:///file.db; needed by the shipper only.")
    message_bytes: int = Field(
        default=1_000_000, gt=0, description="Longest message that the bus takes (Kafka's default: 1,048,576)."
    )
    fan_out: tuple[Target, ...] = Field(
        default=(), description="Further topics that get the records, or some of them, in the same transaction."
    )
    destinations: tuple[Destination, ...] = Field(
        default=(), description="Further buses that get the records, or some of them, each at its own pace."
    )
    metrics_listen: str = Field(default="127.0.0.1:9464", description="host:port of the shipper's metrics.")

    seldon: SeldonConfig = Field(default=SeldonConfig(), description="Recording Seldon Core v2's own Kafka topics.")
    redaction: RedactionConfig = Field(default=RedactionConfig(), description="What is taken out of records.")

    @field_validator("listen", "metrics_listen")
    @classmethod
    def _address(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("bus")
    @classmethod
    def _bus(cls, value: str) -> str:
        if holds_a_secret(value):
            raise ValueError(NO_SECRETS)
        return value

    @field_validator("upstream")
    @classmethod
    def _upstream(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("it holds a user or a password: name the server only")
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise ValueError("give http://host:port or https://host:port, without a path")
        _ = parts.port
        return value

    @field_validator("request_id_headers", "headers")
    @classmethod
    def _lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower() for name in value)

    @model_validator(mode="after")
    def _tls_of_upstream(self) -> Self:
        if self.tls.of_upstream and not self.upstream_is_https and not self.grpc.upstream_is_https:
            raise ValueError(
                f"upstream: tls.{self.tls.of_upstream[0]} is for an https upstream; give https://host:port"
            )
        return self

    @model_validator(mode="after")
    def _inline_within(self) -> Self:
        if self.inline is not None and self.redaction.rules and not self.inline.in_the_pod:
            raise ValueError(
                "inline: its server is sent bodies that nothing was taken out of yet, and redaction has rules; give a "
                "url in the pod, http://127.0.0.1:<port>"
            )
        return self

    @model_validator(mode="after")
    def _topics(self) -> Self:
        names = [topic(self.namespace, "inferences"), *(target.name for target in self.fan_out)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"fan_out: {twice} would get records twice; name each topic once, but not the main one")
        return self

    @model_validator(mode="after")
    def _destinations(self) -> Self:
        names = [destination.name for destination in self.destinations]
        if len(set(names)) < len(names):
            raise ValueError("destinations: two have the same name; give each its own")
        taken = [(self.bus, name) for name in (topic(self.namespace, "inferences"), *(t.name for t in self.fan_out))]
        for destination in self.destinations:
            for name in destination.topics(self.namespace):
                if (destination.bus, name) in taken:
                    raise ValueError(
                        f"destinations: {destination.name} would put records into {name} a second time; give it "
                        "another bus, or another namespace"
                    )
                taken.append((destination.bus, name))
        return self

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        record = 2 * self.body_bytes + RECORD_OVERHEAD_BYTES
        if record > self.message_bytes:
            raise ValueError(
                f"body_bytes: two bodies of {self.body_bytes} bytes make a record of {record}, but message_bytes is "
                f"{self.message_bytes}; lower body_bytes, or raise message_bytes with the broker's message.max.bytes"
            )
        for destination in self.destinations:
            if record > destination.message_bytes:
                raise ValueError(
                    f"destinations: a record may take {record} bytes, but {destination.name} takes messages of "
                    f"{destination.message_bytes}; raise its message_bytes with its broker's message.max.bytes, or "
                    "lower body_bytes"
                )
        segment = HEADER_BYTES + frame_bytes(record)
        if segment > self.segment_bytes:
            raise ValueError(f"segment_bytes: one record may need {segment} bytes; raise it to at least that")
        if self.spool_bytes < 4 * self.segment_bytes:
            raise ValueError(
                f"spool_bytes: give at least {4 * self.segment_bytes}, four segments: one being written, two ready "
                "behind it, one being shipped"
            )
        return self

    @property
    def listen_address(self) -> tuple[str, int]:
        return split_address(self.listen)

    @property
    def metrics_address(self) -> tuple[str, int]:
        return split_address(self.metrics_listen)

    @property
    def upstream_address(self) -> tuple[str, int]:
        parts = urlsplit(self.upstream)
        return parts.hostname or "", parts.port or (443 if self.upstream_is_https else 80)

    @property
    def upstream_is_https(self) -> bool:
        return urlsplit(self.upstream).scheme == "https"


def load(
    path: Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> MirrorConfig:
    """Read the configuration once, at the edge.

    Args:
        path: the YAML file, if there is one.
        flags: values from the command line by dotted name; None stands for a flag that was not given.

    Raises:
        ConfigError: naming the source (file and line, variable or flag), the field and what to give instead.
    """
    return load_with_sources(path, flags=flags, environ=environ).config


def load_with_sources(
    path: Path | None = None,
    *,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Loaded[MirrorConfig]:
    """Like `load`, and say of each value that was given where it is from."""
    return read(MirrorConfig, path, flags=flags or {}, environ=environ, prefix=_ENV_PREFIX, shared=_SHARED_ENV)


def json_schema() -> dict[str, Any]:
    """The JSON schema of the file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **MirrorConfig.model_json_schema()}
