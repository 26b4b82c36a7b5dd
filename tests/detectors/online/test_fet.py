"""The surprise of counts against Fisher's test, computed anew at every row."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.drift.fisher import fisher_p
from detectors.online.fet import CountWindows
from govern.frame import MISSING, UNSEEN

SIZES = (6, 15)


def test_surprise_is_fishers_at_every_row():
    rng = np.random.default_rng(1)
    reference = np.column_stack((rng.integers(-1, 3, 200), rng.integers(0, 2, 200))).astype(np.float64)
    stream = np.column_stack((rng.integers(MISSING, 3, 40), rng.integers(0, 2, 40))).astype(np.float64)
    stream[30:, 0] = UNSEEN
    tracker = CountWindows(reference, (3, 2), SIZES)
    found = tracker.simulate(tracker.prepare(stream))
    assert np.isnan(found[: SIZES[0] - 1]).all()
    for row in range(SIZES[0] - 1, len(stream)):
        for feature, codes in enumerate((range(UNSEEN, 3), range(UNSEEN, 2))):
            p = 1.0
            for size in SIZES:
                if row + 1 < size:
                    continue
                window = stream[row + 1 - size : row + 1, feature]
                for code in codes:
                    seen = int((window == code).sum())
                    p = min(p, fisher_p(seen, size, int((reference[:, feature] == code).sum()), len(reference)))
            assert found[row, feature] == pytest.approx(-np.log10(p), abs=1e-9)
    # Ten of fifteen that the schema does not list, where the reference has none.
    assert found[-1, 0] > 9
