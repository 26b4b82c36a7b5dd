"""Drift detectors of others on streams in a file: how strange each row, or the window that ends with it, is to them.

Runs in .venv-peers-drift, where nothing of govern is:

    .venv-peers-drift/bin/python tests/bench/judging/drift_peers.py STREAMS.npz SCORES.npz

STREAMS has `reference` (r, n, d), `streams` (r, s, rows, d), categories as their codes, `numeric` (d,) and `window`
(rows); SCORES has (r, s, rows) for each detector: higher is stranger, NaN where it says nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from evidently.legacy.calculations import stattests
from evidently.legacy.core import ColumnType
from frouros.detectors.data_drift import MMD, ChiSquareTest, KSTest
from nannyml.chunk import SizeBasedChunker
from nannyml.drift.univariate import FeatureType
from nannyml.drift.univariate.methods import MethodFactory
from nannyml.thresholds import ConstantThreshold
from river.drift import ADWIN, PageHinkley
from river.drift.binary import DDM, EDDM, HDDM_A, HDDM_W

#: What the significance of these tests is tuned by; the score of a row is that of the strictest that alarmed by then.
EXPONENTS = (1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8)
#: Of DDM, in standard deviations.
DEVIATIONS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
#: Of EDDM, by how much its distances are shorter.
SHORTENED = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
#: Rows of the reference that an MMD is computed from, which takes their square.
MMD_ROWS = 500
SMALLEST = 1e-300
#: Rows of a window, as the streams' file says it too.
WINDOW = 200

#: (window) -> the score of each of its columns, or of all at once.
Judge = Callable[[np.ndarray], float]


def log(p_value: float) -> float:
    return -np.log10(max(p_value, SMALLEST)) if np.isfinite(p_value) else 0.0


def frouros_tests(reference: np.ndarray, numeric: np.ndarray) -> Judge:
    tests = [KSTest() if kind else ChiSquareTest() for kind in numeric]
    for test, column in zip(tests, reference.T, strict=True):
        test.fit(X=column)
    return lambda window: max(
        log(test.compare(X=column)[0].p_value) for test, column in zip(tests, window.T, strict=True)
    )


def frouros_mmd(reference: np.ndarray, numeric: np.ndarray) -> Judge:
    level, spread = reference.mean(axis=0), reference.std(axis=0)
    detector = MMD()
    detector.fit(X=(reference[:MMD_ROWS] - level) / spread)
    return lambda window: float(detector.compare(X=(window - level) / spread)[0].distance)


def pooled(reference: np.ndarray, window: int) -> Callable[[np.ndarray], np.ndarray]:
    """Categories of which a window expects fewer than 5 as one, as Cochran's rule for chi-squared has it.

    Without it, one person of a category that the reference lacks makes evidently's p-value 0, whatever else is there:
    nearly every stream ties at the largest score.
    """
    values, counts = np.unique(reference, return_counts=True)
    kept = values[counts * window >= 5 * len(reference)]
    rarest = kept[np.argmin(counts[np.isin(values, kept)])]
    other = -1.0 if np.isin(reference, kept, invert=True).any() else rarest
    return lambda column: np.where(np.isin(column, kept), column, other)


def evidently(of_numbers: str, of_categories: str, *, p_values: bool) -> Callable[[np.ndarray, np.ndarray], Judge]:
    def fit(reference: np.ndarray, numeric: np.ndarray) -> Judge:
        pools = [
            pooled(column, WINDOW) if p_values and not kind else np.asarray
            for column, kind in zip(reference.T, numeric, strict=True)
        ]
        columns = [pd.Series(pool(column)) for pool, column in zip(pools, reference.T, strict=True)]
        tests = [getattr(stattests, of_numbers if kind else of_categories) for kind in numeric]
        kinds = [ColumnType.Numerical if kind else ColumnType.Categorical for kind in numeric]

        def judge(window: np.ndarray) -> float:
            told = [
                test.func(column, pd.Series(pool(values)), kind, 0.1)[0]
                for test, column, pool, values, kind in zip(tests, columns, pools, window.T, kinds, strict=True)
            ]
            return max(log(one) for one in told) if p_values else float(max(told))

        return judge

    return fit


def nannyml(method: str) -> Callable[[np.ndarray, np.ndarray], Judge]:
    def fit(reference: np.ndarray, numeric: np.ndarray) -> Judge:
        methods = []
        for kind, column in zip(numeric, reference.T, strict=True):
            of = FeatureType.CONTINUOUS if kind else FeatureType.CATEGORICAL
            made = MethodFactory.create(
                method, of, chunker=SizeBasedChunker(WINDOW), threshold=ConstantThreshold(upper=0.1)
            )
            methods.append(made.fit(named(column, kind), None))
        return lambda window: max(
            float(one.calculate(named(column, kind)))
            for one, kind, column in zip(methods, numeric, window.T, strict=True)
        )

    return fit


def named(column: np.ndarray, numeric: bool) -> pd.Series:
    return pd.Series(column if numeric else column.astype(int).astype(str), name="x")


def page_hinkley(stream: np.ndarray) -> np.ndarray:
    """Its own statistic, which a threshold that is never exceeded lets run."""
    scores = np.full(len(stream), np.nan)
    detector = PageHinkley(threshold=np.inf)
    for row, value in enumerate(stream.tolist()):
        detector.update(value)
        if row >= detector.min_instances:
            scores[row] = max(
                detector._sum_increase - detector._min_increase, detector._max_decrease - detector._sum_decrease
            )
    return scores


def strictest(make: Callable[[float], object], settings: tuple[float, ...]) -> Callable[[np.ndarray], np.ndarray]:
    def judge(stream: np.ndarray) -> np.ndarray:
        scores = np.zeros(len(stream))
        values = stream.tolist()
        for setting in settings:
            detector = make(setting)
            for row, value in enumerate(values):
                detector.update(value)
                if detector.drift_detected:
                    scores[row:] = setting
                    break
            else:
                break
        return scores

    return judge


WINDOWED = {
    "frouros KS, chi2": frouros_tests,
    "frouros MMD": frouros_mmd,
    "evidently KS, chi2": evidently("ks_stat_test", "chi_stat_test", p_values=True),
    "evidently Wasserstein, JS": evidently("wasserstein_stat_test", "jensenshannon_stat_test", p_values=False),
    "nannyml JS": nannyml("jensen_shannon"),
}
ONLINE = {
    "river ADWIN": strictest(lambda power: ADWIN(delta=10.0**-power), EXPONENTS),
    "river PageHinkley": page_hinkley,
}
#: Of streams of 0 and 1 alone. They see a rise of errors.
BINARY = {
    "river DDM": strictest(lambda bound: DDM(drift_threshold=bound, warning_threshold=1.0), DEVIATIONS),
    "river EDDM": strictest(lambda share: EDDM(alpha=1.0, beta=1.0 - share), SHORTENED),
    "river HDDM_A": strictest(lambda power: HDDM_A(drift_confidence=10.0**-power), EXPONENTS),
    "river HDDM_W": strictest(lambda power: HDDM_W(drift_confidence=10.0**-power), EXPONENTS),
}


def scores_of(name: str, reference: np.ndarray, streams: np.ndarray, numeric: np.ndarray, window: int) -> np.ndarray:
    """(s, rows)."""
    scores = np.full(streams.shape[:2], np.nan)
    if name in WINDOWED:
        judge = WINDOWED[name](reference, numeric)
        for stream, row in zip(streams, scores, strict=True):
            for end in range(window, len(row) + 1, window):
                row[end - 1] = judge(stream[end - window : end])
        return scores
    follow = (ONLINE | BINARY)[name]
    # Codes of categories are watched as numbers, which is all that these can do.
    level, spread = reference.mean(axis=0), reference.std(axis=0)
    for stream, row in zip(streams, scores, strict=True):
        columns = stream.T if name in BINARY else ((stream - level) / spread).T
        row[:] = np.fmax.reduce([follow(column) for column in columns])
    return scores


def main() -> None:
    warnings.simplefilter("ignore")
    given = dict(np.load(sys.argv[1]))
    binary = bool(np.isin(given["streams"], (0.0, 1.0)).all())
    told = {}
    for name in (*WINDOWED, *ONLINE, *(BINARY if binary else ())):
        told[name] = np.stack(
            [
                scores_of(name, reference, streams, given["numeric"], int(given["window"]))
                for reference, streams in zip(given["reference"], given["streams"], strict=True)
            ]
        )
    np.savez(sys.argv[2], **told)


if __name__ == "__main__":
    main()
