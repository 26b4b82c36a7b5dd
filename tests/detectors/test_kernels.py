"""Kernels: built-in ones against scikit-learn's, users' own against what is asked of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from sklearn.gaussian_process.kernels import RationalQuadratic
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel

from detectors import artifacts
from detectors.drift.mmd import Discrepancy, MMDDrift
from detectors.drift.rff_mmd import RandomFeatureMMDDrift
from detectors.kernels import BUILT_IN, SCALES, Radial
from detectors.online.mmd import OnlineMMDDrift
from detectors.own_kernel import LandmarkFeatures, OwnKernel
from govern.errors import ArtifactError, BadInput, ConfigError
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from tests.detectors import some_kernels

ORACLES = {
    "gaussian": lambda x, y, gamma: rbf_kernel(x, y, gamma=gamma),
    "rational_quadratic": lambda x, y, gamma: RationalQuadratic(length_scale=np.sqrt(0.5 / gamma), alpha=1.0)(x, y),
    "laplacian": lambda x, y, gamma: laplacian_kernel(x, y, gamma=gamma),
    "multiscale_gaussian": lambda x, y, gamma: np.mean([rbf_kernel(x, y, gamma=s * gamma) for s in SCALES], axis=0),
}
OWN = "tests.detectors.some_kernels"
SCHEMA = FeatureSchema(
    format_version=FORMAT_VERSION,
    model="made",
    features=tuple(Feature(name=f"x{i}", kind="numeric") for i in range(4)),
)


def rows(count: int, correlation: float, seed: int) -> Frame:
    """Four standard normal features, the first two correlated: no feature alone knows how much."""
    values = np.random.default_rng(seed).normal(size=(count, 4))
    values[:, 1] = correlation * values[:, 0] + np.sqrt(1 - correlation**2) * values[:, 1]
    return Frame(SCHEMA, tuple(values.T.copy()))


def mmd2(kernel: np.ndarray, m: int) -> float:
    """The unbiased estimate of Gretton et al. (2012), equation 3, of the first m rows and the others."""
    n = len(kernel) - m
    kernel = kernel - np.diag(np.diag(kernel))
    return float(
        kernel[:m, :m].sum() / (m * (m - 1)) + kernel[m:, m:].sum() / (n * (n - 1)) - 2 * kernel[:m, m:].mean()
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_kernels_are_those_of_scikit_learn(name):
    rng = np.random.default_rng(3)
    reference, window = rng.normal(size=(301, 5)), rng.normal(0.3, 1.0, size=(70, 5))
    kernel = Radial.of(name, reference)
    apart = pdist(reference, "cityblock" if name == "laplacian" else "sqeuclidean")
    assert kernel.gamma * np.median(apart) == pytest.approx(1.0, rel=1e-9)
    expected = ORACLES[name](window, reference, kernel.gamma)
    np.testing.assert_allclose(kernel.beside(reference)(window), expected, rtol=1e-6, atol=1e-7)
    statistic, _ = Discrepancy(reference, kernel=kernel, permutations=19, seed=0).run(window)
    pooled = np.vstack((reference, window))
    assert statistic == pytest.approx(mmd2(ORACLES[name](pooled, pooled, kernel.gamma), 301), abs=1e-7)
    # Hoeffding: of 20,000 frequencies, none of these 7,000 pairs is further off than that but once in a million times.
    placed = kernel.features(5, seed=1, frequencies=20_000)
    products = placed.of(window) @ placed.of(reference[:100]).T
    assert np.abs(products - expected[:, :100]).max() < np.sqrt(2 * np.log(2 * 7_000 / 1e-6) / 20_000)


@pytest.mark.parametrize("name", ["gaussian", "energy", "quadratic"])
def test_ones_own_kernel_gives_its_discrepancy(name, tmp_path):
    reference, window = rows(300, 0.9, seed=1), rows(120, 0.0, seed=2)
    detector = MMDDrift(kernel=f"{OWN}:{name}").fit(reference)
    found = detector.score(window)
    points = [detector._coding.points(frame) for frame in (reference, window)]
    pooled = np.vstack((points[0], points[1]))
    assert found.statistic == pytest.approx(mmd2(getattr(some_kernels, name)(pooled, pooled), 300), rel=1e-9)
    assert found.alarm
    assert not any(one.is_drift for one in found.features)
    assert not detector.score(rows(120, 0.9, seed=3)).alarm
    artifacts.save(detector, tmp_path / "a")
    loaded = artifacts.load(tmp_path / "a")
    assert loaded.digest == detector.digest
    assert repr(loaded.score(window)) == repr(found)


def test_of_ones_own_gaussian_the_p_value_is_that_of_the_built_in_one(monkeypatch):
    reference = rows(200, 0.9, seed=1)
    built_in = MMDDrift().fit(reference)
    gamma = Radial.of("gaussian", built_in._coding.points(reference.take(built_in_order(reference)))).gamma
    monkeypatch.setattr(some_kernels, "gaussian", lambda x, y: rbf_kernel(x, y, gamma=gamma))
    own = MMDDrift(kernel=f"{OWN}:gaussian").fit(reference)
    for correlation in (0.9, 0.8, 0.5):
        scores = [one.score(rows(100, correlation, seed=5)) for one in (built_in, own)]
        assert scores[0].p_value == scores[1].p_value
        assert scores[0].statistic == pytest.approx(scores[1].statistic, abs=1e-7)


def built_in_order(reference: Frame) -> np.ndarray:
    """As a fit with seed 0 keeps rows: pairs of another order have another median."""
    return np.random.default_rng(0).permutation(len(reference))


@pytest.mark.parametrize("name", [*BUILT_IN[1:], f"{OWN}:energy", f"{OWN}:quadratic"])
def test_online_with_any_kernel(name, tmp_path):
    quiet, moved = rows(1_500, 0.9, seed=4), rows(200, 0.9, seed=5)
    moved = dataclasses.replace(moved, columns=tuple(column + 0.8 for column in moved.columns))
    detector = OnlineMMDDrift(kernel=name, ert=2_000).fit(quiet.take(slice(0, 1_200)))
    artifacts.save(detector, tmp_path / "a")
    loaded = artifacts.load(tmp_path / "a")
    stream = Frame.concat([quiet.take(slice(1_200, 1_300)), moved])
    whole = loaded.score(stream)
    assert whole.alarm
    assert whole.alarm_row >= 100, "at a change, not before it"
    memory, at, statistics = detector.start(), 0, []
    for size in (1, 7, 40, 1, 30):
        part = stream.take(slice(at, at + size))
        scores, memory = detector.advance(memory, part, np.zeros(size, dtype=np.int64))
        at += size
        statistics.append(scores.statistic)
    assert statistics[-1] == loaded.score(stream.take(slice(0, at))).statistic, "however the stream is cut"


@pytest.mark.parametrize("name", ["gaussian", "energy", "quadratic"])
def test_landmarks_stand_for_the_kernel(name):
    """Distances of means in their coordinates are the (biased) discrepancy: exactly among landmarks, nearly beyond."""
    rng = np.random.default_rng(5)
    reference, stream = rng.normal(size=(500, 4)), rng.normal(0.5, 1.0, size=(300, 4))
    kernel = OwnKernel(f"{OWN}:{name}", method="online_mmd")
    features = LandmarkFeatures(kernel, reference[:120])

    def apart(x, y):
        return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()

    def found(x, y):
        return np.square(features.of(x).mean(axis=0) - features.of(y).mean(axis=0)).sum()

    inside = (reference[:60], reference[60:120])
    assert found(*inside) == pytest.approx(apart(*inside), rel=1e-4)
    assert found(reference, stream) == pytest.approx(apart(reference, stream), rel=0.05)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sine", "has an eigenvalue of -"),
        ("lopsided", r"k\(x, y\) is not k\(y, x\)"),
        ("of_the_call", "depends on which other rows are in the call"),
        ("random", "called again with the same rows, it gave other numbers"),
        ("constant", "gives all pairs of the reference's rows one number"),
        ("flat", r"of \d+ rows and \d+ rows it made an array of shape \(\d+,\)"),
        ("infinite", "it gave infinite or undefined numbers"),
        ("writing", "it raised ValueError: .*read-only"),
        ("text", "it returned str"),
    ],
)
@pytest.mark.parametrize("detector", [MMDDrift, OnlineMMDDrift])
def test_what_is_no_kernel_is_refused_when_it_is_fitted(detector, name, why):
    with pytest.raises(BadInput, match=f"{detector.method}: kernel {OWN}:{name}(.|\n)*{why}"):
        detector(kernel=f"{OWN}:{name}").fit(rows(400, 0.5, seed=1))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (f"{OWN}:missing", "has no attribute 'missing'"),
        ("no_such_package:kernel", "module 'no_such_package' cannot be imported"),
        (f"{OWN}:NUMBER", "it is int, no function"),
        ("os:system", "one of Python's own modules"),
    ],
)
def test_a_function_that_is_not_there(name, why):
    with pytest.raises(ConfigError, match=f"mmd: kernel {name}(.|\n)*{why}"):
        MMDDrift(kernel=name).fit(rows(100, 0.5, seed=1))


@pytest.mark.parametrize("detector", [MMDDrift, OnlineMMDDrift, RandomFeatureMMDDrift])
def test_a_name_of_no_kernel(detector):
    with pytest.raises(BadInput, match=f"{detector.method}: kernel is 'cauchy'(.|\n)*built in are gaussian, "):
        detector(kernel="cauchy")


def test_random_frequencies_are_known_of_built_in_kernels_only():
    with pytest.raises(BadInput, match=r"kernel is 'a:b'(.|\n)*use `mmd` or `online_mmd`, which take any kernel"):
        RandomFeatureMMDDrift(kernel="a:b")
    for name in BUILT_IN:
        detector = RandomFeatureMMDDrift(kernel=name).fit(rows(800, 0.9, seed=1))
        assert detector.score(rows(300, 0.0, seed=2)).alarm
        assert not detector.score(rows(300, 0.9, seed=3)).alarm


@pytest.mark.parametrize("detector", [MMDDrift, OnlineMMDDrift])
def test_a_function_that_changed_is_not_taken_for_the_fitted_one(detector, tmp_path, monkeypatch):
    fitted = detector(kernel=f"{OWN}:gaussian").fit(rows(400, 0.5, seed=1))
    artifacts.save(fitted, tmp_path / "a")
    monkeypatch.setattr(some_kernels, "gaussian", lambda x, y: np.exp(-0.1001 * cdist(x, y, "sqeuclidean")))
    with pytest.raises(ArtifactError, match="it is not the function that the artifact was fitted with"):
        artifacts.load(tmp_path / "a")
    monkeypatch.delattr(some_kernels, "gaussian")
    with pytest.raises(ConfigError, match="has no attribute 'gaussian'"):
        artifacts.load(tmp_path / "a")


def test_a_window_of_which_the_kernel_is_infinite_is_refused():
    fitted = MMDDrift(kernel=f"{OWN}:exponential").fit(rows(100, 0.5, seed=1))
    window = rows(50, 0.5, seed=2)
    huge = dataclasses.replace(window, columns=(np.full(50, 1e200), *window.columns[1:]))
    with (
        np.errstate(over="ignore"),
        pytest.raises(BadInput, match="it gave infinite or undefined numbers"),
    ):
        fitted.score(huge)
