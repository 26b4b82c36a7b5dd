"""What inline steps said is counted by the shipper, from the records."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from govern.mirror.config import MirrorConfig
from govern.mirror.recorder import open_recorder
from tests.mirror.conftest import DEADLINE_S
from tests.mirror.test_shipper import ship_all

SAID = {
    b"ok": b'ok; score="0.25"; threshold="0.5"',
    b"alarm": b'alarm; score="0.75"; threshold="0.5"',
    b"late": b"unjudged; reason=timeout",
    b"stream": b"skipped; reason=event-stream",
}


@pytest.mark.parametrize("word", SAID)
async def test_the_shipper_counts_by_step(
    make_config: Callable[..., MirrorConfig], embedded_url: str, word: bytes
) -> None:
    inline = {"pipeline": "watch", "steps": [{"step": "Outlier"}]}
    config = make_config(bus=embedded_url, drain_s=DEADLINE_S, model="age", inline=inline)
    recorder = open_recorder(config)
    for _ in range(3):
        exchange = recorder.begin(b"POST", b"/v2/models/age/infer", {})
        assert exchange is not None
        exchange.response_head(200, {b"govern-outlier": SAID[word], b"govern-other": b"ok"})
        exchange.finish()
    recorder.close()
    registry = await ship_all(config)
    found = {
        sample.name: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.startswith("govern_inline") and sample.name.endswith("_total")
        if sample.labels["step"] == "outlier" and sample.labels["model"] == "age"
    }
    if word == b"stream":
        assert not found
    else:
        assert found == {
            "govern_inline_judged_total": 0 if word == b"late" else 3,
            "govern_inline_alarms_total": 3 if word == b"alarm" else 0,
            "govern_inline_unjudged_total": 3 if word == b"late" else 0,
        }
