"""Windows of ranks against scipy, computed anew at every row, and against alibi-detect's own online detector."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from scipy import stats

from detectors.drift.cramer_von_mises import Sorted, cramer_von_mises
from detectors.online.ranks import RankWindows
from govern.errors import BadInput

ALIBI = importlib.util.find_spec("alibi_detect") is not None
SIZES = (8, 20)


def normalised(statistic: float, n: int, m: int) -> float:
    mean = (1 + 1 / (n + m)) / 6
    variance = (n + m + 1) * (4 * n * m * (n + m) - 3 * (n**2 + m**2) - 2 * n * m) / (180 * (n + m) ** 2 * n * m)
    return float((statistic - mean) / np.sqrt(variance))


@pytest.mark.parametrize("supremum", [False, True])
def test_statistics_are_those_of_the_whole_test_at_every_row(supremum):
    rng = np.random.default_rng(3)
    reference, stream = rng.normal(size=(300, 2)), rng.normal(0.3, 1.0, size=(60, 2))
    tracker = RankWindows(reference, SIZES, supremum=supremum)
    found = tracker.simulate(tracker.prepare(stream))
    for row in range(len(stream)):
        for feature in range(2):
            expected = []
            for size in SIZES:
                if row + 1 < size:
                    continue
                window = stream[row + 1 - size : row + 1, feature]
                if supremum:
                    d = stats.ks_2samp(reference[:, feature], window).statistic
                    expected.append(d * np.sqrt(300 * size / (300 + size)))
                else:
                    whole = stats.cramervonmises_2samp(reference[:, feature], window, method="asymptotic")
                    expected.append(normalised(whole.statistic, 300, size))
            if expected:
                assert found[row, feature] == pytest.approx(max(expected), abs=1e-9)
            else:
                assert np.isnan(found[row, feature])


def test_ties_and_missing_values_count_as_in_the_test_of_a_window(acs):
    reference, stream = (acs[year].columns[0].astype(np.float64) for year in (2015, 2018))
    stream = stream[:120].copy()
    stream[::7] = np.nan
    stream[60:80] = np.nan
    tracker = RankWindows(reference[:, None], (20,), supremum=False)
    found = tracker.simulate(tracker.prepare(stream[:, None]))[:, 0]
    before = Sorted.of(np.sort(reference))
    tested = 0
    for row in range(19, len(stream)):
        window = stream[row - 19 : row + 1]
        if np.isnan(window).sum() > 10:
            assert np.isnan(found[row])
            continue
        outcome = cramer_von_mises(before, window)
        assert found[row] == pytest.approx(normalised(outcome.statistic, len(reference), outcome.n), abs=1e-9)
        tested += 1
    assert tested > 60


def test_a_feature_without_values_is_refused():
    with pytest.raises(BadInput, match="a feature has 3 values"):
        RankWindows(np.array([[1.0], [2.0], [3.0], [np.nan]]), SIZES, supremum=False)


@pytest.mark.alibi
@pytest.mark.skipif(not ALIBI, reason="needs alibi-detect")
def test_trajectory_is_alibi_detects():
    from alibi_detect.cd import CVMDriftOnline

    rng = np.random.default_rng(4)
    reference, stream = rng.normal(size=(200, 2)), rng.normal(0.5, 1.0, size=(80, 2))
    theirs = CVMDriftOnline(
        reference, ert=20, window_sizes=list(SIZES), n_bootstraps=1_000, n_features=2, verbose=False
    )
    tracker = RankWindows(reference, SIZES, supremum=False)
    ours = tracker.simulate(tracker.prepare(stream))
    for row, values in enumerate(stream):
        said = theirs.score(values)
        if row + 1 >= SIZES[-1]:
            assert ours[row] == pytest.approx(np.max(said, axis=0), abs=1e-5)
    assert (ours[-1] > ours[SIZES[-1]]).any()
