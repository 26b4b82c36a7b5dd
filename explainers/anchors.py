"""Anchors for tables: a short rule under which the model's answer stays the same.

Ribeiro, Singh and Guestrin, "Anchors: High-Precision Model-Agnostic Explanations", AAAI 2018.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from explainers.base import Explained, NoModel
from explainers.beam import Settings, search
from explainers.deadline import Deadline
from explainers.fitted import Fitted, fitted, one_row, sample
from explainers.neighbourhood import Grid, Matrix, Neighbourhood
from explainers.predictor import Predictor
from explainers.target import Target
from govern.errors import ConfigError
from govern.frame import Frame
from govern.record import AnchorRule
from govern.schema import FeatureSchema

METHOD: Final = "anchors"
#: Rows on which the base value is averaged.
_BASE_ROWS: Final = 256


class AnchorTabular:
    """An anchor: conditions on some features under which the model gives this row's answer with precision >= tau.

    `Explained.anchor.precision` is measured on rows of D(z|A) (see `explainers.neighbourhood`), `precision_lower` is
    its lower bound (all bounds of one search hold together with probability 1 - delta), `coverage` the share of
    background rows that fulfil the rule. `fidelity` is the precision, `error_bound` its distance to the lower bound.
    Where no rule reaches tau the most precise one is returned, and its precision says so. When the deadline passes,
    the best rule so far is returned with the bounds it has.

    Parameters:
        target: what is explained; its `answers` are what must stay the same.
        tau: the precision asked for.
        slack: a rule is taken when its precision is shown to be above tau - slack.
        delta: the probability that a bound fails.
        epsilon: how much worse than the true best the rules kept at a level may be.
        beam: rules kept at a level.
        batch: rows drawn for a rule at first.
        max_conditions: the longest rule that is tried.
        background_rows: rows of the reference that are kept as the background.
        seed: of the background sample and of the search.
    """

    method: Final = METHOD

    def __init__(
        self,
        *,
        target: Target = Target(),  # noqa: B008 - frozen
        tau: float = 0.95,
        slack: float = 0.05,
        delta: float = 0.1,
        epsilon: float = 0.15,
        beam: int = 4,
        batch: int = 128,
        max_conditions: int = 6,
        background_rows: int = 10_000,
        seed: int = 0,
    ) -> None:
        if not (0 < tau < 1 and 0 < slack <= tau and 0 < delta < 1 and 0 < epsilon < 1):
            raise ConfigError(
                f"{METHOD}: tau {tau}, slack {slack}, delta {delta}, epsilon {epsilon}",
                why="all lie between 0 and 1, and slack is at most tau",
                fix="correct them",
            )
        if min(beam, batch, max_conditions, background_rows) < 1:
            raise ConfigError(
                f"{METHOD}: beam {beam}, batch {batch}, max_conditions {max_conditions}, rows {background_rows}",
                why="each is at least 1",
                fix="correct them",
            )
        self.target = target
        self.seed = seed
        self._background_rows = background_rows
        self._settings = Settings(
            tau=tau, slack=slack, delta=delta, epsilon=epsilon, beam=beam, batch=batch, max_conditions=max_conditions
        )
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
        params = {**asdict(self._settings), "background_rows": self._background_rows, "seed": self.seed}
        kept = sample(background, self._background_rows, self.seed)
        self._bind(Fitted.of(kept, method=METHOD, target=self.target, params=params), predictor)
        return self

    def explain(self, row: Frame, *, deadline: Deadline) -> Explained:
        state, predictor = fitted(self._state, METHOD), self._model()
        row = one_row(row, state.background.schema, METHOD)
        around = Neighbourhood(state.background, self._grid, row)
        rng = np.random.default_rng(self.seed)
        first = Frame.concat([row, around.frame(around.draw((), _BASE_ROWS, rng))])
        outputs = predictor.predict(first, deadline=deadline)
        answer = self.target.answers(outputs)[0]
        values = self.target.values(outputs)

        def same(rows: Matrix) -> npt.NDArray[np.bool_]:
            answers = self.target.answers(predictor.predict(around.frame(rows), deadline=deadline))
            return np.asarray(answers == answer)

        found = search(around, same, self._settings, rng, deadline)
        predicates = self._grid.predicates(found.rule, row)
        return Explained(
            method=METHOD,
            output_name=self.target.output,
            output_unit=self.target.unit,
            prediction=float(values[0]),
            base_value=float(values[1:].mean()),
            predicates=predicates,
            anchor=AnchorRule(
                predicates=tuple(str(predicate) for predicate in predicates),
                precision=found.precision,
                precision_lower=found.lower,
                coverage=found.coverage,
                n_samples=found.n,
            ),
            fidelity=found.precision,
            error_bound=found.precision - found.lower,
            status="ok" if found.complete else "deadline",
        )

    def save(self, path: Path) -> None:
        fitted(self._state, METHOD).write(path)

    @classmethod
    def load(cls, path: Path, *, predictor: Predictor | None = None) -> Self:
        state = Fitted.read(path, method=METHOD)
        explainer = state.unfitted(cls)
        explainer._bind(state, predictor)
        return explainer

    def _bind(self, state: Fitted, predictor: Predictor | None) -> None:
        self._state = state
        self._predictor = predictor
        self._grid = Grid.of(state.background)

    def _model(self) -> Predictor:
        if self._predictor is None:
            raise NoModel(METHOD)
        return self._predictor
