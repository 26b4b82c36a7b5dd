"""A namespace with its topics, and pipelines of the fitted detectors under other names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from govern.bus import Bus, open_bus
from govern.bus.topics import specs, topic
from govern.record import ConfigChange, decode
from govern.runtime.fleet.pack import Packed, pack
from govern.runtime.loader import load_documented
from tests.bus.helpers import settled
from tests.runtime.conftest import Fitted

PARTITIONS = 2
Write = Callable[..., Path]


@pytest.fixture
async def bus(bus_url: str, unique: str) -> AsyncIterator[Bus]:
    async with open_bus(bus_url) as connection:
        await connection.ensure_topics(specs(unique, partitions=PARTITIONS))
        yield connection


@pytest.fixture
def write(fitted: Fitted, tmp_path: Path, unique: str) -> Write:
    """`write(name, old, new, ...)`: a pipeline file, in a folder of its own with the artifacts, with texts replaced."""

    def one(name: str, *replaced: str) -> Path:
        folder = tmp_path / "applied" / name
        file = folder / "pipeline.yaml" if folder.exists() else fitted.write(folder, unique)
        text = file.read_text().replace("name: watch", f"name: {name}").replace("watch.inputs", f"{name}.inputs")
        for old, new in zip(replaced[::2], replaced[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)
        return file

    return one


def packed(*files: Path) -> list[Packed]:
    return [pack(one) for file in files for one in load_documented(file)]


async def on_record(bus: Bus, namespace: str) -> list[ConfigChange]:
    """What was put on record of pipelines, under their bare names."""
    found = [decode(ConfigChange, message.value or b"") for message in await settled(bus, topic(namespace, "config"))]
    return [replace(one, subject=one.subject.removeprefix("pipeline/")) for one in found]
