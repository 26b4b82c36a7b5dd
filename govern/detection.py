"""The seam between the kernel and detectors: the kernel knows this Protocol, never a detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt

from govern.frame import Frame
from govern.record import FeatureResult, Kind
from govern.schema import FeatureSchema

#: In `WindowScores.alarm_row`: no row of the window raised an alarm, or the detector judges windows as a whole.
NO_ROW: Final = -1


@dataclass(frozen=True, slots=True)
class WindowScores:
    """What a drift detector says of one window.

    Attributes:
        alarm: whether the window drifted.
        features: per feature statistic, p-value, effect size, threshold after correction, n.
        statistic, p_value: of the window as a whole; NaN where only features are judged.
        threshold: on the p-value.
        correction: "bonferroni", "holm", "fdr" or "none".
        alarm_row: of a detector that judges row by row: the first row of the window at which it alarmed.
    """

    alarm: bool
    features: tuple[FeatureResult, ...] = ()
    statistic: float = float("nan")
    p_value: float = float("nan")
    threshold: float = float("nan")
    correction: str = "none"
    alarm_row: int = NO_ROW


@dataclass(frozen=True, slots=True)
class InstanceScores:
    """What an outlier or adversarial detector says of each row.

    Attributes:
        scores: (n,) float64, higher is stranger.
        flagged: (n,) bool, scores > threshold.
        threshold: on the score.
        shares: (n, features of the schema) float64, how much of a flagged row's score each feature brings: they add
            up to 1; 0 in rows that are not flagged. None where the method cannot tell.
    """

    scores: npt.NDArray[np.float64]
    flagged: npt.NDArray[np.bool_]
    threshold: float
    shares: npt.NDArray[np.float64] | None = None


Scores = WindowScores | InstanceScores


@runtime_checkable
class Detector(Protocol):
    """A fitted or fittable detector. Implementations are found by the entry point group `govern.detectors`.

    Scoring is a pure function of the fitted state and the frame: the same window gives the same scores, bit for
    bit, in any process. The constructor takes keyword parameters only and stores them.
    """

    @property
    def kind(self) -> Kind: ...

    @property
    def method(self) -> str:
        """The entry point's name: `ks`, `tabular`, `alibi_detect.KSDrift` ..."""
        ...

    @property
    def schema(self) -> FeatureSchema:
        """Of the reference it was fitted on."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256, hex, of the fitted state."""
        ...

    @property
    def reference_digest(self) -> str:
        """`Frame.digest` of the reference."""
        ...

    @property
    def seed(self) -> int: ...

    @property
    def min_instances(self) -> int:
        """The fewest rows that `score` accepts."""
        ...

    @property
    def needs_outputs(self) -> tuple[str, ...]:
        """Names of the model outputs that `score` reads from `Frame.outputs`."""
        ...

    def fit(self, reference: Frame) -> Self: ...

    def score(self, window: Frame) -> Scores: ...

    def save(self, path: Path) -> None:
        """Write an artifact folder (see `govern.artifact`)."""
        ...

    @classmethod
    def load(cls, path: Path) -> Self: ...


@runtime_checkable
class StatefulDetector(Detector, Protocol):
    """A detector that remembers: what it says of a window depends on the windows before it.

    What it remembers is a value of its own, never changed in place: `advance` gives a new one, so that a window which
    cannot be judged leaves none half changed. Whoever feeds it keeps one for each stream, and stores it with the place
    in the stream that it belongs to. `score(window)` is what it says of a stream that begins with that window.
    """

    def start(self) -> Any:
        """What it remembers before the first window."""
        ...

    def advance(self, memory: Any, window: Frame, times: npt.NDArray[np.int64]) -> tuple[Scores, Any]:
        """What it says of the window that follows those in `memory`, and the memory after it. Pure.

        Args:
            times: (n,) t_response of each row, nanoseconds since the epoch, in stream order.
        """
        ...

    def pack(self, memory: Any) -> bytes:
        """The memory as it is stored; equal memories give equal bytes."""
        ...

    def unpack(self, data: bytes) -> Any:
        """What `pack` stored, bit for bit.

        Raises:
            BadInput: the bytes are no memory of this detector.
        """
        ...


def remembers(detector: Detector) -> TypeGuard[StatefulDetector]:
    """Whether what a detector says depends on the windows before. `isinstance` would read every property."""
    return hasattr(detector, "advance")


def tells_shares(detector: Detector) -> bool:
    """Whether the `InstanceScores` of this fitted detector always have shares: its attribute `tells_shares`, if any."""
    return bool(getattr(detector, "tells_shares", False))


def stated_contamination(detector: Detector) -> float | None:
    """The share of rows like its reference's that an outlier detector was fitted to flag, at most: its parameter
    `contamination`; None where it has none."""
    stated = getattr(detector, "contamination", None) if detector.kind == "outlier" else None
    return stated if isinstance(stated, float) else None
