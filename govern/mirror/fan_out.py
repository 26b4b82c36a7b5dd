"""Further topics for captured records, beside the one of their namespace: each with a filter of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from govern.bus.protocol import Outgoing, TopicSpec
from govern.bus.topics import RETENTION_MS, Stream, topic
from govern.mirror.captured import Captured, CapturedFeedback
from govern.mirror.sampling import point_of
from govern.record import Inference

_OWN: Final = re.compile(rf"govern\.[A-Za-z0-9_-]+\.(?P<stream>{'|'.join(get_args(Stream))})")

Kind = Literal["inferences", "feedback"]


class Filter(BaseModel):
    """Which records a target gets; in each pattern * and ? stand for characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: tuple[Kind, ...] = Field(
        default=("inferences",), min_length=1, description="inferences, feedback (of the CloudEvents sink), or both."
    )
    service: str = Field(default="*", description="Name of the service.")
    model: str = Field(default="*", description="Name of the model.")
    status: str = Field(
        default="*", description="Status code, as in 5?? for every failure of a server; feedback has none."
    )
    rate: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of all requests, by the hash that sampling_rate goes by; what it leaves out no target has.",
    )

    def fits(self, record: Captured) -> bool:
        if isinstance(record, CapturedFeedback):
            feedback = record.feedback
            return "feedback" in self.records and self._names(feedback.service, feedback.model, feedback.request_id)
        return (
            "inferences" in self.records
            and fnmatchcase(str(record.status_code), self.status)
            and self._names(record.service, record.model, record.request_id)
        )

    def _names(self, service: str, model: str, request_id: str) -> bool:
        return (
            fnmatchcase(service, self.service)
            and fnmatchcase(model, self.model)
            and (self.rate >= 1 or point_of(request_id) < self.rate)
        )


class Target(BaseModel):
    """One further topic on the same bus."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str = Field(
        default="", pattern=r"^[A-Za-z0-9._-]{0,249}$", description="Name of the topic; or give a namespace."
    )
    namespace: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,63}$", description="Namespace whose topics get them.")
    partitions: int = Field(default=4, ge=1, description="Partitions that the topic is made with, or needs at least.")
    filter: Filter = Field(default=Filter(), description="Which records go there; without one, all inferences.")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if bool(self.topic) == bool(self.namespace):
            raise ValueError("topic: give either a topic or a namespace")
        if self.topic in (".", ".."):
            raise ValueError("topic: Kafka has no topic of that name")
        own = _OWN.fullmatch(self.topic)
        if own and own["stream"] != "inferences":
            raise ValueError(f"topic: {own['stream']} is a topic of govern's own, for other records than inferences")
        return self

    @property
    def name(self) -> str:
        """Where inferences go."""
        return self.topic_of("inferences")

    def topic_of(self, kind: Kind) -> str:
        return self.topic or topic(self.namespace, kind)

    @property
    def specs(self) -> dict[str, TopicSpec]:
        """The topics that are needed, by name."""
        return {
            name: TopicSpec(
                name=name,
                partitions=1 if self.namespace and kind == "feedback" else self.partitions,
                retention_ms=RETENTION_MS,
            )
            for kind in self.filter.records
            for name in [self.topic_of(kind)]
        }


class FanOut:
    """The targets of one configuration."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = tuple(targets)
        self.specs = tuple(spec for target in targets for spec in target.specs.values())

    def topics(self, record: Captured) -> list[str]:
        """Where the record goes beside the topic of its namespace."""
        kind: Kind = "feedback" if isinstance(record, CapturedFeedback) else "inferences"
        return [target.topic_of(kind) for target in self._targets if target.filter.fits(record)]

    def beside(self, sent: Iterable[tuple[Inference, Outgoing]]) -> dict[str, list[Outgoing]]:
        """What goes to further topics of the records and messages that go to the one of their namespace."""
        copies: dict[str, list[Outgoing]] = {}
        for record, message in sent:
            for name in self.topics(record):
                copies.setdefault(name, []).append(message)
        return copies
