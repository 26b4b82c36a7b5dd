"""A turn that is judged: the request is held until its steps have spoken, and the answer until theirs have.

What is held is bounded; what is longer, or cannot be held (an event stream), passes or is refused without judgement.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine
from typing import Final

from govern.mirror.inline.config import InlineConfig, When
from govern.mirror.inline.judges import Judges
from govern.mirror.inline.outcome import Outcome, Refusal, Said, headers, refusal
from govern.mirror.inline.subject import Subject
from govern.mirror.recorder import Exchange
from govern.mirror.turn import Client, ProxyTurn, problem
from govern.mirror.upstream import UpstreamPool

_log: Final = logging.getLogger(__name__)

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_INTERIM: Final = re.compile(rb"HTTP/1\.\d 1")
#: A server that is down, restarts or is overrun is mostly back by then.
_RETRY_AFTER_S: Final = 1


class JudgedTurn(ProxyTurn):
    """Relays one exchange, and lets the configured steps speak of it first.

    Args:
        expects_continue: the client waits for a word before it sends the body. Where the request is held, the word is
            ours, and the server must not be asked for one.
    """

    def __init__(
        self,
        client: Client,
        pool: UpstreamPool,
        method: bytes,
        *,
        keep_alive: bool,
        exchange: Exchange | None,
        upgrade: bool,
        expects_continue: bool,
        inline: InlineConfig,
        judges: Judges,
        subject: Subject,
    ) -> None:
        super().__init__(
            client,
            pool,
            method,
            keep_alive=keep_alive,
            exchange=exchange,
            upgrade=upgrade,
            expects_continue=expects_continue,
        )
        #: Whether the request waits for steps.
        self.holds_request = bool(inline.steps_at("request"))
        self._inline = inline
        self._judges = judges
        self._subject = subject
        self._judges_answers = bool(inline.steps_at("response"))
        self._outcomes: list[Outcome] = []
        self._begun = self._asked = False
        self._request = bytearray()
        self._request_too_long = False
        #: Bytes of the response that have not gone to the client, as they came, and their body.
        self._raw = bytearray()
        self._response = bytearray()
        self._status = 0
        self._answer_headers: dict[bytes, bytes] = {}
        #: Whether the response waits for steps; whether it goes to the client as it comes.
        self._holding = self._passing = False
        self._asked_of_response = False
        self._waits: asyncio.Task[object] | None = None

    # The client's side.

    def start(self) -> None:
        if not self.holds_request:
            super().start()
            return
        self._begun = True
        if self._expects_continue and not self.request_complete:
            self._client.transport.write(_CONTINUE)
        self._proceed()

    def request_body(self, data: bytes) -> None:
        super().request_body(data)
        if self._request_too_long:
            return
        self._request += data
        if len(self._request) > self._inline.body_bytes:
            self._request_too_long = True
            self._request.clear()
            self._proceed()

    def end_request(self) -> None:
        super().end_request()
        self._proceed()

    def abandon(self, reason: str) -> None:
        super().abandon(reason)
        if self._waits is not None:
            self._waits.cancel()  # nobody waits for the judgement any more

    def settle(self) -> None:
        if not (self._holding and self._response_complete):
            super().settle()

    @property
    def clogged(self) -> bool:
        if self.holds_request and not self._asked:
            return self._request_too_long
        return super().clogged

    # The upstream's side.

    def response_began(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._status = status
        self._answer_headers = headers
        if not self._judges_answers:
            self._tell_head()
        elif status != 200:
            self._skip("status")
        elif headers.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            self._skip("event-stream")
        else:
            self._sent = None
            self._holding = True

    def response_body(self, data: bytes) -> None:
        if self._holding:
            self._response += data
        else:
            super().response_body(data)

    def response_ended(self, *, keep_alive: bool) -> None:
        if self._holding:
            self._response_complete = True
            self._upstream_keep_alive = keep_alive
        else:
            super().response_ended(keep_alive=keep_alive)

    def relay(self, data: bytes) -> None:
        if self._passing or self._switched:
            super().relay(bytes(self._raw) + data if self._raw else data)
            self._raw.clear()
            return
        self._raw += data
        self._pass_interim()
        if self._status == 0:
            return
        if not self._holding:
            self._pass()
        elif self._asked_of_response:
            return
        elif len(self._response) > self._inline.body_bytes:
            self._response_judged(self._all("response", "unjudged", "too-long"))
        elif self._response_complete:
            self._asked_of_response = True
            if self.request_complete and not self._request_too_long:
                self._client.spawn(self._judge_response())
            else:
                reason = "too-long" if self._request_too_long else "early-answer"
                self._response_judged(self._all("response", "unjudged", reason))

    def upstream_lost(self, reason: str) -> None:
        if self._holding and self._response_complete:  # all that was needed of it is here
            self._upstream = None
            self._upstream_keep_alive = False
            return
        super().upstream_lost(reason)

    # Judging.

    def _proceed(self) -> None:
        """Ask the steps of the request once it has its turn and is whole."""
        if not self._begun or self._asked or not (self.request_complete or self._request_too_long):
            return
        self._asked = True
        if self._request_too_long:
            self._request_judged(self._all("request", "unjudged", "too-long"))
        else:
            self._client.spawn(self._judge_request())

    def _judge_request(self) -> Coroutine[object, object, None]:
        return self._judge("request", self._subject.asked(bytes(self._request)))

    def _judge_response(self) -> Coroutine[object, object, None]:
        record = self._subject.answered(bytes(self._request), self._status, self._answer_headers, bytes(self._response))
        return self._judge("response", record)

    async def _judge(self, when: When, record: bytes) -> None:
        try:
            self._waits = asyncio.current_task()
            outcomes = await self._judges.judge(self._inline, when, record)
            self._waits = None
            if self._over:
                return
            if when == "request":
                self._request_judged(outcomes)
            else:
                self._response_judged(outcomes)
        except Exception:  # noqa: BLE001 - as in `ProxyTurn._connect`: it costs this client its connection only
            _log.exception("a call could not be judged")
            self._client.transport.abort()

    def _request_judged(self, outcomes: list[Outcome]) -> None:
        self._outcomes = outcomes
        refused = refusal(self._inline, outcomes)
        if refused is not None:
            self._refuse(refused, keep_alive=self._keep_alive and self.request_complete)
            return
        super().start()
        self.flush()
        self._client.update_reading()

    def _response_judged(self, outcomes: list[Outcome]) -> None:
        self._outcomes += outcomes
        refused = refusal(self._inline, outcomes)
        if refused is not None:
            self._refuse(refused, keep_alive=self._keep_alive and self._upstream_keep_alive and self.request_complete)
            return
        self._holding = False
        self._tell_head()
        super().response_body(bytes(self._response))
        self._response.clear()
        if self._response_complete:
            super().response_ended(keep_alive=self._upstream_keep_alive)
        self._pass()

    def _all(self, when: When, said: Said, reason: str) -> list[Outcome]:
        return [Outcome(step, said, reason) for step in self._inline.steps_at(when)]

    def _skip(self, reason: str) -> None:
        self._outcomes += self._all("response", "skipped", reason)
        self._tell_head()

    # Answering.

    def _tell_head(self) -> None:
        """Tell capture what of the response's head the client sees."""
        super().response_began(self._status, self._answer_headers | headers(self._outcomes))

    def _pass_interim(self) -> None:
        """Interim responses (RFC 9110 section 15.2) wait for nobody."""
        while _INTERIM.match(self._raw) and (end := _END_OF_HEAD.search(self._raw)):
            self.answered = True
            self._client.transport.write(bytes(self._raw[: end.end()]))
            del self._raw[: end.end()]

    def _pass(self) -> None:
        """Let the response go: what has come, with the headers of the steps, and all that comes."""
        self._passing = True
        told = headers(self._outcomes)
        raw = _with_headers(bytes(self._raw), told) if told else bytes(self._raw)
        self._raw.clear()
        super().relay(raw)

    def _refuse(self, refused: Refusal, *, keep_alive: bool) -> None:
        """Answer in the model's stead."""
        self._holding = False
        told = headers(self._outcomes)
        fields = dict(told)
        if refused.retry:
            fields[b"retry-after"] = b"%d" % _RETRY_AFTER_S
        head, body = problem(
            refused.status,
            refused.error,
            members={"step": refused.step, "request_id": self._subject.request_id},
            fields=fields,
            close=not keep_alive,
        )
        if self._exchange is not None:
            self._exchange.response_head(refused.status, {b"content-type": b"application/problem+json"} | told)
            self._exchange.response_body(body)
            self._exchange.finish(f"{refused.error.what}: {refused.error.why}")
        self.answered = True
        self._client.transport.write(head if self.is_head else head + body)
        if self._response_complete:
            self._end()
            return
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.leave()
            upstream.transport.abort()
        self._finish_turn(keep_alive=keep_alive)


def _with_headers(response: bytes, told: dict[bytes, bytes]) -> bytes:
    """The response with headers that nobody but us may have set; all else of it stays as it is."""
    end = _END_OF_HEAD.search(response)
    if end is None:
        return response
    lines = response[: end.start()].splitlines(keepends=True)
    kept = b"".join(line for line in lines if line.partition(b":")[0].strip().lower() not in told)
    fields = b"".join(b"\r\n%b: %b" % field for field in told.items())
    return kept.rstrip(b"\r\n") + fields + response[end.start() :]
