"""The client of the demo: sends requests over a few connections that stay open, as an application would."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
import msgspec

from govern.cli.demo.model import MODEL, PROBABILITY
from govern.cli.demo.traffic import Call
from govern.errors import Unavailable

CONNECTIONS: Final = 4
#: Far above what an answer takes, so that only a dead model ends the demo.
TIMEOUT_S: Final = 30.0
#: A request that was not answered is sent again, as a person would press the button again: a killed process is
#: back in a few seconds.
PATIENCE_S: Final = 60.0
_AGAIN_S: Final = 0.2


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[float]


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        request_id: of the attempt that was answered.
        probabilities: of finding work, for each row; empty when the model refused the request.
    """

    call: Call
    request_id: str
    status: int
    probabilities: tuple[float, ...]


async def send(url: str, calls: Sequence[Call], answered: Callable[[Reply], None]) -> None:
    """Send all calls in their order, a few at a time, and hand over each reply.

    Args:
        url: of the proxy, http://host:port.

    Raises:
        Unavailable: nothing answers.
    """
    waiting = iter(calls)
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as client:

        async def work() -> None:
            for call in waiting:  # the one iterator is shared: each call goes to whoever is free
                answered(await _send(client, call))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(CONNECTIONS):
                    tasks.create_task(work())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None


async def _send(client: httpx.AsyncClient, call: Call) -> Reply:
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    for attempt in itertools.count(1):
        # An attempt whose answer was lost on the way may have been captured: the next one is another request.
        request_id = call.request_id if attempt == 1 else f"{call.request_id}.{attempt}"
        try:
            response = await client.post(
                f"/v2/models/{MODEL}/infer",
                content=call.body,
                headers={"content-type": "application/json", "x-request-id": request_id},
            )
        except httpx.TransportError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    f"request {call.request_id} is not answered",
                    why=f"{type(error).__name__}: {error}",
                    fix="read the logs of the proxy and the model in the work folder",
                ) from error
            await asyncio.sleep(_AGAIN_S)
            continue
        return Reply(call, request_id, response.status_code, _probabilities(response))
    raise AssertionError("the loop above has no end")


def _probabilities(response: httpx.Response) -> tuple[float, ...]:
    if response.status_code != httpx.codes.OK:
        return ()
    outputs = msgspec.json.decode(response.content, type=_Answer).outputs
    tensor = next(one for one in outputs if one.name == PROBABILITY)
    return tuple(tensor.data[1 :: tensor.shape[1]])
