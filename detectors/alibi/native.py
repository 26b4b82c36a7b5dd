"""Detectors of alibi-detect behind govern's protocol: the extra [alibi], Business Source License 1.1 (see NOTICE).

Importing this module imports alibi-detect. The kernel reaches it through the entry points `alibi_detect.*` only, where
its absence becomes `MissingExtra`. Artifacts hold no object of alibi-detect, only the reference's rows, the parameters
and the threshold: loading constructs the detector anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from alibi_detect.cd import ChiSquareDrift, KSDrift, TabularDrift
from alibi_detect.od import IForest

from detectors.base import (
    Fitted,
    fitted,
    require_at_least,
    require_fraction,
    require_kinds,
    require_rows,
    require_schema,
)
from detectors.outlier.impute import Imputer
from govern.detection import InstanceScores, WindowScores
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame
from govern.record import FeatureResult, Kind
from govern.schema import FeatureKind, FeatureSchema

Floats = npt.NDArray[np.float64]

STATE_VERSION: Final = 1
#: As the native detectors ask for.
MIN_DRIFT_ROWS: Final = 20
MIN_OUTLIER_ROWS: Final = 50


class _Univariate(Protocol):
    """alibi-detect's BaseUnivariateDrift, as far as it is used here."""

    def predict(self, x: Floats) -> Mapping[str, Mapping[str, Any]]: ...


class _Drift(ABC):
    """The three adapters are one and the same, but for the class that they construct.

    Args:
        p_val: significance level, before correction.
        correction: over the features: "bonferroni" or "fdr".
        seed: recorded in verdicts; the tests draw no random numbers.

    Effect sizes are not given: alibi-detect has none.
    """

    kind: Final[Kind] = "drift"
    method: ClassVar[str]
    kinds: ClassVar[tuple[FeatureKind, ...]]
    min_instances: Final = MIN_DRIFT_ROWS
    needs_outputs: Final[tuple[str, ...]] = ()

    def __init__(self, *, p_val: float = 0.05, correction: str = "bonferroni", seed: int = 0) -> None:
        self.p_val = require_fraction("p_val", p_val, method=self.method)
        if correction not in ("bonferroni", "fdr"):
            raise BadInput(
                f"{self.method}: correction is {correction!r}",
                why='alibi-detect knows "bonferroni" and "fdr"',
                fix="name one of them",
            )
        self.correction = correction
        self.seed = seed
        self._state: Fitted | None = None

    @property
    def schema(self) -> FeatureSchema:
        return fitted(self._state, self.method).schema

    @property
    def digest(self) -> str:
        return fitted(self._state, self.method).digest

    @property
    def reference_digest(self) -> str:
        return fitted(self._state, self.method).reference_digest

    @abstractmethod
    def _construct(self, reference: Floats, categorical: Sequence[int]) -> _Univariate:
        """The detector of alibi-detect; `categorical` are positions in the columns of `reference`."""

    def fit(self, reference: Frame) -> Self:
        require_rows(reference, MIN_DRIFT_ROWS, method=self.method, what="reference")
        columns = require_kinds(reference.schema, *self.kinds, method=self.method)
        rows = self._rows(reference, columns)
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=STATE_VERSION,
                params={"p_val": self.p_val, "correction": self.correction, "seed": self.seed},
                arrays={"columns": np.array(columns, dtype=np.int64), "reference": rows},
            )
        )
        return self

    def score(self, window: Frame) -> WindowScores:
        state = fitted(self._state, self.method)
        require_schema(window, state.schema, method=self.method)
        require_rows(window, self.min_instances, method=self.method, what="window")
        found = self._detector.predict(self._rows(window, self._columns))["data"]
        # Where nothing is significant, alibi-detect gives every step of the FDR procedure: the first is the bar.
        threshold = float(np.min(found["threshold"]))
        judged = [state.schema.features[position] for position in self._columns]
        features = tuple(
            FeatureResult(
                feature=feature.name,
                statistic_name="chi2" if feature.kind == "categorical" else "ks",
                statistic=float(statistic),
                p_value=float(p_value),
                threshold=threshold,
                n=len(window),
                is_drift=bool(p_value < threshold),
            )
            for feature, p_value, statistic in zip(judged, found["p_val"], found["distance"], strict=True)
        )
        return WindowScores(
            alarm=bool(found["is_drift"]), features=features, threshold=threshold, correction=self.correction
        )

    def save(self, path: Path) -> None:
        fitted(self._state, self.method).write(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        state = Fitted.read(path, method=cls.method, state_version=STATE_VERSION)
        detector = state.construct(cls)
        detector._restore(state)
        return detector

    def _restore(self, state: Fitted) -> None:
        arrays = state.arrays()
        try:
            self._columns: list[int] = arrays["columns"].tolist()
            categorical = [i for i, at in enumerate(self._columns) if state.schema.features[at].kind == "categorical"]
            self._detector = self._construct(arrays["reference"], categorical)
        except (KeyError, IndexError) as error:
            raise state.damaged(str(error)) from error
        self._state = state

    def _rows(self, frame: Frame, columns: Sequence[int]) -> Floats:
        """(n, d) float64 as alibi-detect takes it: categories as their codes, missing -1, unseen -2.

        Raises:
            BadInput: a number is missing, to which alibi-detect would answer p-values of NaN.
        """
        rows = np.column_stack([frame.columns[position].astype(np.float64) for position in columns])
        gone = np.argwhere(np.isnan(rows))
        if len(gone):
            row, column = gone[0].tolist()
            raise BadInput(
                f"{self.method}: feature {frame.schema.features[columns[column]].name!r} is missing in row {row}",
                why="alibi-detect's drift detectors take complete numbers only",
                fix="use the native `ks` or `tabular`, which leave missing values out and test their rate",
            )
        return rows


class AlibiKSDrift(_Drift):
    """alibi_detect.cd.KSDrift on the numeric features."""

    method = "alibi_detect.KSDrift"
    kinds = ("numeric",)

    def _construct(self, reference: Floats, categorical: Sequence[int]) -> _Univariate:
        detector: _Univariate = KSDrift(reference, p_val=self.p_val, correction=self.correction)
        return detector


class AlibiChiSquareDrift(_Drift):
    """alibi_detect.cd.ChiSquareDrift on the categorical features."""

    method = "alibi_detect.ChiSquareDrift"
    kinds = ("categorical",)

    def _construct(self, reference: Floats, categorical: Sequence[int]) -> _Univariate:
        detector: _Univariate = ChiSquareDrift(reference, p_val=self.p_val, correction=self.correction)
        return detector


class AlibiTabularDrift(_Drift):
    """alibi_detect.cd.TabularDrift on the numeric and categorical features."""

    method = "alibi_detect.TabularDrift"
    kinds = ("numeric", "categorical")

    def _construct(self, reference: Floats, categorical: Sequence[int]) -> _Univariate:
        detector: _Univariate = TabularDrift(
            reference,
            p_val=self.p_val,
            correction=self.correction,
            categories_per_feature=dict.fromkeys(categorical),
        )
        return detector


class AlibiIForest:
    """alibi_detect.od.IForest on the numeric and categorical features, missing values imputed as the native one does.

    The artifact holds the reference, and loading grows the forest again from the same seed. A scikit-learn that
    grows another one from it is noticed by its threshold, and refused.

    Args:
        contamination: share of the reference that may lie above the threshold.
        n_estimators: trees.
        max_samples: rows that each tree is grown from, at most the reference's.
        seed: of the forest.
    """

    kind: Final[Kind] = "outlier"
    method: Final = "alibi_detect.IForest"
    min_instances: Final = 1
    needs_outputs: Final[tuple[str, ...]] = ()

    def __init__(
        self, *, contamination: float = 0.01, n_estimators: int = 100, max_samples: int = 256, seed: int = 0
    ) -> None:
        self.contamination = require_fraction("contamination", contamination, method=self.method)
        self.n_estimators = require_at_least("n_estimators", n_estimators, 1, method=self.method)
        self.max_samples = require_at_least("max_samples", max_samples, 2, method=self.method)
        self.seed = seed
        self._state: Fitted | None = None

    @property
    def schema(self) -> FeatureSchema:
        return fitted(self._state, self.method).schema

    @property
    def digest(self) -> str:
        return fitted(self._state, self.method).digest

    @property
    def reference_digest(self) -> str:
        return fitted(self._state, self.method).reference_digest

    @property
    def threshold(self) -> float:
        return fitted(self._state, self.method).number("threshold")

    def fit(self, reference: Frame) -> Self:
        require_rows(reference, MIN_OUTLIER_ROWS, method=self.method, what="reference")
        columns = require_kinds(reference.schema, "numeric", "categorical", method=self.method)
        imputer = Imputer.of(reference, columns)
        rows = imputer.rows(reference)
        state = Fitted.of(
            reference,
            method=self.method,
            state_version=STATE_VERSION,
            params={
                "contamination": self.contamination,
                "n_estimators": self.n_estimators,
                "max_samples": self.max_samples,
                "seed": self.seed,
            },
            arrays={"columns": imputer.columns, "fills": imputer.fills, "reference": rows},
            extra={"threshold": float(self._grow(rows).threshold)},
        )
        self._restore(state)
        return self

    def score(self, window: Frame) -> InstanceScores:
        state = fitted(self._state, self.method)
        require_schema(window, state.schema, method=self.method)
        require_rows(window, self.min_instances, method=self.method, what="window")
        scores = np.asarray(self._detector.score(self._imputer.rows(window)), dtype=np.float64)
        return InstanceScores(scores=scores, flagged=scores > self.threshold, threshold=self.threshold)

    def save(self, path: Path) -> None:
        fitted(self._state, self.method).write(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        state = Fitted.read(path, method=cls.method, state_version=STATE_VERSION)
        detector = state.construct(cls)
        detector._restore(state)
        return detector

    def _grow(self, rows: Floats) -> IForest:
        detector = IForest(n_estimators=self.n_estimators, max_samples=min(self.max_samples, len(rows)))
        detector.isolationforest.set_params(random_state=self.seed)  # alibi-detect hands on no seed of its own
        detector.fit(rows)
        detector.infer_threshold(rows, threshold_perc=100.0 * (1.0 - self.contamination))
        return detector

    def _restore(self, state: Fitted) -> None:
        arrays = state.arrays()
        try:
            self._imputer = Imputer(columns=arrays["columns"], fills=arrays["fills"])
            self._detector = self._grow(arrays["reference"])
        except KeyError as error:
            raise state.damaged(f"no array {error}") from error
        if not np.isclose(self._detector.threshold, state.number("threshold"), rtol=1e-9, atol=0.0):
            raise ArtifactError(
                f"artifact of {self.method!r}: the forest grown from its reference is another one",
                why=f"its threshold is {self._detector.threshold!r}, the fitted one's {state.number('threshold')!r}",
                fix="use the scikit-learn it was fitted with, or fit it again",
            )
        self._state = state
