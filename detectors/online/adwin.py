"""Online drift of numeric features by a window that grows as long as nothing changes."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled
from detectors.online.features import OnlineFeatureDrift
from detectors.online.levels import Ranks
from detectors.online.tracker import Arrays, Floats
from govern.schema import FeatureSchema

#: Buckets of a size before two of them become one of the next; as in the article. A window of n rows has some
#: 5 log2(n / 5), and cuts are looked for between them.
BUCKETS: Final = 5
#: Sizes of buckets, 1 to 2^25: a hundred million rows without change, and the last of them are still summed.
SIZES: Final = 26
#: Rows on either side of a cut, at least: chance in smaller ones would set the threshold where values are 0 and 1, and
#: hide cuts that last (docs/detection-quality.md).
LEAST: Final = 30
#: Cuts at larger distances come ever more rarely: a cut at k rows changes its mind every k rows or so.
_HORIZON: Final = 300


def _follow_buckets(ranks: Floats, sums: Floats, held: npt.NDArray[np.int64]) -> Floats:
    """The most significant cut: (rows, features). Of each size, `sums` has the newest first, and `held` how many."""
    rows, features = ranks.shape
    found = np.full((rows, features), np.nan)
    for feature in range(features):
        for row in range(rows):
            rank = ranks[row, feature]
            if np.isnan(rank):
                continue
            carried = rank
            for size in range(SIZES):
                kept = held[feature, size]
                for bucket in range(kept, 0, -1):
                    sums[feature, size, bucket] = sums[feature, size, bucket - 1]
                sums[feature, size, 0] = carried
                held[feature, size] = kept + 1
                if kept < BUCKETS:
                    break
                held[feature, size] = kept - 1
                carried = sums[feature, size, kept] + sums[feature, size, kept - 1]
                sums[feature, size, kept - 1 :] = 0.0
            # Summed anew, so that what a row says does not depend on where the stream was cut.
            seen, total = 0, 0.0
            for size in range(SIZES):
                for bucket in range(held[feature, size]):
                    seen += 1 << size
                    total += sums[feature, size, bucket]
            recent, level, largest = 0, 0.0, -1.0
            for size in range(SIZES):
                for bucket in range(held[feature, size]):
                    recent += 1 << size
                    level += sums[feature, size, bucket]
                    before = seen - recent
                    if recent < LEAST or before < LEAST:
                        continue
                    apart = abs(level / recent - (total - level) / before)
                    largest = max(largest, apart * np.sqrt(recent * before / seen))
            if largest >= 0.0:
                found[row, feature] = largest
    return found


_follow = compiled(_follow_buckets)


class Buckets:
    """All rows since the start in sums of 1, 2, 4 ... ranks; and how significant the best cut of them in two is.

    Args:
        reference: (n, d), NaN is missing.
    """

    def __init__(self, reference: Floats) -> None:
        self._ranks = Ranks(reference)
        self._width = reference.shape[1]

    def prepare(self, rows: Floats) -> Floats:
        return self._ranks.of(rows)

    def simulate(self, prepared: Floats) -> Floats:
        return _follow(prepared, *self.begin())

    def begin(self) -> Arrays:
        return np.zeros((self._width, SIZES, BUCKETS + 1)), np.zeros((self._width, SIZES), dtype=np.int64)

    def walk(self, known: Arrays, rows: Floats) -> tuple[Floats, Arrays]:
        sums, held = known[0].copy(), known[1].copy()
        return _follow(self.prepare(rows), sums, held), (sums, held)

    def accepts(self, known: Arrays, rows: int) -> bool:
        expected = self.begin()
        if [(one.dtype, one.shape) for one in known] != [(one.dtype, one.shape) for one in expected]:
            return False
        sums, held = known
        return bool(np.isfinite(sums).all() and (held >= 0).all() and (held <= BUCKETS).all())


class AdwinDrift(OnlineFeatureDrift):
    """Whether the level of a numeric feature changed at any time since the start, by an adaptive window.

    All rows since the start are kept as a few sums. At every row the window is cut in two at every place between sums,
    and the means are compared: a cut of a thousand rows against a thousand finds a shift that no window of 50 shows,
    one of ten against all a large one at once. Each value counts as its place in the reference (`Ranks`). It compares
    the stream with itself: a stream that differs from the reference from its first row on is no change to it.

    Instead of a bound for each cut, which is far from attained, one threshold for the most significant cut comes from
    the expected run time. After an alarm it starts anew; the article keeps the rows after the cut. Either side of a cut
    has 30 values at least: the 62nd row after a start has the first statistic, a later one where values are missing.

    Args:
        ert: expected run time without change, rows.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Bifet, Gavaldà (2007): Learning from time-changing data with adaptive windowing. SDM, 443-448; and
        `detectors.online.calibration`.
    """

    method = "adwin"
    kinds = ("numeric",)
    statistic_name = "cut"
    #: Version 1 has thresholds of cuts with 5 rows on a side, `LEAST` of its time.
    state_version = 2

    def __init__(self, *, ert: int = 1_000, max_reference: int = 100_000, seed: int = 0) -> None:
        super().__init__(ert=ert, max_reference=max_reference, seed=seed)

    @property
    def _horizon(self) -> int:
        return _HORIZON

    def _track(self, reference: Floats, schema: FeatureSchema) -> Buckets:
        return Buckets(reference)

    def _n(self, known: Arrays, feature: int) -> int:
        return int((known[1][feature] << np.arange(SIZES)).sum())
