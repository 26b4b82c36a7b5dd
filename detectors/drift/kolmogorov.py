"""The distribution of the Kolmogorov-Smirnov statistic.

scipy.stats.kstwo has it too, at about 0.3 ms for each value, which is most of what a window would cost. The same
two branches, in vector operations over all features, take a tenth of that or less and agree with it to 1e-11 (tested).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Floats = npt.NDArray[np.float64]

#: Up to this sample size, or this n * d**1.5, the expansion below is off by up to 3e-6, and the exact algorithm that
#: scipy takes there is quick (Simard and L'Ecuyer 2011, section 3).
_EXACT_MAX_N: Final = 140
_EXACT_MAX_ND15: Final = 1.4
#: From this n * d**2 on, P(D >= d) is below 0.025 and equals twice the one-sided probability to 1e-10 (ibid.).
_TAIL: Final = 2.2
#: Terms of the theta series, each twice, for k and -k; the next is below 1e-39 wherever the body is used (z < 1.5).
_TERMS: Final = 6

#: (4, terms) the squares of the series' angles, to the powers 0 to 3.
_HALVES: Final = ((np.arange(_TERMS) + 0.5) * math.pi) ** (2 * np.arange(4.0)[:, None])
_WHOLES: Final = (np.arange(1, _TERMS + 1) * math.pi) ** (2 * np.arange(4.0)[:, None])
_ROOT_HALF_PI: Final = math.sqrt(math.pi / 2)


def survival(d: float, n: int) -> float:
    """`survivals` of one value."""
    return float(survivals(np.array([d]), np.array([n]))[0])


def survivals(d: Floats, n: npt.NDArray[np.int64]) -> Floats:
    """(k,) P(D_n >= d) for the two-sided one-sample statistic of n values from a continuous distribution.

    References:
        Simard, L'Ecuyer (2011): Computing the two-sided Kolmogorov-Smirnov distribution. J. Stat. Softw. 39(11).
    """
    exact = (n <= _EXACT_MAX_N) | (n * d**1.5 <= _EXACT_MAX_ND15) | (d >= 0.5)
    far = ~exact & (n * d * d >= _TAIL)
    near = ~exact & ~far
    found = np.empty(len(d))
    if exact.any():
        from scipy.stats import kstwo  # half a second to import, which few windows need

        found[exact] = kstwo.sf(d[exact], n[exact])
    for i in np.flatnonzero(far).tolist():
        found[i] = 2.0 * _one_sided(float(d[i]), int(n[i]))
    if near.any():
        found[near] = 1.0 - _body(np.sqrt(n[near]) * d[near], n[near].astype(np.float64))
    clipped: Floats = np.clip(found, 0.0, 1.0)
    return clipped


def _one_sided(d: float, n: int) -> float:
    """P(D+_n >= d), as Birnbaum and Tingey give it (1951, Ann. Math. Stat. 22, 592-596)."""
    j = np.arange(int(n * (1.0 - d)) + 1, dtype=np.float64)
    rest = 1.0 - d - j / n
    j = j[rest > 0.0]
    rest = rest[: len(j)]
    terms = _log_binomials(n)[: len(j)] + (j - 1) * np.log(d + j / n) + (n - j) * np.log(rest)
    return float(d * np.exp(terms).sum())


@lru_cache(maxsize=8)  # windows of one size ask for the same again and again
def _log_binomials(n: int) -> Floats:
    j = np.arange(n + 1, dtype=np.float64)
    logs: Floats = gammaln(n + 1) - gammaln(j + 1) - gammaln(n - j + 1)
    return logs


def _body(z: Floats, n: Floats) -> Floats:
    """(k,) P(sqrt(n) * D_n < z) by the expansion of Pelz and Good (1976, J. R. Stat. Soc. B 38, 152-156)."""
    tiny = z < 0.1  # the probability is below 1e-50, and the powers of 1/z overflow
    z = np.where(tiny, 1.0, z)
    z2 = z * z
    z4 = z2 * z2
    z6, z8 = z4 * z2, z4 * z4
    by = -0.5 / z2[:, None]
    # Sums of the series' terms, times powers of their squared angles.
    s0, s1, s2, s3 = (2 * np.exp(by * _HALVES[1]) @ _HALVES.T).T
    _, w1, w2, _ = (2 * np.exp(by * _WHOLES[1]) @ _WHOLES.T).T
    k1 = (s1 - z2 * s0) / (6 * z4)
    k2 = ((6 * z6 + 2 * z4) * s0 + (2 * z4 - 5 * z2) * s1 + (1 - 2 * z2) * s2) / (72 * z6 * z) - w1 / (36 * z2 * z)
    k3 = (5 - 30 * z2) * s3 + (212 * z4 - 60 * z2) * s2 + (135 * z4 - 96 * z6) * s1 - (30 * z6 + 90 * z8) * s0
    k3 = k3 / (6480 * z8 * z2) + (3 * z2 * w1 - w2) / (216 * z6)
    body: Floats = _ROOT_HALF_PI * (s0 / z + k1 / np.sqrt(n) + k2 / n + k3 / n**1.5)
    return np.where(tiny, 0.0, body)
