"""Beam search for an anchor: Algorithm 2 of Ribeiro, Singh and Guestrin (AAAI 2018).

Rules grow by one condition a level. Of each level's candidates the `beam` most precise ones are found by KL-LUCB;
those whose precision is shown to reach the threshold are anchors, and the one that covers most is the answer. A
candidate that covers no more than the best anchor so far is dropped, so the search ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from explainers.deadline import Deadline, DeadlinePassed
from explainers.kl_lucb import Arms, Floats, Tally, best, confidence
from explainers.neighbourhood import Matrix, Neighbourhood, Rule, tighten

#: Sum of 1 / l^2 over the levels l = 1, 2, ...: what level l gets of delta is delta / (l^2 * this).
_LEVELS: Final = np.pi**2 / 6


@dataclass(frozen=True, slots=True)
class Settings:
    """
    Attributes:
        tau: the precision that an anchor must reach.
        slack: an anchor is taken when its precision is shown to be above tau - slack.
        delta: the probability that any bound of the search fails.
        epsilon: how much worse than the true best the rules kept at a level may be.
        beam: how many rules are kept at a level.
        batch: rows drawn for a rule at first; each further time as many as it has, up to `_LARGEST` batches.
        max_conditions: the longest rule that is tried.
    """

    tau: float = 0.95
    slack: float = 0.05
    delta: float = 0.1
    epsilon: float = 0.15
    beam: int = 4
    batch: int = 128
    max_conditions: int = 6


@dataclass(frozen=True, slots=True)
class Found:
    """
    Attributes:
        precision: the share of the `n` drawn rows that got the row's answer.
        lower: lower bound of the precision; all bounds of a search hold with probability 1 - delta.
        coverage: the share of background rows that fulfil the rule.
        complete: the search ended by itself, not by its deadline.
    """

    rule: Rule
    precision: float
    lower: float
    coverage: float
    n: int
    complete: bool


#: A rule's sample doubles at each look until a look adds this many batches: few calls, and little waste at the end.
_LARGEST: Final = 8

#: (n, d) rows -> (n,) whether each gets the answer of the explained row.
Same = Callable[[Matrix], npt.NDArray[np.bool_]]


def search(
    neighbourhood: Neighbourhood, same: Same, settings: Settings, rng: np.random.Generator, deadline: Deadline
) -> Found:
    """The anchor that covers most; where no rule reaches tau, the rule of highest lower bound.

    Raises:
        DeadlinePassed: time ran out before the first answer of the model.
    """
    return _Search(neighbourhood, same, settings, rng, deadline).run()


class _Search:
    def __init__(
        self, around: Neighbourhood, same: Same, settings: Settings, rng: np.random.Generator, deadline: Deadline
    ) -> None:
        self._around = around
        self._same = same
        self._settings = settings
        self._rng = rng
        self._deadline = deadline
        self._anchor: Found | None = None
        self._closest: Found | None = None

    def run(self) -> Found:
        rules: list[Rule] = [()]
        depth = 1
        complete = True
        while rules and depth <= self._settings.max_conditions + 1:
            tally = Tally.empty(len(rules))
            try:
                kept = self._level(rules, tally, depth)
            except DeadlinePassed:
                complete = False
                self._note_closest(rules, tally, depth)
                break
            self._note_closest(rules, tally, depth)
            rules = self._extended([rules[arm] for arm in kept])
            depth += 1
        found = self._anchor or self._closest
        if found is None:
            raise DeadlinePassed("the search for an anchor")
        return Found(found.rule, found.precision, found.lower, found.coverage, found.n, complete)

    def _level(self, rules: list[Rule], tally: Tally, depth: int) -> Arms:
        settings = self._settings

        def toss(arms: Arms) -> None:
            self._toss(rules, tally, arms)

        kept = best(tally, toss, top=settings.beam, delta=settings.delta, epsilon=settings.epsilon)
        undecided = kept
        while undecided.size:
            mean, low, high = tally.mean[undecided], *self._bounds(tally, undecided, depth)
            reached = (mean >= settings.tau) & (low > settings.tau - settings.slack)
            for arm, bound in zip(undecided[reached], low[reached], strict=True):
                self._note_anchor(self._found(rules[arm], tally, int(arm), float(bound)))
            margin = min(settings.slack, (1 - settings.tau) / 2)
            missed = (mean < settings.tau) & (high < settings.tau + margin)
            undecided = undecided[~(reached | missed)]
            if undecided.size:
                toss(undecided)
        return kept

    def _toss(self, rules: list[Rule], tally: Tally, arms: Arms) -> None:
        self._deadline.check("the search for an anchor")
        batch = self._settings.batch
        sizes = np.clip(tally.n[arms], batch, _LARGEST * batch).astype(np.intp)
        rows = np.concatenate(
            [self._around.draw(rules[arm], size, self._rng) for arm, size in zip(arms, sizes, strict=True)]
        )
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        heads = np.add.reduceat(self._same(rows).astype(np.float64), starts)
        tally.add(arms, sizes.astype(np.float64), heads)

    def _bounds(self, tally: Tally, arms: Arms, depth: int) -> tuple[Floats, Floats]:
        looks = int(tally.n[arms].max()) // self._settings.batch
        level = confidence(looks, len(tally.n), self._settings.delta / (depth**2 * _LEVELS))
        return tally.lower(arms, level), tally.upper(arms, level)

    def _note_anchor(self, found: Found) -> None:
        best_so_far = self._anchor
        if best_so_far is None or (found.coverage, found.precision) > (best_so_far.coverage, best_so_far.precision):
            self._anchor = found

    def _note_closest(self, rules: list[Rule], tally: Tally, depth: int) -> None:
        tossed = np.flatnonzero(tally.n)
        if tossed.size == 0:
            return
        low, _ = self._bounds(tally, tossed, depth)
        first = int(np.argmax(low))
        found = self._found(rules[tossed[first]], tally, int(tossed[first]), float(low[first]))
        if self._closest is None or found.lower > self._closest.lower:
            self._closest = found

    def _found(self, rule: Rule, tally: Tally, arm: int, bound: float) -> Found:
        precision = float(tally.mean[arm])
        return Found(rule, precision, bound, self._around.coverage(rule), int(tally.n[arm]), complete=False)

    def _extended(self, rules: list[Rule]) -> list[Rule]:
        grown: dict[Rule, None] = {}
        for rule in rules:
            for condition in self._around.conditions:
                longer = tighten(rule, condition)
                if longer is not None:
                    grown[longer] = None
        if self._anchor is None:
            return list(grown)
        return [rule for rule in grown if self._around.coverage(rule) > self._anchor.coverage]
