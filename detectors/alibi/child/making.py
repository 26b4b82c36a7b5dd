"""A detector of alibi-detect made from rows and plain parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
from alibi_detect import cd, od
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from .wire import Array, Message

#: What simulating an online detector's thresholds leaves in it, where nothing else depends on the draw.
SIMULATED = ("thresholds", "permit_probs")
_PREFIX = "simulated/"
_MODELS: dict[str, Any] = {
    "logistic_regression": lambda: LogisticRegression(max_iter=1000),
    "random_forest": lambda: RandomForestClassifier(n_estimators=100),
}


def make(asked: Message) -> Any:
    """The detector that is asked for; random numbers are drawn as numpy's and TensorFlow's global generators stand."""
    said, reference = asked.said, asked.arrays["reference"]
    name, params = said["make"], dict(said["params"])
    if said["kind"] == "drift":
        return _drift(name, params, said, reference, asked.arrays)
    detector = getattr(od, name)(**_capped(params, len(reference)))
    if name == "IForest":
        # alibi-detect hands on no seed of its own
        detector.isolationforest.set_params(random_state=said["seed"])
        detector.fit(reference)
    rows = reference.ravel() if name == "SpectralResidual" else reference
    detector.infer_threshold(rows, threshold_perc=100.0 * (1.0 - said["contamination"]))
    return detector


def simulated(detector: Any) -> dict[str, Array]:
    """What a made one is made with next time, so that nothing is drawn again."""
    if type(detector).__name__ not in ("CVMDriftOnline", "FETDriftOnline"):
        return {}
    return {f"{_PREFIX}{name}": np.asarray(getattr(detector, name)) for name in SIMULATED if hasattr(detector, name)}


def _drift(name: str, params: dict[str, Any], said: dict[str, Any], reference: Array, arrays: dict[str, Array]) -> Any:
    constructor = getattr(cd, name)
    if said["backend"]:
        params["backend"] = said["backend"]
        reference = reference.astype(np.float32)
    if name == "TabularDrift":
        params["categories_per_feature"] = dict.fromkeys(said["categorical"])
    if name == "ClassifierDrift":
        params |= {"model": _MODELS[params["model"]](), "backend": "sklearn"}
    if name == "SpotTheDiffDrift":
        params["verbose"] = 0
    if name in ("CVMDriftOnline", "FETDriftOnline"):
        params["window_sizes"] = [params.pop("window_size")]
    if name.endswith("Online"):
        params["verbose"] = False
    known = {key.removeprefix(_PREFIX): array for key, array in arrays.items() if key.startswith(_PREFIX)}
    if known:
        constructor = type(name, (constructor,), {"_configure_thresholds": lambda self: None})
    detector = constructor(reference, **params)
    for key, array in known.items():
        setattr(detector, key, array)
    return detector


def _capped(params: dict[str, Any], rows: int) -> dict[str, Any]:
    return {key: min(value, rows) if key == "max_samples" else value for key, value in params.items()}
