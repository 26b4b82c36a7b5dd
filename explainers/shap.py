"""Shapley values: TreeShap looks inside a tree ensemble, KernelShap asks a black box."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
import shap

from explainers.base import Explained, NoModel
from explainers.coalitions import estimate
from explainers.deadline import Deadline
from explainers.fitted import Fitted, fitted, from_matrix, one_row, sample, value_texts
from explainers.predictor import Predictor, SklearnPredictor
from explainers.ranked_trees import RankedTrees
from explainers.target import Target, Unit
from govern.errors import ConfigError
from govern.frame import Frame
from govern.record import Attribution
from govern.schema import FeatureSchema

Matrix = npt.NDArray[np.float64]

TREE: Final = "shap_tree"
KERNEL: Final = "shap_kernel"
#: The model in a TreeShap artifact.
MODEL_FILE: Final = "model.skops"
#: How far contributions may sum past the prediction before `fit` refuses the model. shap works in single precision:
#: with 10^3 trees its rounding stays below 10^-5.
_TOLERANCE: Final = 1e-4


class TreeShap:
    """Shapley values of a scikit-learn tree ensemble: interventional TreeSHAP over a background sample.

    Lundberg et al., "From local explanations to global understanding with explainable AI for trees", Nature Machine
    Intelligence 2, 2020. They are exact in the unit in which the trees add up: log-odds of boosted trees, probability
    of forests, a regressor's number. Boosted trees' contributions in probability are the exact ones in log-odds
    against each background row, scaled to the difference in probability between the two rows, and averaged (Chen,
    Lundberg and Lee, "Explaining a series of models by propagating Shapley values", Nature Communications 13, 2022):
    they still sum to the prediction.

    `fidelity` = 1 - |base + sum of contributions - prediction| / sum of |contributions|, and `error_bound` is that
    gap in the unit of the contributions: both tell of rounding only.

    Parameters:
        target: what is explained; a class of a classifier, or a regressor's number.
        unit: of the contributions of a classifier, "probability" or "log-odds" (boosted trees only).
        background_rows: rows of the reference that features take their "absent" values from; time grows with it.
        seed: of the background sample.
    """

    method: Final = TREE

    def __init__(
        self,
        *,
        target: Target = Target(),  # noqa: B008 - frozen
        unit: Literal["probability", "log-odds"] = "probability",
        background_rows: int = 100,
        seed: int = 0,
    ) -> None:
        self.target = target
        self.seed = seed
        self._unit = unit
        self._background_rows = background_rows
        self._state: Fitted | None = None

    @property
    def schema(self) -> FeatureSchema:
        return fitted(self._state, TREE).background.schema

    @property
    def digest(self) -> str:
        return fitted(self._state, TREE).manifest.digest

    @property
    def model_digest(self) -> str:
        return fitted(self._state, TREE).manifest.files[MODEL_FILE]

    @property
    def background_digest(self) -> str:
        return fitted(self._state, TREE).manifest.reference_digest

    def fit(self, background: Frame, predictor: Predictor | None = None) -> Self:
        if not isinstance(predictor, SklearnPredictor):
            raise ConfigError(
                f"{TREE} needs the model itself",
                why="it looks inside the trees, which a model behind an API does not show",
                fix="give the model file (--model model.skops), or use shap_kernel",
            )
        kept = sample(background, self._background_rows, self.seed)
        params = {"unit": self._unit, "background_rows": self._background_rows, "seed": self.seed}
        files = {MODEL_FILE: predictor.stored}
        self._bind(Fitted.of(kept, method=TREE, target=self.target, params=params, files=files), predictor)
        self._prove(kept)
        return self

    def explain(self, row: Frame, *, deadline: Deadline) -> Explained:
        state = fitted(self._state, TREE)
        row = one_row(row, state.background.schema, TREE)
        deadline.check("TreeSHAP")
        base, phi = self._contributions(row.matrix())
        prediction = float(self._predictions(row)[0])
        gap = abs(base + float(phi[0].sum()) - prediction)
        size = float(np.abs(phi[0]).sum())
        return Explained(
            method=TREE,
            output_name=self.target.output,
            output_unit=self._output_unit,
            prediction=prediction,
            base_value=base,
            attributions=_attributions(row, phi[0]),
            fidelity=max(0.0, 1.0 - gap / size) if size else 1.0,
            error_bound=gap,
        )

    def save(self, path: Path) -> None:
        fitted(self._state, TREE).write(path)

    @classmethod
    def load(cls, path: Path, *, predictor: Predictor | None = None) -> Self:
        """Read an artifact folder. It holds the model: a `predictor` is not asked."""
        state = Fitted.read(path, method=TREE)
        explainer = state.unfitted(cls)
        explainer._bind(state, SklearnPredictor(state.files[MODEL_FILE], origin=str(path / MODEL_FILE)))
        return explainer

    def _bind(self, state: Fitted, predictor: SklearnPredictor) -> None:
        estimator = predictor.estimator
        margin = hasattr(estimator, "decision_function")
        classifier = hasattr(estimator, "predict_proba")
        if classifier and self._unit == "log-odds" and not margin:
            raise ConfigError(
                f"{TREE}: unit log-odds with a {type(estimator).__name__}",
                why="its trees vote with probabilities, not with log-odds",
                fix="use the unit probability",
            )
        self._state = state
        self._predictor = predictor
        self._output_unit: Unit = self._unit if classifier else "raw"
        self._trees = RankedTrees.of(estimator, len(state.background.schema.features))
        self._explainer = shap.TreeExplainer(
            self._trees.model,
            data=self._trees.ranks(state.background.matrix()),
            feature_perturbation="interventional",
            model_output="probability" if classifier and margin and self._unit == "probability" else "raw",
        )

    def _contributions(self, matrix: Matrix) -> tuple[float, Matrix]:
        """Base value and contributions (n, d) to the target's column."""
        values = np.asarray(self._explainer.shap_values(self._trees.ranks(matrix), check_additivity=False))
        base = np.atleast_1d(self._explainer.expected_value)
        if values.ndim == 3:
            return float(base[self.target.column]), values[:, :, self.target.column]
        if self._output_unit == "raw" or self.target.column in (1, -1):
            return float(base[0]), values
        return (1.0 if self._output_unit == "probability" else 0.0) - float(base[0]), -values

    def _predictions(self, frame: Frame) -> Matrix:
        values = self.target.values(self._predictor.predict(frame))
        if self._output_unit != "log-odds":
            return values
        margins = np.asarray(self._predictor.estimator.decision_function(frame.matrix()), dtype=np.float64)
        return margins if self.target.column in (1, -1) else -margins

    def _prove(self, background: Frame) -> None:
        base, phi = self._contributions(background.matrix())
        gap = float(np.abs(base + phi.sum(axis=1) - self._predictions(background)).max())
        if gap > _TOLERANCE:
            raise ConfigError(
                f"{TREE}: the contributions do not sum to the model's answers (off by up to {gap:.2g})",
                why="shap's TreeExplainer does not follow this model, for example its treatment of missing values",
                fix="use shap_kernel, which asks the model itself",
            )


class KernelShap:
    """Shapley values of any model, estimated from its answers alone (see `explainers.coalitions`).

    Absent features take their values from the background sample. `fidelity` is the weighted R^2 of the additive form
    over the coalitions, `error_bound` the half width of the widest 95 % confidence interval of a contribution (0 when
    every coalition was evaluated). When the deadline passes, the rounds completed by then are returned.

    Parameters:
        target: what is explained, in the model's own unit.
        nsamples: coalitions altogether; each asks the model about `background_rows` rows.
        rounds: independent estimates that they are spread over; at least 2 give an error bound.
        background_rows: rows of the reference in the background sample.
        seed: of the background sample and of the coalitions.
    """

    method: Final = KERNEL

    def __init__(
        self,
        *,
        target: Target = Target(),  # noqa: B008 - frozen
        nsamples: int = 1024,
        rounds: int = 8,
        background_rows: int = 50,
        seed: int = 0,
    ) -> None:
        if rounds < 1 or nsamples < rounds or background_rows < 1:
            raise ConfigError(
                f"{KERNEL}: nsamples {nsamples}, rounds {rounds}, background_rows {background_rows}",
                why="there is at least one round, one coalition in each, and one background row",
                fix="correct them",
            )
        self.target = target
        self.seed = seed
        self._nsamples = nsamples
        self._rounds = rounds
        self._background_rows = background_rows
        self._state: Fitted | None = None
        self._predictor: Predictor | None = None

    @property
    def schema(self) -> FeatureSchema:
        return fitted(self._state, KERNEL).background.schema

    @property
    def digest(self) -> str:
        return fitted(self._state, KERNEL).manifest.digest

    @property
    def model_digest(self) -> str:
        return self._model().digest

    @property
    def background_digest(self) -> str:
        return fitted(self._state, KERNEL).manifest.reference_digest

    def fit(self, background: Frame, predictor: Predictor | None = None) -> Self:
        kept = sample(background, self._background_rows, self.seed)
        params = {
            "nsamples": self._nsamples,
            "rounds": self._rounds,
            "background_rows": self._background_rows,
            "seed": self.seed,
        }
        self._state = Fitted.of(kept, method=KERNEL, target=self.target, params=params)
        self._predictor = predictor
        return self

    def explain(self, row: Frame, *, deadline: Deadline) -> Explained:
        state, predictor = fitted(self._state, KERNEL), self._model()
        row = one_row(row, state.background.schema, KERNEL)

        def model(rows: Matrix) -> Matrix:
            return self.target.values(predictor.predict(from_matrix(rows, row), deadline=deadline))

        found = estimate(
            model,
            state.background.matrix(),
            row.matrix(),
            nsamples=self._nsamples,
            rounds=self._rounds,
            seed=self.seed,
            deadline=deadline,
        )
        return Explained(
            method=KERNEL,
            output_name=self.target.output,
            output_unit=self.target.unit,
            prediction=found.prediction,
            base_value=found.base,
            attributions=_attributions(row, found.phi),
            fidelity=found.fidelity,
            error_bound=found.error_bound,
            status="ok" if found.complete else "deadline",
        )

    def save(self, path: Path) -> None:
        fitted(self._state, KERNEL).write(path)

    @classmethod
    def load(cls, path: Path, *, predictor: Predictor | None = None) -> Self:
        state = Fitted.read(path, method=KERNEL)
        explainer = state.unfitted(cls)
        explainer._state, explainer._predictor = state, predictor
        return explainer

    def _model(self) -> Predictor:
        if self._predictor is None:
            raise NoModel(KERNEL)
        return self._predictor


def _attributions(row: Frame, phi: Matrix) -> tuple[Attribution, ...]:
    return tuple(
        Attribution(feature=name, value=value, contribution=float(one))
        for name, value, one in zip(row.schema.names, value_texts(row), phi.tolist(), strict=True)
    )
