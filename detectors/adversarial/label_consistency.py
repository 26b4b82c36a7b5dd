"""Adversarial inputs by the classes of their nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.adversarial.detector import AdversarialDetector
from detectors.base import Array, require_at_least
from detectors.coding import Coding
from detectors.distances import nearest
from govern.frame import Frame

Floats = npt.NDArray[np.float64]

#: Before the names of the coding's arrays.
_CODING: Final = "coding."


class LabelConsistency(AdversarialDetector):
    """How much of a row's neighbourhood in the reference the model put into another class than this row.

    A change that is too small to see leaves a row among its old neighbours, and they were answered the old class. The
    score is the share of the k nearest reference rows whose class, the one that the model gave them, is another than
    the served one: 0 to 1, each neighbour weighing less the farther it is, so that scores differ where shares would
    not. The threshold is the rank among held-out rows at which the p-value of the paper's conformal test falls
    below `false_positive_rate`: a flag is that test, and holds at every size of the reference.

    Args:
        output: name of the model output that holds probabilities: (n, k), or (n, 1) for the probability of the
            second of two classes.
        k: neighbours that count.
        max_reference: rows to keep, at most; one row costs as many distances.
        false_positive_rate: share of clean rows above the threshold, at most.
        seed: of the split of the reference, and of the draw of the rows to keep.

    The paper looks for neighbours in the layers of a deep network; here the model is a black box, so they are
    those of the inputs, as mixed tables are coded for `knn` (`Coding`). What it cannot do: see a change that moves the
    row among rows of the served class. Honest rows near a boundary, where neighbours differ by nature, score high:
    with a model whose boundary is crossed often, the threshold is high and little is seen.

    References:
        Papernot, McDaniel (2018): Deep k-nearest neighbors: towards confident, interpretable and robust deep learning.
        arXiv:1803.04765;
        Dubey, van der Maaten, Yalniz, Li, Mahajan (2019): Defense against adversarial images using web-scale
        nearest-neighbor search. CVPR, 8767-8776 (neighbours weighted).
    """

    method = "label_consistency"

    def __init__(
        self,
        *,
        output: str = "predict_proba",
        k: int = 10,
        max_reference: int = 5_000,
        false_positive_rate: float = 0.01,
        seed: int = 0,
    ) -> None:
        self.k = require_at_least("k", k, 1, method=self.method)
        self.max_reference = require_at_least("max_reference", max_reference, self.k, method=self.method)
        super().__init__(
            output=output,
            false_positive_rate=false_positive_rate,
            seed=seed,
            k=self.k,
            max_reference=self.max_reference,
        )

    def _learn(self, reference: Frame, columns: tuple[int, ...], answers: Floats) -> Mapping[str, Array]:
        coding = Coding.of(reference, columns)
        kept = np.ascontiguousarray(coding.points(reference)[: self.max_reference].T)
        return {
            **{_CODING + name: getattr(coding, name) for name in Coding.__slots__},
            "kept": kept,
            "labels": answers[: self.max_reference].argmax(axis=1),
        }

    def _read(self, arrays: Mapping[str, Array]) -> None:
        self._coding = Coding(**{name: arrays[_CODING + name] for name in Coding.__slots__})
        self._kept, self._labels = arrays["kept"], arrays["labels"]
        # Compiled here, so that the first window does not wait for it.
        nearest(np.zeros((1, len(self._kept))), self._kept, self._neighbours)

    @property
    def _neighbours(self) -> int:
        return min(self.k, len(self._labels))

    def _scores(self, window: Frame, answers: Floats) -> Floats:
        distances, where = nearest(self._coding.points(window), self._kept, self._neighbours)
        # In units of the farthest one: a neighbour at no distance weighs four times as much as that.
        farthest = distances[:, -1:]
        places = np.divide(distances, farthest, out=np.zeros_like(distances), where=farthest > 0.0)
        weights = 1.0 / (1.0 + places) ** 2
        others = self._labels[where] != answers.argmax(axis=1)[:, None]
        return np.asarray((weights * others).sum(axis=1) / weights.sum(axis=1), dtype=np.float64)
