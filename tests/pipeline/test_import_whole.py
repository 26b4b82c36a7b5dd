"""Serving graphs imported whole: the same graph in a pipeline's words, and what has none reported at its place."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from typer.testing import CliRunner, Result

from govern.cli.pipeline import app
from govern.pipeline import Pipeline, load_pipelines
from govern.pipeline.graph import Graph, graph
from govern.pipeline.manifests import Report, read_manifests, whole
from govern.pipeline.references import parse
from tests.pipeline.conftest import kinds
from tests.pipeline.test_deadlocks import frozen, met
from tests.pipeline.test_import import MANIFESTS, lost, run
from tests.pipeline.test_import_graphs import TREES, manifest, pipelines, routers

URL = "http://{model}.{namespace}:8080"


def imported(name: str, out: Path, *, change: tuple[str, str] = ("", "")) -> tuple[list[Pipeline], Result]:
    source = out.with_name("in.yaml")
    source.write_text((MANIFESTS / f"{name}.yaml").read_text().replace(*change))
    result = run(source, "--models", URL, "--out", out)
    return load_pipelines(out, schema=False) if out.exists() else [], result


def test_seldon_v2(tmp_path: Path) -> None:
    result = run(MANIFESTS / "credit.yaml", "--models", URL, "--out", tmp_path / "out.yaml")
    (one,) = load_pipelines(tmp_path / "out.yaml", schema=False)
    assert (one.name, one.namespace, one.spec.schema_path) == ("credit", "lending", "schemas/credit.yaml")
    assert one.spec.input is not None
    assert one.spec.input.external_inputs == ("intake.outputs",)
    assert one.spec.output is not None
    assert (one.spec.output.steps, one.spec.output.steps_join) == (("limit.outputs",), "any")
    clean, scorer, drift, odd, limit, why = one.spec.steps
    assert clean.model is not None
    assert clean.model.url == "http://clean.lending:8080"
    assert (scorer.inputs, scorer.inputs_join_type) == (("clean.outputs", "credit.inputs.amount"), "any")
    assert scorer.tensor_map == {"clean.outputs.rows": "input-0"}
    assert (drift.batch.size, drift.batch.window_ms, drift.batch.rolling) == (200, 5000, True)
    assert odd.inputs == ("scorer.inputs",)
    assert (limit.inputs_join_type, limit.join_window_ms, limit.triggers_join_type) == ("outer", 100, "any")
    assert (limit.triggers, why.triggers) == (("odd-rows.outputs.is_outlier",),) * 2
    assert lost(result) == ["spec.logger.percent", "spec.steps[2].name", "spec.steps[3].name", "spec.steps[5].name"]


def test_seldon_v2_loops_and_topics(tmp_path: Path) -> None:
    old = "[odd-rows.outputs.is_outlier]\n      triggersJoinType"
    change = (old, old.replace("[", "[scorer-drift.outputs.p_val, "))
    (one,), result = imported("credit", tmp_path / "out.yaml", change=change)
    assert one.spec.steps[4].triggers == ("odd-rows.outputs.is_outlier",)
    assert "spec.steps[4].triggers[0] tensor 'p_val' is read no longer" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("inputsJoinType: any", "inputsJoinType: some", "spec.steps[1].inputsJoinType it is 'some'"),
        ("stepsJoin: any", "stepsJoin: some", "spec.output.stepsJoin it is 'some'"),
        ("steps: [limit]", "steps: [limits]", "spec.output.steps[0] limits"),
        ("[intake.outputs]", "[intake.x.y]", "spec.input.externalInputs[0] intake.x.y"),
        ("{clean.outputs.rows: input-0}", "{clean.outputs.rows: 1}", "spec.steps[1].tensorMap it holds"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    found, result = imported("credit", tmp_path / "out.yaml", change=(old, new))
    assert (found, result.exit_code) == ([], 2)
    assert message in result.stderr


def test_seldon_v1(tmp_path: Path) -> None:
    (one,), result = imported("offers", tmp_path / "out.yaml")
    bandit = one.spec.steps[1]
    assert bandit.router is not None
    assert (bandit.router.strategy, bandit.router.epsilon) == ("epsilon-greedy", 0.1)
    assert [(step.name, step.inputs, step.triggers) for step in one.spec.steps] == [
        ("scale", (), ()),
        ("bandit", ("scale",), ()),
        ("plain", ("scale",), ("bandit.outputs.plain",)),
        ("left", ("scale",), ("bandit.outputs.mean",)),
        ("right", ("scale",), ("bandit.outputs.mean",)),
        ("mean", ("left", "right"), ()),
    ]
    assert one.spec.output is not None
    assert (one.spec.output.steps, one.spec.output.steps_join) == (("plain", "mean"), "any")
    assert "spec.protocol calls will fail" in result.stderr


@pytest.mark.parametrize(
    ("unit", "router", "loss"),
    [
        (
            "implementation: RANDOM_ABTEST, parameters: [{name: ratioA, value: '0.3', type: FLOAT}]",
            {"strategy": "weighted", "routes": [{"name": "a", "weight": 0.3}, {"name": "b", "weight": 0.7}]},
            "",
        ),
        (
            "implementation: SIMPLE_ROUTER",
            {"strategy": "weighted", "routes": [{"name": "a", "weight": 1}, {"name": "b", "weight": 0}]},
            "",
        ),
        (
            "type: ROUTER, parameters: [{name: epsilon, value: '0.2'}, {name: seed, value: '7'}, "
            "{name: depth, value: '2'}]",
            {"strategy": "epsilon-greedy", "epsilon": 0.2, "seed": 7, "routes": [{"name": "a"}, {"name": "b"}]},
            "parameters depth are not imported",
        ),
        (
            "type: ROUTER",
            {"strategy": "weighted", "routes": [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}]},
            "router 'x' draws evenly",
        ),
    ],
)
def test_routers_of_seldon_v1(tmp_path: Path, unit: str, router: dict[str, Any], loss: str) -> None:
    text = f"""\
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: {{name: d}}
spec:
  protocol: v2
  predictors:
    - {{name: main, graph: {{name: x, {unit}, children: [{{name: a}}, {{name: b}}]}}}}
"""
    (tmp_path / "in.yaml").write_text(text)
    result = run(tmp_path / "in.yaml", "--models", URL, "-o", tmp_path / "out.yaml")
    assert result.exit_code == (3 if loss else 0), result.stderr
    assert loss in result.stderr
    assert yaml.safe_load((tmp_path / "out.yaml").read_text())["spec"]["steps"][0]["router"] == router
    load_pipelines(tmp_path / "out.yaml")


def test_predictors_share_the_traffic_and_a_shadow_gets_all_of_it(tmp_path: Path) -> None:
    predictors = [
        {"name": "main", "traffic": 90, "graph": {"name": "m"}},
        {"name": "canary", "traffic": 10, "graph": {"name": "m"}},
        {"name": "next", "shadow": True, "graph": {"name": "m"}},
    ]
    spec = {"protocol": "v2", "predictors": predictors}
    (one,), report = read(manifest("machinelearning.seldon.io", "SeldonDeployment", "d", spec))
    split, main, canary, shadow = one.spec.steps
    assert split.router is not None
    assert [(route.name, route.weight) for route in split.router.routes] == [("main", 90), ("canary", 10)]
    assert [step.triggers for step in (main, canary, shadow)] == [
        ("predictors.outputs.main",),
        ("predictors.outputs.canary",),
        (),
    ]
    assert [(step.model and step.model.name) for step in (main, canary, shadow)] == [None, "m", "m"]
    assert one.spec.output is not None
    assert (one.spec.output.steps, one.spec.output.steps_join) == ((main.name, canary.name), "any")
    assert report.losses == []


def test_kserve(tmp_path: Path) -> None:
    found, result = imported("photos", tmp_path / "out.yaml")
    assert [one.name for one in found] == ["animals"]
    assert "items[1].spec.nodes.root.steps[1].condition the graph is not imported" in result.stderr


def test_kserve_without_conditions() -> None:
    nodes = {
        "root": {
            "routerType": "Sequence",
            "steps": [
                {"serviceName": "clean"},
                {"nodeName": "cats", "data": "$response", "dependency": "Hard"},
                {"serviceName": "last", "data": "$response", "dependency": "Soft"},
            ],
        },
        "cats": {
            "routerType": "Splitter",
            "steps": [{"serviceName": "a", "weight": 70}, {"nodeName": "both", "weight": 30}],
        },
        "both": {
            "routerType": "Ensemble",
            "steps": [{"serviceName": "a"}, {"serviceUrl": "http://b.example/v2/models/bee/infer", "name": "b"}],
        },
    }
    (one,), report = read(manifest("serving.kserve.io", "InferenceGraph", "g", {"nodes": nodes}))
    clean, cats, a, again, b, last = one.spec.steps
    assert cats.router is not None
    assert [(route.name, route.weight) for route in cats.router.routes] == [("a", 70), ("both", 30)]
    assert [(step.inputs, step.triggers) for step in (cats, a, again, b)] == [
        ((clean.name,), ()),
        ((clean.name,), ("cats.outputs.a",)),
        ((clean.name,), ("cats.outputs.both",)),
        ((clean.name,), ("cats.outputs.both",)),
    ]
    assert b.model is not None
    assert (b.model.url, b.model.name) == ("http://b.example", "bee")
    assert (last.inputs, last.inputs_join_type) == (("a", "a-2", "b"), "any")
    assert [problem.field for problem in report.losses] == ["spec.nodes.root.steps[2].dependency"]


@pytest.mark.parametrize("url", ["model:8080", "http://{modle}:8080", "http://{model}/v2"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    (tmp_path / "in.yaml").write_text((MANIFESTS / "credit.yaml").read_text())
    result = CliRunner().invoke(app, ["import", str(tmp_path / "in.yaml"), "--models", url])
    assert "no address of a model" in getattr(result.exception, "why", "")


def documents(*manifests: dict[str, Any]) -> tuple[list[dict[str, Any]], Report]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "in.yaml"
        file.write_text(yaml.safe_dump_all(manifests))
        graphs, report = read_manifests([file])
        assert report.errors == []
        return whole(graphs, URL), report


def read(*manifests: dict[str, Any]) -> tuple[list[Pipeline], Report]:
    written, report = documents(*manifests)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out.yaml"
        out.write_text(yaml.safe_dump_all(written))
        return load_pipelines(out, schema=False, kinds=kinds) if written else [], report


@settings(max_examples=40, deadline=None)
@given(pipelines())
def test_any_pipeline_of_seldon_v2_says_the_same_here(drawn: tuple[list[str], list[dict[str, Any]]]) -> None:
    _, steps = drawn
    # Not loaded: `check` may rightly find that tensors of one name arrive twice.
    (document,), _ = documents(manifest("mlops.seldon.io", "Pipeline", "p", {"steps": steps}))
    one = Pipeline.model_validate(frozen(document))
    for before, after in zip(steps, one.spec.steps, strict=True):
        for key, texts in (("inputs", after.inputs), ("triggers", after.triggers)):
            assert list(texts) == list(dict.fromkeys(str(parse(text)) for text in before[key]))
        assert after.inputs_join_type == before.get("inputsJoinType")
        batch = before.get("batch", {})
        assert (after.batch.size, after.batch.rolling) == (batch.get("size"), batch.get("rolling", False))


@settings(max_examples=40, deadline=None)
@given(TREES)
def test_any_graph_of_seldon_v1_calls_what_seldon_calls(tree: dict[str, Any]) -> None:
    def named(unit: dict[str, Any], numbers: Iterator[int]) -> dict[str, Any]:
        name = f"n{next(numbers)}"
        return {"name": name, "type": unit["type"], "children": [named(one, numbers) for one in unit["children"]]}

    def called(unit: dict[str, Any], choice: dict[str, str]) -> set[str]:
        below = unit["children"]
        if unit["type"] == "ROUTER":
            chosen = [one for one in below if choice.get(unit["name"], one["name"]) == one["name"]][:1]
            mine = {unit["name"]} if len(below) > 1 else set()
            return mine.union(*(called(one, choice) for one in chosen))
        taken = below if unit["type"] == "COMBINER" else below[:1]
        return {unit["name"]}.union(*(called(one, choice) for one in taken))

    top = named(tree, iter(range(100)))
    spec = {"protocol": "v2", "predictors": [{"name": "main", "graph": top}]}
    found, report = read(manifest("machinelearning.seldon.io", "SeldonDeployment", "d", spec))
    if not found:
        assert [problem.why for problem in report.losses][-1] == "this router leads nowhere"
        return
    one = graph(found[0], kinds=kinds)
    routing = {
        node.name: [route.name for route in node.step.router.routes]
        for node in one.steps
        if node.step is not None and node.step.router is not None
    }
    for chosen in product(*routing.values()):
        choice = dict(zip(routing, chosen, strict=True))
        assert running(one, choice) - {"<output>"} == called(top, choice)


def running(one: Graph, choice: dict[str, str]) -> set[str]:
    runs: set[str] = set()
    while added := {node.name for node in one.nodes if node.name not in runs and met(node, one, runs, choice)}:
        runs |= added
    return runs


@settings(max_examples=40, deadline=None)
@given(routers())
def test_any_graph_of_kserve_is_right_or_reported(nodes: dict[str, Any]) -> None:
    found, report = read(manifest("serving.kserve.io", "InferenceGraph", "g", {"nodes": nodes}))
    unsaid = [problem for problem in report.losses if problem.what == "the graph is not imported"]
    assert len(found) + len(unsaid) == 1
    assert all(problem.field.startswith("spec.nodes.") for problem in report.losses)
