"""promtool's judgement of the rules, and its unit tests of each alarm (`rules_test.yaml`)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import dashboards
from tests.services.prometheus import promtool

pytestmark = pytest.mark.prometheus

RULES = Path(dashboards.__file__).with_name("generated") / "rules.yaml"
UNIT_TESTS = Path(__file__).with_name("rules_test.yaml")


def _promtool(*arguments: str) -> str:
    done = subprocess.run([promtool(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_are_valid() -> None:
    assert f"{len(dashboards.alerts())} rules found" in _promtool("check", "rules", "--lint-fatal", str(RULES))


def test_alarms_ring_when_they_should_and_only_then(tmp_path: Path) -> None:
    tests = tmp_path / "rules_test.yaml"
    tests.write_text(UNIT_TESTS.read_text().replace("RULES", str(RULES)))
    assert "SUCCESS" in _promtool("test", "rules", str(tests))
    assert all(name in UNIT_TESTS.read_text() for name, _ in dashboards.alerts())
