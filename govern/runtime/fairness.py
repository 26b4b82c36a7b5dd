"""Which pipeline takes so much that the others of its track are to go on without it, and when it may come back. Pure.

Nothing here changes what is published: a pipeline judges the same records in the same order wherever it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Seconds of judging after which a track that is behind is weighed. Shorter, and one window of a detector decides.
WEIGH_S: Final = 2.0
#: The heaviest pipeline of a track that is behind leaves it when it takes so many times its equal share...
UNEQUAL: Final = 4 / 3
#: ... and at least this part of the whole: without a lighter one the others would be little faster.
MIN_SHARE: Final = 1 / 4
#: A single stretch of a pipeline that is longer than this, and nobody waits for it any more. Compiling what a detector
#: needs, at its first call, takes less.
STALL_S: Final = 5.0
#: A pipeline comes back when it has kept up for so long without a stretch like that, ...
COOL_S: Final = 300.0
#: ... and taken less than this part of the time.
COOL_SHARE: Final = 1 / 4


class Scales:
    """What the pipelines of one track take while it is behind."""

    def __init__(self) -> None:
        self._spent_s: dict[str, float] = {}

    def weigh(self, spent_s: Mapping[str, float], *, behind: bool) -> str | None:
        """The pipeline that is to leave the track, if there is one.

        Args:
            spent_s: pipeline -> seconds that it took since the last call.
            behind: whether work was left when the time of the turn was over. A track that keeps up needs no sharing.
        """
        stretch = max(spent_s, key=lambda name: (spent_s[name], name), default="")
        if stretch and spent_s[stretch] >= STALL_S:
            self._spent_s.clear()
            return stretch
        if not behind:
            self._spent_s.clear()
            return None
        for pipeline, seconds in spent_s.items():
            self._spent_s[pipeline] = self._spent_s.get(pipeline, 0.0) + seconds
        whole = sum(self._spent_s.values())
        if whole < WEIGH_S:
            return None
        spent, self._spent_s = self._spent_s, {}
        heaviest = max(spent, key=lambda name: (spent[name], name))
        share = spent[heaviest] / whole
        return heaviest if len(spent) > 1 and share >= max(MIN_SHARE, UNEQUAL / len(spent)) else None


class Cooling:
    """Whether a pipeline in a track of its own has become light enough to share one again.

    Args:
        now_s: a clock that only goes forward.
    """

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._spent_s = 0.0

    def turn(self, now_s: float, spent_s: float) -> None:
        """Note a turn that took `spent_s` of judging."""
        self._spent_s += spent_s
        if spent_s >= STALL_S or self._spent_s >= COOL_S * COOL_SHARE:
            self._since_s, self._spent_s = now_s, 0.0

    def cool(self, now_s: float) -> bool:
        return now_s - self._since_s >= COOL_S
