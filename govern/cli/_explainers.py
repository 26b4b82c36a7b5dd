"""What commands that explain share: the options that name the model, and explainers bound to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from explainers.artifacts import folders, load, output_of
from explainers.base import Explainer
from explainers.catalogue import Card
from explainers.predictor import Predictor, SklearnPredictor
from explainers.v2_predictor import V2Predictor

ModelUrlOption = Annotated[
    str, typer.Option("--model-url", envvar="GOVERN_MODEL_URL", help="V2 server that black-box explainers ask.")
]
ModelNameOption = Annotated[str, typer.Option("--model-name", help="Model there; the schema's model by default.")]
ModelVersionOption = Annotated[
    str, typer.Option("--model-version", help="Version there; the server's choice if empty.")
]
ModelFileOption = Annotated[
    Path | None, typer.Option("--model", help="Model as a skops file: asked in this process instead of over HTTP.")
]


@contextmanager
def loaded_explainers(
    folder: Path, url: str, name: str, version: str, model: Path | None
) -> Iterator[dict[str, Explainer]]:
    """Every explainer of a folder, bound to the model; the connections are closed when the block ends."""
    with httpx.Client() as client:
        yield {one: read_explainer(path, client, url, name, version, model) for one, path in folders(folder).items()}


def read_explainer(
    path: Path, client: httpx.Client, url: str, name: str, version: str, model: Path | None
) -> Explainer:
    """An explainer bound to the model.

    Raises:
        ConfigError: it has no model to ask.
    """
    explainer = load(path, predictor=predictor_of(path, client, url, name, version, model))
    _ = explainer.model_digest  # raises when it has none: now, not at the first request
    return explainer


def predictor_of(
    path: Path, client: httpx.Client, url: str, name: str, version: str, model: Path | None
) -> Predictor | None:
    """Who answers for the model: this process (`model`), a V2 server (`url`), or the artifact itself (None)."""
    if model is not None:
        return SklearnPredictor.open(model)
    if not url:
        return None
    if not name:
        name = Card.read(path.name, path).schema.model
    return V2Predictor(url, name, client=client, version=version, output=output_of(path))
