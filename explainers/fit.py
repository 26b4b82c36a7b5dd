"""Fit: an explainer's artifact from a reference table, its schema and, where it is needed, the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from explainers.base import GROUP, Explainer
from explainers.predictor import SklearnPredictor
from explainers.target import Target
from govern import plugins
from govern.errors import ConfigError
from govern.schema import FeatureSchema
from govern.table import frame_of, read


def fit(
    method: str,
    *,
    reference: Path,
    schema: Path,
    out: Path,
    target: Target,
    model: Path | None = None,
    params: Mapping[str, str | int | float | bool] | None = None,
) -> Explainer:
    """Fit the explainer registered as `method` and write its artifact folder.

    Args:
        reference: CSV or Parquet table; the background is drawn from it.
        model: the model's skops file, for an explainer that looks inside it.
        params: constructor parameters of the explainer.

    Raises:
        ConfigError: no such explainer or parameter, or an explainer that cannot explain this model.
        BadInput: the reference does not follow the schema.
    """
    kind = plugins.load(GROUP, method)
    try:
        explainer = kind(target=target, **(params or {}))
    except TypeError as error:
        raise ConfigError(
            f"explainer {method!r}: parameters {', '.join(params or {}) or 'none'}",
            why=str(error),
            fix="see the parameters in the explainer's docstring",
        ) from error
    background = frame_of(read(reference), FeatureSchema.load(schema))
    explainer.fit(background, SklearnPredictor.open(model) if model is not None else None)
    explainer.save(out)
    assert isinstance(explainer, Explainer)
    return explainer
