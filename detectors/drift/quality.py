"""Data quality: whether a window's rows still are what the schema says."""

from __future__ import annotations

from collections.abc import Iterator

from detectors.drift.checks import (
    ConstantCheck,
    DuplicateCheck,
    MissingCheck,
    RangeCheck,
    TypeCheck,
    UnseenCheck,
)
from detectors.drift.detector import UnivariateDrift
from detectors.drift.feature_test import FeatureTest
from govern.frame import Frame


class DataQuality(UnivariateDrift):
    """Checks of each feature against the `FeatureSchema`, and of the rows against each other.

    | signal | of which features | what breaks it |
    | --- | --- | --- |
    | missing | all | no value |
    | range | numeric, with a `minimum` or `maximum` | a value outside |
    | type | numeric, of an integer datatype or BOOL | a fraction, or a number that the datatype cannot hold |
    | unseen | categorical | a value that the schema does not list |
    | constant | numeric, categorical | one value in all rows |
    | duplicate | all together (feature "*") | a row that is in the window twice |

    A check alarms when more rows break it than the reference's own rate explains, so one row out of a range that was
    learned from the reference is no alarm, and a column that has gaps in the reference may have them. All checks are
    exact tests, one-sided: better data than the reference's is no alarm.

    Args:
        p_val: significance level, before correction.
        correction: over the checks: "bonferroni", "holm", "fdr" (Benjamini-Hochberg) or "none".
        seed: of the permutations of the duplicates' check.

    What cannot be read at all never gets here: text in a numeric feature is a dead letter.

    References:
        Fisher (1935): The logic of inductive inference. J. R. Stat. Soc. 98, 39-82; Breck, Polyzotis, Roy, Whang,
        Zinkevich (2019): Data validation for machine learning. MLSys (which checks a schema is for).
    """

    method = "data_quality"
    kinds = ("numeric", "categorical", "text", "image", "embedding")

    def __init__(self, *, p_val: float = 0.05, correction: str = "bonferroni", seed: int = 0) -> None:
        super().__init__(p_val=p_val, correction=correction, seed=seed)

    def tests_of(self, reference: Frame, position: int) -> Iterator[FeatureTest]:
        feature = reference.schema.features[position]
        yield MissingCheck.of(reference, position)
        if feature.kind == "numeric":
            if feature.minimum is not None or feature.maximum is not None:
                yield RangeCheck.of(reference, position)
            if "INT" in feature.datatype or feature.datatype == "BOOL":
                yield TypeCheck.of(reference, position)
        if feature.kind == "categorical":
            yield UnseenCheck.of(reference, position)
        if feature.kind in ("numeric", "categorical"):
            yield ConstantCheck.of(reference, position)
        if position == 0:
            yield DuplicateCheck.of(reference, position)
