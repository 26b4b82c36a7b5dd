"""What the multivariate drift detectors share: one test of whole rows, and the features that an alarm is due to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from detectors.base import Array, Fitted, Param, Stored, require_at_least, require_fraction, require_kinds, require_rows
from detectors.coding import Coding
from detectors.drift.feature_test import MIN_ROWS
from detectors.drift.tabular import TabularDrift
from govern.detection import WindowScores
from govern.frame import Frame
from govern.record import FeatureResult, Kind

Floats = npt.NDArray[np.float64]


class JointTest(Protocol):
    """A two-sample test against a reference."""

    def run(self, window: Floats) -> tuple[float, float]:
        """(n, D) points -> the statistic, larger where the samples differ more, and its p-value."""
        ...


class JointDrift(Stored):
    """One test of whole rows of numeric and categorical features, as points (`Coding`); others are not looked at.

    The window drifts when its p-value is below `p_val`. Each feature is tested by itself, too (`TabularDrift`): those
    that differ are named in an alarm. None is named where only the way in which features go together changed. A test of
    a feature raises no alarm, so the number of features does not weaken the joint test.

    Args:
        p_val: significance level.
        max_reference: rows of the reference to keep, at most; drawn by the seed.
        seed: of that draw, and of what is random in the test: the same window gives the same p-value, bit for bit.
        own: further parameters of the class, as its constructor takes them.
    """

    kind: Final[Kind] = "drift"
    min_instances = MIN_ROWS
    needs_outputs: Final[tuple[str, ...]] = ()
    #: Arrays that the class stores beside the columns of the rows; by what `_beside` calls them.
    stored_beside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, p_val: float, max_reference: int, seed: int, **own: Param) -> None:
        self.p_val = require_fraction("p_val", p_val, method=self.method)
        self.max_reference = require_at_least("max_reference", max_reference, 2 * MIN_ROWS, method=self.method)
        self.seed = seed
        self._params: dict[str, Param] = {"p_val": p_val, "max_reference": max_reference, "seed": seed, **own}

    @abstractmethod
    def _against(self, reference: Floats) -> JointTest:
        """The test against (m, D) points, which come in random order.

        Raises:
            ArtifactError: what is stored `_beside` them does not belong to them.
        """

    def _beside(self, reference: Floats) -> Mapping[str, Array]:
        """What is stored beside the rows whose (m, D) points these are.

        Raises:
            BadInput: a parameter does not suit them.
        """
        return {}

    def fit(self, reference: Frame) -> Self:
        """Keep rows of the reference.

        Raises:
            BadInput: too few rows, no numeric or categorical feature, or one with too few values.
        """
        require_rows(reference, 2 * MIN_ROWS, method=self.method, what="reference")
        columns = require_kinds(reference.schema, "numeric", "categorical", method=self.method)
        order = np.random.default_rng(self.seed).permutation(len(reference))
        kept = reference.take(order[: self.max_reference])
        beside = self._beside(Coding.of(kept, columns).points(kept)) if self.stored_beside else {}
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params=self._params,
                arrays={**{str(position): kept.columns[position] for position in columns}, **beside},
            )
        )
        return self

    def score(self, window: Frame) -> WindowScores:
        """Test the window against the reference, and each of its features.

        Raises:
            BadInput: fewer than `min_instances` rows, or columns that are not the reference's.
        """
        self._require_window(window)
        points = self._coding.points(window)
        statistic, p_value = self._test.run(points)
        alarm = p_value < self.p_val
        return WindowScores(
            alarm=alarm,
            features=self._told(window, points, alarm=alarm),
            statistic=statistic,
            p_value=p_value,
            threshold=self.p_val,
        )

    def _told(self, window: Frame, points: Floats, *, alarm: bool) -> tuple[FeatureResult, ...]:
        """What is said of each feature; none drifts without an alarm."""
        features = self._features.score(window).features
        return features if alarm else tuple(replace(one, is_drift=False) for one in features)

    def _restore(self, state: Fitted) -> None:
        arrays = state.arrays()
        self._stored = {name: arrays.pop(name) for name in self.stored_beside if name in arrays}
        kept = _frame(state, arrays)
        columns = [int(position) for position in arrays]
        self._coding = Coding.of(kept, columns)
        self._features = TabularDrift(p_val=self.p_val, seed=self.seed).fit(kept)
        points = self._coding.points(kept)
        self._test = self._against(points)
        self._state = state
        # What is compiled at its first call is compiled here, so that the first window does not wait for it.
        self._test.run(points[:MIN_ROWS])


def _frame(state: Fitted, arrays: Mapping[str, Array]) -> Frame:
    """The kept rows; a feature that is not looked at is a column of zeros.

    Raises:
        ArtifactError: an array is no feature's.
    """
    width = len(state.schema.features)
    if not arrays or not all(name.isdecimal() and int(name) < width for name in arrays):
        raise state.damaged(f"its arrays are {sorted(arrays)}, not columns of {width} features")
    zeros = np.zeros(len(next(iter(arrays.values()))))
    return Frame(state.schema, tuple(arrays.get(str(position), zeros) for position in range(width)))
