"""A fitted demo to run whole systems on: trained and fitted once, copied for each test."""

from __future__ import annotations

import asyncio
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from govern.bus import open_bus
from govern.bus.topics import specs
from govern.cli.demo.stages.prepare import Prepared, fit_watchers, train_model
from govern.cli.demo.story import Story
from govern.cli.demo.work import Work

NAMESPACE = "demo"

#: Instances per window: small, so that many verdicts are under way whenever something is killed.
SIZES = {"drift": 200, "outlier": 20, "adversarial": 30}
#: Longer than any test, so that windows close by count alone and a reference run closes the same ones.
HOUR_MS = 3_600_000


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Prepared]:
    work = Work.open(tmp_path_factory.mktemp("prepared"))
    story = Story(Console(file=io.StringIO()))
    ready = train_model(story, work, seed=1)
    asyncio.run(fit_watchers(story, work, namespace=NAMESPACE))
    assert not story.failed
    return work, ready


@pytest.fixture
def copy_of_work(prepared: tuple[Work, Prepared], tmp_path: Path) -> Callable[[], Work]:
    def copy() -> Work:
        folder = tmp_path / "work"
        shutil.copytree(prepared[0].folder, folder)
        return Work(folder)

    return copy


def with_count_windows(pipeline: Path) -> None:
    """Let windows close by count alone, and often."""
    text = pipeline.read_text()
    for step, size in SIZES.items():
        text, changed = re.subn(
            rf"(- name: {step}\n(?:.*\n)*?\s+size: )\d+(\n\s+windowMs: )\d+",
            rf"\g<1>{size}\g<2>{HOUR_MS}",
            text,
            count=1,
        )
        assert changed == 1, step
    pipeline.write_text(text)


async def create_topics(bus_url: str, namespace: str) -> None:
    async with open_bus(bus_url) as bus:
        await bus.ensure_topics(specs(namespace))
