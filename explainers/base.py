"""The seam between jobs and explainers: what an explainer is, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, Self, runtime_checkable

from explainers.deadline import Deadline
from explainers.predicate import Predicate
from explainers.predictor import Predictor
from explainers.target import Target, Unit
from govern.errors import ConfigError
from govern.frame import Frame
from govern.record import AnchorRule, Attribution
from govern.schema import FeatureSchema

GROUP: Final = "govern.explainers"


@dataclass(frozen=True, slots=True)
class Explained:
    """What an explainer says of one row.

    Attributes:
        prediction: the model's number for the row, in `output_unit`.
        base_value: the average of that number over the background.
        attributions: one for each feature, in schema order; prediction = base_value + their sum.
        predicates, anchor: the rule of an anchor explanation; none for attributions.
        fidelity: how well it describes the model around the row; 1 is exact. Each explainer's docstring says how.
        error_bound: how far the figures may be off, in their unit; each explainer's docstring says which figures and
            with what confidence. Infinity = not known.
        status: "deadline" when time ran out and this is the best result so far.
    """

    method: str
    output_name: str
    output_unit: Unit
    prediction: float
    base_value: float
    attributions: tuple[Attribution, ...] = ()
    predicates: tuple[Predicate, ...] = ()
    anchor: AnchorRule | None = None
    fidelity: float = 1.0
    error_bound: float = 0.0
    status: Literal["ok", "deadline"] = "ok"


@runtime_checkable
class Explainer(Protocol):
    """A fitted or fittable explainer. Implementations are found by the entry point group `govern.explainers`.

    Explaining is a pure function of the fitted state, the model's answers and the row: the same row gives the same
    explanation in any process, unless the deadline cuts it short. The constructor takes keyword parameters only.
    """

    @property
    def method(self) -> str:
        """The entry point's name: `shap_tree`, `anchors`, `alibi.AnchorTabular` ..."""
        ...

    @property
    def schema(self) -> FeatureSchema: ...

    @property
    def target(self) -> Target: ...

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the fitted state."""
        ...

    @property
    def model_digest(self) -> str:
        """Of the model whose answers are explained: `Predictor.digest`."""
        ...

    @property
    def background_digest(self) -> str:
        """`Frame.digest` of the background sample."""
        ...

    @property
    def seed(self) -> int: ...

    def fit(self, background: Frame, predictor: Predictor | None = None) -> Self:
        """Take a background sample (and, where the explainer looks inside it, the model).

        Raises:
            ConfigError: the explainer cannot explain this model.
            BadInput: the background is empty or has features that the explainer cannot treat.
        """
        ...

    def explain(self, row: Frame, *, deadline: Deadline) -> Explained:
        """Explain a frame of one row.

        Raises:
            BadInput: not one row of the explainer's schema.
            DeadlinePassed: time ran out before there was any result.
            Unavailable: the model cannot be asked.
        """
        ...

    def save(self, path: Path) -> None:
        """Write an artifact folder (see `govern.artifact`)."""
        ...

    @classmethod
    def load(cls, path: Path, *, predictor: Predictor | None = None) -> Self:
        """Read an artifact folder and bind it to the model.

        Args:
            predictor: the model to ask; not needed by an explainer whose artifact holds the model.

        Raises:
            ArtifactError: damaged, foreign, or of another version.
        """
        ...


class NotFitted(ConfigError):
    """An explainer is used before `fit` or `load`."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"explainer {method!r} has no background",
            why="it was neither fitted nor loaded",
            fix="call fit(background) or load(path), or run `govern explain fit`",
        )


class NoModel(ConfigError):
    """A black-box explainer has nobody to ask."""

    def __init__(self, method: str) -> None:
        super().__init__(
            f"explainer {method!r} has no model to ask",
            why="it explains a black box by calling it, and no predictor was given",
            fix="give the model's URL (--model-url) or a model file (--model)",
        )
