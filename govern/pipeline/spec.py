"""What a pipeline file says: frozen models in the vocabulary of Seldon Core v2's Pipeline.

Keys are Seldon's where Seldon has them (`steps, inputs, triggers, batch, output`); `source`, `schema`, `detector`,
`explainer` and `model` are ours. Nothing is coerced and no unknown key is accepted.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

API_VERSION: Final = "govern.io/v1alpha1"

#: How many flagged instances of one window are explained unless the step says otherwise: enough to see why a
#: window is odd, few enough that a flood of outliers does not flood the explainer.
DEFAULT_MAX_PER_WINDOW: Final = 5
#: How long an explanation may take unless the step says otherwise. It runs off the request path.
DEFAULT_DEADLINE_MS: Final = 30_000

#: A Kubernetes DNS label (RFC 1123): it holds no dot, so references can be split at dots.
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Text = Annotated[str, Field(min_length=1)]
Param = str | int | float | bool | None


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=_camel, populate_by_name=True, allow_inf_nan=False
    )


class Metadata(_Model):
    name: Name
    namespace: Name = "default"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Source(_Model):
    """The captured stream that the pipeline reads: the inferences of one model of one service."""

    service: Text
    model: Text


class Batch(_Model):
    """A window closes when it holds `size` instances or is `window_ms` old, whichever comes first."""

    size: int | None = Field(default=None, gt=0)
    window_ms: int | None = Field(default=None, gt=0)


class DetectorSpec(_Model):
    """A fitted detector.

    Attributes:
        type: entry point name in the group `govern.detectors`.
        params: of the constructor, used when it is fitted.
        artifact: the fitted detector's folder, relative to the pipeline file.
    """

    type: Text
    params: dict[str, Param] = {}
    artifact: Text


class ExplainerSpec(_Model):
    """An explainer that is asked for each flagged instance.

    Attributes:
        name: the explainer's name where explanations are served.
        max_per_window: how many instances of one window at most, the strangest first.
        deadline_ms: how long one explanation may take.
    """

    name: Text
    max_per_window: int = Field(default=DEFAULT_MAX_PER_WINDOW, gt=0)
    deadline_ms: int = Field(default=DEFAULT_DEADLINE_MS, gt=0)

    @property
    def deadline_s(self) -> float:
        return self.deadline_ms / 1000


class ModelSpec(_Model):
    """The monitored model. Its outputs are the captured responses; it is not called."""

    captured: Literal[True]


class Step(_Model):
    """One node of the graph: exactly one of `detector`, `explainer` and `model` is set."""

    name: Name
    detector: DetectorSpec | None = None
    explainer: ExplainerSpec | None = None
    model: ModelSpec | None = None
    inputs: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    batch: Batch = Batch()


class Output(_Model):
    steps: tuple[str, ...]


class PipelineSpec(_Model):
    """The graph. `output` names the steps whose verdicts are the pipeline's result; all detectors when absent."""

    source: Source
    schema_path: Text = Field(alias="schema")
    steps: tuple[Step, ...] = Field(min_length=1)
    output: Output | None = None


class Pipeline(_Model):
    """A document of kind Pipeline, valid in itself (`govern.pipeline.load_pipelines` checks that)."""

    api_version: Literal["govern.io/v1alpha1"]
    kind: Literal["Pipeline"]
    metadata: Metadata
    spec: PipelineSpec

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    def canonical(self) -> dict[str, Any]:
        """The content as JSON values with the file's keys; what was left out is there with its default."""
        return self.model_dump(mode="json", by_alias=True)
