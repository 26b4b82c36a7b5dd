"""The models of a server: which there are, and which of them are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from govern.errors import GovernError, NotFound
from govern.runtime.loader import Check, LoadedPipeline, load_watching
from govern.runtime.serving.detector import DetectorModel
from govern.runtime.serving.model import Model
from govern.runtime.serving.names import check_distinct, model_name
from govern.runtime.serving.step import DetectorStep

#: What a server with a repository has among the `extensions` of its metadata.
EXTENSION: Final = "model_repository"

State = Literal["READY", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        read: makes it anew of what lies on the disk now; raises GovernError when that cannot be used.
    """

    name: str
    read: Callable[[], Model]


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of the index: the model, "" as its version while it is not loaded, and why it is not."""

    name: str
    version: str
    state: State
    reason: str


class Repository(Mapping[str, Model]):
    """The models that are loaded, by name. All are at first; each can be unloaded, and loaded anew.

    Args:
        sources: name -> source; the models are read now.

    Raises:
        ConfigError: two have one name.
        GovernError: what a source raises.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        check_distinct(source.name for source in sources)
        self._sources = {source.name: source for source in sources}
        self._models = {source.name: source.read() for source in sources}
        self._reasons: dict[str, str] = {}

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def step(self, pipeline: str, step: str) -> DetectorStep:
        """A detector step that is loaded.

        Raises:
            NotFound: there is none.
        """
        name = model_name(pipeline, step)
        model = self._models.get(name)
        if isinstance(model, DetectorModel) and (model.step.pipeline, model.step.name) == (pipeline, step):
            return model.step
        steps = [one.step for one in self._models.values() if isinstance(one, DetectorModel)]
        raise NotFound(
            f"pipeline {pipeline!r} has no detector step {step!r} here",
            why="it is unloaded"
            if name in self._reasons
            else f"served are {', '.join(f'{one.pipeline}/{one.name}' for one in steps) or 'none'}",
            fix="load the model again" if name in self._reasons else "correct the names, or serve that pipeline",
        )

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(self._sources.values())

    def index(self, *, only_ready: bool = False) -> list[Listed]:
        """Every model there is, loaded or not."""
        return [self._listed(name) for name in self._sources if name in self._models or not only_ready]

    def load(self, name: str) -> None:
        """Read a model anew. One that is loaded answers until the new one takes its place, and for good if that fails.

        Raises:
            NotFound: no model of this name.
            GovernError: it cannot be read.
        """
        source = self._source(name)
        try:
            model = source.read()
        except GovernError as error:
            if name not in self._models:
                self._reasons[name] = str(error)
            raise
        self._models[name] = model
        self._reasons.pop(name, None)

    def unload(self, name: str) -> None:
        """Let go of a model. Calls that are under way are answered.

        Raises:
            NotFound: no model of this name.
        """
        self._source(name)
        self._models.pop(name, None)
        self._reasons[name] = "unloaded"

    def _listed(self, name: str) -> Listed:
        model = self._models.get(name)
        if model is None:
            return Listed(name, "", "UNAVAILABLE", self._reasons[name])
        return Listed(name, model.metadata.versions[-1], "READY", "")

    def _source(self, name: str) -> Source:
        found = self._sources.get(name)
        if found is None:
            raise NotFound(
                f"model {name!r}",
                why=f"the repository has {', '.join(self._sources) or 'none'}",
                fix="correct the name, or start the server with the pipeline's file",
            )
        return found


def detector_sources(path: Path, pipelines: Sequence[LoadedPipeline], *, check: Check | None = None) -> list[Source]:
    """The detector steps of a file.

    Args:
        pipelines: of the file, as they are now.
        check: of each artifact that is read later, before it is.
    """
    return [
        Source(
            model_name(one.plan.name, step),
            First(_model(DetectorStep.of(one, step)), partial(_again, path, one, step, check)),
        )
        for one in pipelines
        for step in one.detectors
    ]


class First:
    """A source's `read`: the first time what was read already, later what lies on the disk."""

    def __init__(self, first: Model, again: Callable[[], Model]) -> None:
        self._first: Model | None = first
        self._again = again

    def __call__(self) -> Model:
        model, self._first = self._first or self._again(), None
        return model


def _model(step: DetectorStep) -> DetectorModel:
    return DetectorModel(model_name(step.pipeline, step.name), step)


def _again(path: Path, before: LoadedPipeline, step: str, check: Check | None) -> Model:
    for one in load_watching(path, check=check):
        if one.plan.name == before.plan.name:
            return _model(DetectorStep.of(one, step))
    raise NotFound(
        f"pipeline {before.plan.name!r}",
        why=f"{path} has it no more",
        fix="put it back, or start the server anew",
    )
