"""Deadline: how long a computation may still take, measured on the monotonic clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from govern.errors import GovernError


class DeadlinePassed(GovernError):
    """The time allowed for an explanation ran out before there was anything to return."""

    code = "deadline-passed"
    http_status = 504

    def __init__(self, doing: str) -> None:
        super().__init__(
            f"{doing} did not finish in time",
            why="the deadline of the explanation passed",
            fix="allow more time (deadline_s), or ask for less (fewer samples, a smaller background)",
        )


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on the monotonic clock, handed down to everything that works towards one explanation.

    Attributes:
        at_s: `time.monotonic()` at which it passes; infinity = never.
    """

    at_s: float = math.inf

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self.at_s

    def check(self, doing: str) -> None:
        """
        Raises:
            DeadlinePassed: it has.
        """
        if self.passed:
            raise DeadlinePassed(doing)


#: For fitting and for tests: no limit.
NEVER = Deadline()
