"""Which detectors of alibi-detect are reached by name: made in their process from the reference and plain parameters.

A detector that needs a model is not among them: it is made with alibi-detect, saved, and adopted
(`detectors.alibi.saved`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from govern.record import Kind
from govern.schema import FeatureKind

Param = str | int | float

_NUMERIC: Final[tuple[FeatureKind, ...]] = ("numeric",)
_CATEGORICAL: Final[tuple[FeatureKind, ...]] = ("categorical",)
_BOTH: Final[tuple[FeatureKind, ...]] = ("numeric", "categorical")

#: Parameter -> the values that it may have.
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "correction": ("bonferroni", "fdr"),
    "alternative": ("greater", "less", "two-sided"),
    "model": ("logistic_regression", "random_forest"),
}
#: Parameters that are shares.
FRACTIONS: Final = frozenset({"p_val", "contamination"})


@dataclass(frozen=True, slots=True)
class Spec:
    """A detector of alibi-detect.

    Attributes:
        name: its class in alibi-detect.
        features: the kinds that it judges.
        params: parameter -> default, as its class calls them; `contamination` is the share of the reference that may
            lie above an outlier's threshold, `window_size` of one that takes several is the only one.
        backend: "tensorflow" where it computes with that.
        remembers: whether its verdict depends on the windows before.
        binary: whether it takes columns of two values only.
        alone: whether it takes one column only.
        min_instances: the fewest rows of a window.
    """

    name: str
    kind: Kind
    features: tuple[FeatureKind, ...]
    params: Mapping[str, Param] = field(default_factory=dict)
    backend: str = ""
    remembers: bool = False
    binary: bool = False
    alone: bool = False
    min_instances: int = 1


#: Of drift detectors that judge windows, as the native ones ask for.
_WINDOW: Final = 20
_TESTED: Final[Mapping[str, Param]] = {"p_val": 0.05, "correction": "bonferroni"}
_ONLINE: Final[Mapping[str, Param]] = {"ert": 1000, "window_size": 20, "n_bootstraps": 10_000}
#: With TensorFlow thresholds are simulated whenever a process is started, as alibi-detect has it: fewer, for which only
#: a shorter run time can be promised (a tenth of their number).
_SIMULATED: Final[Mapping[str, Param]] = {**_ONLINE, "ert": 100, "n_bootstraps": 1000}
_PERMUTED: Final[Mapping[str, Param]] = {"p_val": 0.05, "n_permutations": 100}

SPECS: Final[Mapping[str, Spec]] = {
    spec.name: spec
    for spec in (
        Spec("KSDrift", "drift", _NUMERIC, _TESTED, min_instances=_WINDOW),
        Spec("CVMDrift", "drift", _NUMERIC, _TESTED, min_instances=_WINDOW),
        Spec("ChiSquareDrift", "drift", _CATEGORICAL, _TESTED, min_instances=_WINDOW),
        Spec("TabularDrift", "drift", _BOTH, _TESTED, min_instances=_WINDOW),
        Spec("FETDrift", "drift", _BOTH, {**_TESTED, "alternative": "two-sided"}, binary=True, min_instances=_WINDOW),
        Spec(
            "ClassifierDrift",
            "drift",
            _BOTH,
            {"p_val": 0.05, "model": "logistic_regression", "n_folds": 5},
            min_instances=_WINDOW,
        ),
        Spec("MMDDrift", "drift", _BOTH, _PERMUTED, backend="tensorflow", min_instances=_WINDOW),
        Spec("LSDDDrift", "drift", _BOTH, _PERMUTED, backend="tensorflow", min_instances=_WINDOW),
        Spec(
            "SpotTheDiffDrift",
            "drift",
            _NUMERIC,
            {"p_val": 0.05, "n_diffs": 1, "n_folds": 2, "epochs": 3},
            backend="tensorflow",
            min_instances=_WINDOW,
        ),
        Spec("CVMDriftOnline", "drift", _NUMERIC, _ONLINE, remembers=True),
        Spec("FETDriftOnline", "drift", _BOTH, {**_ONLINE, "alternative": "greater"}, remembers=True, binary=True),
        Spec("MMDDriftOnline", "drift", _BOTH, _SIMULATED, backend="tensorflow", remembers=True),
        Spec("LSDDDriftOnline", "drift", _BOTH, _SIMULATED, backend="tensorflow", remembers=True),
        Spec("IForest", "outlier", _BOTH, {"contamination": 0.01, "n_estimators": 100, "max_samples": 256}),
        Spec(
            "Mahalanobis",
            "outlier",
            _NUMERIC,
            {"contamination": 0.01, "n_components": 3, "std_clip": 3, "start_clip": 100},
            remembers=True,
        ),
        Spec(
            "SpectralResidual",
            "outlier",
            _NUMERIC,
            {"contamination": 0.01, "window_amp": 20, "window_local": 20, "n_est_points": 10},
            alone=True,
            min_instances=50,
        ),
    )
}
