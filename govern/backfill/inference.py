"""A call of the past as an `Inference`. Pure, and stable: the same row makes a record of the same id."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

from govern.backfill.row import Body, Call
from govern.ids import derived_id, derived_uuid7
from govern.mirror.config import MirrorConfig
from govern.mirror.sampling import Fate, Shares, shares
from govern.record import SCHEMA_VERSION, Capture, Inference, Payload, Sampling

#: Bounds on what a row can put into a record beside its bodies, as for captures over HTTP.
_ID_CHARS_MAX: Final = 1024
_NAME_CHARS_MAX: Final = 253
_TYPE_CHARS_MAX: Final = 512
_HEADERS_CHARS_MAX: Final = 2048


def together(request: Call, response: Call) -> Call:
    """The call of two halves that were recorded apart."""
    return replace(request, response=response.response, t_response=response.t_response)


def inference_of(
    call: Call, config: MirrorConfig, capture: Capture, *, file: str, row: int, service_named: bool
) -> tuple[Inference, bool]:
    """The record of a call, and whether sampling keeps it.

    Args:
        file, row: the file's digest and the row's number.
        service_named: the configuration names the service; else the row does, if it can.
    """
    identity = derived_uuid7(call.t_request, *(call.identity or ("backfill", file, row)))
    missing = [side for side, body in (("request", call.request), ("response", call.response)) if body is None]
    status_code = 0 if call.response is None and call.status_code < 400 else call.status_code
    service = config.service if service_named else call.service or config.service
    model = config.model or call.model or service
    request_id = (call.request_id or identity)[:_ID_CHARS_MAX]
    of_model = shares(config.sampling_rate, config.sampling, service=service, model=model)
    failed = status_code == 0 or status_code >= config.sampling.error_status
    fate = of_model.fate(request_id)
    bodies = {"request": call.request, "response": call.response}
    record = Inference(
        schema_version=SCHEMA_VERSION,
        id=identity,
        request_id=request_id,
        traceparent=f"00-{derived_id('trace', identity)}-{derived_id('span', identity)[:16]}-01",
        namespace=config.namespace,
        service=service[:_NAME_CHARS_MAX],
        model=model[:_NAME_CHARS_MAX],
        revision=(config.revision or call.revision)[:_NAME_CHARS_MAX],
        endpoint=call.endpoint or config.endpoint,
        protocol="unknown",  # none of these systems says it; the body's content type and fields do
        t_request=call.t_request,
        t_response=call.t_response,
        status_code=status_code,
        request=_payload(call.request, config),
        response=_payload(call.response, config),
        error=f"the {' and the '.join(missing)} was not recorded" if missing else "",
        sampling=_sampling(of_model, call.fraction, failed=failed),
        truncated=tuple(side for side, body in bodies.items() if body and len(body.data) > config.body_bytes),
        capture=capture,
        missing=tuple(missing),
    )
    return record, fate is Fate.KEPT or (fate is Fate.OPEN and failed)


def _sampling(of_model: Shares, fraction: float, *, failed: bool) -> Sampling:
    """A call is in the record if the other system recorded it and we keep it."""
    label = of_model.label(failed=failed)
    return label if fraction >= 1 else Sampling(rate=label.rate * fraction, strategy="upstream")


def _payload(body: Body | None, config: MirrorConfig) -> Payload:
    if body is None:
        return Payload()
    kept: dict[str, str] = {}
    room = _HEADERS_CHARS_MAX
    for name in config.headers:
        value = body.headers.get(name)
        if value is not None and len(name) + len(value) <= room:
            kept[name] = value
            room -= len(name) + len(value)
    return Payload(
        content_type=body.content_type[:_TYPE_CHARS_MAX],
        body=body.data[: config.body_bytes],
        size=len(body.data),
        sha256=hashlib.sha256(body.data).hexdigest(),
        headers=kept,
    )
