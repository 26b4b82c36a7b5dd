"""A detector step as it judges the rows of one call, which nothing came before and nothing follows."""

from __future__ import annotations

from dataclasses import dataclass

from govern.detection import Detector, Scores, remembers
from govern.errors import BadInput, ConfigError, NotFound
from govern.frame import Frame
from govern.record import Kind
from govern.runtime.judge import missing_outputs
from govern.runtime.loader import LoadedPipeline
from govern.schema import FeatureSchema
from govern.telemetry.metrics import labels


@dataclass(frozen=True, slots=True)
class DetectorStep:
    """A detector and the pipeline that it stands in.

    Attributes:
        plan_digest: of the pipeline, its artifacts included.

    Raises:
        ConfigError: the detector remembers what came before, and calls are no stream.
    """

    namespace: str
    service: str
    model: str
    pipeline: str
    name: str
    plan_digest: str
    schema: FeatureSchema
    detector: Detector

    def __post_init__(self) -> None:
        if remembers(self.detector):
            raise ConfigError(
                f"step {self.name!r} of pipeline {self.pipeline!r} cannot answer calls",
                why=f"what {self.detector.method} says depends on all rows before, and calls are no stream: each may "
                "come to another server, in any order",
                fix="run it in `govern worker`, in a file that is not served; serve one that judges each call alone",
            )

    @classmethod
    def of(cls, loaded: LoadedPipeline, step: str) -> DetectorStep:
        """
        Raises:
            NotFound: the pipeline has no detector step of this name.
        """
        plan = loaded.plan
        detector = loaded.detectors.get(step)
        if detector is None:
            raise NotFound(
                f"pipeline {plan.name!r} has no detector step {step!r}",
                why=f"it has {', '.join(loaded.detectors) or 'none'}",
                fix="correct the name",
            )
        return cls(
            namespace=plan.namespace,
            service=plan.source.service,
            model=plan.source.model,
            pipeline=plan.name,
            name=step,
            plan_digest=plan.digest,
            schema=loaded.schema_of(step),
            detector=detector,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Of its metrics. The revision is the caller's, who does not say."""
        return labels(
            namespace=self.namespace, service=self.service, model=self.model, pipeline=self.pipeline, step=self.name
        )

    @property
    def kind(self) -> Kind:
        return self.detector.kind

    def score(self, frame: Frame) -> Scores:
        """What the detector says of these rows alone.

        Raises:
            BadInput: fewer rows than it can judge, or without an output of the model that it reads.
        """
        least = self.detector.min_instances
        if len(frame) < least:
            raise BadInput(
                f"step {self.name!r} of pipeline {self.pipeline!r} was sent {len(frame)} rows",
                why=f"{self.detector.method} judges {least} or more together, and a call is judged by itself",
                fix=f"send {least} rows in one call, or let `govern worker` gather them",
            )
        missing = missing_outputs(self.detector, frame)
        if missing is not None:
            raise missing
        return self.detector.score(frame)
