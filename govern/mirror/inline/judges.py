"""Asks the steps: those of one moment at once, each with its deadline, and whatever happens there is an outcome."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from govern.errors import Unavailable
from govern.mirror.inline.call import ask
from govern.mirror.inline.config import InlineConfig, InlineStep, When
from govern.mirror.inline.outcome import Outcome
from govern.mirror.upstream import UpstreamPool

_log: Final = logging.getLogger(__name__)

#: Less than uvicorn's own limit (5 s), so that a call hardly ever meets a connection that is being closed.
_IDLE_S: Final = 4.0
#: A step's deadline ends the wait sooner, save where somebody configured a longer one.
_CONNECT_TIMEOUT_S: Final = 5.0


class Judgement(msgspec.Struct, frozen=True):
    """What of a judgement counts here."""

    alarm: bool
    score: float | None = None
    threshold: float | None = None


_judgement: Final = msgspec.json.Decoder(Judgement).decode


class Judges:
    """Connections to the servers that judge; one per proxy. A new address is followed, an old one's connections age."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int], UpstreamPool] = {}

    async def judge(self, inline: InlineConfig, when: When, record: bytes) -> list[Outcome]:
        """What the steps of one moment say of a record.

        Args:
            record: an `Inference`, encoded.
        """
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._ask(inline, step, record)) for step in inline.steps_at(when)]
        return [task.result() for task in asked]

    async def close_stale(self) -> None:
        """Close connections that were not used for a while, until cancelled."""
        while True:
            await asyncio.sleep(_IDLE_S / 2)
            for pool in self._pools.values():
                pool.drop_stale()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    async def _ask(self, inline: InlineConfig, step: InlineStep, record: bytes) -> Outcome:
        try:
            async with asyncio.timeout(step.deadline_ms / 1000):
                status, body = await ask(self._pool(inline.address), _request(inline, step, record))
            if status != 200:
                return Outcome(step, "unjudged", f"status-{status}")
            found = _judgement(body)
        except TimeoutError:
            return Outcome(step, "unjudged", "timeout")
        except Unavailable:
            return Outcome(step, "unjudged", "unavailable")
        except msgspec.DecodeError:
            return Outcome(step, "unjudged", "garbled")
        except Exception:  # noqa: BLE001 - a fault of ours is a failure of the step, whose policy decides
            _log.exception("the step %s could not be asked", step.step)
            return Outcome(step, "unjudged", "fault")
        return Outcome(step, "alarm" if found.alarm else "ok", score=found.score, threshold=found.threshold)

    def _pool(self, address: tuple[str, int]) -> UpstreamPool:
        pool = self._pools.get(address)
        if pool is None:
            pool = UpstreamPool(
                *address,
                connect_timeout_s=_CONNECT_TIMEOUT_S,
                idle_s=_IDLE_S,
                named="inline server",
                field="inline.url",
            )
            self._pools[address] = pool
        return pool


def _request(inline: InlineConfig, step: InlineStep, record: bytes) -> bytes:
    host, port = inline.address
    head = (
        f"POST /v1/pipelines/{inline.pipeline}/steps/{step.step}/judge HTTP/1.1\r\nhost: {host}:{port}\r\n"
        f"content-type: application/x-protobuf\r\ncontent-length: {len(record)}\r\n\r\n"
    )
    return head.encode() + record
