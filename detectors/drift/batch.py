"""Many tests of one kind on one window at once: what costs little for each row costs much for each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.drift.categorical import ChiSquared
from detectors.drift.cramer_von_mises import outcomes_of
from detectors.drift.feature_test import FeatureTest, Settings
from detectors.drift.kolmogorov import survivals
from detectors.drift.numeric import CramerVonMises, KolmogorovSmirnov, numbers
from detectors.drift.univariate import CODE_OFFSET, Floats, Outcome, chi_squareds, guarded
from govern.frame import Frame

#: Cells that are sorted and merged together, so that they stay in the processor's cache.
_CELLS: Final = 1 << 17

Bools = npt.NDArray[np.bool_]
Ranks = npt.NDArray[np.int64]

#: One of so many of a sorted window's values is looked up at first, by Kolmogorov and Smirnov.
_STRIDE: Final = 8
_BETWEEN: Final = np.arange(1, _STRIDE)


def run(tests: Sequence[FeatureTest], window: Frame, how: Settings) -> list[Outcome]:
    """What each test finds, in order: those of a kind together where there is a way, else one by one."""
    found: dict[int, Outcome] = {}
    kinds: dict[type[FeatureTest], list[int]] = {}
    for place, test in enumerate(tests):
        kinds.setdefault(type(test), []).append(place)
    for kind, places in kinds.items():
        mine: Any = [tests[place] for place in places]
        together = _TOGETHER.get(kind)
        outcomes = together(mine, window, how) if together else [test.run(window, how) for test in mine]
        found.update(zip(places, outcomes, strict=True))
    return [found[place] for place in range(len(tests))]


def _kolmogorov_smirnov(tests: Sequence[KolmogorovSmirnov], window: Frame, how: Settings) -> list[Outcome]:
    found: dict[int, Outcome] = {}
    for block in _blocks(len(tests), len(window)) if how.tail != "exact" else ():
        rows, whole = _sorted(tests, block, window)
        places = np.array(block)[whole]
        if len(places):
            rows, m = rows[whole], rows.shape[1]
            references = [tests[place].values for place in places.tolist()]
            sizes = np.array([len(one) for one in references], dtype=np.float64)
            apart, tied = _largest_distances(references, sizes, rows)
            p_values = survivals(apart, np.maximum(1, np.rint(sizes * m / (sizes + m))).astype(np.int64))
            for i in np.flatnonzero(~tied).tolist():
                d = float(apart[i])
                p_value = guarded(references[i], rows[i], float(p_values[i]), how.tail, how.level)
                found[int(places[i])] = Outcome(d, p_value, d, m)
    return [found[place] if place in found else test.run(window, how) for place, test in enumerate(tests)]


def _largest_distances(references: Sequence[Floats], sizes: Floats, rows: Floats) -> tuple[Floats, Bools]:
    """(k,) the distance between the distribution functions; (k,) whether a value was found to be in both samples.

    Both functions rise, so between two of the window's values, not all of which were looked up, they cannot be further
    apart than the higher end of one is from the lower of the other. Only where that is more than what was found already
    are the values between looked up, too.

    Args:
        references: k of (n,) values, sorted; sizes: (k,) their numbers.
        rows: (k, m) sorted, without ties.
    """
    m = rows.shape[1]
    places = np.append(np.arange(0, m - 1, _STRIDE), m - 1)
    bounds = np.arange(len(references) + 1)
    under, tied = _looked_up(references, rows[:, places], bounds)
    share = under / sizes[:, None]
    distance = np.maximum((share - places / m).max(axis=1), ((places + 1) / m - share).max(axis=1))
    most = np.maximum(share[:, 1:] - (places[:-1] + 1) / m, places[1:] / m - share[:, :-1])
    which, stretch = np.nonzero(most > distance[:, None])
    if len(which):
        between = np.minimum(places[stretch][:, None] + _BETWEEN, m - 1)
        under, again = _looked_up(references, rows[which[:, None], between], which.searchsorted(bounds))
        share = under / sizes[which][:, None]
        np.maximum.at(distance, which, (share - between / m).max(axis=1))
        np.maximum.at(distance, which, ((between + 1) / m - share).max(axis=1))
        np.logical_or.at(tied, which, again)
    return distance, tied


def _looked_up(references: Sequence[Floats], keys: Floats, bounds: Ranks) -> tuple[Floats, Bools]:
    """(j, l) how many of a reference are below each of (j, l) keys; (j,) whether one of them is in it.

    Args:
        bounds: (k + 1,), reference i is asked for the keys from row bounds[i] to bounds[i + 1].
    """
    under, next_to = np.empty(keys.shape), np.empty(keys.shape)
    for reference, start, end in zip(references, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        ranks = reference.searchsorted(keys[start:end])
        under[start:end] = ranks
        next_to[start:end] = reference.take(ranks, mode="clip")
    return under, (next_to == keys).any(axis=1)


def _cramer_von_mises(tests: Sequence[CramerVonMises], window: Frame, how: Settings) -> list[Outcome]:
    found: dict[int, Outcome] = {}
    for block in _blocks(len(tests), len(window)):
        rows, whole = _sorted(tests, block, window)
        m = rows.shape[1]
        places = np.array(block)[whole].tolist()
        references = [tests[place].reference for place in places]
        sizes = np.array([len(one.values) for one in references], dtype=np.float64)
        under, tied = _looked_up([one.values for one in references], rows[whole], np.arange(len(places) + 1))
        # Rank less place is how many of the other sample are below. Of the reference's values, n - under are above the
        # window's i-th and count it; the square of a number is the sum of the odd numbers below its double.
        of_reference = sizes * m * m - under @ (2 * np.arange(m) + 1.0)
        pairs, total = sizes * m, sizes + m
        u = sizes * of_reference + m * (under * under).sum(axis=1)
        statistic = u / (pairs * total) - (4 * pairs - 1) / (6 * total)
        outcomes = outcomes_of(references, rows[whole], statistic)
        tied |= np.array([one.tied for one in references], dtype=bool)
        said = zip(places, outcomes, tied.tolist(), strict=True)
        found.update({place: outcome for place, outcome, of_both in said if not of_both})
    return [found[place] if place in found else test.run(window, how) for place, test in enumerate(tests)]


def _sorted(tests: Sequence[FeatureTest], block: range, window: Frame) -> tuple[Floats, Bools]:
    """(k, m) the columns of a block of tests, sorted; (k,) which have neither a missing value nor a tie."""
    rows = np.stack([numbers(window, tests[place].position) for place in block])
    rows.sort(axis=1)
    whole: Bools = ~np.isnan(rows[:, -1]) & (rows[:, 1:] != rows[:, :-1]).all(axis=1)
    return rows, whole


def _chi_squared(tests: Sequence[ChiSquared], window: Frame, how: Settings) -> list[Outcome]:
    found: list[Outcome] = []
    for block in _blocks(len(tests), len(window)):
        mine = [tests[place] for place in block]
        sizes = np.array([len(test.counts) for test in mine])
        starts = np.concatenate(([0], np.cumsum(sizes)))
        codes = np.stack([window.columns[test.position] for test in mine]) + (starts[:-1, None] + CODE_OFFSET)
        counts = np.bincount(codes.ravel(), minlength=int(starts[-1]))
        outcomes = chi_squareds(np.concatenate([test.counts for test in mine]), counts, starts[:-1])
        found += [
            test.judged(outcome, counts[start : start + size], how)
            for test, outcome, start, size in zip(mine, outcomes, starts.tolist(), sizes.tolist(), strict=False)
        ]
    return found


def _blocks(tests: int, rows: int) -> Iterator[range]:
    step = max(1, _CELLS // rows)
    for start in range(0, tests, step):
        yield range(start, min(start + step, tests))


_TOGETHER: Final[dict[type[FeatureTest], Callable[[Any, Frame, Settings], list[Outcome]]]] = {
    KolmogorovSmirnov: _kolmogorov_smirnov,
    CramerVonMises: _cramer_von_mises,
    ChiSquared: _chi_squared,
}
