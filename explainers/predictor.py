"""Predictor: the model whose answers are explained, as a function of a frame."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from explainers.deadline import NEVER, Deadline
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame


@runtime_checkable
class Predictor(Protocol):
    """A model that answers for rows. The answers depend on the rows alone."""

    @property
    def digest(self) -> str:
        """Which model this is: equal digests mean equal answers."""
        ...

    def predict(self, frame: Frame, *, deadline: Deadline = NEVER) -> npt.NDArray[np.float64]:
        """The model's output for each row, (n, k) float64.

        Raises:
            DeadlinePassed: there was not enough time.
            Unavailable: the model cannot be asked.
            BadInput: the model refused the rows.
        """
        ...


#: skops lists these as untrusted because it cannot look inside them. The tree structures hold arrays of nodes and
#: nothing that runs on loading; the other two make up the step in which boosted trees encode categories, and a partial
#: of any other function still shows that function as untrusted.
_TRUSTED: Final = (
    "functools.partial",
    "sklearn.utils.validation.check_array",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


class SklearnPredictor:
    """An in-process scikit-learn estimator that was trained on `Frame.matrix()`.

    A classifier answers `predict_proba` (n, classes), a regressor `predict` (n, 1).

    Attributes:
        estimator: the fitted estimator.
        stored: its skops file, of which `digest` is the SHA-256.
    """

    def __init__(self, stored: bytes, *, origin: str = "model") -> None:
        """
        Args:
            stored: what `skops.io.dumps(estimator)` gave.

        Raises:
            ArtifactError: no skops file, or one with types that are not known to be harmless.
        """
        self.stored = stored
        self.estimator: Any = _load(stored, origin)
        self._threads = ThreadpoolController()

    @classmethod
    def of(cls, estimator: Any) -> SklearnPredictor:
        """Of an estimator in memory, through its skops form: what is explained is what is stored."""
        import skops.io

        return cls(skops.io.dumps(estimator))

    @classmethod
    def open(cls, path: Path) -> SklearnPredictor:
        """
        Raises:
            ArtifactError: the file cannot be read, or is no acceptable skops file.
        """
        try:
            stored = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"model file {path}", why=str(error), fix="name an existing .skops file") from error
        return cls(stored, origin=str(path))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.stored).hexdigest()

    def predict(self, frame: Frame, *, deadline: Deadline = NEVER) -> npt.NDArray[np.float64]:
        deadline.check("the model's prediction")
        matrix = frame.matrix()
        ask = getattr(self.estimator, "predict_proba", self.estimator.predict)
        try:
            # An explanation asks thousands of rows a call: OpenMP's threads gain little on them, and lose much where
            # other explanations or other containers want the same cores.
            with self._threads.limit(limits=1, user_api="openmp"):
                answer = ask(matrix)
        except ValueError as error:
            raise BadInput(
                "the model refused the rows", why=str(error), fix="send rows of the kind that it was trained on"
            ) from error
        outputs = np.asarray(answer, dtype=np.float64)
        return outputs.reshape(len(matrix), -1)


def _load(stored: bytes, origin: str) -> Any:
    import skops.io

    try:
        untrusted = [name for name in skops.io.get_untrusted_types(data=stored) if name not in _TRUSTED]
        if untrusted:
            raise ArtifactError(
                f"{origin} holds types that are not known to be harmless: {', '.join(untrusted)}",
                why="loading them may run code of the file's author",
                fix="store a model made of scikit-learn's own estimators",
            )
        return skops.io.loads(stored, trusted=list(_TRUSTED))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise ArtifactError(
            f"{origin} is no skops file that this environment can read",
            why=f"{type(error).__name__}: {error}",
            fix="store the model with skops.io.dump, under the same scikit-learn version",
        ) from error
