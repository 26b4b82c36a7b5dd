"""Drift of whole rows by a classifier that tries to tell window from reference."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.base import require_at_least
from detectors.distances import median_gamma
from detectors.drift.joint import JointDrift
from detectors.drift.separation import Separation
from govern.frame import Frame
from govern.record import FeatureResult

Floats = npt.NDArray[np.float64]

#: Labellings that tell an important feature from one that is not, at least: twice as many as 1 % needs.
_DRAWS: Final = 199


class ClassifierDrift(JointDrift):
    """The classifier two-sample test: whether a classifier tells rows of the window from rows of the reference.

    Five classifiers, each trained on four fifths of the rows, judge the fifth that they never saw. The statistic is the
    area under their ROC curve: 0.5 where nothing distinguishes the window, 1 where everything does. They are ridge
    regressions on the coded rows and on random cosines of three widths, so that what features do together is learnt,
    too; and that training anew for random labels is cheap enough for an exact test, at every window size. (Tests which
    take the held-out predictions for independent, as the binomial one does, alarm too often: the folds share rows.)

    An alarm names the features without which the classifiers lose: those that matter only together as well.

    Args:
        p_val: significance level.
        permutations: that the p-value rests on, at most; the smallest is 1 / (permutations + 1).
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept, of the cosines and of the permutations.

    References:
        Lopez-Paz, Oquab (2017): Revisiting classifier two-sample tests. ICLR;
        Kim, Ramdas, Singh, Wasserman (2021): Classification accuracy as a proxy for two-sample testing. Ann. Stat. 49,
        411-434 (permutation instead of the binomial null).
    """

    method = "classifier"

    def __init__(
        self, *, p_val: float = 0.05, permutations: int = 999, max_reference: int = 1_000, seed: int = 0
    ) -> None:
        self.permutations = require_at_least("permutations", permutations, 19, method=self.method)
        super().__init__(p_val=p_val, max_reference=max_reference, seed=seed, permutations=permutations)

    def _against(self, reference: Floats) -> Separation:
        self._separation = Separation(
            reference, gamma=median_gamma(reference), permutations=self.permutations, seed=self.seed
        )
        return self._separation

    def _told(self, window: Frame, points: Floats, *, alarm: bool) -> tuple[FeatureResult, ...]:
        """Importances in an alarm; in a quiet window nothing was learnt that a feature could be important for."""
        names = [window.schema.features[position].name for position in self._coding.columns.tolist()]
        lost = p_values = np.full(len(names), np.nan)
        if alarm:
            draws = max(_DRAWS, math.ceil(2 / self.p_val))
            lost, p_values = self._separation.importances(points, self._coding.widths, draws)
        return tuple(
            FeatureResult(
                feature=name,
                statistic_name="auc_lost",
                statistic=float(one),
                p_value=float(p_value),
                effect_size=float(one),
                effect_size_name="auc_lost",
                threshold=self.p_val,
                n=len(window),
                is_drift=bool(p_value < self.p_val),
            )
            for name, one, p_value in zip(names, lost, p_values, strict=True)
        )
