"""The generated files: up to date, valid as Grafana's own typed model reads them, fit to be read by a person."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry

import dashboards
from dashboards.build import FOLDERS, generated
from govern.telemetry.metrics import Metrics
from tests.dashboards.emission import emit

ROOT = Path(dashboards.__file__).parents[1]
DRIFT: dict[str, Any] = json.loads((FOLDERS[0] / "drift.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DRIFT["panels"] if panel["type"] != "row"]
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDERS[0] / "rules.yaml").read_text())["groups"][0]["rules"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_files_are_up_to_date(folder: Path) -> None:
    stale = [name for name, text in generated().items() if (folder / name).read_text() != text]
    assert stale == [], "run: python -m dashboards.build"


def test_grafanas_own_model_reads_the_dashboard_without_losing_anything() -> None:
    register_default_plugins()
    read = Dashboard.from_json(DRIFT)
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == DRIFT
    assert DRIFT["schemaVersion"] >= 39
    assert DRIFT["uid"] == "govern-model-drift"


def test_variables_are_those_of_the_design() -> None:
    assert [variable["name"] for variable in DRIFT["templating"]["list"]] == [
        "datasource",
        "namespace",
        "service",
        "model",
        "pipeline",
    ]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 40
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH")[: len(panel["targets"])]


def test_panels_have_ids_titles_and_places_of_their_own() -> None:
    ids = [panel["id"] for panel in DRIFT["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DRIFT["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(x < 24 for x, _ in cells)


def test_every_metric_named_exists_and_every_metric_is_shown() -> None:
    metrics = Metrics(CollectorRegistry())
    emit(metrics)
    exists = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    promql = " ".join(expr for _, expr in [*dashboards.queries(), *dashboards.alerts()])
    named = set(re.findall(r"\bgovern_[a-z_]+", promql))
    assert named - exists <= {"govern_inference_errors_total"}, "none of the emitted inferences failed"
    families = {family.name for family in metrics.registry.collect()}
    shown = {name.removesuffix("_total").removesuffix("_bucket") for name in named}
    # A count of verdicts says nothing that alarms, window sizes and freshness do not.
    assert families - shown == {"govern_verdicts"}


def test_no_variable_of_grafana_is_left_in_the_queries_handed_out() -> None:
    assert [promql for _, promql in dashboards.queries() if "$" in promql] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule_links_to_a_runbook_that_names_it(rule: dict[str, Any]) -> None:
    runbook = ROOT / rule["annotations"]["runbook_url"]
    assert rule["alert"] in runbook.read_text()
    assert rule["labels"]["severity"] in {"warning", "critical"}
