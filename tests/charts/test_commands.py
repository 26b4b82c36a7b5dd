"""What the chart starts, as the command itself understands it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.charts.test_govern import CHART, COMPONENTS, VALUES


def run_help(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "govern.cli.main", *arguments, "--help"],
        env={**os.environ, "COLUMNS": "400", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_command_knows_every_option_and_variable_of_its_container(
    render: Callable[..., list[dict[str, Any]]], component: str
) -> None:
    (container,) = next(
        one["spec"]["template"]["spec"]["containers"]
        for one in render(CHART, VALUES)
        if (one["kind"], one["metadata"]["name"]) == ("Deployment", f"demo-govern-{component}")
    )
    done = run_help(container["args"])
    assert done.returncode == 0, done.stderr
    variables = {one["name"] for one in container["env"] if one["name"].startswith("GOVERN_")}
    assert variables
    assert {name for name in variables if name not in done.stdout} == set()


def test_the_sinks_pod_is_understood(render: Callable[..., list[dict[str, Any]]]) -> None:
    pod = next(
        one["spec"]["template"]["spec"]
        for one in render(CHART, VALUES)
        if (one["kind"], one["metadata"]["name"]) == ("Deployment", "demo-govern-sink")
    )
    for container in (*pod["containers"], *pod["initContainers"]):
        done = run_help(container["args"])
        assert done.returncode == 0, done.stderr


def test_an_option_that_does_not_exist_would_be_noticed() -> None:
    assert run_help(["worker", "--no-such-option"]).returncode == 2
