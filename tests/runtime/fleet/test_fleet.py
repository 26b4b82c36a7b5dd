"""The fleet on the bus: what apply and delete leave there, whoever does it at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from govern.bus import Bus, Partition
from govern.bus.topics import topic
from govern.errors import ArtifactError, ConfigError, NotFound
from govern.runtime.fleet import fleet as fleets
from govern.runtime.fleet import pack
from govern.runtime.fleet.entry import CONTENTS, Entry
from govern.runtime.fleet.fleet import Fleet
from govern.runtime.loader import load
from tests.runtime.fleet.conftest import Write, on_record, packed


async def held(bus: Bus, namespace: str) -> set[str]:
    """The digests of the contents that the topic has."""
    table = await bus.read_table(Partition(topic(namespace, "pipelines"), CONTENTS))
    return {key.decode().split("/")[0] for key in table}


def named(*entries: Entry) -> set[str]:
    return {content.digest for entry in entries for content in entry.contents}


async def test_what_is_applied_comes_back_as_it_was_and_what_nobody_names_goes(
    bus: Bus, unique: str, write: Write, tmp_path: Path
) -> None:
    fleet = Fleet(bus, unique, actor="cli:ada")
    first, second = write("first"), write("second")
    assert await fleet.apply(packed(first, second)) == {"first": "created", "second": "created"}
    assert await fleet.apply(packed(second, first)) == {"second": "unchanged", "first": "unchanged"}
    entries = await fleet.entries()
    assert [(one.name, one.service, one.model, one.actor) for one in entries.values()] == [
        ("first", "employment", "employment", "cli:ada"),
        ("second", "employment", "employment", "cli:ada"),
    ]
    assert entries["first"].digest == load(first)[0].plan.digest
    assert await held(bus, unique) == named(*entries.values())
    assert len(named(*entries.values())) < sum(len(one.files) for one in entries.values()), (
        "what they share is there once"
    )

    contents = await fleet.contents(entries["first"])
    assert contents[entries["first"].document] == first.read_bytes()
    for path, data in contents.items():
        assert data == (first.parent / path).read_bytes()

    write("second", "size: 300", "size: 400")
    assert await fleet.apply(packed(first, second)) == {"first": "unchanged", "second": "changed"}
    after = await fleet.entries()
    assert after["first"] == entries["first"]
    assert after["second"].digest != entries["second"].digest
    assert await held(bus, unique) == named(*after.values())
    assert not named(entries["second"]) <= await held(bus, unique)

    with pytest.raises(NotFound, match="third"):
        await fleet.delete(["first", "third"])
    assert (await fleet.entries()).keys() == {"first", "second"}
    await fleet.delete(["first"])
    assert (await fleet.entries()).keys() == {"second"}
    assert await held(bus, unique) == named(after["second"])
    await fleet.delete(["second"])
    assert await held(bus, unique) == set()
    with pytest.raises(ArtifactError, match="does not hold all of it"):
        await fleet.contents(after["second"])
    assert [(one.subject, one.action, one.actor) for one in await on_record(bus, unique)] == [
        ("first", "created", "cli:ada"),
        ("second", "created", "cli:ada"),
        ("second", "changed", "cli:ada"),
        ("first", "deleted", "cli:ada"),
        ("second", "deleted", "cli:ada"),
    ]


@pytest.mark.parametrize("bus_url", ["embedded"], indirect=True)
async def test_those_who_change_it_at_once_lose_nothing(
    bus: Bus, unique: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "_TRANSACTION_BYTES", 1)  # each pipeline in a transaction of its own
    names = [f"p{number}" for number in range(6)]
    each = [packed(write(name)) for name in names]
    people = [Fleet(bus, unique, actor=f"cli:{number}") for number in range(3)]
    await asyncio.gather(*(one.apply([p for mine in each[i::3] for p in mine]) for i, one in enumerate(people)))
    entries = await people[0].entries()
    assert sorted(entries) == names
    assert await held(bus, unique) == named(*entries.values())
    assert sorted((one.subject, one.action) for one in await on_record(bus, unique)) == [(n, "created") for n in names]


def test_a_pipeline_that_is_too_large_is_refused_by_name_and_size(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "PIPELINE_BYTES_MAX", 20_000)
    with pytest.raises(ConfigError, match=r"pipeline 'big' is [\d,]+ bytes") as refused:
        packed(write("big"))
    assert "20,000; the largest file is artifacts/" in refused.value.why


def test_paths_that_lead_up_stay_in_the_folder_and_absolute_ones_are_refused(write: Write) -> None:
    file = write("up", "schema: schema.yaml", "schema: ../shared/schema.yaml")
    shared = file.parents[1] / "shared"
    shared.mkdir()
    (file.parent / "schema.yaml").rename(shared / "schema.yaml")
    (one,) = packed(file)
    assert one.entry.document == "_/pipeline.yaml"
    assert {"shared/schema.yaml", "_/artifacts/drift/artifact.json"} <= one.entry.files.keys()
    write("up", "../shared/schema.yaml", str(shared / "schema.yaml"))
    with pytest.raises(ConfigError, match="names /"):
        packed(file)
