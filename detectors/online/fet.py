"""Online drift of categorical features by windows of Fisher's exact test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from detectors.compiled import compiled
from detectors.drift.univariate import CODE_OFFSET, Counts, category_counts
from detectors.online.features import WindowedFeatureDrift
from detectors.online.tracker import Floats, Windowed
from govern.schema import FeatureSchema

#: As in `detectors.drift.fisher`: tables this much more probable than the one seen count as no more probable.
_SLACK = 1.0 + 1e-7
#: Below what a float64 holds, one p-value is as good as another.
_LEAST = 1e-300


def _surprises(before: Counts, m: int, size: int, factorials: Floats) -> Floats:
    """-log10 of Fisher's two-sided p-value: (categories, size + 1), by how often a window has the category."""
    found = np.empty((len(before), size + 1))
    weights = np.empty(size + 1)
    for category in range(len(before)):
        for seen in range(size + 1):
            having = before[category] + seen
            lowest, highest = max(0, having - m), min(having, size)
            largest = -np.inf
            for k in range(lowest, highest + 1):
                weights[k] = -(
                    factorials[k] + factorials[having - k] + factorials[size - k] + factorials[m - having + k]
                )
                largest = max(largest, weights[k])
            total = 0.0
            for k in range(lowest, highest + 1):
                weights[k] = np.exp(weights[k] - largest)
                total += weights[k]
            tail = 0.0
            for k in range(lowest, highest + 1):
                if weights[k] <= weights[seen] * _SLACK:
                    tail += weights[k]
            found[category, seen] = -np.log10(max(min(1.0, tail / total), _LEAST))
    return found


def _follow_counts(codes: npt.NDArray[np.int64], before: int, sizes: Counts, tables: Floats, kinds: Counts) -> Floats:
    """The largest surprise of a feature's categories and windows: (rows - before, features)."""
    rows, features = codes.shape
    found = np.full((rows - before, features), np.nan)
    for feature in range(features):
        for which in range(len(sizes)):
            size = sizes[which]
            counts = np.zeros(kinds[feature], dtype=np.int64)
            for row in range(rows):
                counts[codes[row, feature]] += 1
                if row >= size:
                    counts[codes[row - size, feature]] -= 1
                if row < before or row + 1 < size:
                    continue
                largest = 0.0
                for code in range(kinds[feature]):
                    largest = max(largest, tables[feature, which, code, counts[code]])
                if not found[row - before, feature] >= largest:
                    found[row - before, feature] = largest
    return found


_tables = compiled(_surprises)
_follow = compiled(_follow_counts)


class CountWindows(Windowed):
    """Windows of each of d categorical features: the most surprising count of a category, by Fisher's exact test.

    "Missing" and "unseen" are categories, too. What each count is worth is computed once, so a row costs additions and
    look-ups whatever the reference.

    Args:
        reference: (n, d) codes.
        categories: of each feature, how many the schema lists.
        sizes: of the windows, rows.
    """

    def __init__(self, reference: Floats, categories: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__(sizes, reference.shape[1])
        m, largest = len(reference), max(sizes)
        factorials = gammaln(np.arange(m + largest + 2) + 1.0)
        self._kinds = np.array(categories, dtype=np.int64) + CODE_OFFSET
        self._table = np.zeros((len(categories), len(sizes), int(self._kinds.max()), largest + 1))
        for feature, listed in enumerate(categories):
            counts = category_counts(reference[:, feature].astype(np.int32), listed)
            for which, size in enumerate(self.sizes.tolist()):
                self._table[feature, which, : len(counts), : size + 1] = _tables(counts, m, size, factorials)

    def prepare(self, rows: Floats) -> Floats:
        return rows + CODE_OFFSET

    def _statistics(self, prepared: Floats, before: int) -> Floats:
        return _follow(prepared.astype(np.int64), before, self.sizes, self._table, self._kinds)


class OnlineFETDrift(WindowedFeatureDrift):
    """Fisher's exact test of each category's count among the last rows, at every row; other features are not looked at.

    The statistic of a feature is -log10 of the smallest two-sided p-value over its categories and the windows. It is
    compared with a threshold, not read as a p-value: many are looked at.

    Args:
        ert: expected run time without change, rows. Counts are whole numbers, so a run may take longer.
        windows: sizes of the test windows in rows, "20,50": short ones see large changes soon, long ones small ones.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Fisher (1935): The logic of inductive inference. J. R. Stat. Soc. 98, 39-82; Ross, Tasoulis, Adams (2012):
        Sequential monitoring of a Bernoulli sequence when the pre-change parameter is unknown. Comput. Stat. 28,
        463-479; and `detectors.online.calibration`.
    """

    method = "online_fet"
    kinds = ("categorical",)
    statistic_name = "surprise"

    def __init__(
        self, *, ert: int = 1_000, windows: str | int = "20,50", max_reference: int = 100_000, seed: int = 0
    ) -> None:
        super().__init__(ert=ert, windows=windows, max_reference=max_reference, seed=seed)

    def _track(self, reference: Floats, schema: FeatureSchema) -> CountWindows:
        categories = [len(feature.categories) for feature in schema.features if feature.kind == "categorical"]
        return CountWindows(reference, categories, self.windows)
