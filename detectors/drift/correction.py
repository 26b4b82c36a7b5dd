"""Correction for judging many features at once."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from govern.errors import BadInput

Correction = Literal["bonferroni", "holm", "fdr", "none"]
CORRECTIONS: Final[tuple[str, ...]] = get_args(Correction)


def require_correction(name: str, *, method: str) -> Correction:
    """The correction of that name.

    Raises:
        BadInput: there is none.
    """
    for known in get_args(Correction):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise BadInput(
        f"{method}: correction is {name!r}", why=f"known are {', '.join(CORRECTIONS)}", fix="name one of them"
    )


def corrected_threshold(p_values: npt.NDArray[np.float64], level: float, correction: Correction) -> float:
    """The threshold such that a test is significant when its p-value is below it.

    Args:
        p_values: (m,) float64; NaN for a test that could not be made. It still counts in m, so that the
            threshold does not depend on how much data was missing.
        level: "bonferroni", "holm": bound on the probability of any false alarm; "fdr": on the expected share of
            false alarms among the alarms; "none": of a false alarm in each test.

    "holm" is the step-down procedure of Holm (1979, Scand. J. Stat. 6, 65-70): with r rejections, level / (m - r),
    which the next p-value is not below. It alarms when Bonferroni's does, and names at least as many features.
    "fdr" is the step-up procedure of Benjamini and Hochberg (1995, J. R. Stat. Soc. B 57, 289-300): the largest
    i/m * level above the i-th smallest p-value; level/m, which none is below, when there is no such i.
    """
    m = len(p_values)
    if correction == "none":
        return level
    if correction == "bonferroni":
        return level / m
    if correction == "holm":
        held = np.flatnonzero(~(np.sort(p_values) < level / np.arange(m, 0, -1)))
        return float(level / (m - held[0])) if len(held) else level
    steps = level * np.arange(1, m + 1) / m
    below = np.flatnonzero(np.sort(p_values) < steps)
    return float(steps[below[-1]]) if len(below) else level / m
