"""The demo's model: gradient-boosted trees that learn, from 2015, who has work. Served by a process of its own.

The story for a layperson: a public job-placement programme admits the people for whom the model expects that they
will find work, and refuses the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from govern.frame import Frame

#: Names of what the model answers: (n, 2) float64 of no work and work; (n, 1) int64, 1 = admitted.
PROBABILITY: Final = "probability"
PREDICTION: Final = "prediction"
#: Whoever is below is refused.
THRESHOLD: Final = 0.5

SERVICE: Final = "job-placement"
MODEL: Final = "employment"
REVISION: Final = "2015"


def train(reference: Frame, employed: npt.NDArray[np.int64], *, seed: int) -> bytes:
    """Train on the rows of 2015; the model as a skops file.

    Categories are ordered codes, so that the trees need no categorical splits, which shap cannot read.
    """
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    estimator = HistGradientBoostingClassifier(max_iter=120, learning_rate=0.08, max_leaf_nodes=24, random_state=seed)
    # One thread: on 15,000 rows, waiting for each other on a busy machine costs threads more than they gain.
    with threadpool_limits(limits=1):
        estimator.fit(reference.matrix(), employed)
    stored: bytes = skops.io.dumps(estimator)
    return stored


class Classifier:
    """The trained model in this process."""

    def __init__(self, path: Path) -> None:
        import skops.io

        # A skops file is data; the compiled tree structure is the only type in it that skops does not know itself.
        self._estimator = skops.io.load(
            path, trusted=["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]
        )

    def probabilities(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(n, d) rows as `Frame.matrix` gives them -> (n, 2)."""
        answer: npt.NDArray[np.float64] = self._estimator.predict_proba(matrix)
        return answer
