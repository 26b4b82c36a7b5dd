"""What a step is asked about: the record of an inference as far as it has come, as the bus carries it."""

from __future__ import annotations

import time

import msgspec

from govern.mirror.body import Headers
from govern.mirror.rules import Route, Rules
from govern.mirror.seen import Seen, Side, inference, request_id
from govern.record import encode


class Subject:
    """One inference on its way through the proxy.

    Args:
        identity: of its record.
        headers: of the request, names in lower case.
    """

    def __init__(self, rules: Rules, route: Route, identity: str, headers: Headers) -> None:
        self._picked = rules.picked
        self._common = route.common
        self._id = identity
        self._headers = rules.picked(headers.items())
        self._t_request = time.time_ns()
        self.request_id = request_id(self._headers, rules.id_headers, said=b"", otherwise=identity)

    def asked(self, request: bytes) -> bytes:
        """The record before there is an answer, encoded."""
        seen = self._seen(request, 0, Side({}, b"", 0))
        return encode(msgspec.structs.replace(inference(seen), missing=("response",)))

    def answered(self, request: bytes, status: int, headers: Headers, response: bytes) -> bytes:
        """The record with the model's answer, encoded."""
        return encode(
            inference(self._seen(request, status, Side(self._picked(headers.items()), response, len(response))))
        )

    def _seen(self, request: bytes, status: int, response: Side) -> Seen:
        return Seen(
            common=self._common,
            id=self._id,
            said_id=b"",
            t_request=self._t_request,
            t_response=time.time_ns(),
            status=status,
            grpc_status="",
            error="",
            failed=False,
            seq=0,
            dropped_before=0,
            request=Side(self._headers, request, len(request)),
            response=response,
        )
