"""The outlier detectors on coded tables: scores against scikit-learn's, thresholds and shares on the census."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import betabinom, skew
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from detectors.coding import RAREST, Coding
from detectors.outlier.copod import CopodOutlier
from detectors.outlier.ecod import EcodOutlier
from detectors.outlier.gmm import REGULARISATION, GmmOutlier
from detectors.outlier.held_out import HELD_OUT, rows_needed, split, threshold_at
from detectors.outlier.isolation_forest import IsolationForestOutlier
from detectors.outlier.knn import KnnOutlier
from detectors.outlier.lof import LofOutlier
from detectors.outlier.mahalanobis import MahalanobisOutlier
from detectors.outlier.one_class_svm import OneClassSvmOutlier
from detectors.outlier.pca import PcaOutlier
from govern.errors import BadInput
from govern.frame import MISSING, UNSEEN, Frame

DETECTORS = [
    MahalanobisOutlier,
    PcaOutlier,
    KnnOutlier,
    EcodOutlier,
    CopodOutlier,
    LofOutlier,
    GmmOutlier,
    OneClassSvmOutlier,
]


def learned_points(detector, reference: Frame) -> tuple[np.ndarray, Coding]:
    """What the detector learned from, in its order, and the coding."""
    learned, _ = split(len(reference), detector.seed)
    coding = Coding.of(reference.take(learned), range(len(reference.schema.features)))
    return coding.points(reference.take(learned)), coding


def replaced(frame: Frame, **columns: np.ndarray) -> Frame:
    found = list(frame.columns)
    for name, column in columns.items():
        found[frame.schema.index(name)] = column
    return dataclasses.replace(frame, columns=tuple(found))


def test_mahalanobis_agrees_with_scikit_learn(make_table):
    """On numbers alone, where no direction is without variance."""
    reference, window = make_table(900, seed=1, categorical=0), make_table(200, seed=2, categorical=0)
    detector = MahalanobisOutlier(seed=3).fit(reference)
    points, coding = learned_points(detector, reference)
    oracle = np.sqrt(EmpiricalCovariance().fit(points).mahalanobis(coding.points(window)))
    np.testing.assert_allclose(detector.score(window).scores, oracle, rtol=1e-10)


@pytest.mark.parametrize("explained", [0.5, 0.95])
def test_pca_agrees_with_scikit_learn(acs, explained):
    detector = PcaOutlier(explained=explained, seed=3).fit(acs[2015])
    points, coding = learned_points(detector, acs[2015])
    pca = PCA(n_components=explained, svd_solver="full").fit(points)
    window = coding.points(acs[2018])
    oracle = np.linalg.norm(window - pca.inverse_transform(pca.transform(window)), axis=1)
    np.testing.assert_allclose(detector.score(acs[2018]).scores, oracle, rtol=0, atol=1e-9)


def test_neighbours_agree_with_scikit_learn(acs):
    reference, window = acs[2015], acs[2018].take(slice(0, 500))
    detector = KnnOutlier(k=7, max_reference=1500, seed=3).fit(reference)
    points, coding = learned_points(detector, reference)
    oracle = NearestNeighbors(n_neighbors=7).fit(points[:1500]).kneighbors(coding.points(window))[0][:, -1]
    np.testing.assert_allclose(detector.score(window).scores, oracle, rtol=0, atol=1e-6)


def test_lof_agrees_with_scikit_learn(make_table):
    reference, window = make_table(900, seed=1), make_table(200, seed=2, shift=1.0)
    detector = LofOutlier(k=15, seed=3).fit(reference)
    points, coding = learned_points(detector, reference)
    oracle = LocalOutlierFactor(n_neighbors=15, novelty=True).fit(points)
    np.testing.assert_allclose(
        detector.score(window).scores, -oracle.score_samples(coding.points(window)), rtol=0, atol=1e-8
    )


def test_mixture_agrees_with_scikit_learn(acs):
    detector = GmmOutlier(components=2, seed=3).fit(acs[2015])
    points, coding = learned_points(detector, acs[2015])
    oracle = GaussianMixture(2, reg_covar=REGULARISATION, random_state=3).fit(points)
    np.testing.assert_allclose(
        detector.score(acs[2018]).scores, -oracle.score_samples(coding.points(acs[2018])), rtol=1e-9
    )


def test_one_class_svm_agrees_with_scikit_learn(acs):
    detector = OneClassSvmOutlier(nu=0.05, seed=3).fit(acs[2015])
    points, coding = learned_points(detector, acs[2015])
    oracle = OneClassSVM(nu=0.05).fit(points)
    np.testing.assert_allclose(
        detector.score(acs[2018]).scores, -oracle.decision_function(coding.points(acs[2018])), rtol=0, atol=1e-9
    )


def _pyod(kind: str, reference: np.ndarray, row: np.ndarray) -> float:
    """pyod's score of a row alone, as its `decision_function` computes it: over the reference and the row."""
    whole = np.vstack((reference, row))
    left = -np.log(np.mean(whole <= row, axis=0))
    right = -np.log(np.mean(whole >= row, axis=0))
    sign = np.sign(np.nan_to_num(skew(reference, axis=0)))
    thin = left * -np.sign(sign - 1) + right * np.sign(sign + 1)
    usual = np.maximum(left, right) if kind == "ecod" else (left + right) / 2
    return float(np.maximum(usual, thin).sum())


@pytest.mark.parametrize("detector", [EcodOutlier, CopodOutlier])
def test_tails_agree_with_pyods_formula(acs, make_table, detector):
    """Compared with pyod 3.6.7 itself, too, when this was written; pyod is no dependency of the tests."""
    skewed = make_table(500, seed=1, categorical=0)
    skewed = replaced(skewed, x0=np.exp(skewed["x0"]), x1=-np.exp(skewed["x1"]))
    for reference, window in ((skewed, make_table(40, seed=2, categorical=0)), (acs[2015], acs[2018])):
        fitted = detector(seed=3).fit(reference)
        points, coding = learned_points(fitted, reference)
        rows = coding.points(window.take(slice(0, 40)))
        # A coordinate without variance has no skewness (scipy warns), and so had none in pyod.
        varied = points.std(axis=0) > 0
        oracle = [_pyod(detector.method, points[:, varied], row[varied]) for row in rows]
        still = [_still(points[:, ~varied], row[~varied]) for row in rows]
        np.testing.assert_allclose(fitted.score(window.take(slice(0, 40))).scores, np.add(oracle, still), rtol=1e-10)


def _still(reference: np.ndarray, row: np.ndarray) -> float:
    """What coordinates that never varied add: nothing, but to who differs."""
    return float((row != reference[0]).sum() * np.log(len(reference) + 1))


@pytest.mark.parametrize("detector", [*DETECTORS, IsolationForestOutlier])
def test_fresh_people_are_flagged_at_the_contamination(acs, detector):
    """Two halves of one year's people, drawn anew three times: neither more nor less than chance explains."""
    rng = np.random.default_rng(11)
    flagged, times, contamination = 0, 3, 0.05
    for seed in range(times):
        order = rng.permutation(4000)
        fitted = detector(contamination=contamination, seed=seed).fit(acs[2015].take(order[:2000]))
        flagged += int(fitted.score(acs[2015].take(order[2000:])).flagged.sum())
    # A threshold at rank r of h held-out scores is exceeded with a probability that is Beta(h + 1 - r, r).
    held = math.ceil(HELD_OUT * 2000)
    rank = math.ceil((held + 1) * (1 - contamination))
    once = betabinom(2000, held + 1 - rank, rank)
    assert abs(flagged - times * once.mean()) <= 3.5 * math.sqrt(times) * once.std()


@pytest.mark.parametrize("detector", [one for one in DETECTORS if one is not PcaOutlier])
def test_rows_far_out_are_strange(make_table, detector):
    fitted = detector().fit(make_table(2000, seed=1))
    plain, strange = make_table(500, seed=2), make_table(500, seed=3)
    strange = dataclasses.replace(
        strange, columns=tuple(c * 4 if c.dtype == np.float64 else c for c in strange.columns)
    )
    scores = np.concatenate((fitted.score(plain).scores, fitted.score(strange).scores))
    assert roc_auc_score(np.repeat([0, 1], 500), scores) > 0.9


def test_a_broken_pattern_is_strange_to_pca(make_table):
    reference, window = (
        replaced(frame, x1=frame["x0"] + 0.1 * frame["x1"], x2=frame["x0"] - 0.1 * frame["x2"])
        for frame in (make_table(2000, seed=1, categorical=0), make_table(200, seed=2, categorical=0))
    )
    fitted = PcaOutlier().fit(reference)
    assert fitted.score(replaced(window, x1=-window["x1"])).flagged.mean() > 0.8
    assert fitted.score(window).flagged.mean() < 0.05


@pytest.mark.parametrize(
    ("detector", "name", "value"),
    # A number far out is within the plane of `pca`, which such independent features have.
    [
        *((one, "x1", 9.0) for one in DETECTORS if one is not PcaOutlier),
        *((one, "c0", UNSEEN) for one in DETECTORS),
    ],
)
def test_the_strange_feature_has_the_largest_share(make_table, detector, name, value):
    fitted = detector().fit(make_table(1500, seed=1))
    window = make_table(100, seed=2)
    column = window[name].copy()
    column[:50] = value
    scores = fitted.score(replaced(window, **{name: column}))
    assert scores.flagged[:50].all() or detector in (EcodOutlier, CopodOutlier)
    assert scores.flagged[:50].sum() > 10
    assert (scores.shares.argmax(axis=1)[:50][scores.flagged[:50]] == window.schema.index(name)).all()
    np.testing.assert_allclose(scores.shares.sum(axis=1), scores.flagged, atol=1e-12)


@pytest.mark.parametrize("detector", DETECTORS)
def test_what_is_missing_is_ordinary_and_what_is_huge_is_finite(make_table, detector):
    reference, window = make_table(900, seed=1), make_table(30, seed=2)
    fitted = detector().fit(reference)
    gone = replaced(window, x0=np.full(30, np.nan), c1=np.full(30, MISSING, dtype=np.int32))
    learned, _ = split(len(reference), 0)
    typical = replaced(
        window,
        x0=np.full(30, np.median(reference.take(learned)["x0"])),
        c1=np.full(30, np.bincount(reference.take(learned)["c1"]).argmax(), dtype=np.int32),
    )
    assert fitted.score(gone).scores.tolist() == fitted.score(typical).scores.tolist()
    huge = fitted.score(replaced(window, x0=np.full(30, 1e300)))
    assert np.isfinite(huge.scores).all()
    # One coordinate's surprise has a bound, so `ecod` and `copod` flag a row only if another is rare, too.
    assert huge.flagged.all() or detector in (EcodOutlier, CopodOutlier)


def test_the_coding_is_that_of_mixed_factor_analysis(make_table):
    """Numbers standardised; indicators centred and divided by the root of their share, but of the rarest."""
    reference = make_table(2000, seed=1, numeric=1, categorical=1, categories=8)
    points = Coding.of(reference, (0, 1)).points(reference)
    assert points.shape == (2000, 1 + 8 + 1)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=1e-12)
    shares = np.bincount(reference["c0"], minlength=8) / 2000
    assert (shares < RAREST).any()
    np.testing.assert_allclose(points[:, 0].std(), 1.0)
    np.testing.assert_allclose(points[:, 1:-1].var(axis=0), shares * (1 - shares) / np.maximum(shares, RAREST))
    unseen = Coding.of(reference, (0, 1)).points(replaced(reference, c0=np.full(2000, UNSEEN, dtype=np.int32)))
    np.testing.assert_allclose(unseen[:, -1], 1 / np.sqrt(RAREST))


@pytest.mark.parametrize("contamination", [0.01, 0.03, 0.1, 0.5])
def test_thresholds_are_conformal(contamination):
    """Of n held-out scores the threshold is the lowest that n + 1 exchangeable ones exceed rarely enough."""
    held = split(rows_needed(contamination), 0)[1]
    assert 1 / (len(held) + 1) <= contamination + 1e-12
    scores = np.random.default_rng(1).permutation(np.arange(float(len(held))))
    above = int((scores > threshold_at(scores, contamination)).sum())
    assert (above + 1) / (len(held) + 1) <= contamination + 1e-12 < (above + 2) / (len(held) + 1)


def test_a_reference_too_small_for_its_contamination(make_table):
    with pytest.raises(BadInput, match="has 300 rows: at least 330 are needed"):
        KnnOutlier(contamination=0.01).fit(make_table(300))


@pytest.mark.parametrize(
    ("detector", "params"),
    [
        (MahalanobisOutlier, {"contamination": 1.0}),
        (PcaOutlier, {"explained": 0.0}),
        (KnnOutlier, {"k": 0}),
        (LofOutlier, {"max_reference": 20}),
        (GmmOutlier, {"components": 0}),
        (OneClassSvmOutlier, {"nu": 1.5}),
        (EcodOutlier, {"max_reference": 1}),
        (CopodOutlier, {"contamination": 0.0}),
    ],
)
def test_bad_parameters(detector, params):
    with pytest.raises(BadInput, match=f"{detector.method}: {next(iter(params))} is"):
        detector(**params)
