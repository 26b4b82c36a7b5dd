"""Router: sends each request down one of its routes, and learns from feedback which are good."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec
import numpy as np

from govern.codecs.tensor import Tensor
from govern.pipeline.spec import RouterSpec
from govern.record import Feedback
from govern.runtime.flow.message import Call
from govern.runtime.flow.steps.bandit import Bandit, choose

#: Requests whose reward may still come, the oldest forgotten first: what a router remembers is bounded.
OPEN_REQUESTS_MAX: Final = 100_000


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """All that a router knows, to be kept and handed to the next one.

    Attributes:
        routes: request id -> the route that it took, oldest first; until its reward has come.
    """

    bandit: Bandit = Bandit()
    routes: dict[str, str] = {}

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Memory:
        return msgspec.json.decode(data, type=cls)


class Router:
    """Emits the BOOL tensor of the route that it chose, which the steps of that branch have as a trigger.

    The route follows from the strategy's seed, the request's id, the visit, and the rewards that were learned before.
    """

    def __init__(self, name: str, spec: RouterSpec, *, memory: Memory | None = None) -> None:
        memory = memory or Memory()
        self.name = name
        self._spec = spec
        self._bandit = memory.bandit
        self._routes = OrderedDict(memory.routes)

    @property
    def memory(self) -> Memory:
        return Memory(bandit=self._bandit, routes=dict(self._routes))

    async def __call__(self, call: Call, /) -> list[Tensor]:
        route = choose(self._spec, self._bandit, (self.name, call.request_id, call.visit))
        if self._spec.strategy != "weighted":
            self._routes[call.request_id] = route
            self._routes.move_to_end(call.request_id)
            if len(self._routes) > OPEN_REQUESTS_MAX:
                self._routes.popitem(last=False)
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
        del self._routes[feedback.request_id]
        return True
