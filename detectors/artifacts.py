"""Fitted detectors on disk, whichever they are: the manifest says who reads them."""

from __future__ import annotations

from pathlib import Path

from govern import artifact, plugins
from govern.detection import Detector
from govern.errors import ArtifactError, ConfigError


def save(detector: Detector, path: Path) -> None:
    """Write a fitted detector's artifact folder; one that is there is replaced, whole or not at all.

    Raises:
        BadInput: the detector is not fitted.
        ArtifactError: the folder cannot be written.
    """
    detector.save(path)


def load(path: Path) -> Detector:
    """Read an artifact folder with the class that its manifest names.

    Raises:
        ArtifactError: damaged, changed, of another version, no detector's, or of a detector unknown here.
        MissingExtra: its class needs an optional dependency that is absent.
    """
    manifest, _ = artifact.read(path, group=plugins.DETECTORS)
    try:
        reader = plugins.load(plugins.DETECTORS, manifest.name)
    except ConfigError as error:
        raise ArtifactError(
            f"artifact {path} was fitted by {manifest.name!r}, which is not known here",
            why=error.why,
            fix="install the package that provides it, or fit the step again with a detector known here",
        ) from error
    detector = reader.load(path)
    assert isinstance(detector, Detector)
    return detector
