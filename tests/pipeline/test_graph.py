"""The flow of a pipeline: nodes, what they wait for, and the topics between them."""

from __future__ import annotations

from govern.pipeline.graph import INPUT, OUTPUT, Topic, graph
from tests.pipeline.conftest import Load, kinds


def test_every_default_is_filled_in(load: Load, good: str) -> None:
    (pipeline,) = load(good)
    one = graph(pipeline, kinds=kinds)
    assert [node.name for node in one.nodes] == ["employment", "drift", "outlier", "adversarial", "explain", OUTPUT]
    drift, outlier, adversarial, explain = one.steps[1:]
    assert [(node.kind, node.batch and (node.batch.size, node.batch.window_ms)) for node in one.steps] == [
        (None, None),
        ("drift", (500, 60_000)),
        ("outlier", (100, 1000)),
        ("adversarial", (10, 50)),
        (None, None),
    ]
    assert [str(port.topic) for port in outlier.inputs] == ["monitor.inputs"]
    assert [(port.topic, port.tensor) for port in adversarial.inputs] == [
        (one.entry, ""),
        (Topic("monitor", "employment", "outputs"), "probability"),
    ]
    assert (drift.inputs_join, explain.triggers_join, adversarial.window_ms) == ("inner", "any", 1000)
    assert one.writer(one.entry) is None
    assert one.writer(outlier.gives) is outlier
    assert (one.max_revisits, any(node.looped for node in one.nodes)) == (100, False)


def test_entry_exit_renamed_tensors_and_loops(load: Load, called: str) -> None:
    (pipeline,) = load(called)
    one = graph(pipeline, kinds=kinds)
    entry, exit_ = one.nodes[0], one.nodes[-1]
    assert (entry.name, exit_.name, one.max_revisits) == (INPUT, OUTPUT, 5)
    assert [str(port.topic) for port in entry.ports] == ["intake.outputs", "gate.step.open.outputs"]
    assert (entry.window_ms, exit_.window_ms, entry.gives) == (20, 10, one.entry)
    named = {node.name: node for node in one.nodes}
    assert dict(named["scorer"].inputs[0].names) == {"rows": "x"}
    assert dict(exit_.inputs[0].names) == {"score": "answer"}
    assert {node.name for node in one.nodes if node.looped} == {"clean", "scorer"}
    assert named["two"].inputs[0].topic == named["split"].takes
    assert one.writer(named["split"].takes) is named["split"]
    assert (named["mean"].inputs_join, named["mean"].window_ms) == ("outer", 50)
    assert (named["split"].batch is not None, named["one"].batch) == (True, None)
