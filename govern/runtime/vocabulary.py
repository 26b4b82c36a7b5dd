"""Who runs what of a pipeline's vocabulary, and what the asynchronous worker says of the rest. Pure.

Nothing that a file says is ignored: a worker refuses, at its place, each key and each step that it does not run. Keys
that came after the first release are refused unless they are declared here to be run, so a new one cannot slip through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from govern import plugins
from govern.detection import remembers
from govern.pipeline import Pipeline, Problem
from govern.pipeline.check import Kinds
from govern.pipeline.document import Document
from govern.pipeline.errors import Where
from govern.pipeline.graph import edges, graph, reachable
from govern.pipeline.groups import grouped, is_placed
from govern.pipeline.references import FLAGGED, Reference, detector_kind, parse
from govern.pipeline.spec import Batch, DetectorSpec, ModelSpec, Output, PipelineSpec, Step

COMMAND: Final = "govern worker"
#: Key of a model of the specification -> why a worker does not run it, and what to do without it.
REFUSED: Final[dict[tuple[type, str], tuple[str, str]]] = {
    (PipelineSpec, "dataflow"): (
        "a pipeline has no topics of its own in a worker",
        "remove it; topics are managed with `govern topics`",
    ),
}
#: What a worker refuses of an explainer, whose rows it takes from the window that triggers it.
REFUSED_OF_EXPLAINERS: Final[dict[tuple[type, str], tuple[str, str]]] = {
    (Step, "inputsJoinType"): ("an explainer reads the model's inputs, so there is nothing to join", "remove it"),
    (Step, "triggersJoinType"): ("an explainer runs when any of its triggers fires", "remove it"),
    (Step, "joinWindowMs"): ("an explainer reads the model's inputs, so there is nothing to join", "remove it"),
    (Step, "tensorMap"): ("an explainer reads features by the names that the schema gives them", "remove it"),
}
#: Later keys that a worker runs.
RUN: Final = frozenset(
    {
        *((PipelineSpec, key) for key in ("input", "allowCycles", "maxStepRevisits")),
        (Batch, "rolling"),
        *((Step, key) for key in ("transformer", "router", "combiner", "placement")),
        *((Step, key) for key in ("inputsJoinType", "triggersJoinType", "joinWindowMs", "tensorMap")),
        *((ModelSpec, key) for key in ("url", "name", "version", "timeoutMs")),
        *((Output, key) for key in ("stepsJoin", "joinWindowMs", "tensorMap")),
    }
)
#: Later keys that ask nothing of who runs the pipeline: they are read by the checks of the file.
DECLARATIONS: Final = frozenset({(ModelSpec, "inputs"), (ModelSpec, "outputs"), (ModelSpec, "oneOf")})


def unrun(document: Document, pipeline: Pipeline, *, kinds: Kinds = detector_kind) -> list[Problem]:
    """What a worker does not run of a pipeline that was checked."""
    spec = pipeline.spec
    found = [*_keys(document, ("spec",), spec)]
    if spec.source is None and spec.input is None:
        why = "a worker reads the captured stream of a model, and this pipeline names none"
        fix = "write source: {service: …, model: …}"
        found.append(document.problem(("spec",), "`source` is missing", why, fix))
    if spec.input is not None and spec.schema_path is None:
        why = "the rows of what the pipeline is given are described there"
        found.append(document.problem(("spec",), "`schema` is missing", why, "add `schema:`"))
    if spec.output is not None:
        found += _keys(document, ("spec", "output"), spec.output)
    steps = {step.name: step for step in spec.steps}
    for position, step in enumerate(spec.steps):
        where: Where = ("spec", "steps", position)
        found += _keys(document, where, step)
        found += _keys(document, (*where, "batch"), step.batch)
        if step.model is not None:
            found += _keys(document, (*where, "model"), step.model)
        found += _step(document, where, step, pipeline.name, steps, kinds)
    found += _output(document, pipeline, steps)
    return found


def _keys(
    document: Document, where: Where, section: PipelineSpec | Step | Batch | ModelSpec | Output
) -> Iterator[Problem]:
    """The later keys of a section that have another value than their default, and that a worker does not run."""
    model = type(section)
    explains = isinstance(section, Step) and section.explainer is not None
    refused = {**REFUSED, **REFUSED_OF_EXPLAINERS} if explains else REFUSED
    for name in sorted(model.added):
        field = model.model_fields[name]
        key = field.alias or name
        if getattr(section, name) == field.get_default() or _harmless(section, name):
            continue
        if (model, key) not in refused and (model, key) in RUN | DECLARATIONS:
            continue
        why, fix = refused[model, key]
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
    captured = step.model is not None and step.model.url is None
    for key, wrong, why in (
        ("batch", step.role != "detector" and step.batch != Batch(), f"in `{COMMAND}` only detectors work on windows"),
        ("triggers", captured and bool(step.triggers), "a captured model was called already"),
        ("tensorMap", captured and bool(step.tensor_map), "a captured model was called already"),
    ):
        if wrong:
            yield document.problem((*where, key), who, why, f"remove `{key}`", at_key=True)
    if step.detector is not None and step.batch.rolling and (why := _not_rolling(step.detector, kinds)):
        here = (*where, "batch", "rolling")
        yield document.problem(here, f"`rolling` of {who}", why, "remove `rolling`", at_key=True)
    for position, text in enumerate(step.inputs):
        refused = _input(step, _parsed(text), pipeline, steps, kinds)
        if refused:
            yield document.problem((*where, "inputs", position), text, *refused)
    for position, text in enumerate(step.triggers):
        refused = _trigger(step, _parsed(text), pipeline, steps, kinds)
        if refused:
            yield document.problem((*where, "triggers", position), text, *refused)


def _not_rolling(detector: DetectorSpec, kinds: Kinds) -> str:
    """Why a detector is not given windows that overlap; "" when it is."""
    if kinds(detector.type) in FLAGGED:
        return "each row is judged once, by itself, whatever rows it came with"
    if remembers(plugins.load(plugins.DETECTORS, detector.type)):
        return f"{detector.type} remembers the windows before, and would count their rows again"
    return ""


def _input(
    step: Step, reference: Reference, pipeline: str, steps: dict[str, Step], kinds: Kinds
) -> tuple[str, str] | None:
    """Why a worker's step cannot read this, and what to write instead."""
    whole = reference.node == pipeline and not reference.tensor
    if step.role == "explainer":
        source = steps.get(reference.node)
        flagging = _flags(source, kinds) if source is not None and reference.side == "outputs" else ""
        if source is not None and flagging:
            fix = f"write triggers: [{source.name}.outputs.{flagging}] and inputs: [{pipeline}.inputs]"
            return "an explainer reads the model's inputs and is triggered by flagged rows", fix
        return None if whole else ("an explainer reads the model's inputs, all of them", f"read {pipeline}.inputs")
    if step.model is not None and step.model.url is None:
        return None if whole else ("a captured model was called already, by whom it was captured", "remove it")
    return _of_windows(reference, pipeline, steps)


def _of_windows(reference: Reference, pipeline: str, steps: dict[str, Step]) -> tuple[str, str] | None:
    """Why what a detector or explainer is given or says reaches no step that is run for each inference."""
    source = steps.get(reference.node)
    if source is None or source.role not in ("detector", "explainer"):
        return None
    why = f"{source.role} step {source.name!r} speaks of windows of many inferences, when they close"
    return why, f"read {pipeline}.inputs, or a step that says something of each inference"


def _trigger(
    step: Step, reference: Reference, pipeline: str, steps: dict[str, Step], kinds: Kinds
) -> tuple[str, str] | None:
    """Why a worker's step cannot be triggered by this, and what to write instead."""
    if step.role != "explainer":
        return _of_windows(reference, pipeline, steps)
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
        if step.role == "explainer":
            why = "it is an explainer step; explanations have a topic of their own"
            yield document.problem(where, f"step {step.name!r} gives no output", why, "name other steps")
        elif step.role == "detector" and reference.tensor:
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


def undone(document: Document, pipeline: Pipeline) -> list[Problem]:
    """What `govern worker` has no use for in a pipeline that it runs."""
    spec = pipeline.spec
    sections: list[tuple[Where, Step | Output]] = [
        (("spec", "steps", position), step) for position, step in enumerate(spec.steps)
    ]
    sections += [(("spec", "output"), spec.output)] if spec.output is not None else []
    why = "of each inference it is known what will still come"
    joined = grouped(pipeline).joined if is_placed(pipeline) else frozenset()
    return [
        document.problem(
            (*where, "joinWindowMs"), "`joinWindowMs` has no use", why, "remove `joinWindowMs`", at_key=True
        )
        for where, section in sections
        if section.join_window_ms is not None and not (isinstance(section, Step) and section.name in joined)
    ]


RUNTIMES: Final = (Runtime(COMMAND, unrun, undone), Runtime("govern serve", unserved, unused))
