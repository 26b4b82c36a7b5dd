"""A battery: the univariate tests of a drift detector, stored, run on a window, and their joint verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from detectors.base import Array, Fitted
from detectors.drift.batch import run
from detectors.drift.binned import BinnedKolmogorovSmirnov
from detectors.drift.categorical import ChiSquared, FisherExact
from detectors.drift.cells import Hellinger, JensenShannon, LInfinity, PopulationStability
from detectors.drift.checks import (
    ConstantCheck,
    DuplicateCheck,
    MissingCheck,
    RangeCheck,
    TypeCheck,
    UnseenCheck,
)
from detectors.drift.correction import Correction, corrected_threshold
from detectors.drift.feature_test import FeatureTest, Settings
from detectors.drift.numeric import CramerVonMises, KolmogorovSmirnov
from detectors.drift.rates import MissingRate, UnseenRate
from detectors.drift.univariate import Outcome
from detectors.drift.wasserstein import Wasserstein
from govern.detection import WindowScores
from govern.frame import Frame
from govern.record import FeatureResult
from govern.schema import FeatureSchema

#: The feature's name in a result that is of all of them together.
WHOLE: Final = "*"

#: By these names their arrays are stored.
TESTS: Final[dict[str, type[FeatureTest]]] = {
    test.__name__: test
    for group in (
        (KolmogorovSmirnov, CramerVonMises, Wasserstein, ChiSquared, FisherExact, BinnedKolmogorovSmirnov),
        (PopulationStability, JensenShannon, Hellinger, LInfinity),
        (MissingRate, UnseenRate),
        (MissingCheck, UnseenCheck, RangeCheck, TypeCheck, ConstantCheck, DuplicateCheck),
    )
    for test in group
}


def to_arrays(tests: Sequence[FeatureTest]) -> dict[str, Array]:
    return {f"{type(test).__name__}.{test.position}": test.state() for test in tests}


def from_arrays(state: Fitted) -> tuple[FeatureTest, ...]:
    """The battery that `to_arrays` stored, in the same order.

    Raises:
        ArtifactError: an array is no test's.
    """
    tests: list[FeatureTest] = []
    for name, array in state.arrays().items():
        kind, _, position = name.partition(".")
        if not position.isdecimal() or int(position) >= len(state.schema.features) or array.ndim != 1:
            raise state.damaged(f"array {name!r} belongs to no feature")
        if kind not in TESTS:
            raise state.damaged(f"array {name!r} belongs to no test known here")
        try:
            tests.append(TESTS[kind].read(int(position), array, state.schema.features[int(position)]))
        except ValueError as error:
            raise state.damaged(f"array {name!r}: {error}") from error
    return tuple(tests)


def judge(tests: Sequence[FeatureTest], window: Frame, how: Settings, correction: Correction) -> WindowScores:
    """Run every test on the window, and the `verdict` on what they find."""
    return verdict(tests, run(tests, window, how), window.schema, how, correction)


def verdict(
    tests: Sequence[FeatureTest],
    outcomes: Sequence[Outcome],
    schema: FeatureSchema,
    how: Settings,
    correction: Correction,
) -> WindowScores:
    """What the tests found, corrected for their number.

    A feature drifts when a p-value of it is below the corrected threshold; the window does when a feature does. A
    signal that neither reference nor window knows of is counted, so that the threshold does not depend on the window,
    and not told.
    """
    threshold = corrected_threshold(np.array([outcome.p_value for outcome in outcomes]), how.level, correction)
    features = tuple(
        FeatureResult(
            feature=WHOLE if test.signal == "duplicate" else schema.features[test.position].name,
            signal=test.signal,
            statistic_name=test.statistic_name,
            statistic=outcome.statistic,
            p_value=outcome.p_value,
            effect_size=outcome.effect_size,
            effect_size_name=test.effect_size_name,
            threshold=threshold,
            n=outcome.n,
            is_drift=outcome.p_value < threshold and (bool(test.signal) or outcome.statistic >= how.min_statistic),
        )
        for test, outcome in zip(tests, outcomes, strict=True)
        if test.always_told or outcome.statistic > 0.0 or outcome.effect_size > 0.0
    )
    return WindowScores(
        alarm=any(one.is_drift for one in features), features=features, threshold=threshold, correction=correction
    )
