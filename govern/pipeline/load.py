"""Pipeline files: read, checked whole, and turned to `Pipeline` models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from govern.artifact import MANIFEST
from govern.errors import BadInput
from govern.pipeline import spec as models
from govern.pipeline.check import Kinds, check
from govern.pipeline.checks import deadlocks, placed, tensors
from govern.pipeline.document import Document, read
from govern.pipeline.errors import PipelineError, Problem, Where, field, suggest
from govern.pipeline.graph import graph
from govern.pipeline.manifests.read import KINDS
from govern.pipeline.references import detector_kind
from govern.pipeline.spec import API_VERSION, Pipeline
from govern.schema import DATATYPES, FeatureSchema

#: Keys of Seldon Core v2's Pipeline that have no meaning here, and what to do without them.
UNSUPPORTED: Final[Mapping[str, str]] = {
    "passEmptyResponses": "remove it; an empty result never travels",
}
#: What the texts of a key look like, and what to do with one that does not. Of other keys, names are checked so.
_FORMS: Final[Mapping[str, tuple[str, str]]] = {
    "url": ("http, https, grpc or grpcs, host and port, and no path", "write url: http://host:port"),
    "callable": ("an entry point is a module and a function of it", "write callable: package.module:function"),
    "datatype": (f"the protocol has {', '.join(DATATYPES)}", "write one of them"),
    "output": ("the name of a tensor that others refer to holds no space", "rename it"),
}
_NAMED: Final = (
    "a name is up to 63 lower-case letters, digits and dashes, and begins and ends without a dash",
    "rename it",
)

_STEP: Final = ("spec", "steps", 0)
#: Where the models of a document are, to know which keys were possible: index positions are written as 0.
_MODELS: Final[dict[Where, type[BaseModel]]] = {
    (): models.Pipeline,
    ("metadata",): models.Metadata,
    ("spec",): models.PipelineSpec,
    ("spec", "source"): models.Source,
    ("spec", "input"): models.Input,
    ("spec", "output"): models.Output,
    ("spec", "dataflow"): models.Dataflow,
    _STEP: models.Step,
    (*_STEP, "batch"): models.Batch,
    (*_STEP, "detector"): models.DetectorSpec,
    (*_STEP, "explainer"): models.ExplainerSpec,
    (*_STEP, "model"): models.ModelSpec,
    (*_STEP, "transformer"): models.TransformerSpec,
    (*_STEP, "router"): models.RouterSpec,
    (*_STEP, "router", "routes", 0): models.Route,
    (*_STEP, "combiner"): models.CombinerSpec,
    **{
        (*_STEP, role, side, 0): models.TensorSpec
        for role in ("model", "transformer")
        for side in ("inputs", "outputs")
    },
}


def load_pipelines(
    path: Path, *, schema: bool = True, artifacts: bool = False, kinds: Kinds = detector_kind
) -> list[Pipeline]:
    """Read every pipeline of a YAML file (documents are separated by `---`).

    Args:
        schema: check that the schema files exist and can be read (not yet so before the first `govern fit`).
        artifacts: check that the artifact folders exist.
        kinds: detector type -> kind; raises `GovernError` for a type that cannot be used.

    Raises:
        ConfigError: the file cannot be read or is empty.
        PipelineError: it is wrong; `problems` holds all that was found in all its documents.
    """
    return [pipeline for _, pipeline in load_documents(path, schema=schema, artifacts=artifacts, kinds=kinds)]


def load_documents(
    path: Path, *, schema: bool = True, artifacts: bool = False, kinds: Kinds = detector_kind
) -> list[tuple[Document, Pipeline]]:
    """As `load_pipelines`, each with its document: for who has more to say of it, at its place."""
    problems: list[Problem] = []
    found: list[tuple[Document, Pipeline]] = []
    for document in read(path):
        pipeline, wrong = _load(document, kinds)
        problems.extend(wrong)
        if pipeline is None:
            continue
        described, absent = _schema(document, pipeline) if schema else (None, [])
        problems.extend(absent)
        if not wrong:
            flow = graph(pipeline, kinds=kinds)
            problems.extend(deadlocks.check(document, flow))
            problems.extend(tensors.check(document, flow, described, watching=pipeline.spec.source is not None))
            problems.extend(placed.check(document, pipeline, kinds=kinds))
        if artifacts:
            problems.extend(_artifacts(document, pipeline))
        if any(pipeline.name == other.name for _, other in found):
            why = "another document of this file has the same name"
            problems.append(
                document.problem(("metadata", "name"), f"pipeline {pipeline.name!r} comes twice", why, "rename one")
            )
        found.append((document, pipeline))
    problems = problems or placed.clashes(found, kinds=kinds)
    if problems:
        raise PipelineError(path, problems)
    return found


def _load(document: Document, kinds: Kinds) -> tuple[Pipeline | None, list[Problem]]:
    foreign = _foreign(document)
    if foreign is not None:
        return None, [foreign]
    problems = check(document, kinds)
    try:
        return Pipeline.model_validate(document.value), problems
    except ValidationError as error:
        # What the checks of the graph say of a place is nearer to the point than what the model says of it.
        shape: dict[str, Problem] = {}
        for one in error.errors(include_url=False):
            problem = _shape(document, dict(one))
            shape.setdefault(problem.field, problem)
        told = {problem.field for problem in problems}
        return None, problems + [problem for place, problem in shape.items() if place not in told]


def _foreign(document: Document) -> Problem | None:
    value = document.value
    if not isinstance(value, dict):
        return document.problem(
            (), "no pipeline", "the document is no mapping", f"begin with apiVersion: {API_VERSION}"
        )
    given = (value.get("apiVersion"), value.get("kind"))
    if given == (API_VERSION, "Pipeline"):
        return None
    where = ("apiVersion",) if given[0] != API_VERSION else ("kind",)
    why = f"apiVersion and kind are {given[0]} and {given[1]}"
    fix = f"write apiVersion: {API_VERSION}, kind: Pipeline"
    if (str(given[0]).rpartition("/")[0], given[1]) in KINDS:
        fix = f"make pipelines of it: govern pipeline import {document.file}"
    return document.problem(where, "no pipeline of govern", why, fix)


def _shape(document: Document, error: dict[str, Any]) -> Problem:
    # The last parts of a location may name the member of a union, which is no place in the file.
    where: Where = tuple(error["loc"])
    while error["type"] != "missing" and where not in document.places:
        where = where[:-1]
    key = str(where[-1]) if where else ""
    shown = repr(error.get("input"))
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if len(where) < len(error["loc"]):
        why = "one value (text, a number, true, false or null) is needed here"
        return document.problem(where, f"it is {shown}", why, "correct the value")
    match error["type"]:
        case "extra_forbidden" if key in UNSUPPORTED:
            why = "it is of Seldon's vocabulary, and has no meaning here"
            return document.problem(where, f"key {key!r}", why, UNSUPPORTED[key], at_key=True)
        case "extra_forbidden":
            known = _keys(where[:-1])
            why = f"{field(where[:-1]) or 'a pipeline'} has no such key"
            return document.problem(where, f"unknown key {key!r}", why, suggest(key, known, "keys are"), at_key=True)
        case "missing":
            return document.problem(where, "it is missing", f"`{key}` has no default", f"add `{key}:`")
        case "string_pattern_mismatch":
            why, fix = _FORMS.get(key, _NAMED)
            return document.problem(where, f"{'it is' if key in _FORMS else 'name'} {shown}", why, fix)
        case "model_type" | "dict_type" | "model_attributes_type":
            return document.problem(where, f"it is {shown}", "a mapping is needed here", "write key: value lines")
        case "tuple_type":
            return document.problem(where, f"it is {shown}", "a list is needed here", "write `- item` lines, or [item]")
    return document.problem(where, f"it is {shown}", str(error["msg"]), "correct the value")


def _keys(where: Where) -> list[str]:
    model = _MODELS.get(tuple(0 if isinstance(part, int) else part for part in where))
    return [] if model is None else [one.alias or name for name, one in model.model_fields.items()]


def _schema(document: Document, pipeline: Pipeline) -> tuple[FeatureSchema | None, list[Problem]]:
    if pipeline.spec.schema_path is None:
        return None, []
    try:
        return FeatureSchema.load(document.file.parent / pipeline.spec.schema_path), []
    except BadInput as error:
        return None, [document.problem(("spec", "schema"), error.what, error.why, error.fix)]


def _artifacts(document: Document, pipeline: Pipeline) -> list[Problem]:
    folder = document.file.parent
    problems: list[Problem] = []
    for position, step in enumerate(pipeline.spec.steps):
        if step.detector is not None and not (folder / step.detector.artifact / MANIFEST).is_file():
            where = ("spec", "steps", position, "detector", "artifact")
            why = f"{folder / step.detector.artifact} holds no {MANIFEST}"
            fix = f"fit it: govern fit --pipeline {document.file}"
            problems.append(document.problem(where, "artifact is missing", why, fix))
    return problems
