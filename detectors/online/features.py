"""What online detectors share that follow a statistic of each feature."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from detectors.base import Param, require_at_least
from detectors.online.detector import OnlineDrift
from detectors.online.tracker import Arrays, Floats, horizon_of
from govern.detection import WindowScores
from govern.errors import BadInput
from govern.record import FeatureResult


class OnlineFeatureDrift(OnlineDrift):
    """Follows one statistic for each feature; all share the thresholds, so the statistics must be on one scale."""

    statistic_name: ClassVar[str]

    def _told(self, statistics: Floats, threshold: float, known: Arrays, *, alarm: bool) -> WindowScores:
        largest = float(np.fmax.reduce(statistics))
        return WindowScores(
            alarm=alarm,
            features=tuple(
                FeatureResult(
                    feature=name,
                    statistic_name=self.statistic_name,
                    statistic=statistic,
                    p_value=math.nan,
                    effect_size=math.nan,
                    threshold=threshold,
                    n=self._n(known, i),
                    is_drift=statistic > threshold,
                )
                for i, (name, statistic) in enumerate(zip(self._names(self.schema), statistics.tolist(), strict=True))
            ),
            statistic=largest,
            threshold=threshold,
        )

    @abstractmethod
    def _n(self, known: Arrays, feature: int) -> int:
        """Values of the feature that its statistic rests on."""


class WindowedFeatureDrift(OnlineFeatureDrift):
    """Compares windows of each feature with the reference.

    Args:
        windows: sizes of the test windows in rows, separated by commas.
    """

    def __init__(self, *, ert: int, windows: str | int, max_reference: int, seed: int, **own: Param) -> None:
        self.windows = window_sizes(windows, method=self.method)
        super().__init__(ert=ert, max_reference=max_reference, seed=seed, windows=windows, **own)

    @property
    def _horizon(self) -> int:
        return horizon_of(self.windows)

    def _n(self, known: Arrays, feature: int) -> int:
        return int(np.count_nonzero(~np.isnan(known[0][:, feature])))


def window_sizes(text: str | int, *, method: str) -> tuple[int, ...]:
    """Of a parameter such as "20,50", in rising order.

    Raises:
        BadInput: it is no such list, or a window is too small to say anything.
    """
    try:
        sizes = tuple(sorted({int(part) for part in str(text).split(",")}))
    except ValueError as error:
        raise BadInput(
            f"{method}: windows is {text!r}",
            why="it is the windows' sizes in rows, separated by commas",
            fix='write for example "20,50"',
        ) from error
    return tuple(require_at_least("windows", size, 5, method=method) for size in sizes)
