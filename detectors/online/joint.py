"""What online detectors share that follow whole rows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np

from detectors.base import Param
from detectors.coding import Coding
from detectors.drift.feature_test import MIN_ROWS
from detectors.drift.tabular import TabularDrift
from detectors.online.calibration import Rows
from detectors.online.detector import OnlineDrift
from detectors.online.features import window_sizes
from detectors.online.means import MeanWindows, Moments, on_grid
from detectors.online.tracker import Arrays, Floats, Tracker, horizon_of
from govern.detection import WindowScores
from govern.frame import Frame
from govern.record import FeatureResult
from govern.schema import FeatureSchema

#: Significance level of the tests that name features: after Bonferroni's correction over them, as `tabular` has it.
_NAMED_AT = 0.05


class Coordinates(Protocol):
    """In which squared distances of means say how far two samples are apart."""

    def of(self, points: Floats) -> Floats:
        """(n, D) -> (n, c), each row by itself."""
        ...


class OnlineJointDrift(OnlineDrift):
    """Follows one statistic of whole rows of numeric and categorical features, as points (`Coding`).

    At an alarm each feature of the rows in the largest window is tested by itself (`TabularDrift`), and those that
    differ are named: none, where only the way in which features go together changed, or where too few rows are new.

    Args:
        windows: sizes of the test windows in rows, separated by commas.
        own: further parameters of the class, as its constructor takes them.
    """

    kinds = ("numeric", "categorical")

    def __init__(self, *, ert: int, windows: str | int, max_reference: int, seed: int, **own: Param) -> None:
        self.windows = window_sizes(windows, method=self.method)
        params: dict[str, Param] = {"windows": windows, **own}
        super().__init__(ert=ert, max_reference=max_reference, seed=seed, **params)

    @abstractmethod
    def _coordinates(self, points: Floats) -> tuple[Coordinates, int]:
        """Of the reference's points; and how many of the first it used up, so that they are compared with nothing."""

    @property
    def _horizon(self) -> int:
        return horizon_of(self.windows)

    def _track(self, reference: Floats, schema: FeatureSchema) -> Tracker:
        embed, used = self._embedding(reference, schema)
        self._features = TabularDrift(p_val=_NAMED_AT, seed=self.seed).fit(frame_of(reference, schema))
        return MeanWindows(Moments.of(on_grid(embed(reference[used:]))), self.windows, embed, reference.shape[1])

    def _simulated(self, reference: Floats, schema: FeatureSchema) -> tuple[Callable[[Rows], Tracker], Floats]:
        # The coordinates are those of the whole reference: what matters of a cut is with which mean it is compared.
        embed, used = self._embedding(reference, schema)
        placed = on_grid(embed(reference[used:]))
        moments, width = Moments.of(placed), placed.shape[1]
        return lambda apart: MeanWindows(moments.without(placed[apart]), self.windows, np.asarray, width), placed

    def _embedding(self, reference: Floats, schema: FeatureSchema) -> tuple[Callable[[Floats], Floats], int]:
        coding, points = self._coded(reference, schema)
        coordinates, used = self._coordinates(points)
        return lambda rows: coordinates.of(coding.points(frame_of(rows, schema))), used

    def _coded(self, reference: Floats, schema: FeatureSchema) -> tuple[Coding, Floats]:
        """The coding of rows like the reference's, and its points."""
        frame = frame_of(reference, schema)
        coding = Coding.of(frame, [i for i, one in enumerate(schema.features) if one.kind in self.kinds])
        return coding, coding.points(frame)

    def _told(self, statistics: Floats, threshold: float, known: Arrays, *, alarm: bool) -> WindowScores:
        (rows,) = known
        features: tuple[FeatureResult, ...]
        if alarm and len(rows) >= MIN_ROWS:
            features = self._features.score(frame_of(rows, self.schema)).features
        else:
            features = tuple(
                FeatureResult(
                    feature=name, statistic_name="untested", statistic=math.nan, p_value=math.nan, n=len(rows)
                )
                for name in self._names(self.schema)
            )
        return WindowScores(
            alarm=alarm,
            features=features,
            statistic=float(statistics[0]),
            threshold=threshold,
        )


def frame_of(rows: Floats, schema: FeatureSchema) -> Frame:
    """The rows that `rows_of` made of numeric and categorical features; another is a column of zeros."""
    columns, at = [], 0
    for feature in schema.features:
        if feature.kind not in OnlineJointDrift.kinds:
            columns.append(np.zeros(len(rows)))
            continue
        columns.append(rows[:, at].astype(np.int32) if feature.kind == "categorical" else rows[:, at])
        at += 1
    return Frame(schema, tuple(columns))
