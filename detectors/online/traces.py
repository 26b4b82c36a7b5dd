"""What is followed of a feature whose level may change: the rank of a number, the indicator of each category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.drift.univariate import CODE_OFFSET, category_counts
from detectors.online.ranks import sorted_of
from detectors.online.tracker import Floats
from govern.schema import FeatureSchema

Places = npt.NDArray[np.int64]

#: Categories of a feature that are followed one by one, at most, and the share of the reference that each has at least:
#: the others are followed together, so that what a row costs does not grow with the categories that a schema lists.
MOST: Final = 30
LEAST_SHARE: Final = 0.01
#: What a rank's standard deviation is taken for where it is smaller, as in a feature of hardly more than one value: the
#: one of an indicator of 5 %, as `detectors.coding` has it.
_LEAST_SPREAD: Final = float(np.sqrt(0.05 * 0.95))


class Traces:
    """The (n, k) traces of (n, d) rows: one of each number, one of each category, each 0 or 1.

    A number is its place in the reference, ties in their middle, in standard deviations of those places from their mean
    of 0: one wild value counts as the largest. A number with two values in the reference is 1 where it exceeds the
    smaller. A category is its indicator; missing and unseen (none that the schema lists) are categories, and those that
    are rare in the reference are one together. Of two categories that are all there is, one says it all.

    Args:
        reference: (m, d); NaN is a missing number, categories are codes.
        categories: of each feature, how many the schema lists; 0 for a number.

    Attributes:
        owners: (k,) the feature of each trace, in rising order.
        binary: (k,) bool, whether it is 0 or 1.
        shares: (k,) of ones in the reference, with half a one and half a zero more, so never 0 nor 1; NaN of numbers.

    Raises:
        BadInput: a number has too few values.
    """

    def __init__(self, reference: Floats, categories: Sequence[int]) -> None:
        self.width = len(categories)
        self._values: list[Floats] = []
        self._scales: list[float] = []
        self._maps: list[Places] = []
        owners: list[int] = []
        shares: list[float] = []
        for feature, (column, listed) in enumerate(zip(reference.T, categories, strict=True)):
            if listed:
                counts = category_counts(column.astype(np.int32), listed)
                places = _places(counts)
                self._maps.append(places)
                found = np.bincount(places[places >= 0], weights=counts[places >= 0])
                shares += ((found + 0.5) / (len(column) + 1)).tolist()
                owners += [feature] * len(found)
                self._values.append(np.empty(0))
                self._scales.append(0.0)
                continue
            values = sorted_of(column).values
            owners.append(feature)
            self._maps.append(np.empty(0, dtype=np.int64))
            self._values.append(values)
            if len(np.unique(values)) == 2:
                shares.append((np.count_nonzero(values > values[0]) + 0.5) / (len(values) + 1))
                self._scales.append(0.0)
            else:
                shares.append(np.nan)
                self._scales.append(max(float(np.std(_middles(values, values))), _LEAST_SPREAD))
        self.owners: Places = np.array(owners, dtype=np.int64)
        self.shares: Floats = np.array(shares)
        self.binary: npt.NDArray[np.bool_] = ~np.isnan(self.shares)

    def of(self, rows: Floats) -> Floats:
        """(n, d) -> (n, k); a number that is missing stays NaN."""
        found = np.zeros((len(rows), len(self.owners)))
        at = 0
        numbers = np.arange(len(rows))
        for feature, (places, values, scale) in enumerate(zip(self._maps, self._values, self._scales, strict=True)):
            column = rows[:, feature]
            if len(places):
                place = places[column.astype(np.int64) + CODE_OFFSET]
                followed = place >= 0
                found[numbers[followed], at + place[followed]] = 1.0
                at += int(places.max()) + 1
                continue
            there = ~np.isnan(column)
            if scale:
                found[there, at] = _middles(values, column[there]) / scale
            else:
                found[there, at] = column[there] > values[0]
            found[~there, at] = np.nan
            at += 1
        return found


def _middles(values: Floats, column: Floats) -> Floats:
    """Places among sorted values, from -1/2 to 1/2, ties in their middle."""
    places = values.searchsorted(column, side="left") + values.searchsorted(column, side="right")
    return np.asarray(places / (2 * len(values)) - 0.5)


def _places(counts: npt.NDArray[np.int64]) -> Places:
    """Of each code its trace: unseen 0, missing 1, then those that have their own, then the rare; -1 for none."""
    listed = counts[CODE_OFFSET:]
    own = np.argsort(-listed, kind="stable")[:MOST]
    own = own[listed[own] >= max(1.0, LEAST_SHARE * counts.sum())]
    if len(own) == len(listed) == 2:
        own, rare = own[:1], -1
    else:
        rare = CODE_OFFSET + len(own)
    places = np.full(len(counts), rare, dtype=np.int64)
    places[:CODE_OFFSET] = np.arange(CODE_OFFSET)
    places[CODE_OFFSET + own] = CODE_OFFSET + np.arange(len(own))
    return places


def listed_categories(schema: FeatureSchema) -> list[int]:
    """Of each numeric and categorical feature of a schema; 0 for a number."""
    return [
        len(feature.categories) if feature.kind == "categorical" else 0
        for feature in schema.features
        if feature.kind in ("numeric", "categorical")
    ]
