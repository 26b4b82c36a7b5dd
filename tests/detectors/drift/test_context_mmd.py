"""Context-aware MMD: its statistic by the paper's formulas, false alarms where only the context moves, and power."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom
from sklearn.metrics.pairwise import rbf_kernel

from detectors import artifacts
from detectors.distances import median_gamma
from detectors.drift.conditional import HELD, ConditionalDiscrepancy, factor, propensities
from detectors.drift.context_mmd import ContextMMDDrift
from detectors.drift.mmd import MMDDrift
from govern import artifact
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame

Floats = npt.NDArray[np.float64]


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_statistic_is_that_of_the_papers_formulas(shift):
    """Cobb and Van Looveren (2022), section 4: whole matrices, one held-out context after the other."""
    rng = np.random.default_rng(4)
    m, n, draws, lam, seed = 90, 40, 99, 0.02, 9
    reference, window = rng.normal(size=(m, 5)), rng.normal(size=(n, 5))
    window[:, 1] += 0.5
    for points in (reference, window):
        points[:, 3] += points[:, 1]
    window[:, 3] += shift
    given = np.array([False, True, False, False, True])
    test = ConditionalDiscrepancy(reference, given=given, lam=lam, permutations=draws, seed=seed)
    statistic, p_value = test.run(window)

    order = np.random.default_rng((seed, 0)).permutation(n)
    held, kept = window[order[: round(HELD * n)]], window[np.sort(order[round(HELD * n) :])]
    pooled, labels = np.vstack((reference, kept)), np.arange(m + len(kept)) >= m
    of_rows = rbf_kernel(pooled[:, ~given], gamma=median_gamma(reference[:, ~given]))
    gamma = median_gamma(reference[:, given])
    of_contexts, to_held = (rbf_kernel(pooled[:, given], other[:, given], gamma=gamma) for other in (pooled, held))

    def adit(labels: npt.NDArray[np.bool_]) -> float:
        total = 0.0
        for at in to_held.T:
            w = [
                np.linalg.solve(of_contexts[np.ix_(z, z)] + lam * z.sum() * np.eye(z.sum()), at[z])
                for z in (~labels, labels)
            ]
            k00, k01, k11 = (
                of_rows[np.ix_(a, b)] for a, b in ((~labels, ~labels), (~labels, labels), (labels, labels))
            )
            total += w[0] @ k00 @ w[0] - 2 * w[0] @ k01 @ w[1] + w[1] @ k11 @ w[1]
        return total / to_held.shape[1]

    assert statistic == pytest.approx(adit(labels), rel=1e-5)
    chances = propensities(factor(np.vstack((pooled, held))[:, given], gamma)[: len(pooled)], labels)
    generator = np.random.default_rng((seed, 1))
    null = np.array([adit(generator.random(len(pooled)) < chances) for _ in range(draws)])
    extreme = np.flatnonzero(null >= statistic)
    # Twenty draws as extreme end the drawing (`permutation_p`).
    assert p_value == (20 / (extreme[19] + 1) if len(extreme) >= 20 else (len(extreme) + 1) / (draws + 1))


def test_factors_multiply_to_their_kernel():
    points = np.random.default_rng(1).normal(size=(300, 1))
    factored = factor(points, 0.5)
    assert factored.shape[1] < 40
    assert np.abs(factored @ factored.T - rbf_kernel(points, gamma=0.5)).max() < 1e-7


def test_propensities_follow_the_contexts():
    rng = np.random.default_rng(2)
    contexts = np.concatenate((rng.normal(0, 1, 400), rng.normal(1, 1, 400)))[:, None]
    labels = np.arange(800) >= 400
    found = propensities(factor(contexts, 0.5), labels)
    assert found.sum() == pytest.approx(400, rel=1e-3)
    # Two normal densities of equal spread, one apart: the log odds are c - 1/2.
    near = np.abs(contexts[:, 0] - 0.5) < 1.5
    assert np.abs(found - 1 / (1 + np.exp(0.5 - contexts[:, 0])))[near].max() < 0.12


def people(frame: Frame, rows: npt.NDArray[np.int64], n: int, rng: np.random.Generator, tilt: float) -> Frame:
    """Real people, drawn without return: younger ones more often, the more the tilt."""
    age = frame.columns[_place(frame, "AGEP")][rows]
    weights = np.exp(-tilt * age / 20)
    return frame.take(rng.choice(rows, size=n, replace=False, p=weights / weights.sum()))


def _place(frame: Frame, name: str) -> int:
    return [feature.name for feature in frame.schema.features].index(name)


def _shuffled(frame: Frame, names: tuple[str, ...], rng: np.random.Generator) -> Frame:
    """The same values in each column, these no longer going with age."""
    columns = list(frame.columns)
    for name in names:
        columns[_place(frame, name)] = rng.permutation(columns[_place(frame, name)])
    return dataclasses.replace(frame, columns=tuple(columns))


@pytest.mark.parametrize("tilt", [0.0, 1.0])
def test_no_more_alarms_than_chance_explains_when_only_age_moves(acs, tilt):
    """Windows of the reference's own people, of its ages or of younger ones, which `mmd` alarms for."""
    rng = np.random.default_rng(7)
    alarms = marginal = 0
    for seed in range(3):
        order = rng.permutation(4000)
        fitted = ContextMMDDrift(context="AGEP", max_reference=200, seed=seed).fit(acs[2015].take(order[:2000]))
        iid = MMDDrift(max_reference=200, permutations=99, seed=seed).fit(acs[2015].take(order[:2000]))
        for _ in range(6):
            window = people(acs[2015], order[2000:], 120, rng, tilt)
            alarms += fitted.score(window).alarm
            marginal += iid.score(window).alarm
    assert alarms <= binom.ppf(0.999, 18, 0.05)
    assert marginal >= 16 if tilt else marginal <= binom.ppf(0.999, 18, 0.05)


def test_what_no_longer_goes_with_age_is_seen_and_named(acs):
    rng = np.random.default_rng(8)
    order = rng.permutation(4000)
    fitted = ContextMMDDrift(context="AGEP").fit(acs[2015].take(order[:2000]))
    young = people(acs[2015], order[2000:], 300, rng, 1.0)
    assert not fitted.score(young).alarm
    scores = fitted.score(_shuffled(young, ("SCHL", "MAR"), rng))
    assert scores.alarm
    named = {one.feature for one in scores.features if one.is_drift}
    assert "SCHL" in named
    assert not named & {"SEX", "RAC1P", "CIT", "AGEP"}
    assert "AGEP" not in {one.feature for one in scores.features}


def test_contexts_that_the_reference_never_had_are_no_alarm(make_table):
    fitted = ContextMMDDrift(context="x0", max_reference=100).fit(make_table(300, seed=1))
    window = make_table(60, seed=2)
    for value in (50.0, 1e300):
        scores = fitted.score(dataclasses.replace(window, columns=(np.full(60, value), *window.columns[1:])))
        assert not scores.alarm
        assert np.isfinite(scores.statistic)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"context": " ,"}, "context_mmd: context is ' ,'"),
        ({"context": "x0", "lam": 0.0}, "context_mmd: lam is"),
        ({"context": "x0", "permutations": 5}, "context_mmd: permutations is"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(BadInput, match=message):
        ContextMMDDrift(**params)


@pytest.mark.parametrize(
    ("context", "message"), [("x0,age", "'age' is no numeric or categorical feature"), ("x0,x1,x2,c0,c1", "no other")]
)
def test_a_context_that_the_schema_cannot_give(make_table, tmp_path, context, message):
    with pytest.raises(BadInput, match=message):
        ContextMMDDrift(context=context).fit(make_table(100))
    ContextMMDDrift(context="x0", max_reference=40).fit(make_table(100)).save(tmp_path / "a")
    manifest = tmp_path / "a" / artifact.MANIFEST
    manifest.write_text(manifest.read_text().replace('"x0"', f'"{context}"', 1))
    with pytest.raises(ArtifactError, match="holds no state"):
        artifacts.load(tmp_path / "a")
