"""Who runs what of a pipeline's vocabulary, and what the asynchronous worker says of the rest. Pure.

Nothing that a file says is ignored: a worker refuses, at its place, each key and each step that it does not run. Keys
that came after the first release are refused unless they are declared here to be run, so a new one cannot slip through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from govern.pipeline import Pipeline, Problem
from govern.pipeline.check import Kinds
from govern.pipeline.document import Document
from govern.pipeline.errors import Where
from govern.pipeline.graph import edges, graph, reachable
from govern.pipeline.references import FLAGGED, Reference, detector_kind, parse
from govern.pipeline.spec import Batch, ModelSpec, Output, PipelineSpec, Step

COMMAND: Final = "govern worker"
_ALONE: Final = "a worker takes each step's data from one inference, so there is nothing to join"
#: Key of a model of the specification -> why a worker does not run it, and what to do without it.
REFUSED: Final[dict[tuple[type, str], tuple[str, str]]] = {
    (PipelineSpec, "input"): ("a worker reads captured streams", "remove it, and name the stream in `source`"),
    (PipelineSpec, "allowCycles"): ("a worker runs graphs without cycles", "remove it"),
    (PipelineSpec, "maxStepRevisits"): ("a worker runs graphs without cycles", "remove it"),
    (PipelineSpec, "dataflow"): (
        "a pipeline has no topics of its own in a worker",
        "remove it; topics are managed with `govern topics`",
    ),
    (Step, "transformer"): ("a worker runs no transformers", "remove the step"),
    (Step, "router"): ("a worker routes nothing", "remove the step"),
    (Step, "combiner"): ("a worker combines nothing", "remove the step"),
    (Step, "inputsJoinType"): (_ALONE, "remove it"),
    (Step, "triggersJoinType"): ("an explainer runs when any of its triggers fires", "remove it"),
    (Step, "joinWindowMs"): (_ALONE, "remove it"),
    (Step, "tensorMap"): (
        "a worker reads tensors by the names that the schema gives them",
        "remove it, and name the features in the schema as the model's tensors are named",
    ),
    (Batch, "rolling"): ("a worker's windows are tumbling", "remove it"),
    (ModelSpec, "url"): ("a worker calls no models", "watch the captured one: model: {captured: true}"),
    (Output, "stepsJoin"): ("each step's verdicts are published on their own", "remove it"),
    (Output, "joinWindowMs"): ("each step's verdicts are published on their own", "remove it"),
    (Output, "tensorMap"): ("verdicts have no tensors", "remove it"),
}
#: Later keys that ask nothing of who runs the pipeline: they are read by the checks of the file.
DECLARATIONS: Final = frozenset({(ModelSpec, "inputs"), (ModelSpec, "outputs"), (ModelSpec, "oneOf")})
#: Keys that belong to `url`, with which they are refused.
OF_URL: Final = frozenset({(ModelSpec, "name"), (ModelSpec, "version"), (ModelSpec, "timeoutMs")})


def unrun(document: Document, pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> list[Problem]:
    """What a worker does not run of a pipeline that was checked."""
    spec = pipeline.spec
    found = [*_keys(document, ("spec",), spec)]
    if spec.source is None and spec.input is None:
        why = "a worker reads the captured stream of a model, and this pipeline names none"
        fix = "write source: {service: …, model: …}"
        found.append(document.problem(("spec",), "`source` is missing", why, fix))
    if spec.output is not None:
        found += _keys(document, ("spec", "output"), spec.output)
    steps = {step.name: step for step in spec.steps}
    for position, step in enumerate(spec.steps):
        where: Where = ("spec", "steps", position)
        found += _keys(document, where, step)
        found += _keys(document, (*where, "batch"), step.batch)
        if step.model is not None:
            found += _keys(document, (*where, "model"), step.model)
        if step.role in ("detector", "explainer", "model"):
            found += _step(document, where, step, pipeline.name, steps, kinds)
    found += _output(document, pipeline, steps)
    return found


def _keys(
    document: Document, where: Where, section: PipelineSpec | Step | Batch | ModelSpec | Output
) -> Iterator[Problem]:
    """The later keys of a section that have another value than their default, and that a worker does not run."""
    model = type(section)
    for name in sorted(model.added):
        field = model.model_fields[name]
        key = field.alias or name
        value = getattr(section, name)
        if value == field.get_default() or (model, key) in DECLARATIONS | OF_URL or _harmless(section, name):
            continue
        why, fix = REFUSED[model, key]
        yield document.problem((*where, key), f"`{key}` is not run by `{COMMAND}`", why, fix, at_key=True)


def _harmless(section: object, name: str) -> bool:
    """Whether the key asks for what a worker does anyway."""
    if not isinstance(section, Step):
        return False
    if name == "inputs_join_type":
        return section.inputs_join_type == "inner" or len(section.inputs) < 2
    return name == "triggers_join_type" and (section.triggers_join_type == "any" or len(section.triggers) == 1)


def _step(
    document: Document, where: Where, step: Step, pipeline: str, steps: dict[str, Step], kinds: Kinds
) -> Iterator[Problem]:
    who = f"{step.role} step {step.name!r}"
    if step.role == "explainer" and not step.triggers:
        fix = "trigger it on flagged rows: triggers: [<outlier step>.outputs.outliers]"
        yield document.problem(where, f"{who} has no triggers", f"`{COMMAND}` explains flagged rows only", fix)
    for key, given, role, why in (
        ("triggers", step.triggers, "explainer", "only explainers wait for triggers"),
        ("batch", step.batch != Batch(), "detector", "only detectors work on windows"),
    ):
        if given and step.role != role:
            why = f"in `{COMMAND}` {why}"
            yield document.problem((*where, key), who, why, f"remove `{key}`", at_key=True)
    for position, text in enumerate(step.inputs):
        wrong = _input(step, _parsed(text), pipeline, steps, kinds)
        if wrong:
            yield document.problem((*where, "inputs", position), text, *wrong)
    for position, text in enumerate(step.triggers):
        wrong = _trigger(step, _parsed(text), steps, kinds)
        if wrong:
            yield document.problem((*where, "triggers", position), text, *wrong)


def _input(
    step: Step, reference: Reference, pipeline: str, steps: dict[str, Step], kinds: Kinds
) -> tuple[str, str] | None:
    """Why a worker's step cannot read this, and what to write instead."""
    if reference.node == pipeline:
        if reference.tensor:
            return f"`{COMMAND}` hands over all features", f"read all of them: {pipeline}.inputs"
        return None
    if reference.side == "inputs":
        return f"`{COMMAND}` keeps what the pipeline was given, not what a step was", f"write {pipeline}.inputs"
    source = steps[reference.node]
    if step.role == "detector" and source.role == "model":
        return None
    flagging = _flags(source, kinds)
    if step.role == "explainer" and flagging:
        fix = f"write triggers: [{source.name}.outputs.{flagging}] and inputs: [{pipeline}.inputs]"
        return "an explainer reads the model's inputs and is triggered by flagged rows", fix
    fix = f"read {pipeline}.inputs" + (" or a model's outputs" if step.role == "detector" else "")
    return f"`{COMMAND}` hands no outputs of a {source.role} step to a {step.role} step", fix


def _trigger(step: Step, reference: Reference, steps: dict[str, Step], kinds: Kinds) -> tuple[str, str] | None:
    """Why a worker's explainer cannot be triggered by this, and what to write instead."""
    if step.role != "explainer":
        return None
    every = [f"{one.name}.outputs.{tensor}" for one in steps.values() if (tensor := _flags(one, kinds))]
    example = every[0] if every else "<outlier step>.outputs.outliers"
    source = steps.get(reference.node)
    if source is None or reference.side == "inputs":
        return f"it is there for every inference, and `{COMMAND}` explains flagged rows only", f"write {example}"
    flagging = _flags(source, kinds)
    if not flagging:
        return f"step {source.name!r} never flags single rows, so there is nothing to explain", f"write {example}"
    if reference.tensor != flagging:
        fix = f"write {source.name}.outputs.{flagging}, which is there only when rows were flagged"
        return f"it is emitted for every window, and `{COMMAND}` explains flagged rows only", fix
    return None


def _output(document: Document, pipeline: Pipeline, steps: dict[str, Step]) -> Iterator[Problem]:
    for position, text in enumerate(pipeline.spec.output.steps if pipeline.spec.output is not None else ()):
        where = ("spec", "output", "steps", position)
        reference = _parsed(text)
        step = steps[reference.node]
        if step.role != "detector":
            why = f"it is a {step.role} step; what `{COMMAND}` publishes is verdicts"
            yield document.problem(where, f"step {step.name!r} gives no verdict", why, "name detector steps")
        elif reference.tensor:
            why = f"`{COMMAND}` publishes a step's verdicts whole"
            yield document.problem(where, text, why, f"write {step.name}")


def _flags(step: Step, kinds: Kinds) -> str:
    """The tensor of flagged rows that a step emits; "" for one that flags none."""
    return FLAGGED.get(kinds(step.detector.type), "") if step.detector is not None else ""


def _parsed(text: str) -> Reference:
    reference = parse(text)
    assert reference is not None, "checked before"
    return reference


def unserved(document: Document, pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> list[Problem]:
    """Why `govern serve` does not answer calls of a pipeline as a whole."""
    spec = pipeline.spec
    if spec.source is not None:
        why = "a pipeline that watches a captured stream is served step by step"
        return [document.problem(("spec", "source"), f"{pipeline.name} is not served whole", why, "remove `source`")]
    if spec.output is None:
        why = "who calls a pipeline waits for what it gives"
        return [document.problem(("spec",), "`output` is missing", why, "name steps in spec.output.steps")]
    idle = _idle(pipeline, kinds)
    return [
        document.problem(
            ("spec", "output", "steps", position),
            f"{text} never comes",
            f"step {_parsed(text).node!r} {idle[_parsed(text).node]}",
            "name other steps",
        )
        for position, text in enumerate(spec.output.steps)
        if _parsed(text).node in idle
    ]


def unused(document: Document, pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> list[Problem]:
    """What `govern serve` has no use for in a pipeline that it serves: each call is answered alone and at once."""
    spec = pipeline.spec
    found: list[Problem] = []
    idle = _idle(pipeline, kinds)

    def note(where: Where, key: str, why: str) -> None:
        found.append(document.problem((*where, key), f"`{key}` has no use", why, f"remove `{key}`", at_key=True))

    if spec.input is not None:
        note(("spec",), "input", "a call brings the request itself; what other pipelines emit does not reach it")
    if spec.dataflow is not None:
        note(("spec",), "dataflow", "a call leaves nothing on topics")
    sections: list[tuple[Where, Step | Output]] = [
        (("spec", "steps", position), step) for position, step in enumerate(spec.steps)
    ]
    for where, section in sections + ([(("spec", "output"), spec.output)] if spec.output is not None else []):
        if section.join_window_ms is not None:
            note(where, "joinWindowMs", "within a call it is known what will still come")
        if isinstance(section, Step):
            if section.batch != Batch():
                note(where, "batch", "the rows of a call are its batch")
            if section.name in idle:
                what, why = f"step {section.name!r} does nothing", f"it {idle[section.name]}"
                found.append(document.problem(where, what, why, "remove the step"))
    return found


def _idle(pipeline: Pipeline, kinds: Kinds) -> dict[str, str]:
    """The steps that do nothing in a call, each with the reason."""
    one = graph(pipeline, kinds=kinds)
    readers = edges(one)
    reasons: dict[str, str] = {}
    for node in one.steps:
        if node.kind == "drift":
            reasons[node.name] = "judges windows of many requests"
        elif node.role == "explainer":
            reasons[node.name] = "explains after the answer, and a call is over then"
    for name in tuple(reasons):
        for reader in reachable(readers, name):
            reasons.setdefault(reader, f"waits for step {name!r}, which does nothing in a call")
    return reasons


@dataclass(frozen=True, slots=True)
class Runtime:
    """A command that runs pipelines.

    Attributes:
        refuses: why it does not run a pipeline that was checked; nothing when it does.
        ignores: what in one that it runs means nothing to it.
    """

    command: str
    refuses: Callable[[Document, Pipeline], list[Problem]]
    ignores: Callable[[Document, Pipeline], list[Problem]]


def _nothing(document: Document, pipeline: Pipeline) -> list[Problem]:
    """A worker refuses what it does not run."""
    return []


RUNTIMES: Final = (Runtime(COMMAND, unrun, _nothing), Runtime("govern serve", unserved, unused))
