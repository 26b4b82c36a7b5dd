"""What a pipeline file says: frozen models in the vocabulary of Seldon Core v2's Pipeline.

Keys are Seldon's where Seldon has them (all of its Pipeline's are here); `source`, `schema` and what a step is
(`detector`, `explainer`, `model`, `transformer`, `router`, `combiner`) are ours: in Seldon each step is the model of
its name. Nothing is coerced and no unknown key is accepted. What of this a worker runs, `govern.runtime.vocabulary`
says.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from govern.schema import DATATYPES

API_VERSION: Final = "govern.io/v1alpha1"

#: How many flagged instances of one window are explained unless the step says otherwise: enough to see why a
#: window is odd, few enough that a flood of outliers does not flood the explainer.
DEFAULT_MAX_PER_WINDOW: Final = 5
#: How long an explanation may take unless the step says otherwise. It runs off the request path.
DEFAULT_DEADLINE_MS: Final = 30_000
#: How long a join waits for its other inputs unless it says otherwise: far above what a step takes on a request's path,
#: and short enough that the requests which lost a part do not pile up.
DEFAULT_JOIN_WINDOW_MS: Final = 1000
#: How often a request may come back to a step unless the pipeline says otherwise; Seldon's example of a cycle has it.
DEFAULT_MAX_STEP_REVISITS: Final = 100
#: How long a call of a model may take unless the step says otherwise.
DEFAULT_CALL_MS: Final = 10_000
#: Share of requests that an epsilon-greedy router spends on finding out.
DEFAULT_EPSILON: Final = 0.1

#: A Kubernetes DNS label (RFC 1123): it holds no dot, so references can be split at dots.
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Text = Annotated[str, Field(min_length=1)]
Param = str | int | float | bool | None
StepRole = Literal["detector", "explainer", "model", "transformer", "router", "combiner"]
JoinType = Literal["inner", "outer", "any"]
ROLES: Final[tuple[StepRole, ...]] = ("detector", "explainer", "model", "transformer", "router", "combiner")
#: Kubernetes stores these as uint32.
Milliseconds = Annotated[int, Field(ge=0, lt=2**32)]
#: Names of tensors are free text on the wire, but a router's and a combiner's are chosen here and stand in references.
TensorName = Annotated[str, Field(pattern=r"^[^\s]+$")]


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=_camel, populate_by_name=True, allow_inf_nan=False
    )

    #: Fields that came after the first release: left out of the canonical form while they have their default, so that
    #: a pipeline which does not use them keeps its digest.
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        for name in self.added:
            field = type(self).model_fields[name]
            if getattr(self, name) == field.get_default():
                content.pop(field.alias or name, None)
                content.pop(name, None)
        return content


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
    """A window closes when it holds `size` instances or is `window_ms` old, whichever comes first.

    Attributes:
        rolling: the window slides by each request instead of starting anew.
    """

    added = frozenset({"rolling"})

    size: int | None = Field(default=None, gt=0)
    window_ms: int | None = Field(default=None, gt=0)
    rolling: bool = False


class TensorSpec(_Model):
    """A tensor as a model's V2 metadata declares it.

    Attributes:
        shape: -1 for a dimension of any size; None = not known.
    """

    name: Text
    datatype: Annotated[str, Field(pattern=f"^({'|'.join(DATATYPES)})$")]
    shape: tuple[Annotated[int, Field(ge=-1)], ...] | None = None
    optional: bool = False


class Typed(_Model):
    """What a called step takes and gives, where that is known; None = not declared.

    Attributes:
        one_of: outputs of which each call returns exactly one: the branches of a conditional step.
    """

    inputs: tuple[TensorSpec, ...] | None = None
    outputs: tuple[TensorSpec, ...] | None = None
    one_of: tuple[Text, ...] = ()


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


class ModelSpec(Typed):
    """The monitored model (`captured`: its outputs are the captured responses; it is not called), or one that is called
    over the Open Inference Protocol V2 (`url`).

    Attributes:
        url: `http://` and `https://` for REST, `grpc://` and `grpcs://` for gRPC; host and port, no path.
        name: the model's name on its server; the step's when None.
        timeout_ms: how long one call may take.
    """

    added = frozenset({"inputs", "outputs", "one_of", "url", "name", "version", "timeout_ms"})

    captured: Literal[True] | None = None
    url: Annotated[str, Field(pattern=r"^(https?|grpcs?)://[^/\s]+/?$")] | None = None
    name: Text | None = None
    version: Text | None = None
    timeout_ms: int = Field(default=DEFAULT_CALL_MS, gt=0)


class TransformerSpec(Typed):
    """A Python function of tensors.

    Attributes:
        callable: entry point, `package.module:function`.
        params: its keyword arguments.
    """

    callable: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    params: dict[str, Param] = {}


class Route(_Model):
    """A branch of a router: when it is taken, the router emits the BOOL tensor of this name, which is true and of shape
    [1], and no other; the steps of the branch are triggered by it.
    """

    name: TensorName
    weight: Annotated[float, Field(ge=0)] = 1.0


class RouterSpec(_Model):
    """A step that sends each request down one of its routes.

    Attributes:
        strategy: `weighted` draws by the weights (an A/B test: two routes); `epsilon-greedy` and `thompson` learn from
            the rewards that arrive as feedback.
        seed: of the draws: a request's route follows from it, the request's id and what was learned before.
        epsilon: the share of requests that `epsilon-greedy` spends on finding out.
    """

    strategy: Literal["weighted", "epsilon-greedy", "thompson"]
    routes: tuple[Route, ...] = Field(min_length=2)
    seed: int = Field(default=0, ge=0)
    epsilon: float = Field(default=DEFAULT_EPSILON, ge=0, le=1)


class CombinerSpec(_Model):
    """A step that makes one tensor of those that its inputs bring, one each, element by element.

    Attributes:
        method: `mean`; `weighted` (mean with `weights`, one for each input); `vote` (the most frequent value).
        output: the name of its tensor.
    """

    method: Literal["mean", "weighted", "vote"]
    weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    output: TensorName = "output"


class Step(_Model):
    """One node of the graph: exactly one of `detector`, `explainer`, `model`, `transformer`, `router`, `combiner`.

    Attributes:
        inputs: `<step>`, `<step>.inputs|outputs[.<tensor>]`, `<pipeline>.inputs[.<tensor>]`; the pipeline's inputs when
            left out.
        inputs_join_type: inner when None.
        triggers: as inputs; their data does not reach the step.
        triggers_join_type: inner when None, except for an explainer, which any of its triggers starts.
        join_window_ms: `DEFAULT_JOIN_WINDOW_MS` when None.
        tensor_map: `<step>.inputs|outputs.<tensor>` -> the name under which this step receives it.
        placement: of the workers that run it (`govern.pipeline.cut`); that of its pipeline when None.
    """

    added = frozenset(
        {
            *("transformer", "router", "combiner", "placement"),
            *("inputs_join_type", "triggers_join_type", "join_window_ms", "tensor_map"),
        }
    )

    name: Name
    detector: DetectorSpec | None = None
    explainer: ExplainerSpec | None = None
    model: ModelSpec | None = None
    transformer: TransformerSpec | None = None
    router: RouterSpec | None = None
    combiner: CombinerSpec | None = None
    placement: Name | None = None
    inputs: tuple[str, ...] = ()
    inputs_join_type: JoinType | None = None
    join_window_ms: Milliseconds | None = None
    tensor_map: dict[str, Text] = {}
    triggers: tuple[str, ...] = ()
    triggers_join_type: JoinType | None = None
    batch: Batch = Batch()

    @property
    def role(self) -> StepRole:
        """Which of the six a step is that was checked to be one."""
        return next(role for role in ROLES if getattr(self, role) is not None)


class Input(_Model):
    """What the pipeline reads of other pipelines.

    Attributes:
        external_inputs: `<pipeline>.inputs|outputs[.<tensor>]`, `<pipeline>.step.<step>.inputs|outputs[.<tensor>]`.
    """

    external_inputs: tuple[str, ...] = ()
    join_type: JoinType | None = None
    join_window_ms: Milliseconds | None = None
    external_triggers: tuple[str, ...] = ()
    triggers_join_type: JoinType | None = None
    tensor_map: dict[str, Text] = {}


class Output(_Model):
    """What the pipeline gives: `<step>` or `<step>.outputs[.<tensor>]`, joined (inner when None)."""

    added = frozenset({"steps_join", "join_window_ms", "tensor_map"})

    steps: tuple[str, ...]
    steps_join: JoinType | None = None
    join_window_ms: Milliseconds | None = None
    tensor_map: dict[str, Text] = {}


class Dataflow(_Model):
    """How Seldon handles the pipeline's topics.

    Attributes:
        clean_topics_on_delete: whether they go when the pipeline is deleted.
    """

    clean_topics_on_delete: bool = False


class PipelineSpec(_Model):
    """The graph. `output` names the steps whose verdicts are the pipeline's result; all detectors when absent.

    Attributes:
        source: the captured stream that is read; a pipeline has this or `input`, or is only ever called.
        schema_path: of the features; None for a pipeline without captured stream and without detectors.
        max_step_revisits: `DEFAULT_MAX_STEP_REVISITS` when None.
    """

    added = frozenset({"input", "allow_cycles", "max_step_revisits", "dataflow"})

    source: Source | None = None
    schema_path: Text | None = Field(default=None, alias="schema")
    input: Input | None = None
    allow_cycles: bool = False
    max_step_revisits: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    dataflow: Dataflow | None = None
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

    @property
    def model(self) -> str:
        """Whose inputs the schema describes: the watched model, or the pipeline itself when it is called."""
        return self.name if self.spec.source is None else self.spec.source.model

    def canonical(self) -> dict[str, Any]:
        """The content as JSON values with the file's keys; what was left out is there with its default."""
        return self.model_dump(mode="json", by_alias=True)
