"""Two halves of Seldon Core v2 as an `Inference`. Pure, and stable: the same messages make the same record."""

from __future__ import annotations

from typing import Final

from govern.ids import derived_id, derived_uuid7
from govern.mirror.config import MirrorConfig
from govern.mirror.join import Pair
from govern.mirror.sampling import Fate, Shares, shares
from govern.mirror.seldon.half import Half, JoinKey
from govern.record import SCHEMA_VERSION, Capture, Inference, Payload
from govern.telemetry.tracing import context_of

_MS: Final = 1_000_000
_OK: Final = 200
#: Seldon tells that a step failed, not how: as a server's error of HTTP.
_FAILED: Final = 500


def service_of(key: JoinKey) -> str:
    return key.pipeline or key.name


def model_of(key: JoinKey) -> str:
    return f"{key.name}.pipeline" if key.kind == "pipeline" else key.name


def shares_of(key: JoinKey, config: MirrorConfig) -> Shares:
    """The shares of a model's or pipeline's inferences that are kept."""
    return shares(config.sampling_rate, config.sampling, service=service_of(key), model=model_of(key))


def is_kept(record: Inference, first: Half) -> bool:
    """Whether sampling keeps an inference, now that its outcome is known.

    Args:
        first: of its halves; the rules are those that it began with.
    """
    fate = shares_of(first.key, first.config).fate(first.key.request_id)
    return fate is Fate.KEPT or (fate is Fate.OPEN and _failed(record.status_code, first.config))


def _failed(status_code: int, config: MirrorConfig) -> bool:
    """Whether it is an error to the sampling; an exchange without a response has not completed."""
    return status_code == 0 or status_code >= config.sampling.error_status


def inference_of(pair: Pair[Half], *, agent: str, seq: int, dropped: int) -> Inference:
    """The record of a pair.

    A pipeline `p` is service p, model `p.pipeline`, as the header `seldon-model` names it; a model `m` is model m of
    the service that is the pipeline it was called from, or of service m.
    """
    request, response = pair
    first = pair.first
    key, config = first.key, first.config
    t_first = first.t_ms * _MS
    identity = derived_uuid7(t_first, "seldon-v2", first.origin.topic, first.origin.partition, first.offset)
    status_code = 0 if response is None else _FAILED if response.error else _OK
    return Inference(
        schema_version=SCHEMA_VERSION,
        id=identity,
        request_id=key.request_id if first.named else identity,
        traceparent=_traceparent(pair, identity),
        namespace=config.namespace,
        service=service_of(key),
        model=model_of(key),
        revision=next((half.revision for half in reversed(pair.halves) if half.revision), ""),
        endpoint=config.endpoint,
        protocol=next((half.protocol for half in pair.halves if half.protocol), "v2-grpc"),
        t_request=t_first,
        t_response=(response or first).t_ms * _MS,
        status_code=status_code,
        request=_payload(request),
        response=_payload(response),
        error=_error(pair),
        sampling=shares_of(key, config).label(failed=_failed(status_code, config)),
        truncated=tuple(half.side for half in pair.halves if half.cut),
        synthetic=any(half.synthetic for half in pair.halves),
        capture=Capture(agent=agent, pod=config.pod, seq=seq, dropped_before=dropped, source="seldon-v2"),
        missing=pair.missing,
    )


def _error(pair: Pair[Half]) -> str:
    said = [half.error for half in pair.halves if half.error]
    if pair.missing:
        said.append(f"the {pair.missing[0]} half did not come within {pair.first.config.seldon.join_s:g} s")
    return "; ".join(said)


def _payload(half: Half | None) -> Payload:
    return Payload() if half is None else half.payload


def _traceparent(pair: Pair[Half], identity: str) -> str:
    """The caller's, of the request if it has one; else a new trace, of the same ids at every reading."""
    for half in pair.halves:
        if context_of(half.traceparent) is not None:
            return half.traceparent[:55]
    return f"00-{derived_id('trace', identity)}-{derived_id('span', identity)[:16]}-01"
