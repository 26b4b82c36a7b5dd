"""Online drift of features' levels by a window that grows as long as nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.compiled import compiled
from detectors.online.features import OnlineFeatureDrift
from detectors.online.traces import Places, Traces, listed_categories
from detectors.online.tracker import Arrays, Floats
from govern.schema import FeatureSchema

#: Buckets of a size before two of them become one of the next; as in the article. A window of n rows has some
#: 5 log2(n / 5), and cuts are looked for between them.
BUCKETS: Final = 5
#: Sizes of buckets, 1 to 2^25: a hundred million rows without change, and the last of them are still summed.
SIZES: Final = 26
#: Rows on either side of a cut, at least: the ranks of fewer are not as good as normal.
LEAST: Final = 10
#: Cuts at larger distances come ever more rarely: a cut at k rows changes its mind every k rows or so.
_HORIZON: Final = 300
#: Of n up to here, n log n and log n are looked up.
_TABLED: Final = 4_096
_LOGS: Final = np.log(np.maximum(np.arange(_TABLED), 1.0)) * np.stack((np.arange(_TABLED), np.ones(_TABLED)))


def _times_log(count: float, logs: Floats) -> float:
    if count < logs.shape[1]:
        return float(logs[0, int(count)])
    return float(count * np.log(count))


_n_log_n = compiled(_times_log)


def _follow_buckets(
    traces: Floats, starts: Places, binary: npt.NDArray[np.bool_], logs: Floats, sums: Floats, held: Places
) -> Floats:
    """The most significant cut: (rows, features). Of each size, `sums` has the newest first, and `held` how many."""
    rows, features = len(traces), len(starts) - 1
    found = np.full((rows, features), np.nan)
    recents = np.empty(SIZES * (BUCKETS + 1), dtype=np.int64)
    sizes, logarithms, apart = np.empty(len(recents)), np.empty(len(recents)), np.empty(len(recents))
    for feature in range(features):
        first, stop = starts[feature], starts[feature + 1]
        for row in range(rows):
            if np.isnan(traces[row, first]):
                continue
            for trace in range(first, stop):
                carried = traces[row, trace]
                for size in range(SIZES):
                    kept = held[feature, size]
                    for bucket in range(kept, 0, -1):
                        sums[trace, size, bucket] = sums[trace, size, bucket - 1]
                    sums[trace, size, 0] = carried
                    if kept < BUCKETS:
                        break
                    carried = sums[trace, size, kept] + sums[trace, size, kept - 1]
                    sums[trace, size, kept - 1 :] = 0.0
            for size in range(SIZES):
                kept = held[feature, size]
                held[feature, size] = kept + 1
                if kept < BUCKETS:
                    break
                held[feature, size] = kept - 1
            seen = 0
            for size in range(SIZES):
                seen += held[feature, size] << size
            if seen < 2 * LEAST:
                continue
            # What all traces of the feature share of a cut.
            cuts, recent = 0, 0
            for size in range(SIZES):
                for _ in range(held[feature, size]):
                    recent += 1 << size
                    before = seen - recent
                    recents[cuts] = recent
                    if recent >= LEAST and before >= LEAST:
                        sizes[cuts] = recent * before / seen
                        logarithms[cuts] = np.log(sizes[cuts])
                        apart[cuts] = logarithms[cuts] - _n_log_n(recent, logs) - _n_log_n(before, logs)
                    else:
                        sizes[cuts] = 0.0
                    cuts += 1
            largest = 0.0
            for trace in range(first, stop):
                # Summed anew, so that what a row says does not depend on where the stream was cut.
                total = 0.0
                for size in range(SIZES):
                    for bucket in range(held[feature, size]):
                        total += sums[trace, size, bucket]
                if binary[trace] and (total == 0.0 or total == seen):
                    continue
                whole = 0.0
                if binary[trace]:
                    whole = _n_log_n(seen, logs) - _n_log_n(total, logs) - _n_log_n(seen - total, logs)
                cut, level = 0, 0.0
                for size in range(SIZES):
                    for bucket in range(held[feature, size]):
                        level += sums[trace, size, bucket]
                        recent = recents[cut]
                        before = seen - recent
                        if sizes[cut] > 0.0:
                            if binary[trace]:
                                other = total - level
                                value = (
                                    whole
                                    + apart[cut]
                                    + (_n_log_n(level, logs) + _n_log_n(recent - level, logs))
                                    + (_n_log_n(other, logs) + _n_log_n(before - other, logs))
                                )
                            else:
                                between = level / recent - (total - level) / before
                                value = 0.5 * sizes[cut] * between**2 + logarithms[cut]
                            largest = max(largest, value)
                        cut += 1
            found[row, feature] = largest - np.log(max(1.0, np.log2(seen / (4 * LEAST))))
    return found


_follow = compiled(_follow_buckets)


class Buckets:
    """All rows since the start in sums of 1, 2, 4 ... of them; and how significant the best cut of them in two is.

    A cut in n0 and n1 rows is as significant as the logarithm of the likelihood ratio of two levels against one, in
    nats: of normal ranks, and of the shares of a category. To it comes log(n0 n1 / n): there are so many fewer cuts of
    that size that are independent, and false alarms are shared alike by cuts of ten rows, of twenty, of forty ... How
    many such sizes there are by now is taken from it again, as a logarithm, so that they stay as many.

    Args:
        reference: (n, d), NaN is a missing number, categories are codes.
        categories: of each feature, how many the schema lists; 0 for a number.
    """

    def __init__(self, reference: Floats, categories: Sequence[int]) -> None:
        self._traces = Traces(reference, categories)
        self._starts = self._traces.owners.searchsorted(np.arange(self._traces.width + 1))

    def prepare(self, rows: Floats) -> Floats:
        return self._traces.of(rows)

    def simulate(self, prepared: Floats) -> Floats:
        return self._follow(prepared, *self.begin())

    def begin(self) -> Arrays:
        return (
            np.zeros((len(self._traces.owners), SIZES, BUCKETS + 1)),
            np.zeros((self._traces.width, SIZES), dtype=np.int64),
        )

    def walk(self, known: Arrays, rows: Floats) -> tuple[Floats, Arrays]:
        sums, held = known[0].copy(), known[1].copy()
        return self._follow(self.prepare(rows), sums, held), (sums, held)

    def _follow(self, prepared: Floats, sums: Floats, held: Places) -> Floats:
        return _follow(prepared, self._starts, self._traces.binary, _LOGS, sums, held)

    def accepts(self, known: Arrays, rows: int) -> bool:
        expected = self.begin()
        if [(one.dtype, one.shape) for one in known] != [(one.dtype, one.shape) for one in expected]:
            return False
        sums, held = known
        return bool(np.isfinite(sums).all() and (held >= 0).all() and (held <= BUCKETS).all())


class AdwinDrift(OnlineFeatureDrift):
    """Whether a number's level or a category's share changed at any time since the start, by an adaptive window.

    All rows since the start are kept as a few sums. At every row the window is cut in two at every place between sums,
    and the levels are compared: a cut of a thousand rows against a thousand finds a shift that no window of 50 shows,
    one of ten against all a large one at once. Each number counts as its place in the reference, each category as its
    indicator, missing and unseen as ones of their own (`Traces`); a feature's statistic is that of its most changed
    one. It compares the stream with itself: a stream that differs from the reference from its first row on is no change
    to it.

    Instead of the article's bound for each cut, which is far from attained, cuts are told apart by their likelihood
    ratio and their size (`Buckets`), and one threshold for the most significant comes from the expected run time. After
    an alarm it starts anew; the article keeps the rows after the cut. Either side of a cut has 10 values at least: the
    20th row after a start or so has the first statistic, a later one where values are missing.

    Args:
        ert: expected run time without change, rows.
        max_reference: rows of the reference to keep, at most.
        seed: of the rows kept and of the streams by which the thresholds are found.

    References:
        Bifet, Gavaldà (2007): Learning from time-changing data with adaptive windowing. SDM, 443-448; Lai, Xing (2010):
        Sequential change-point detection when the pre- and post-change parameters are unknown. Sequential Analysis 29,
        162-175; and `detectors.online.calibration`.
    """

    method = "adwin"
    kinds = ("numeric", "categorical")
    statistic_name = "cut"
    #: Version 1 has thresholds of cuts with 5 rows on a side, version 2 of numeric features alone.
    state_version = 3

    def __init__(self, *, ert: int = 1_000, max_reference: int = 100_000, seed: int = 0) -> None:
        super().__init__(ert=ert, max_reference=max_reference, seed=seed)

    @property
    def _horizon(self) -> int:
        return _HORIZON

    def _track(self, reference: Floats, schema: FeatureSchema) -> Buckets:
        return Buckets(reference, listed_categories(schema))

    def _n(self, known: Arrays, feature: int) -> int:
        return int((known[1][feature] << np.arange(SIZES)).sum())
