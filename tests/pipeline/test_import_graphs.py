"""Any graph of Seldon or KServe: what is imported checks, and what is not in it is reported at its own place."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from govern.pipeline import Pipeline, load_pipelines
from govern.pipeline.manifests import Report, read_manifests, watch
from tests.pipeline.conftest import kinds

ROLES = st.sampled_from(["model", "drift", "outlier", "explainer"])


def imported(*manifests: dict[str, Any]) -> tuple[list[Pipeline], Report]:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "in.yaml"
        file.write_text(yaml.safe_dump_all(manifests))
        graphs, report = read_manifests([file])
        documents = watch(graphs)
        assert report.errors == []
        if not documents:
            return [], report
        out = Path(folder) / "out.yaml"
        out.write_text(yaml.safe_dump_all(documents))
        return load_pipelines(out, schema=False, kinds=kinds), report


def manifest(group: str, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": f"{group}/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[list[str], list[dict[str, Any]]]:
    """The roles and steps of a pipeline p; step n reads steps before it or the pipeline's inputs."""
    roles = draw(st.lists(ROLES, min_size=1, max_size=7))
    steps = []
    for number in range(len(roles)):
        before = [f"s{one}{tail}" for one in range(number) for tail in ("", ".outputs.t", ".inputs", ".inputs.t")]
        some = st.lists(st.sampled_from([*before, "p.inputs", "p.inputs.t"]), max_size=3, unique=True)
        step: dict[str, Any] = {"name": f"s{number}", "inputs": draw(some), "triggers": draw(some)}
        if draw(st.booleans()):
            step["inputsJoinType"] = draw(st.sampled_from(["inner", "outer", "any"]))
        if draw(st.booleans()):
            step["batch"] = {"size": draw(st.integers(1, 9)), "rolling": draw(st.booleans())}
        steps.append(step)
    return roles, steps


@settings(max_examples=60, deadline=None)
@given(pipelines())
def test_seldon_v2(drawn: tuple[list[str], list[dict[str, Any]]]) -> None:
    roles, steps = drawn
    models = [
        manifest(
            "mlops.seldon.io",
            "Model",
            f"s{number}",
            {
                "storageUri": f"gs://example/{role}",
                "requirements": ["alibi-detect"] if role in ("drift", "outlier") else [],
                **({"explainer": {"modelRef": "m"}} if role == "explainer" else {}),
            },
        )
        for number, role in enumerate(roles)
    ]
    found, report = imported(*models, manifest("mlops.seldon.io", "Pipeline", "p", {"steps": steps}))
    lost = {problem.field for problem in report.losses}
    watched = {(one.spec.source.service, one.spec.source.model) for one in found}
    assert watched == {("p", f"s{number}") for number, role in enumerate(roles) if role == "model"}
    made = {step.name: (step, one) for one in found for step in one.spec.steps}
    for number, role in enumerate(roles):
        where = f"spec.steps[{number}]"
        if role != "model" and f"s{number}" not in made:
            assert f"{where}.name" in lost
            continue
        step, pipeline = made[f"s{number}"]
        model = pipeline.spec.source.model
        for at, text in enumerate(steps[number]["inputs"]):
            here = {
                f"{pipeline.name}.inputs"
                if text in ("p.inputs", f"{model}.inputs")
                else text
                if text == f"{model}.outputs.t"
                else f"{text}.outputs"
                if text == model
                else ""
            }
            in_document = text == "p.inputs" if role == "model" else bool(here & set(step.inputs))
            assert in_document or f"{where}.inputs[{at}]" in lost
        for at in range(len(steps[number]["triggers"])):
            assert f"{where}.triggers[{at}]" in lost
        if "inputsJoinType" in steps[number]:
            assert f"{where}.inputsJoinType" in lost
        batch = steps[number].get("batch")
        if batch is not None:
            assert step.batch.size == batch["size"] or f"{where}.batch.size" in lost
            assert step.batch.rolling == (batch["rolling"] and role == "drift")
            assert step.batch.rolling or not batch["rolling"] or f"{where}.batch.rolling" in lost


def units(children: st.SearchStrategy[list[dict[str, Any]]]) -> st.SearchStrategy[dict[str, Any]]:
    types = st.sampled_from(["MODEL", "ROUTER", "COMBINER", "TRANSFORMER", "OUTPUT_TRANSFORMER"])
    return st.fixed_dictionaries({"type": types, "children": children})


TREES = st.recursive(units(st.just([])), lambda inner: units(st.lists(inner, max_size=3)), max_leaves=8)


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_seldon_v1(tree: dict[str, Any]) -> None:
    places: dict[str, str] = {}

    def named(unit: dict[str, Any], where: str) -> dict[str, Any]:
        name = f"n{len(places)}"
        places[name] = where
        children = [named(one, f"{where}.children[{at}]") for at, one in enumerate(unit["children"])]
        return {"name": name, "type": unit["type"], "children": children}

    def walk(unit: dict[str, Any]) -> list[dict[str, Any]]:
        return [unit, *(below for one in unit["children"] for below in walk(one))]

    graph = named(tree, "spec.predictors[0].graph")
    spec = {"predictors": [{"name": "main", "graph": graph}]}
    found, report = imported(manifest("machinelearning.seldon.io", "SeldonDeployment", "d", spec))
    lost = {problem.field for problem in report.losses}
    models = {one["name"] for one in walk(graph) if one["type"] == "MODEL"}
    assert {(one.spec.source.service, one.spec.source.model) for one in found} == {("d", one) for one in models}
    for unit in walk(graph):
        where = places[unit["name"]]
        assert (where in lost) == (unit["type"] != "MODEL")
        assert (f"{where}.children" in lost) == (unit["type"] == "MODEL" and bool(unit["children"]))


@st.composite
def routers(draw: st.DrawFn) -> dict[str, Any]:
    names = ["root", *(f"n{one}" for one in range(draw(st.integers(0, 3))))]
    target = st.sampled_from([{"nodeName": one} for one in names] + [{"serviceName": f"s{one}"} for one in range(4)])
    extra = st.sampled_from([{}, {"data": "$response"}, {"weight": 50}, {"condition": "a"}, {"dependency": "Soft"}])
    types = st.sampled_from(["Sequence", "Splitter", "Ensemble", "Switch"])
    steps = st.lists(st.builds(lambda one, other: one | other, target, extra), min_size=1, max_size=4)
    return {name: {"routerType": draw(types), "steps": draw(steps)} for name in names}


@settings(max_examples=60, deadline=None)
@given(routers())
def test_kserve(nodes: dict[str, Any]) -> None:
    found, report = imported(manifest("serving.kserve.io", "InferenceGraph", "g", {"nodes": nodes}))
    steps = {f"spec.nodes.{name}.steps[{at}]": one for name in nodes for at, one in enumerate(nodes[name]["steps"])}
    services = {one["serviceName"] for one in steps.values() if "serviceName" in one}
    assert {(one.spec.source.service, one.spec.source.model) for one in found} == {(one, one) for one in services}
    expected = {f"spec.nodes.{name}" for name in nodes}
    expected |= {f"{where}.{key}" for where, one in steps.items() for key in one if not key.endswith("Name")}
    assert {problem.field for problem in report.losses} == expected
