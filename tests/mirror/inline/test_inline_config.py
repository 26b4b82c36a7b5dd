"""The section `inline`: what it refuses, and where it is taken over."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from govern.mirror.config import MirrorConfig
from govern.mirror.reload import RELOADED

STEP = {"step": "outlier"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"steps": [STEP]}, "pipeline"),
        ({"pipeline": "watch", "steps": []}, "at least 1"),
        ({"pipeline": "watch", "steps": [STEP, {"step": "Outlier", "when": "response"}]}, "govern-outlier"),
        ({"pipeline": "watch/x", "steps": [STEP]}, "pattern"),
        ({"pipeline": "watch", "steps": [STEP], "block_status": 499}, "499"),
        ({"pipeline": "watch", "steps": [STEP], "url": "https://127.0.0.1:1"}, "http://host:port"),
        ({"pipeline": "watch", "steps": [STEP | {"deadline_ms": 0}]}, "greater than 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MirrorConfig.model_validate({"inline": section})


@pytest.mark.parametrize(
    ("host", "fits"), [("127.0.0.1", True), ("localhost", True), ("[::1]", True), ("10.0.0.1", False)]
)
def test_bodies_that_are_to_be_redacted_are_judged_within_the_pod(host: str, fits: bool) -> None:
    values = {
        "inline": {"pipeline": "watch", "steps": [STEP], "url": f"http://{host}:8085"},
        "redaction": {"rules": [{"action": "withhold"}]},
    }
    if fits:
        MirrorConfig.model_validate(values)
    else:
        with pytest.raises(ValidationError, match="url in the pod"):
            MirrorConfig.model_validate(values)


def test_it_is_taken_over_without_a_restart() -> None:
    assert "inline" in RELOADED
