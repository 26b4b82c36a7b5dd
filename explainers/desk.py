"""Desk: what the API does, without HTTP: who asked is put on record, requests go out, explanations come back."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from explainers.api_models import Ask
from explainers.catalogue import Card, Catalogue
from explainers.index import ExplanationIndex
from explainers.sources import InferenceSource
from govern import record as records
from govern.bus import Bus
from govern.bus.topics import topic
from govern.codecs import cloudevents, v2
from govern.codecs.frames import from_rows, to_frame
from govern.codecs.inference import decode
from govern.errors import BadInput, NotFound
from govern.frame import Frame
from govern.ids import derived_id, uuid7
from govern.record import Access, ExplainRequest, Explanation, Inference
from govern.schema import FeatureSchema

SOURCE: Final = "/govern/explain-api"
#: Times that one explanation which failed or was cut short may be asked for anew.
_ATTEMPTS: Final = 100
#: Requests that this process remembers to have sent.
_SENT: Final = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the request states it.

    Attributes:
        role: "claimed": nothing here has verified the name; a gateway in front of the API does.
        traceparent: W3C Trace Context of the call, or "".
    """

    actor: str
    purpose: str = ""
    role: str = "claimed"
    traceparent: str = ""


class Desk:
    """
    Args:
        bus: entered by the caller.
        clock_ns: Unix time in nanoseconds.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        namespace: str,
        catalogue: Catalogue,
        index: ExplanationIndex,
        inferences: InferenceSource,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.catalogue = catalogue
        self._bus = bus
        self._namespace = namespace
        self._index = index
        self._inferences = inferences
        self._clock_ns = clock_ns
        self._sent: OrderedDict[str, None] = OrderedDict()

    async def explain(self, ask: Ask, caller: Caller) -> tuple[str, Explanation | None]:
        """The explanation's id, and the explanation if it is there within `ask.wait_s`.

        The same question has the same id and is asked of the workers once; only one whose answer failed, or was cut
        short by its deadline, is asked again.

        Raises:
            NotFound: no such explainer, captured request or row.
            BadInput: inputs that cannot be decoded.
            BusError: the call could not be put on record.
        """
        await self.record(caller, ask.request_id or "inputs")
        card = self.catalogue[ask.explainer]
        inference = await self._captured(ask.request_id) if ask.request_id is not None else None
        frame = decode(inference, card.schema) if inference is not None else _frame(ask, card.schema)
        if ask.row >= len(frame):
            raise NotFound(f"row {ask.row}", why=f"the request has {len(frame)} row(s)", fix="rows count from 0")
        row = frame.take([ask.row])
        for attempt in range(_ATTEMPTS):
            request = self._request(ask, card, row, inference, caller, attempt)
            known = self._index.get(request.id)
            if known is None:
                await self._publish(request)
                return request.id, await self._index.wait(request.id, ask.wait_s)
            if known.status == "ok":
                return request.id, known
        raise BadInput(
            f"this question failed {_ATTEMPTS} times",
            why="the model or the explainer does not answer it",
            fix="read the errors of its explanations",
        )

    async def find(self, id_: str, caller: Caller) -> Explanation | None:
        """An explanation; None while it is being computed.

        Raises:
            NotFound: nobody asked for it.
            BusError: the call could not be put on record.
        """
        await self.record(caller, id_)
        found = await self._index.find(id_)
        if found is None and not await self._index.is_requested(id_):
            raise NotFound(
                f"explanation {id_!r}",
                why="nobody asked for it, or it is older than the bus keeps",
                fix="POST /v1/explanations; the audit log keeps all of them",
            )
        return found

    async def record(self, caller: Caller, subject: str) -> None:
        """Put a call on record, before anything is shown."""
        access = Access(
            schema_version=records.SCHEMA_VERSION,
            id=uuid7(),
            namespace=self._namespace,
            actor=caller.actor,
            role=caller.role,
            action="explain",
            subject=subject,
            t_access=self._clock_ns(),
            purpose=caller.purpose,
        )
        message = cloudevents.to_message(access, source=SOURCE)
        await self._bus.publish(topic(self._namespace, "access"), [message])

    async def _captured(self, request_id: str) -> Inference:
        inference = await self._inferences.find(self._namespace, request_id)
        if inference is None:
            raise NotFound(
                f"request {request_id!r}",
                why="no captured inference bears this id",
                fix="check the id; a request that was sampled out or dropped can be explained by its inputs",
            )
        return inference

    def _request(
        self, ask: Ask, card: Card, row: Frame, inference: Inference | None, caller: Caller, attempt: int
    ) -> ExplainRequest:
        instance_id = row.instance_ids[0] if row.instance_ids else ""
        return ExplainRequest(
            schema_version=records.SCHEMA_VERSION,
            id=derived_id("explanation", self._namespace, card.name, card.digest, instance_id, row.digest, attempt),
            namespace=self._namespace,
            service=inference.service if inference is not None else "",
            model=inference.model if inference is not None else card.schema.model,
            revision=inference.revision if inference is not None else "",
            endpoint=inference.endpoint if inference is not None else "",
            explainer=card.name,
            instance_id=instance_id,
            request_id=inference.request_id if inference is not None else "",
            inputs_json=json.dumps(row.row(0)),
            deadline_s=ask.deadline_s,
            actor=caller.actor,
            t_created=self._clock_ns(),
            traceparent=caller.traceparent or (inference.traceparent if inference is not None else ""),
        )

    async def _publish(self, request: ExplainRequest) -> None:
        """Send it to the workers, unless this process has done so. (Another's repetition they answer once.)"""
        if request.id in self._sent:
            return
        message = cloudevents.to_message(request, source=SOURCE)
        await self._bus.publish(topic(self._namespace, "explain-requests"), [message])
        self._sent[request.id] = None
        while len(self._sent) > _SENT:
            self._sent.popitem(last=False)


def _frame(ask: Ask, schema: FeatureSchema) -> Frame:
    if isinstance(ask.inputs, list):
        return from_rows(ask.inputs, schema)
    return to_frame(v2.decode_request(json.dumps(ask.inputs).encode()).inputs, schema)
