"""Router: sends each request down one of its routes, and learns from feedback which are good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from govern.codecs.tensor import Tensor
from govern.pipeline.spec import RouterSpec
from govern.record import Feedback
from govern.runtime.flow.message import Call
from govern.runtime.flow.steps.bandit import Bandit, choose
from govern.runtime.flow.steps.open_routes import OpenRoutes

#: The part of a router's state that says what its routes were worth; the others are chunks of open routes, by number.
_BANDIT: Final = "bandit"


class Router:
    """Emits the BOOL tensor of the route that it chose, which the steps of that branch have as a trigger.

    The route follows from the strategy's seed, the request's id, the visit, and the rewards that were learned before.
    """

    def __init__(self, name: str, spec: RouterSpec) -> None:
        self.name = name
        self._spec = spec
        self._bandit = Bandit()
        self._kept = self._bandit
        self._routes = OpenRoutes()

    @property
    def learns(self) -> bool:
        return self._spec.strategy != "weighted"

    @property
    def bandit(self) -> Bandit:
        return self._bandit

    async def __call__(self, call: Call, /) -> list[Tensor]:
        route = choose(self._spec, self._bandit, (self.name, call.request_id, call.visit))
        if self.learns:
            self._routes.put(call.request_id, route)
        return [Tensor(route, "BOOL", np.ones(1, dtype=np.bool_))]

    def learn(self, feedback: Feedback) -> bool:
        """Credit the request's reward to the route that it took; whether there was one to credit.

        The first reward of a request counts; so a record that is read twice is learned once. A record with a label and
        no reward is about the label.

        Raises:
            BadInput: a reward that is not between 0 and 1.
        """
        route = self._routes.get(feedback.request_id)
        if route is None or (feedback.label and not feedback.reward):
            return False
        self._bandit = self._bandit.update(route, feedback.reward)
        self._routes.remove(feedback.request_id)
        return True

    def state(self) -> dict[str, bytes]:
        """All that it knows, in parts that `restore` of the next one takes."""
        chunks = {str(number): msgspec.json.encode(chunk) for number, chunk in self._routes.chunks().items()}
        return {_BANDIT: msgspec.json.encode(self._bandit), **chunks}

    def changed(self) -> dict[str, bytes | None]:
        """The parts that have changed since the last call; None = there is no such part any more."""
        parts: dict[str, bytes | None] = {
            str(number): None if chunk is None else msgspec.json.encode(chunk)
            for number, chunk in self._routes.changed().items()
        }
        if self._bandit is not self._kept:
            self._kept = self._bandit
            parts[_BANDIT] = msgspec.json.encode(self._bandit)
        return parts

    def restore(self, state: Mapping[str, bytes]) -> None:
        """Go on from what one before it knew; requests that were routed meanwhile stay open."""
        self._bandit = self._kept = msgspec.json.decode(state.get(_BANDIT, b"{}"), type=Bandit)
        chunks = {int(part): data for part, data in state.items() if part != _BANDIT}
        self._routes.restore({at: msgspec.json.decode(data, type=dict[str, str]) for at, data in chunks.items()})
