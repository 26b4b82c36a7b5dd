"""Many tests of one kind on one window at once: what costs little for each row costs much for each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.base import Array
from detectors.drift.categorical import ChiSquared
from detectors.drift.cramer_von_mises import in_order, outcomes_of
from detectors.drift.feature_test import FeatureTest, Settings
from detectors.drift.kolmogorov import survivals
from detectors.drift.numeric import CramerVonMises, KolmogorovSmirnov, numbers
from detectors.drift.rates import MissingRate, UnseenRate
from detectors.drift.univariate import CODE_OFFSET, Floats, Outcome, chi_squareds, guarded
from govern.frame import Frame

#: Cells that are sorted and merged together, so that they stay in the processor's cache.
_CELLS: Final = 1 << 17

Bools = npt.NDArray[np.bool_]
Ranks = npt.NDArray[np.int64]

#: One of so many of a sorted window's values is looked up at first, by Kolmogorov and Smirnov.
_STRIDE: Final = 8
_BETWEEN: Final = np.arange(1, _STRIDE)


@dataclass(frozen=True, slots=True)
class _Known:
    """How many rows of the window have no value, and one that the schema does not list: by the feature's position.

    Who went through a column for its values writes it down, so that the tests of the rates need not.
    """

    missing: dict[int, int]
    unseen: dict[int, int]


def run(tests: Sequence[FeatureTest], window: Frame, how: Settings) -> list[Outcome]:
    """What each test finds, in order: those of a kind together where there is a way, else one by one."""
    found: dict[int, Outcome] = {}
    kinds: dict[type[FeatureTest], list[int]] = {}
    for place, test in enumerate(tests):
        kinds.setdefault(type(test), []).append(place)
    known = _Known({}, {})
    for kind, places in sorted(kinds.items(), key=lambda one: one[0] in (MissingRate, UnseenRate)):
        mine: Any = [tests[place] for place in places]
        together = _TOGETHER.get(kind)
        outcomes = together(mine, window, how, known) if together else [test.run(window, how) for test in mine]
        found.update(zip(places, outcomes, strict=True))
    return [found[place] for place in range(len(tests))]


def _kolmogorov_smirnov(
    tests: Sequence[KolmogorovSmirnov], window: Frame, how: Settings, known: _Known
) -> list[Outcome]:
    found: dict[int, Outcome] = {}
    for block in _blocks(len(tests), len(window)) if how.tail != "exact" else ():
        places, rows = _sorted(tests, block, window, known)
        if places:
            m = rows.shape[1]
            references = [tests[place].values for place in places]
            sizes = np.array([len(one) for one in references], dtype=np.float64)
            apart, tied = _largest_distances(references, sizes, rows)
            p_values = survivals(apart, np.maximum(1, np.rint(sizes * m / (sizes + m))).astype(np.int64))
            for i, place in enumerate(places):
                if not tied[i]:
                    d = float(apart[i])
                    p_value = guarded(references[i], rows[i], float(p_values[i]), how.tail, how.level)
                    found[place] = Outcome(d, p_value, d, m)
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
        starts = which.searchsorted(bounds)
        under, again = _looked_up(references, rows[which[:, None], between], starts)
        share = under / sizes[which][:, None]
        apart = np.maximum((share - between / m).max(axis=1), ((between + 1) / m - share).max(axis=1))
        some = np.flatnonzero(starts[1:] > starts[:-1])
        distance[some] = np.maximum(distance[some], np.maximum.reduceat(apart, starts[some]))
        tied[which[again]] = True
    return distance, tied


def _looked_up(references: Sequence[Array], keys: Array, bounds: Ranks) -> tuple[Floats, Bools]:
    """(j, l) how many of a reference are below each of (j, l) keys; (j,) whether one of them is in it.

    Args:
        bounds: (k + 1,), reference i is asked for the keys from row bounds[i] to bounds[i + 1].
    """
    under, next_to = np.empty(keys.shape), np.empty_like(keys)
    for reference, start, end in zip(references, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        ranks = reference.searchsorted(keys[start:end])
        under[start:end] = ranks
        next_to[start:end] = reference.take(ranks, mode="clip")
    return under, (next_to == keys).any(axis=1)


def _cramer_von_mises(tests: Sequence[CramerVonMises], window: Frame, how: Settings, known: _Known) -> list[Outcome]:
    found: dict[int, Outcome] = {}
    for block in _blocks(len(tests), len(window)):
        places, rows = _sorted(tests, block, window, known)
        m = rows.shape[1]
        references = [tests[place].reference for place in places]
        sizes = np.array([len(one.values) for one in references], dtype=np.float64)
        under, tied = _looked_up([one.keys for one in references], in_order(rows), np.arange(len(places) + 1))
        # Rank less place is how many of the other sample are below. Of the reference's values, n - under are above the
        # window's i-th and count it; the square of a number is the sum of the odd numbers below its double.
        of_reference = sizes * m * m - under @ (2 * np.arange(m) + 1.0)
        pairs, total = sizes * m, sizes + m
        u = sizes * of_reference + m * (under * under).sum(axis=1)
        statistic = u / (pairs * total) - (4 * pairs - 1) / (6 * total)
        outcomes = outcomes_of(references, rows, statistic)
        tied |= np.array([one.tied for one in references], dtype=bool)
        said = zip(places, outcomes, tied.tolist(), strict=True)
        found.update({place: outcome for place, outcome, of_both in said if not of_both})
    return [found[place] if place in found else test.run(window, how) for place, test in enumerate(tests)]


def _sorted(tests: Sequence[FeatureTest], block: range, window: Frame, known: _Known) -> tuple[list[int], Floats]:
    """Of a block of tests, the j whose columns have neither a missing value nor a tie; (j, m) these columns, sorted."""
    rows = np.stack([numbers(window, tests[place].position) for place in block])
    rows.sort(axis=1)
    full: Bools = ~np.isnan(rows[:, -1])  # sorting puts NaN last
    known.missing.update((tests[block[i]].position, 0) for i in np.flatnonzero(full).tolist())
    whole: Bools = full & (rows[:, 1:] != rows[:, :-1]).all(axis=1)
    return (list(block), rows) if whole.all() else (np.array(block)[whole].tolist(), rows[whole])


def _chi_squared(tests: Sequence[ChiSquared], window: Frame, how: Settings, known: _Known) -> list[Outcome]:
    found: list[Outcome] = []
    for block in _blocks(len(tests), len(window)):
        mine = [tests[place] for place in block]
        sizes = np.array([len(test.counts) for test in mine])
        starts = np.concatenate(([0], np.cumsum(sizes)))
        codes = np.stack([window.columns[test.position] for test in mine]) + (starts[:-1, None] + CODE_OFFSET)
        counts = np.bincount(codes.ravel(), minlength=int(starts[-1]))
        for test, start in zip(mine, starts.tolist(), strict=False):
            known.unseen[test.position], known.missing[test.position] = counts[start : start + CODE_OFFSET].tolist()
        outcomes = chi_squareds(np.concatenate([test.counts for test in mine]), counts, starts[:-1])
        found += [
            test.judged(outcome, counts[start : start + size], how)
            for test, outcome, start, size in zip(mine, outcomes, starts.tolist(), sizes.tolist(), strict=False)
        ]
    return found


def _missing_rate(tests: Sequence[MissingRate], window: Frame, how: Settings, known: _Known) -> list[Outcome]:
    return _rates(tests, window, how, known.missing)


def _unseen_rate(tests: Sequence[UnseenRate], window: Frame, how: Settings, known: _Known) -> list[Outcome]:
    return _rates(tests, window, how, known.unseen)


def _rates(
    tests: Sequence[MissingRate | UnseenRate], window: Frame, how: Settings, known: dict[int, int]
) -> list[Outcome]:
    n = len(window)
    return [test.told(known[test.position], n) if test.position in known else test.run(window, how) for test in tests]


def _blocks(tests: int, rows: int) -> Iterator[range]:
    step = max(1, _CELLS // rows)
    for start in range(0, tests, step):
        yield range(start, min(start + step, tests))


_TOGETHER: Final[dict[type[FeatureTest], Callable[[Any, Frame, Settings, _Known], list[Outcome]]]] = {
    KolmogorovSmirnov: _kolmogorov_smirnov,
    CramerVonMises: _cramer_von_mises,
    ChiSquared: _chi_squared,
    MissingRate: _missing_rate,
    UnseenRate: _unseen_rate,
}
