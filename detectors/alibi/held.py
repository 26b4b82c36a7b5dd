"""What every detector that a process apart holds has in common: it is asked there, and its answers become scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from detectors.alibi.answers import instance_scores, window_scores
from detectors.alibi.child import wire
from detectors.alibi.child.wire import Array, Message
from detectors.alibi.layout import Layout
from detectors.alibi.process import Child, Refused
from detectors.base import Stored, fitted, require_at_least
from govern.detection import Scores
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame
from govern.record import Kind

#: Loading or making an online detector simulates its thresholds, one of TensorFlow's traces its graphs.
OPEN_DEADLINE_S: Final = 600.0
DEADLINE_S: Final = 60.0
_MEMORY: Final = "memory/"

Memory = Mapping[str, Array]


class Held(Stored):
    """
    Args:
        seed: from which its random numbers are drawn anew for each window: permutations, training, sampling.
        deadline_s: in which it must have judged a window; its process is killed then.
    """

    kind: ClassVar[Kind]
    #: Whether its verdict depends on the windows before.
    remembers: ClassVar[bool] = False
    needs_outputs: Final[tuple[str, ...]] = ()

    _layout: Layout
    _child: Child

    def __init__(self, *, seed: int, deadline_s: float) -> None:
        self.seed = require_at_least("seed", seed, 0, method=self.method)
        if not deadline_s > 0.0:
            raise BadInput(f"{self.method}: deadline_s is {deadline_s}", why="it is more than 0", fix="correct it")
        self.deadline_s = float(deadline_s)

    @property
    @abstractmethod
    def detector(self) -> str:
        """alibi-detect's name of it."""

    def score(self, window: Frame) -> Scores:
        return self._scores(self._asked(window, {}), len(window))

    @abstractmethod
    def _question(self, window: Frame) -> tuple[dict[str, Any], dict[str, Array]]:
        """What is sent of a window."""

    @property
    @abstractmethod
    def _correction(self) -> str: ...

    def _opened(self) -> Message:
        """What its process says of it.

        Raises:
            ArtifactError: it cannot be made there.
        """
        return opened(self._child, self.method)

    def _asked(self, window: Frame, memory: Memory) -> Message:
        self._require_window(window)
        said, arrays = self._question(window)
        arrays |= {f"{_MEMORY}{name}": array for name, array in memory.items()}
        self._opened()
        try:
            return self._child.ask(said, arrays, deadline_s=self.deadline_s)
        except Refused as error:
            raise BadInput(
                f"{self.method}: {self.detector} refuses the window",
                why=str(error),
                fix="see alibi-detect's documentation of the detector, and the schema that it was made with",
            ) from error

    def _scores(self, answer: Message, n: int) -> Scores:
        schema = fitted(self._state, self.method).schema
        if self.kind != "drift":
            return instance_scores(answer, self._layout, schema, n=n)
        return window_scores(answer, self._layout, schema, detector=self.detector, correction=self._correction, n=n)


class Remembering(Held):
    """What it remembers is its own state (as `save_state` writes it), without the histories that only grow."""

    remembers = True

    def start(self) -> Memory:
        """As it was made or saved: with the rows that it had seen by then."""
        fitted(self._state, self.method)
        return _remembered(self._opened())

    def advance(self, memory: Memory, window: Frame, times: npt.NDArray[np.int64]) -> tuple[Scores, Memory]:
        answer = self._asked(window, memory)
        return self._scores(answer, len(window)), _remembered(answer)

    def pack(self, memory: Memory) -> bytes:
        return wire.pack({}, dict(sorted(memory.items())))

    def unpack(self, data: bytes) -> Memory:
        try:
            return wire.unpack(data).arrays
        except wire.Malformed as error:
            raise BadInput(
                f"{self.method}: bytes that are no memory of it", why=str(error), fix="start the stream anew"
            ) from error


def opened(child: Child, what: str) -> Message:
    """What a child says of the detector that it is given.

    Raises:
        ArtifactError: alibi-detect refuses it.
    """
    try:
        return child.opened()
    except Refused as error:
        raise ArtifactError(
            f"{what} cannot be loaded by alibi-detect",
            why=str(error),
            fix="see whether alibi-detect loads it by itself, in the environment that it was saved in",
        ) from error


def _remembered(answer: Message) -> Memory:
    return {name.removeprefix(_MEMORY): array for name, array in answer.arrays.items() if name.startswith(_MEMORY)}
