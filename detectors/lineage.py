"""Where an artifact comes from, as its manifest says it (`govern.artifact.LINEAGE`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from govern import artifact, plugins
from govern.errors import ArtifactError


def before(path: Path) -> artifact.Manifest | None:
    """The manifest of the artifact that a fit will replace; None when there is none that can be read."""
    try:
        return artifact.read(path, group=plugins.DETECTORS)[0]
    except ArtifactError:
        return None


def record(path: Path, replaced: artifact.Manifest | None, told: Mapping[str, Any]) -> None:
    """Say in the manifest at `path` what it was fitted from, and which artifact it replaced.

    The version counts up with each new digest: the same rows, parameters and seed are the same version, whose parent
    stays.

    Args:
        told: of the fit, as `LINEAGE` names it, without version, parent and time.

    Raises:
        ArtifactError: the artifact cannot be read or written.
    """
    manifest, _ = artifact.read(path, group=plugins.DETECTORS)
    known = replaced.lineage if replaced is not None and replaced.lineage is not msgspec.UNSET else {}
    version = known.get("version")
    place: dict[str, Any] = {"version": 1}
    if replaced is not None:
        if replaced.digest == manifest.digest:
            place = {name: known[name] for name in ("version", "parent") if name in known} or place
        else:
            # One that says no version was the first.
            place = {"version": (version if isinstance(version, int) else 1) + 1, "parent": replaced.digest}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    artifact.record_lineage(path, {**place, **told, "fitted_at": now}, group=plugins.DETECTORS)
