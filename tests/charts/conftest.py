from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.services.helm import helm

Helm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_helm(tmp_path: Path) -> Helm:
    """Runs Helm with a home of its own; its exit code is for the test to judge."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        home = tmp_path / "helm"
        environment = {
            "PATH": "/usr/bin:/bin",
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }
        return subprocess.run(
            [helm(), *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def render(run_helm: Helm, tmp_path: Path) -> Callable[[Path, dict[str, Any]], list[dict[str, Any]]]:
    """The objects that a chart makes of values, as `helm template` prints them."""

    def rendered(chart: Path, values: dict[str, Any], *, flags: Sequence[str] = ()) -> list[dict[str, Any]]:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        done = run_helm("template", "demo", chart, "--values", file, *flags)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return rendered
