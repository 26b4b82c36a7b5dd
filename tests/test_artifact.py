"""Artifacts are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from govern import artifact
from govern.artifact import Manifest
from govern.errors import ArtifactError


def manifest() -> Manifest:
    return Manifest(
        format_version=artifact.FORMAT_VERSION,
        group="g",
        name="n",
        state_version=1,
        params={},
        schema={},
        reference_digest="",
        files={},
    )


def test_a_full_disk_leaves_the_old_artifact_and_nothing_of_the_new_one(full_disk: Path) -> None:
    path = full_disk / "mine"
    artifact.write(path, manifest(), {"a.json": b"{}"})
    before = sorted(path.iterdir())
    with pytest.raises(ArtifactError, match="mine cannot be written") as caught:
        artifact.write(path, manifest(), {"a.json": b"x" * 100_000})
    assert "No space left" in caught.value.why
    assert sorted(path.iterdir()) == before
    assert (path / "a.json").read_bytes() == b"{}"
    assert list(full_disk.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="mine cannot be written"):
        artifact.write(tmp_path / "file" / "mine", manifest(), {})


def test_lineage_is_kept_in_the_manifest_and_changes_no_digest(tmp_path: Path) -> None:
    saved = artifact.write(tmp_path / "mine", manifest(), {"a.json": b"{}"})
    assert saved.digest == "e3490f0863e9ac0a5db54d56dd4fc2258cb9200c9d3b9bc02ba611232427d54b", (
        "of releases before there was lineage"
    )
    assert "lineage" not in (tmp_path / "mine" / artifact.MANIFEST).read_text()
    told = {"version": 2, "parent": saved.digest, "fitted_by": "jane@bank.example"}
    artifact.record_lineage(tmp_path / "mine", told, group="g")
    read, files = artifact.read(tmp_path / "mine", group="g")
    assert (read.lineage, read.digest, files) == (told, saved.digest, {"a.json": b"{}"})
