"""Deadline: how long a computation may still take, measured on the monotonic clock."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

from govern.errors import GovernError


class DeadlinePassed(GovernError):
    """The time allowed for an explanation ran out before there was anything to return."""

    code = "deadline-passed"
    http_status = 504

    def __init__(self, doing: str, *, last: str = "") -> None:
        super().__init__(
            f"{doing} did not finish in time",
            why="the deadline of the explanation passed" + (f"; the last try: {last}" if last else ""),
            fix="allow more time (deadline_s), or ask for less (fewer samples, a smaller background)",
        )


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant on the monotonic clock, handed down to everything that works towards one explanation.

    Attributes:
        at_s: `time.monotonic()` at which it passes; infinity = never.
        stopped: set when nobody waits for the result any more: the deadline has then passed, too.
    """

    at_s: float = math.inf
    stopped: threading.Event | None = None

    @classmethod
    def after(cls, seconds: float, *, stopped: threading.Event | None = None) -> Deadline:
        return cls(time.monotonic() + seconds, stopped)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        if self.stopped is not None and self.stopped.is_set():
            return 0.0
        return max(0.0, self.at_s - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.remaining_s == 0.0

    def check(self, doing: str) -> None:
        """
        Raises:
            DeadlinePassed: it has.
        """
        if self.passed:
            raise DeadlinePassed(doing)

    def sleep(self, seconds: float) -> None:
        """Wait, but not past the deadline."""
        seconds = min(seconds, self.remaining_s)
        if self.stopped is not None:
            self.stopped.wait(seconds)
        else:
            time.sleep(seconds)


#: For fitting and for tests: no limit.
NEVER = Deadline()
