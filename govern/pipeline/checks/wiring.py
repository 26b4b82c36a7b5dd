"""How the parts of a pipeline name each other: references, tensor maps, and cycles that were not asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from graphlib import CycleError, TopologicalSorter

from govern.pipeline.checks.steps import Node, references
from govern.pipeline.document import Document, items, mapping
from govern.pipeline.errors import Problem, Where, suggest
from govern.pipeline.references import Reference, parse, parse_external


class Wiring:
    """One document's names; what is wrong with them is appended to `found`."""

    def __init__(self, document: Document, pipeline: str, nodes: Sequence[Node], found: list[Problem]) -> None:
        self._document = document
        self._spec = mapping(mapping(document.value).get("spec"))
        self._pipeline = pipeline
        self._nodes = nodes
        self._named = {node.name: node for node in nodes}
        self._found = found

    def check(self) -> None:
        self._names()
        self._cycles()
        for node in self._nodes:
            inputs = [self._resolve(where, text) for where, text in node.inputs]
            for where, text in node.triggers:
                self._resolve(where, text)
            read = [one for one in inputs if one is not None] if inputs else [Reference(self._pipeline, "inputs")]
            if None not in inputs:
                self._tensor_map((*node.where, "tensorMap"), node.tensor_map, read, parse)
        self._input()
        self._output()
        self._sources()

    def _refuse(self, where: Where, what: str, why: str, fix: str, *, at_key: bool = False) -> None:
        self._found.append(self._document.problem(where, what, why, fix, at_key=at_key))

    def _names(self) -> None:
        seen: set[str] = set()
        for node in self._nodes:
            where = (*node.where, "name")
            if node.name == self._pipeline:
                why = f"references such as {node.name}.inputs would have two meanings"
                self._refuse(where, f"step {node.name!r} has the pipeline's name", why, "rename the step")
            if node.name in seen:
                why = "a step above has the same name"
                self._refuse(where, f"step {node.name!r} comes twice", why, "rename one of them")
            seen.add(node.name)

    def _cycles(self) -> None:
        cycle = _cycle(self._nodes)
        allowed = self._spec.get("allowCycles") is True
        if cycle and not allowed:
            why = "each of these steps waits for the one before it, and the pipeline does not allow cycles"
            fix = "remove one of the references, or write allowCycles: true and bound it with maxStepRevisits"
            self._refuse((*self._named[cycle[0]].where, "inputs"), f"cycle {' -> '.join(cycle)}", why, fix)
        if "maxStepRevisits" in self._spec and not allowed:
            why = "no step is visited twice in a graph without cycles"
            fix = "remove it, or write allowCycles: true"
            self._refuse(("spec", "maxStepRevisits"), "`maxStepRevisits` bounds nothing", why, fix, at_key=True)

    def _resolve(self, where: Where, text: str) -> Reference | None:
        """The reference when what it names exists; else a problem is noted."""
        pipeline = self._pipeline
        reference = parse(text)
        if reference is None:
            why, fix = "it is no reference", f"write {pipeline}.inputs or <step>.outputs.<tensor>"
            if parse_external(text) is not None:
                why = "a step reads its own pipeline only"
                fix = f"name it in spec.input.externalInputs, and read {pipeline}.inputs here"
            self._refuse(where, text, why, fix)
            return None
        if reference.node == pipeline:
            if reference.side == "outputs":
                why = "a pipeline's outputs are read from outside only"
                self._refuse(where, text, why, f"write {pipeline}.inputs or <step>.outputs")
                return None
            return reference
        node = self._named.get(reference.node)
        if node is None:
            fix = suggest(reference.node, [*self._named, pipeline], "the steps are")
            self._refuse(where, text, f"there is no step {reference.node!r}", fix)
            return None
        emits = node.emits if reference.side == "outputs" and reference.tensor else None
        if emits is not None and reference.tensor not in emits:
            why = f"{node.kind or node.role} step {node.name!r} never emits {reference.tensor!r}"
            self._refuse(where, text, why, suggest(reference.tensor, emits, f"{node.name} emits"))
            return None
        return reference

    def _tensor_map(
        self, where: Where, renamed: object, inputs: Sequence[Reference], read: Callable[[str], Reference | None]
    ) -> None:
        """A tensorMap renames tensors that arrive: each key is one of the inputs, or a tensor of one."""
        for text in mapping(renamed):
            reference = read(text)
            if reference is None or not reference.tensor:
                why, fix = "a key of tensorMap names one tensor", "write <step>.outputs.<tensor>: <new name>"
            elif not any(one.same_side(reference) and one.tensor in ("", reference.tensor) for one in inputs):
                why = "it is not among the inputs, so it would rename nothing"
                fix = suggest(text, [str(one) for one in inputs], "the inputs are")
            else:
                continue
            self._refuse((*where, text), text, why, fix, at_key=True)

    def _input(self) -> None:
        if "input" not in self._spec:
            return
        where: Where = ("spec", "input")
        section = mapping(self._spec["input"])
        inputs = references(self._document, where, section, "externalInputs", self._found)
        triggers = references(self._document, where, section, "externalTriggers", self._found)
        if "externalInputs" not in section:
            why = "a pipeline that reads other pipelines needs data, and triggers bring none"
            self._refuse(where, "`externalInputs` is missing", why, "add `externalInputs:`")
        known = [self._external(here, text) for here, text in inputs]
        for here, text in triggers:
            self._external(here, text)
        read = [one for one in known if one is not None]
        if len(read) == len(known):
            self._tensor_map((*where, "tensorMap"), section.get("tensorMap"), read, parse_external)

    def _external(self, where: Where, text: str) -> Reference | None:
        reference = parse_external(text)
        if reference is None:
            fix = "write <pipeline>.outputs, <pipeline>.inputs or <pipeline>.step.<step>.outputs, with .<tensor> or not"
            self._refuse(where, text, "it is no reference to another pipeline", fix)
        elif reference.pipeline == self._pipeline:
            fix = "remove it; the steps read the pipeline's own data"
            self._refuse(where, text, "it names this pipeline, which is not external", fix)
        return reference

    def _output(self) -> None:
        output = mapping(self._spec.get("output"))
        where: Where = ("spec", "output", "steps")
        if "steps" in output and output["steps"] in ((), None):
            self._refuse(where, "`steps` is empty", "the output needs a step", "name one, or remove `output`")
        read: list[Reference] = []
        texts = [item for item in items(output.get("steps")) if isinstance(item, str)]
        for position, text in enumerate(texts):
            here = (*where, position)
            if "." not in text and text not in self._named and text != self._pipeline:
                fix = suggest(text, list(self._named), "the steps are")
                self._refuse(here, f"step {text!r} does not exist", "no step has this name", fix)
                continue
            reference = self._resolve(here, text)
            if reference is not None and reference.side == "inputs":
                why = "the pipeline's output is made of what steps return"
                self._refuse(here, text, why, "write <step> or <step>.outputs.<tensor>")
            elif reference is not None:
                read.append(reference)
        if len(read) == len(texts):
            self._tensor_map(("spec", "output", "tensorMap"), output.get("tensorMap"), read, parse)

    def _sources(self) -> None:
        """Where the pipeline's data comes from, and what describes it."""
        if "source" in self._spec and "input" in self._spec:
            why = "a pipeline reads a captured stream, or what other pipelines emit"
            self._refuse(("spec", "input"), "`source` and `input`", why, "remove one of them", at_key=True)
        self._own_stream()
        for node in self._nodes:
            if node.captured and "source" not in self._spec:
                why = "the pipeline reads no captured stream, in which its responses would be"
                fix = "write spec.source, or call the model: url: http://host:port"
                self._refuse((*node.where, "model", "captured"), f"model {node.name!r} is not captured", why, fix)
        if "schema" in self._spec:
            return
        if "source" in self._spec:
            why = "the columns of the captured requests are described there"
        elif any(node.role == "detector" for node in self._nodes):
            why = "detectors read rows, whose columns are described there"
        else:
            return
        self._refuse(("spec", "schema"), "it is missing", why, "add `schema:`")

    def _own_stream(self) -> None:
        """That the pipeline does not watch what it gives: that is published under its name, in the source's service."""
        model = mapping(self._spec.get("source")).get("model")
        given = [parse(text) for text in items(mapping(self._spec.get("output")).get("steps")) if isinstance(text, str)]
        gives = [one.node for one in given if one is not None and one.node in self._named]
        own = model == self._pipeline or (isinstance(model, str) and model.startswith(f"{self._pipeline}."))
        if own and any(self._named[name].role != "detector" for name in gives):
            why = f"what it gives is published as model {self._pipeline!r} of the same service"
            self._refuse(("spec", "source", "model"), f"{model} is the pipeline itself", why, "rename the pipeline")


def _cycle(nodes: Sequence[Node]) -> tuple[str, ...]:
    """A cycle as the names on it, in the direction of the data, the first again at the end; () when there is none."""
    names = {node.name for node in nodes}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for node in nodes:
        read = (parse(text) for _, text in (*node.inputs, *node.triggers))
        graph[node.name].update(one.node for one in read if one is not None and one.node in names)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return tuple(found)
    return ()
