"""Fitted explainers on disk: each a folder whose manifest says who reads it; a service serves a folder of them."""

from __future__ import annotations

from pathlib import Path

from explainers.base import GROUP, Explainer
from explainers.predictor import Predictor
from explainers.target import Target
from govern import artifact, plugins
from govern.errors import ArtifactError, ConfigError


def load(path: Path, *, predictor: Predictor | None = None) -> Explainer:
    """Read an artifact folder with the class that its manifest names.

    Raises:
        ArtifactError: damaged, changed, of another version, no explainer's, or of an explainer unknown here.
        MissingExtra: its class needs an optional dependency that is absent.
    """
    manifest, _ = artifact.read(path, group=GROUP)
    try:
        reader = plugins.load(GROUP, manifest.name)
    except ConfigError as error:
        raise ArtifactError(
            f"artifact {path} was fitted by {manifest.name!r}, which is not known here",
            why=error.why,
            fix="install the package that provides it, or fit it again with an explainer known here",
        ) from error
    explainer = reader.load(path, predictor=predictor)
    assert isinstance(explainer, Explainer)
    return explainer


def folders(folder: Path) -> dict[str, Path]:
    """Name -> artifact folder, of every artifact in `folder`; an explainer is served under its folder's name.

    Raises:
        ConfigError: there is none.
    """
    found = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{artifact.MANIFEST}"))}
    if not found:
        raise ConfigError(
            f"folder {folder} holds no explainer",
            why=f"there is no */{artifact.MANIFEST} in it",
            fix="fit one with `govern explain fit --out FOLDER/NAME`",
        )
    return found


def output_of(path: Path) -> str:
    """The model output that an artifact explains: what its predictor must ask for."""
    manifest, _ = artifact.read(path, group=GROUP)
    target = manifest.params.get("target", {})
    return str(target.get("output", Target().output)) if isinstance(target, dict) else Target().output
