"""From a pipeline file to what a worker runs: the plan, the schema and the fitted detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from govern import artifact, plugins
from govern.detection import Detector
from govern.errors import ArtifactError, ConfigError
from govern.pipeline import Pipeline, PipelineError, Plan, plan
from govern.pipeline.cut import PART_OF, cut
from govern.pipeline.document import Document
from govern.pipeline.graph import fed, graph
from govern.pipeline.groups import home
from govern.pipeline.load import load_documents
from govern.pipeline.spec import DetectorSpec
from govern.pipeline.topology import digest
from govern.record import Inference
from govern.runtime.vocabulary import unrun
from govern.runtime.watched import WatchedFlow, watched
from govern.schema import FeatureSchema

if TYPE_CHECKING:
    from govern.runtime.chained.given import View

#: Reads an artifact's manifest, or raises ArtifactError where the artifact is not to be used.
Check = Callable[[Path], artifact.Manifest]


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """A pipeline with everything that its steps need, checked to fit together.

    Attributes:
        schema: of the inferences that it watches.
        detectors: step name -> fitted detector.
        fed: names of the detectors that its flow hands rows of their own schemas.
        flow: what runs for each inference; None when nothing does.
        pipeline: as it was written; None for one that is linked to no other.
        view: of one that reads one other, how it sees that one's inferences; None for one that takes them as they are.
        published: the steps whose outputs others read.
    """

    plan: Plan
    schema: FeatureSchema
    detectors: dict[str, Detector]
    fed: frozenset[str] = frozenset()
    flow: WatchedFlow | None = None
    pipeline: Pipeline | None = None
    view: View | None = None
    published: frozenset[str] = frozenset()

    @property
    def placement(self) -> str:
        """Of the workers that run it; "" for those of none."""
        return home(self.pipeline) if self.pipeline is not None else ""

    @property
    def whole(self) -> str:
        """Name of the pipeline that it is, or a part of."""
        labels = self.pipeline.metadata.labels if self.pipeline is not None else {}
        return labels.get(PART_OF, self.plan.name)

    @property
    def takes_rows(self) -> bool:
        """Whether what it is given must be rows of its schema: a detector judges them, or nothing else says what they
        must be. What comes to a part of a pipeline is what steps return.
        """
        if self.detectors:
            return not self.fed.issuperset(self.detectors)
        return self.pipeline is None or PART_OF not in self.pipeline.metadata.labels

    def schema_of(self, step: str) -> FeatureSchema:
        """Of the rows that a detector step judges."""
        return self.detectors[step].schema if step in self.fed else self.schema

    def given(self, inference: Inference) -> Inference | None:
        """An inference of its source as the pipeline is given it; None when what it reads of it did not come.

        Raises:
            BadInput: what it reads of it cannot be read.
        """
        return inference if self.view is None else self.view.given(inference)


@dataclass(frozen=True, slots=True)
class Documented:
    """A pipeline as it was written, and as workers run it.

    Attributes:
        parts: itself, or the parts that it is cut into.
    """

    document: Document
    pipeline: Pipeline
    parts: tuple[LoadedPipeline, ...]

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the whole and its artifacts; the plan's of a pipeline that is not cut."""
        detectors = {name: one.digest for part in self.parts for name, one in part.detectors.items()}
        return digest(self.pipeline, detectors)


def load_detector(path: Path, *, check: Check | None = None) -> Detector:
    """Read a detector artifact, whichever class wrote it.

    Raises:
        ArtifactError: damaged, changed, of another version, or refused by the check.
        MissingExtra: its class needs an optional dependency that is absent.
    """
    manifest = artifact.read(path, group=plugins.DETECTORS)[0] if check is None else check(path)
    detector: Detector = plugins.load(plugins.DETECTORS, manifest.name).load(path)
    if check is not None and detector.digest != manifest.digest:
        raise ArtifactError(
            f"artifact {path} is another than was checked",
            why=f"its manifest has sha256 {manifest.digest}, and what was read from it {detector.digest}",
            fix="let nobody write there while a worker reads; a detector of your own names its manifest's digest",
        )
    return detector


def load(path: Path, *, placement: str | None = None, check: Check | None = None) -> list[LoadedPipeline]:
    """Load every pipeline of a file as workers run it: one whose steps are placed elsewhere as its parts.

    Args:
        placement: of the workers that are to run them. Of what is placed elsewhere the functions and models are left
            out, which need not be there; all are loaded when None.
        check: of each artifact, before it is read.

    Raises:
        ConfigError: the file is wrong, a step's artifact is of another method than the file says, or a transformer's
            function is not there.
        PipelineError: it is right, and says what a worker does not run.
        ArtifactError: an artifact cannot be used, or was fitted on another schema than the pipeline's.
    """
    return [part for one in load_documented(path, placement=placement, check=check) for part in one.parts]


def load_documented(path: Path, *, placement: str | None = None, check: Check | None = None) -> list[Documented]:
    """As `load`, each with its document: for who keeps what was written.

    Raises:
        ConfigError, PipelineError, ArtifactError: as of `load`.
    """
    documents = load_documents(path)
    _check_run(path, documents)
    return [
        Documented(document, pipeline, tuple(_load_one(path.parent, part, placement, check) for part in cut(pipeline)))
        for document, pipeline in documents
    ]


def load_watching(
    path: Path, documents: Sequence[tuple[Document, Pipeline]] | None = None, *, check: Check | None = None
) -> list[LoadedPipeline]:
    """Every pipeline of a file that watches a captured stream, whole; the others are called (`govern.runtime.flow`).

    Args:
        documents: of a file that was read already.
        check: of each artifact, before it is read.

    Raises:
        ConfigError, PipelineError, ArtifactError: as of `load`.
    """
    found = [one for one in documents or load_documents(path) if one[1].spec.source is not None]
    _check_run(path, found)
    return [_load_one(path.parent, pipeline, check=check) for _, pipeline in found]


def _check_run(path: Path, documents: Sequence[tuple[Document, Pipeline]]) -> None:
    refused = [problem for document, pipeline in documents for problem in unrun(document, pipeline)]
    if refused:
        raise PipelineError(path, refused)


def _load_one(
    folder: Path, pipeline: Pipeline, placement: str | None = None, check: Check | None = None
) -> LoadedPipeline:
    assert pipeline.spec.schema_path is not None, "what a worker runs was checked to have a schema"
    schema = FeatureSchema.load(folder / pipeline.spec.schema_path)
    one = graph(pipeline)
    own = frozenset(node.name for node in one.steps if fed(node, one))
    detectors = {
        step.name: read_detector(
            folder, pipeline, step.name, step.detector, None if step.name in own else schema, check=check
        )
        for step in pipeline.spec.steps
        if step.detector is not None
    }
    here = placement is None or home(pipeline) == placement
    digests = {name: detector.digest for name, detector in detectors.items()}
    loaded = LoadedPipeline(
        plan=plan(pipeline, artifact_digests=digests),
        schema=schema,
        detectors=detectors,
        fed=own,
        flow=WatchedFlow(pipeline, schema) if here and watched(pipeline).nodes else None,
        pipeline=pipeline,
    )
    _check_explained(loaded)
    return loaded


def _check_explained(loaded: LoadedPipeline) -> None:
    """Refuse an explainer, which explains rows of the model's inputs, that is triggered by rows of something else."""
    for step in loaded.plan.steps:
        for source, _ in step.triggers if step.explainer is not None else ():
            if loaded.schema_of(source).digest != loaded.schema.digest:
                raise ConfigError(
                    f"pipeline {loaded.plan.name!r}, step {step.name!r}: trigger {source}",
                    why=f"{source} judges rows of another schema than the model's, which {step.name} explains",
                    fix=f"trigger it by a detector that reads {loaded.plan.name}.inputs",
                )


def read_detector(
    folder: Path,
    pipeline: Pipeline,
    step: str,
    spec: DetectorSpec,
    schema: FeatureSchema | None,
    *,
    check: Check | None = None,
) -> Detector:
    """The detector of a step.

    Args:
        schema: of the rows that it is to judge; None: whatever it was fitted on.
        check: of its artifact, before it is read.

    Raises:
        ConfigError: its artifact is of another method than the file says.
        ArtifactError: its artifact cannot be used, or was fitted on another schema.
    """
    where = folder / spec.artifact
    detector = load_detector(where, check=check)
    if detector.method != spec.type:
        raise ConfigError(
            f"pipeline {pipeline.name!r}, step {step!r}: detector.type is {spec.type!r}",
            why=f"the artifact {where} holds a fitted {detector.method!r}",
            fix="correct the type, or fit the step again with `govern fit --pipeline`",
        )
    if schema is not None and detector.schema.digest != schema.digest:
        raise ArtifactError(
            f"pipeline {pipeline.name!r}, step {step!r}: artifact {where} does not fit {pipeline.spec.schema_path}",
            why="it was fitted on a reference with another schema",
            fix="fit the step again with `govern fit --pipeline`",
        )
    return detector
