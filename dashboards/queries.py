"""What the shipped dashboard and rules ask Prometheus, ready to be evaluated.

Read from the generated files, so that a test of these is a test of what users load.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Final, TypedDict, cast

import yaml

#: The dashboard's variables that a query filters by.
_VARIABLES: Final = ("namespace", "service", "model", "pipeline")


class _Rule(TypedDict):
    alert: str
    expr: str


def queries(*, rate_interval: str = "1m", time_range: str = "1h") -> list[tuple[str, str]]:
    """(panel title, PromQL) of every query of the dashboard, with each variable set to All.

    Args:
        rate_interval: in place of `$__rate_interval`; at least four times the scrape interval.
        time_range: in place of `$__range`.
    """
    drift = json.loads(_read("drift.json"))
    return [
        (panel["title"], _for_all(target["expr"], rate_interval, time_range))
        for panel in drift["panels"]
        for target in panel.get("targets", [])
    ]


def alerts() -> list[tuple[str, str]]:
    """(alert name, PromQL) of every alert rule."""
    groups = cast("list[dict[str, list[_Rule]]]", yaml.safe_load(_read("rules.yaml"))["groups"])
    return [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def _read(name: str) -> str:
    return files("dashboards").joinpath("generated", name).read_text()


def _for_all(promql: str, rate_interval: str, time_range: str) -> str:
    promql = promql.replace("$__rate_interval", rate_interval).replace("$__range", time_range)
    for variable in _VARIABLES:
        promql = promql.replace(f'"${variable}"', '".*"')
    return promql
