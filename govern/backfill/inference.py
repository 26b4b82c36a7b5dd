"""A call of the past as an `Inference`. Pure, and stable: the same row makes a record of the same id."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from govern.backfill.row import Body as BodyOfCall
from govern.backfill.row import Call
from govern.ids import derived_id, derived_uuid7
from govern.mirror.body import Body, text
from govern.mirror.config import MirrorConfig
from govern.mirror.sampling import Fate, Shares, shares
from govern.record import SCHEMA_VERSION, Capture, Inference, Payload, Sampling

#: Bounds on what a row can put into a record beside its bodies, as for captures over HTTP.
_ID_BYTES_MAX: Final = 1024
_NAME_BYTES_MAX: Final = 253


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
    request_id = text((call.request_id or identity).encode(), _ID_BYTES_MAX)
    of_model = shares(config.sampling_rate, config.sampling, service=service, model=model)
    failed = status_code == 0 or status_code >= config.sampling.error_status
    fate = of_model.fate(request_id)
    request, request_cut = _observed(call.request, config)
    response, response_cut = _observed(call.response, config)
    record = Inference(
        schema_version=SCHEMA_VERSION,
        id=identity,
        request_id=request_id,
        traceparent=f"00-{derived_id('trace', identity)}-{derived_id('span', identity)[:16]}-01",
        namespace=config.namespace,
        service=text(service.encode(), _NAME_BYTES_MAX),
        model=text(model.encode(), _NAME_BYTES_MAX),
        revision=text((config.revision or call.revision).encode(), _NAME_BYTES_MAX),
        endpoint=call.endpoint or config.endpoint,
        protocol="unknown",  # none of these systems says it; the body's content type and fields do
        t_request=call.t_request,
        t_response=call.t_response,
        status_code=status_code,
        request=request,
        response=response,
        error=f"the {' and the '.join(missing)} was not recorded" if missing else "",
        sampling=_sampling(of_model, call.fraction, failed=failed),
        truncated=tuple(side for side, cut in (("request", request_cut), ("response", response_cut)) if cut),
        capture=capture,
        missing=tuple(missing),
    )
    return record, fate is Fate.KEPT or (fate is Fate.OPEN and failed)


def _sampling(of_model: Shares, fraction: float, *, failed: bool) -> Sampling:
    """A call is in the record if the other system recorded it and we keep it."""
    label = of_model.label(failed=failed)
    return label if fraction >= 1 else Sampling(rate=label.rate * fraction, strategy="upstream")


def _observed(side: BodyOfCall | None, config: MirrorConfig) -> tuple[Payload, bool]:
    """A side's payload, and whether its body is cut."""
    if side is None:
        return Payload(), False
    body = Body(config.body_bytes)
    body.feed(side.data)
    headers = {name.encode(): value.encode() for name, value in side.headers.items()}
    kept = [name.encode() for name in config.headers]
    return body.payload({**headers, b"content-type": side.content_type.encode()}, kept), body.cut
