"""Coalitions: KernelSHAP in rounds, each an estimate of its own, so that it can stop at any time and knows its error.

Lundberg and Lee, "A Unified Approach to Interpreting Model Predictions", NeurIPS 2017, section 4.1; the spread of
independent estimates as the error follows Covert and Lee, "Improving KernelSHAP", AISTATS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import shap
from scipy import stats

from explainers.deadline import Deadline, DeadlinePassed
from explainers.numpy_seed import seeded

Matrix = npt.NDArray[np.float64]

#: Confidence of the error bound, for all contributions at once.
CONFIDENCE: Final = 0.95


#: Coalitions that a round has at least for each varying feature: with fewer its equations are near singular.
_PER_FEATURE: Final = 4


@dataclass(frozen=True, slots=True)
class Round:
    """One complete estimate.

    Attributes:
        phi: (d,) contributions.
        masks: (m, v) which of the v varying features were present in each of the m coalitions.
        weights: (m,) Shapley kernel weights.
        gains: (m,) average model value of each coalition, less the base value.
        exact: every coalition was evaluated.
    """

    phi: Matrix
    masks: Matrix
    weights: Matrix
    gains: Matrix
    exact: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    Attributes:
        phi: (d,) contributions; base + their sum = prediction.
        error_bound: half the width of the widest 95 % confidence interval of a contribution (Student's t over the
            rounds, Bonferroni over features); 0 when exact, infinity after a single sampled round.
        fidelity: the share of the coalitions' weighted variance that the sum of contributions accounts for (R^2).
        complete: no round was left out for want of time.
    """

    base: float
    prediction: float
    phi: Matrix
    error_bound: float
    fidelity: float
    complete: bool


def estimate(
    model: Callable[[Matrix], Matrix],
    background: Matrix,
    row: Matrix,
    *,
    nsamples: int,
    rounds: int,
    seed: int,
    deadline: Deadline,
) -> Estimate:
    """The Shapley values of `model` at `row`, absent features taking the background's values.

    Where all coalitions are no more than `nsamples`, the last round evaluates every one and is exact.

    Args:
        model: (n, d) -> (n,); raises DeadlinePassed when time is up.
        background: (b, d).
        row: (1, d).
        nsamples: coalitions altogether; each costs b rows.
        rounds: independent estimates that they are spread over; fewer where each would be too small to solve.

    Raises:
        DeadlinePassed: before the first round was complete.
    """
    # shap prints to stdout when the first call fails, so that one is made here: an error is ours to report.
    first = [model(background)]
    explainer = shap.KernelExplainer(lambda rows: first.pop() if first else model(rows), background)
    varying = int((~np.isclose(background, row, equal_nan=True).all(axis=0)).sum())
    every = 2**varying - 2
    size = max(nsamples // rounds, _PER_FEATURE * varying)
    if every <= size:
        sizes = [size]
    elif every <= nsamples:
        sizes = [size, nsamples]
    else:
        sizes = [size] * max(1, nsamples // size)
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(len(sizes))]
    done: list[Round] = []
    complete = True
    for size, round_seed in zip(sizes, seeds, strict=True):
        try:
            deadline.check("KernelSHAP")
            done.append(_round(explainer, row, size, round_seed, exact=every <= size))
        except DeadlinePassed:
            complete = False
            break
    if not done:
        raise DeadlinePassed("KernelSHAP")
    if done[-1].exact:
        done = done[-1:]
    phi = np.mean([one.phi for one in done], axis=0)
    base = float(explainer.expected_value)
    return Estimate(
        base=base,
        prediction=base + float(phi.sum()),
        phi=phi,
        error_bound=_error_bound(done),
        fidelity=_fidelity(done, phi),
        complete=complete,
    )


def _round(explainer: shap.KernelExplainer, row: Matrix, size: int, seed: int, *, exact: bool) -> Round:
    with seeded(seed):
        phi = np.asarray(explainer.shap_values(row, nsamples=size, l1_reg=False, silent=True), dtype=np.float64)[0]
    if explainer.M < 2:
        empty = np.empty(0)
        return Round(phi, np.empty((0, 0)), empty, empty, exact=True)
    used = explainer.nsamplesAdded
    varying = np.zeros((used, len(phi)))
    varying[:, explainer.varyingInds] = explainer.maskMatrix[:used]
    gains = explainer.ey[:used, 0] - explainer.fnull[0]
    return Round(phi, varying, explainer.kernelWeights[:used].copy(), gains, exact)


def _error_bound(rounds: list[Round]) -> float:
    if rounds[-1].exact:
        return 0.0
    if len(rounds) == 1:
        return math.inf
    spread = np.std([one.phi for one in rounds], axis=0, ddof=1).max() / math.sqrt(len(rounds))
    tail = (1 - CONFIDENCE) / (2 * len(rounds[0].phi))
    return float(stats.t.isf(tail, len(rounds) - 1) * spread)


def _fidelity(rounds: list[Round], phi: Matrix) -> float:
    masks = np.concatenate([one.masks for one in rounds])
    if masks.size == 0:
        return 1.0
    weights = np.concatenate([one.weights for one in rounds])
    gains = np.concatenate([one.gains for one in rounds])
    unexplained = float(weights @ (gains - masks @ phi) ** 2)
    total = float(weights @ (gains - np.average(gains, weights=weights)) ** 2)
    return max(0.0, 1.0 - unexplained / total) if total > 0 else 1.0
