"""alibi's explainers behind our interface. alibi >= 0.9.5 is under the Business Source License 1.1: see NOTICE."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from alibi.exceptions import PredictorCallError
from alibi.explainers import AnchorTabular as Anchors

from explainers.base import Explained, NoModel
from explainers.deadline import Deadline
from explainers.fitted import Fitted, fitted, one_row, sample
from explainers.neighbourhood import Condition, Grid, Matrix, Neighbourhood, Rule, tighten
from explainers.numpy_seed import seeded
from explainers.predictor import Predictor
from explainers.target import Target
from govern.errors import BadInput, GovernError
from govern.frame import UNSEEN, Frame
from govern.record import AnchorRule
from govern.schema import FeatureSchema

METHOD: Final = "alibi.AnchorTabular"
_PERCENTILES: Final = (25, 50, 75)
#: Rows on which the base value is averaged.
_BASE_ROWS: Final = 256

_EQUAL: Final = re.compile(r"f(\d+) = (\d+)")
_RANGE: Final = re.compile(r"(?:(\S+) < )?f(\d+)(?: <= (\S+))?")
_ABOVE: Final = re.compile(r"f(\d+) > (\S+)")


class AlibiAnchorTabular:
    """`alibi.explainers.AnchorTabular`.

    Its precision means something else than that of the native `anchors`: alibi draws whole background rows that
    fulfil the anchor where there are enough of them, the native one replaces the anchored features in any row, as
    the paper does. `precision` is alibi's estimate. alibi returns no bound, but it accepts an anchor only when its
    lower bound (with probability 1 - delta) is above threshold - tau, so that is `precision_lower`; 0 when it
    accepted none. `n_samples` is not told: 0. `fidelity` is the precision, `error_bound` its distance to the lower
    bound. alibi has no result before its end: a deadline that passes is an error.

    Parameters:
        target: what is explained; its `answers` are what must stay the same.
        threshold, delta, tau, batch_size, beam_size: as alibi's `AnchorTabular.explain` has them.
        background_rows: rows of the reference that are kept as the background.
        seed: of the background sample and of the search.
    """

    method: Final = METHOD

    def __init__(
        self,
        *,
        target: Target = Target(),  # noqa: B008 - frozen
        threshold: float = 0.95,
        delta: float = 0.1,
        tau: float = 0.15,
        batch_size: int = 100,
        beam_size: int = 1,
        background_rows: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.target = target
        self.seed = seed
        self._background_rows = background_rows
        self._search: dict[str, Any] = {
            "threshold": threshold,
            "delta": delta,
            "tau": tau,
            "batch_size": batch_size,
            "beam_size": beam_size,
        }
        self._state: Fitted | None = None
        self._predictor: Predictor | None = None

    @property
    def schema(self) -> FeatureSchema:
        return fitted(self._state, METHOD).background.schema

    @property
    def digest(self) -> str:
        return fitted(self._state, METHOD).manifest.digest

    @property
    def model_digest(self) -> str:
        return self._model().digest

    @property
    def background_digest(self) -> str:
        return fitted(self._state, METHOD).manifest.reference_digest

    def fit(self, background: Frame, predictor: Predictor | None = None) -> Self:
        kept = sample(background, self._background_rows, self.seed)
        _require_complete(kept, "the background")
        params = {**self._search, "background_rows": self._background_rows, "seed": self.seed}
        self._state = Fitted.of(kept, method=METHOD, target=self.target, params=params)
        self._predictor = predictor
        return self

    def explain(self, row: Frame, *, deadline: Deadline) -> Explained:
        state, predictor = fitted(self._state, METHOD), self._model()
        row = one_row(row, state.background.schema, METHOD)
        x = row.matrix()
        _require_complete(row, "the row")
        background = state.background.matrix()
        grid = Grid(state.background.schema, _cuts(state.background))
        around = Neighbourhood(state.background, grid, row)

        def answers(rows: Matrix) -> npt.NDArray[np.intp]:
            outputs = predictor.predict(around.frame(np.asarray(rows, dtype=np.float64)), deadline=deadline)
            return self.target.answers(outputs)

        first = Frame.concat([row, around.frame(background[:_BASE_ROWS])])
        values = self.target.values(predictor.predict(first, deadline=deadline))
        with seeded(self.seed):
            anchors = _alibi(answers, grid.schema, self.seed).fit(background, disc_perc=_PERCENTILES)
            found = anchors.explain(x[0], **self._search)
        rule = _rule(found.anchor, grid)
        precision = float(found.precision)
        bound = max(0.0, self._search["threshold"] - self._search["tau"]) if found.raw["success"] else 0.0
        predicates = grid.predicates(rule, row)
        return Explained(
            method=METHOD,
            output_name=self.target.output,
            output_unit=self.target.unit,
            prediction=float(values[0]),
            base_value=float(values[1:].mean()),
            predicates=predicates,
            anchor=AnchorRule(
                predicates=tuple(str(predicate) for predicate in predicates),
                precision=precision,
                precision_lower=bound,
                coverage=around.coverage(rule),
            ),
            fidelity=precision,
            error_bound=precision - bound,
        )

    def save(self, path: Path) -> None:
        fitted(self._state, METHOD).write(path)

    @classmethod
    def load(cls, path: Path, *, predictor: Predictor | None = None) -> Self:
        state = Fitted.read(path, method=METHOD)
        explainer = state.unfitted(cls)
        explainer._state, explainer._predictor = state, predictor
        return explainer

    def _model(self) -> Predictor:
        if self._predictor is None:
            raise NoModel(METHOD)
        return self._predictor


def _alibi(answers: Callable[[Matrix], npt.NDArray[np.intp]], schema: FeatureSchema, seed: int) -> Anchors:
    """alibi's explainer under names that cannot be mistaken for predicates."""
    codes = {
        j: [str(code) for code in range(len(feature.categories))]
        for j, feature in enumerate(schema.features)
        if feature.kind == "categorical"
    }
    names = [f"f{j}" for j in range(len(schema.features))]
    try:
        return Anchors(answers, feature_names=names, categorical_names=codes, dtype=np.float64, seed=seed)
    except PredictorCallError as error:  # alibi's trial call failed
        if isinstance(error.__cause__, GovernError):
            raise error.__cause__ from error
        raise


def _require_complete(frame: Frame, what: str) -> None:
    unseen = any((column == UNSEEN).any() for column in frame.columns if column.dtype.kind == "i")
    if unseen or np.isnan(frame.matrix()).any():
        raise BadInput(
            f"{METHOD}: {what} has a missing value or an unseen category",
            why="alibi's search has no predicate for either",
            fix="use the native explainer `anchors`, which has",
        )


def _cuts(background: Frame) -> tuple[Matrix | None, ...]:
    """The quartiles as alibi's discretiser computes them."""
    return tuple(
        None if feature.kind == "categorical" else np.unique(np.percentile(column, _PERCENTILES))
        for feature, column in zip(background.schema.features, background.matrix().T, strict=True)
    )


def _rule(names: list[str], grid: Grid) -> Rule:
    """alibi's predicates, in words, as a rule. It writes bounds with two decimals: the nearest quartile is meant."""
    rule: Rule = ()
    for name in names:
        rule = tighten(rule, _condition(name, grid)) or rule
    return rule


def _condition(name: str, grid: Grid) -> Condition:
    if match := _EQUAL.fullmatch(name):
        return int(match[1]), int(match[2]), int(match[2])
    if match := _ABOVE.fullmatch(name):
        j, low, high = int(match[1]), match[2], None
    else:
        match = _RANGE.fullmatch(name)
        assert match is not None, f"alibi wrote {name!r}, which is none of its forms"
        j, low, high = int(match[2]), match[1], match[3]
    cuts = grid.cuts[j]
    assert cuts is not None
    return (
        j,
        0 if low is None else int(np.abs(cuts - float(low)).argmin()) + 1,
        len(cuts) if high is None else int(np.abs(cuts - float(high)).argmin()),
    )
