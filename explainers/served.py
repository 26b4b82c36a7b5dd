"""An explainer step as a V2 model: rows in, why the model answered as it did out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
import numpy as np

from explainers.answer import Answerer
from explainers.base import Explainer
from explainers.deadline import Deadline
from govern.codecs.frames import to_frame
from govern.codecs.tensor import Tensor, objects
from govern.errors import BadInput, ConfigError
from govern.pipeline.spec import ExplainerSpec
from govern.pipeline.topology import Plan
from govern.record import ExplainRequest, Explanation
from govern.runtime.loader import LoadedPipeline
from govern.runtime.serving.model import VERSION_DIGITS, ModelMetadata, TensorMetadata, feature_inputs
from govern.runtime.serving.names import model_name
from govern.runtime.serving.repository import Source
from govern.telemetry.metrics import labels

_PLATFORM: Final = "govern_explainer"

Read = Callable[[], Explainer]


class ExplainerModel:
    """What is served of an explainer step.

    Outputs: `prediction` (n,), `base_value` (n,) and `attribution` (n, d), as in `Explained` (d = 0 for a method that
    attributes nothing), and `explanation` (n,), the whole of it with its reasons as JSON. Each call has the step's
    `deadlineMs` for all of its rows, of which it may have `maxPerWindow`.
    """

    def __init__(self, plan: Plan, step: str, spec: ExplainerSpec, explainer: Explainer) -> None:
        self._spec = spec
        self._schema = explainer.schema
        self._answerer = Answerer({spec.name: explainer})
        self.labels = labels(
            namespace=plan.namespace,
            service=plan.source.service,
            model=plan.source.model,
            pipeline=plan.name,
            step=step,
        )
        self.metadata = ModelMetadata(
            name=model_name(plan.name, step),
            inputs=feature_inputs(explainer.schema),
            outputs=(
                TensorMetadata(name="prediction", datatype="FP64", shape=(-1,)),
                TensorMetadata(name="base_value", datatype="FP64", shape=(-1,)),
                TensorMetadata(name="attribution", datatype="FP64", shape=(-1, -1)),
                TensorMetadata(name="explanation", datatype="BYTES", shape=(-1,)),
            ),
            versions=(explainer.digest[:VERSION_DIGITS],),
            platform=_PLATFORM,
        )

    def check_names(self, names: Sequence[str], /) -> None:
        """Nothing: the schema says which forms there are when the frame is made."""

    def infer(self, inputs: list[Tensor], /) -> list[Tensor]:
        """
        Raises:
            BadInput: no rows of the schema, or more than the step explains in one call.
            DeadlinePassed: time ran out before every row had an explanation.
            Unavailable: the model cannot be asked.
        """
        frame = to_frame(inputs, self._schema)
        most = self._spec.max_per_window
        if len(frame) > most:
            raise BadInput(
                f"model {self.metadata.name!r} was sent {len(frame)} rows",
                why=f"the step explains {most} in one call, while its caller waits",
                fix="send fewer, or raise the step's explainer.maxPerWindow",
            )
        deadline = Deadline.after(self._spec.deadline_s)
        found: list[Explanation] = []
        for row in range(len(frame)):
            deadline.check(f"row {row} of {len(frame)}")
            asked = ExplainRequest(
                id=f"{self.metadata.name}/{row}",
                explainer=self._spec.name,
                inputs_json=json.dumps(frame.row(row)),
                deadline_s=deadline.remaining_s,
            )
            found.append(self._answerer.explain(asked))
        return [
            Tensor("prediction", "FP64", np.array([one.prediction for one in found])),
            Tensor("base_value", "FP64", np.array([one.base_value for one in found])),
            Tensor(
                "attribution",
                "FP64",
                np.array([[part.contribution for part in one.attributions] for one in found], dtype=np.float64),
            ),
            Tensor("explanation", "BYTES", objects([msgspec.json.encode(one).decode() for one in found])),
        ]


def explainer_sources(pipelines: Iterable[LoadedPipeline], explainers: Mapping[str, Read]) -> list[Source]:
    """The explainer steps of pipelines.

    Args:
        explainers: name -> reads it anew, bound to its model.

    Raises:
        ConfigError: a step names an explainer that is not among them.
    """
    sources: list[Source] = []
    for loaded in pipelines:
        for step in loaded.plan.steps:
            if step.explainer is None:
                continue
            read = explainers.get(step.explainer.name)
            if read is None:
                raise ConfigError(
                    f"pipeline {loaded.plan.name!r}, step {step.name!r}: no explainer {step.explainer.name!r}",
                    why=f"there are {', '.join(sorted(explainers)) or 'none'}",
                    fix="fit it into the folder that --explainers names, or correct explainer.name",
                )
            name = model_name(loaded.plan.name, step.name)
            sources.append(Source(name, partial(_read, loaded.plan, step.name, step.explainer, read)))
    return sources


def _read(plan: Plan, step: str, spec: ExplainerSpec, read: Read) -> ExplainerModel:
    return ExplainerModel(plan, step, spec, read())
