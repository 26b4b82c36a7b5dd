"""What alibi-detect answered, as scores. The process that answers is not believed: every length is checked."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.alibi.child.wire import Array, Message
from detectors.alibi.layout import Layout
from govern.detection import NO_ROW, InstanceScores, WindowScores
from govern.errors import BadInput, Unavailable
from govern.record import FeatureResult
from govern.schema import FeatureSchema

#: Detectors that test each feature by itself -> the name of their statistic, of numeric and of categorical features.
BY_FEATURE: Final[dict[str, tuple[str, str]]] = {
    "KSDrift": ("ks", "ks"),
    "CVMDrift": ("cvm", "cvm"),
    "FETDrift": ("odds_ratio", "odds_ratio"),
    "ChiSquareDrift": ("chi2", "chi2"),
    "TabularDrift": ("ks", "chi2"),
    "CVMDriftOnline": ("cvm", "cvm"),
    "FETDriftOnline": ("fet", "fet"),
    "ClassifierUncertaintyDrift": ("ks", "ks"),
    "RegressorUncertaintyDrift": ("ks", "ks"),
}


def window_scores(
    answer: Message, layout: Layout, schema: FeatureSchema, *, detector: str, correction: str, n: int
) -> WindowScores:
    """Of a drift detector.

    An online detector has no p-value, and its threshold is on its statistic: both are those of the row at which it
    alarmed, or of the window's last.

    Raises:
        Unavailable: the answer is none.
    """
    try:
        alarm = bool(answer.said["alarm"])
        alarm_row = int(answer.said.get("alarm_row", NO_ROW))
        statistic = answer.arrays["statistic"].astype(np.float64)
        online = "p_value" not in answer.arrays
        p_value = np.full(len(statistic), np.nan) if online else answer.arrays["p_value"].astype(np.float64)
        threshold = (
            answer.arrays["threshold"] if online else np.full(len(statistic), float(answer.said["threshold"]))
        ).astype(np.float64)
        if not statistic.shape == p_value.shape == threshold.shape or statistic.ndim != 1 or not len(statistic):
            raise ValueError(f"statistics of shape {statistic.shape}, p-values of shape {p_value.shape}")
    except (KeyError, TypeError, ValueError) as error:
        raise no_answer(layout.method, error) from error
    if detector not in BY_FEATURE:
        return WindowScores(
            alarm=alarm,
            statistic=float(statistic[0]),
            p_value=float(p_value[0]),
            threshold=float(threshold[0]),
            alarm_row=alarm_row,
        )
    significant = statistic > threshold if online else p_value < threshold
    features = tuple(
        FeatureResult(
            feature=name,
            statistic_name=kind,
            statistic=float(statistic[i]),
            p_value=float(p_value[i]),
            threshold=float(threshold[i]),
            n=n,
            is_drift=bool(significant[i]),
        )
        for i, (name, kind) in enumerate(_named(detector, layout, schema, len(statistic)))
    )
    return WindowScores(
        alarm=alarm,
        features=features,
        threshold=float(threshold.min()),
        correction=correction,
        alarm_row=alarm_row,
    )


def _named(detector: str, layout: Layout, schema: FeatureSchema, tested: int) -> list[tuple[str, str]]:
    """Name and statistic of what was tested: the features, or the outputs of what the detector makes of them first."""
    numeric, categorical = BY_FEATURE[detector]
    if tested != layout.width or detector.endswith("UncertaintyDrift"):
        what = "uncertainty" if detector.endswith("UncertaintyDrift") else "output"
        return [(f"{what} {i}" if tested > 1 else what, numeric) for i in range(tested)]
    features = [schema.features[position] for position in layout.columns]
    return [(one.name, categorical if one.kind == "categorical" else numeric) for one in features]


def instance_scores(answer: Message, layout: Layout, schema: FeatureSchema, *, n: int) -> InstanceScores:
    """Of an outlier or adversarial detector.

    Raises:
        Unavailable: the answer is none.
        BadInput: a score is no number.
    """
    try:
        scores = answer.arrays["score"].astype(np.float64)
        threshold = float(answer.said["threshold"])
        if scores.shape != (n,):
            raise ValueError(f"{n} rows, scores of shape {scores.shape}")
    except (KeyError, TypeError, ValueError) as error:
        raise no_answer(layout.method, error) from error
    if not np.isfinite(scores).all():
        raise BadInput(
            f"{layout.method}: alibi-detect gives no score to {int((~np.isfinite(scores)).sum())} of {n} rows",
            why="its model makes no number of them",
            fix="see whether it was trained to its end, and on rows like these",
        )
    flagged = scores > threshold
    shares = None
    if (by_feature := answer.arrays.get("by_feature")) is not None and len(by_feature) == n:
        shares = _shares(by_feature.astype(np.float64), flagged, layout, schema)
    return InstanceScores(scores=scores, flagged=flagged, threshold=threshold, shares=shares)


def _shares(
    by_feature: Array, flagged: npt.NDArray[np.bool_], layout: Layout, schema: FeatureSchema
) -> npt.NDArray[np.float64] | None:
    """(n, features of the schema); None where the scores are of something else than the features."""
    rows = by_feature.reshape(len(flagged), -1).clip(min=0.0)
    if layout.width == 1:
        rows = rows.sum(axis=1, keepdims=True)
    if rows.shape[1] != layout.width:
        return None
    whole = rows.sum(axis=1, keepdims=True)
    told = flagged & (whole[:, 0] > 0.0)
    shares = np.zeros((len(flagged), len(schema.features)))
    shares[np.ix_(told, layout.columns)] = rows[told] / whole[told]
    return shares


def no_answer(method: str, error: Any) -> Unavailable:
    return Unavailable(
        f"{method}: the answer of the process that holds it cannot be read",
        why=str(error),
        fix="see which alibi-detect its environment has; govern is tested with 0.13",
    )
