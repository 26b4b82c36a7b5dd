"""Joins that can never be met: each kind at its place, and any graph against every world that its choices make."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govern.pipeline import Pipeline, PipelineError
from govern.pipeline.checks import deadlocks
from govern.pipeline.document import Document
from govern.pipeline.graph import Graph, Node, Port, graph
from tests.pipeline.conftest import Load, kinds

HEAD = """\
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: p}
spec:
"""
SPLIT = """\
  steps:
    - {name: split, router: {strategy: thompson, routes: [{name: a}, {name: b}, {name: c}]}}
    - {name: one, model: {url: http://x}, triggers: [split.outputs.a]}
    - {name: two, model: {url: http://x}, triggers: [split.outputs.b]}
"""
#: (the rest of the document, field, text at its place, what, why, fix).
CASES = [
    (
        SPLIT + "    - {name: sum, combiner: {method: mean}, inputs: [one, two]}\n",
        "spec.steps[3].inputs[1]",
        "two]",
        "one and two never come together",
        "router 'split' takes one of its routes for each request: a, b, c",
        "write inputsJoinType: any",
    ),
    (
        SPLIT + "  output: {steps: [one, two]}\n",
        "spec.output.steps[1]",
        "two]",
        "one and two never come together",
        "router 'split'",
        "write stepsJoin: any",
    ),
    (
        SPLIT + "    - {name: x, model: {url: http://x}, triggers: [split.outputs.a, split.outputs.c]}\n",
        "spec.steps[3].triggers[1]",
        "split.outputs.c]",
        "split.outputs.a and split.outputs.c never come together",
        "router 'split'",
        "write triggersJoinType: any",
    ),
    (
        SPLIT + "    - {name: x, model: {url: http://x}, inputs: [one], triggers: [split.outputs.b]}\n",
        "spec.steps[3].triggers[0]",
        "split.outputs.b]}\n<END>",
        "model step 'x' is never triggered when it has inputs",
        "router 'split'",
        "by the branch",
    ),
    (
        """\
  steps:
    - name: check
      transformer: {callable: a:b, oneOf: [good, bad],
                    outputs: [{name: good, datatype: FP32}, {name: bad, datatype: FP32}]}
    - {name: x, model: {url: http://x}, inputs: [check.outputs.good, check.outputs.bad]}
""",
        "spec.steps[1].inputs[1]",
        "check.outputs.bad",
        "check.outputs.good and check.outputs.bad never come together",
        "transformer 'check' returns one of its exclusive tensors for each request: good, bad",
        "inputsJoinType: any",
    ),
    (
        SPLIT
        + """\
    - {name: ab, model: {url: http://x}, inputs: [split.outputs.a, split.outputs.b], inputsJoinType: any}
    - {name: bc, model: {url: http://x}, inputs: [split.outputs.b, split.outputs.c], inputsJoinType: any}
    - {name: ca, model: {url: http://x}, inputs: [split.outputs.c, split.outputs.a], inputsJoinType: any}
    - {name: x, combiner: {method: mean}, inputs: [ab, bc, ca]}
""",
        "spec.steps[6].inputs",
        "[ab, bc",
        "the inputs of combiner step 'x' never come together",
        "exclude each other",
        "inputsJoinType: any",
    ),
    (
        """\
  allowCycles: true
  steps:
    - {name: one, model: {url: http://x}, inputs: [p.inputs, three]}
    - {name: two, model: {url: http://x}, inputs: [one]}
    - {name: three, model: {url: http://x}, inputs: [two]}
    - {name: four, model: {url: http://x}, inputs: [three]}
  output: {steps: [four]}
""",
        "spec.steps[0].inputs[1]",
        "three]}\n    - {name: two",
        "model step 'one' waits for itself: one -> two -> three -> one",
        "three comes only after it has run",
        "write inputsJoinType: any",
    ),
    (
        """\
  allowCycles: true
  steps:
    - {name: one, model: {url: http://x}, inputs: [two]}
    - {name: two, model: {url: http://x}, inputs: [one]}
""",
        "spec.steps[0].inputs[0]",
        "two]",
        "model step 'one' waits for itself: one -> two -> one",
        "two comes only after it has run",
        "read p.inputs as well",
    ),
    (
        """\
  allowCycles: true
  steps:
    - {name: one, model: {url: http://x}, triggers: [two]}
    - {name: two, model: {url: http://x}, inputs: [one]}
""",
        "spec.steps[0].triggers[0]",
        "two]",
        "model step 'one' waits for itself: one -> two -> one",
        "two comes only after it has run",
        "remove it from the triggers",
    ),
]


@pytest.mark.parametrize(("rest", "field", "at", "what", "why", "fix"), CASES)
def test_each_deadlock_is_said_once_at_its_cause(
    load: Load, rest: str, field: str, at: str, what: str, why: str, fix: str
) -> None:
    text = HEAD + rest
    with pytest.raises(PipelineError) as caught:
        load(text)
    (problem,) = caught.value.problems
    end = (text + "<END>").rindex(at)
    assert (problem.line, problem.column) == (text[:end].count("\n") + 1, end - text[:end].rfind("\n"))
    assert (problem.field, problem.what) == (field, what)
    assert (why in problem.why, fix in problem.fix) == (True, True), str(problem)


@pytest.mark.parametrize(
    "rest",
    [
        SPLIT + "  output: {steps: [one, two], stepsJoin: any}\n",
        SPLIT + "  output: {steps: [one, two], stepsJoin: outer}\n",
        SPLIT + "    - {name: x, model: {url: http://x}, inputs: [one, split.outputs.a, p.inputs]}\n",
        # What a loop chose on an earlier visit may have brought what its last visit is joined with.
        """\
  allowCycles: true
  steps:
    - {name: try, model: {url: http://x, oneOf: [good, bad], outputs: [{name: good, datatype: FP32},
       {name: bad, datatype: FP32}]}, inputs: [p.inputs, mend], inputsJoinType: any}
    - {name: mend, model: {url: http://x}, inputs: [try.outputs.bad]}
    - {name: x, model: {url: http://x}, inputs: [try.outputs.good, mend]}
""",
    ],
)
def test_what_can_be_met_is_right(load: Load, rest: str) -> None:
    assert load(HEAD + rest)


NAMES = [f"s{number}" for number in range(6)]


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Routers and models in any wiring, loops included."""
    routers = draw(st.sets(st.sampled_from(NAMES[:3]), max_size=2))
    emitted = ["p.inputs", *NAMES, *(f"{one}.outputs.{route}" for one in sorted(routers) for route in "ab")]
    read = st.lists(st.sampled_from(emitted), min_size=1, max_size=3, unique=True)
    joins = st.sampled_from(["inner", "inner", "any", "outer"])
    steps = []
    for name in NAMES[: draw(st.integers(2, 6))]:
        router = {"strategy": "thompson", "routes": [{"name": "a"}, {"name": "b"}]}
        step = {"name": name, **({"router": router} if name in routers else {"model": {"url": "http://x"}})}
        step |= {"inputs": draw(read), "inputsJoinType": draw(joins)}
        if draw(st.booleans()):
            step |= {"triggers": draw(read), "triggersJoinType": draw(joins)}
        steps.append(step)
    names = {step["name"] for step in steps}
    for step in steps:
        for key in ("inputs", "triggers"):
            if key in step:
                step[key] = [text for text in step[key] if text.partition(".")[0] in {*names, "p"}] or ["p.inputs"]
    spec = {"allowCycles": True, "steps": steps}
    return {"apiVersion": "govern.io/v1alpha1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": spec}


def worlds(one: Graph) -> Iterator[set[str]]:
    """The nodes that run, for each way in which the routers outside loops choose."""
    routers = [node for node in one.nodes if node.role == "router" and not node.looped]
    for chosen in product("ab", repeat=len(routers)):
        choice = {node.name: route for node, route in zip(routers, chosen, strict=True)}
        runs: set[str] = set()
        while added := {node.name for node in one.nodes if node.name not in runs and met(node, one, runs, choice)}:
            runs |= added
        yield runs


def met(node: Node, one: Graph, runs: set[str], choice: dict[str, str]) -> bool:
    """Whether the node runs: those inside loops choose anew on each visit, one route, too."""
    routers = [each for each in one.nodes if each.role == "router" and each.looped]
    return any(
        met_once(node, one, runs, choice | {each.name: route for each, route in zip(routers, chosen, strict=True)})
        for chosen in product("ab", repeat=len(routers))
    )


def met_once(node: Node, one: Graph, runs: set[str], choice: dict[str, str]) -> bool:
    def there(port: Port) -> bool:
        writer = one.writer(port.topic)
        return writer is None or (writer.name in runs and port.tensor in ("", choice.get(writer.name, port.tensor)))

    return all(
        (all if join == "inner" else any)(there(port) for port in ports)
        for ports, join in ((node.inputs, node.inputs_join), (node.triggers, node.triggers_join))
        if ports
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(graphs())
def test_any_graph_has_a_problem_if_and_only_if_a_step_runs_in_no_world(manifest: dict[str, Any]) -> None:
    one = graph(Pipeline.model_validate(frozen(manifest)), kinds=kinds)
    document = Document(Path("p.yaml"), "", manifest, {(): (1, 1)}, {})
    never = {node.name for node in one.nodes} - set().union(*worlds(one))
    found = deadlocks.check(document, one)
    reported = {NAMES[int(problem.field.partition("[")[2].partition("]")[0])] for problem in found}
    assert reported <= never
    assert bool(reported) == bool(never), yaml.safe_dump(manifest)


def frozen(value: object) -> object:
    """Lists as a document has them."""
    if isinstance(value, dict):
        return {key: frozen(one) for key, one in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, list) else value
