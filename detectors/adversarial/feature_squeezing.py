"""Adversarial inputs by feature squeezing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from detectors.adversarial.detector import AdversarialDetector
from detectors.adversarial.squeezers import Squeezers
from detectors.adversarial.student import Student
from detectors.base import Array, positions, require_at_least
from govern.errors import BadInput
from govern.frame import Frame

Floats = npt.NDArray[np.float64]

#: Between the name of a part of the state and those of its arrays.
_OF: Final = "."
_SQUEEZERS: Final = "squeezers"


class FeatureSqueezing(AdversarialDetector):
    """How far the model's answer is from what is usually answered to rows that look the same, squeezed.

    A squeezer leaves fewer values of each number: `bits` rounds it to so many levels of its range, `cells` puts the
    middle of a quantile's cell in its place, `median` smooths an image by windows of 3 x 3. What an honest row means
    survives that; a change small enough to go unseen does not. The score is the largest L1 distance, over the
    squeezers, between the served probabilities and those expected of the squeezed row: 0 to 2.

    The paper calls the model again, on the squeezed row. A verdict must not depend on a call that another revision
    of the model may answer, so that it can be computed again; what is expected comes from a student for each
    squeezer, a small network fitted on squeezed rows of the reference and the model's captured answers to them.

    Args:
        output: name of the model output that holds probabilities: (n, k), or (n, 1) for the probability of the
            second of two classes.
        bits: depth to which numbers are rounded; 0 for no such squeezer.
        cells: quantile cells of a number; 0 for no such squeezer.
        image_width: pixels in a row of the image whose pixels, row by row, the numeric features are; 0 for a table.
        false_positive_rate: share of clean rows above the threshold, at most.
        epochs: the students' training passes, at most.
        seed: of the split of the reference, and the students.

    What it cannot do: see a change that survives squeezing, or one of categories, which are not squeezed: on a table
    of categories it is little more than `model_distillation`. A row on which the students are wrong scores high
    without any attack. Whoever knows the squeezers can make a change that is larger than they are coarse.

    References:
        Xu, Evans, Qi (2018): Feature squeezing: detecting adversarial examples in deep neural networks. NDSS.
        arXiv:1704.01155.
    """

    method = "feature_squeezing"

    def __init__(
        self,
        *,
        output: str = "predict_proba",
        bits: int = 3,
        cells: int = 8,
        image_width: int = 0,
        false_positive_rate: float = 0.01,
        epochs: int = 100,
        seed: int = 0,
    ) -> None:
        self.bits = require_at_least("bits", bits, 0, method=self.method)
        self.cells = require_at_least("cells", cells, 0, method=self.method)
        self.image_width = require_at_least("image_width", image_width, 0, method=self.method)
        self.epochs = require_at_least("epochs", epochs, 1, method=self.method)
        if not (self.bits or self.cells or self.image_width):
            raise BadInput(
                f"{self.method}: bits, cells and image_width are 0",
                why="without a squeezer there is nothing to compare with",
                fix="give one of them",
            )
        super().__init__(
            output=output,
            false_positive_rate=false_positive_rate,
            seed=seed,
            bits=self.bits,
            cells=self.cells,
            image_width=self.image_width,
            epochs=self.epochs,
        )

    def _learn(self, reference: Frame, columns: tuple[int, ...], answers: Floats) -> Mapping[str, Array]:
        numeric = positions(reference.schema, "numeric")
        self._require_numbers(reference, numeric)
        squeezers = Squeezers.of(reference, numeric, bits=self.bits, cells=self.cells, width=self.image_width)
        parts = {_SQUEEZERS: squeezers.arrays()}
        for name, squeezed in squeezers(reference).items():
            parts[name] = Student.fit(squeezed, columns, answers, epochs=self.epochs, seed=self.seed).arrays()
        return {part + _OF + name: array for part, arrays in parts.items() for name, array in arrays.items()}

    def _require_numbers(self, reference: Frame, numeric: tuple[int, ...]) -> None:
        if not numeric:
            raise BadInput(
                f"{self.method}: the schema of {reference.schema.model!r} has no numeric feature",
                why="categories are not squeezed",
                fix="use model_distillation or label_consistency",
            )
        if self.image_width and len(numeric) % self.image_width:
            raise BadInput(
                f"{self.method}: image_width is {self.image_width}",
                why=f"{len(numeric)} numeric features are no rows of so many pixels",
                fix="correct it, or give 0 for a table",
            )
        for position in numeric:
            if np.isnan(reference.columns[position]).all():
                raise BadInput(
                    f"feature {reference.schema.features[position].name!r} has no value in the reference",
                    why=f"all {len(reference)} are missing",
                    fix="give another reference, or leave the feature out of the schema",
                )

    def _read(self, arrays: Mapping[str, Array]) -> None:
        parts: dict[str, dict[str, Array]] = {}
        for name, array in arrays.items():
            part, dot, field = name.partition(_OF)
            if dot:
                parts.setdefault(part, {})[field] = array
        self._squeezers = Squeezers.from_arrays(parts.pop(_SQUEEZERS))
        self._students = {name: Student.from_arrays(fields) for name, fields in parts.items()}

    def _scores(self, window: Frame, answers: Floats) -> Floats:
        gaps = [
            np.abs(answers - softmax(self._students[name](squeezed), axis=1)).sum(axis=1)
            for name, squeezed in self._squeezers(window).items()
        ]
        return np.asarray(np.max(gaps, axis=0), dtype=np.float64)
