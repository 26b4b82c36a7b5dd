"""Where the inference of a request id is found."""

from __future__ import annotations

from typing import Protocol

from explainers.scan import newest_first
from govern.bus import Bus
from govern.bus.topics import topic
from govern.codecs import cloudevents
from govern.errors import BadInput
from govern.record import Inference


class InferenceSource(Protocol):
    async def find(self, namespace: str, request_id: str) -> Inference | None:
        """The newest inference that a caller made under this request id; None when there is none."""
        ...


class BusInferenceSource:
    """Searches the inferences topic, newest first: for set-ups without an audit store, and while records last there."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def find(self, namespace: str, request_id: str) -> Inference | None:
        wanted = request_id.encode()
        async for message in newest_first(self._bus, topic(namespace, "inferences")):
            # Protobuf holds the text as it is: most messages are ruled out without decoding them.
            if not wanted or message.value is None or wanted not in message.value:
                continue
            try:
                record = cloudevents.from_message(message)
            except BadInput:
                continue
            if isinstance(record, Inference) and record.request_id == request_id and not record.synthetic:
                return record
        return None
