"""What an event says: one side of an inference, or feedback. Pure.

| | KServe's logger | Seldon Core v1's request logger |
| --- | --- | --- |
| halves are joined by | `id`, of one component | `requestid`, of one `modelid` |
| service | `inferenceservicename` | `inferenceservicename` |
| model | the service's, or `<service>-<component>` | `modelid` |
| endpoint | `endpoint`, empty = default | `endpoint` or `predictor`; of another name: the revision |
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec

from govern.ids import derived_id
from govern.mirror.body import Headers, text
from govern.mirror.config import MirrorConfig
from govern.mirror.seen import is_synthetic
from govern.mirror.sink.event import Attributes, MalformedEvent, time_ns
from govern.record import Payload
from govern.telemetry.tracing import context_of

Side = Literal["request", "response", "feedback"]
Logger = Literal["kserve", "seldon-v1"]

#: The types of the events that are taken.
TYPES: Final[dict[str, tuple[Logger, Side]]] = {
    "org.kubeflow.serving.inference.request": ("kserve", "request"),
    "org.kubeflow.serving.inference.response": ("kserve", "response"),
    "io.seldon.serving.inference.request": ("seldon-v1", "request"),
    "io.seldon.serving.inference.response": ("seldon-v1", "response"),
    "io.seldon.serving.feedback": ("seldon-v1", "feedback"),
}

_ENDPOINTS: Final = frozenset({"default", "canary", "shadow"})
_ID_BYTES_MAX: Final = 1024
#: Of a name in Kubernetes.
_NAME_CHARS_MAX: Final = 253
_PREDICTOR: Final = "predictor"


class Heading(NamedTuple):
    """What the attributes of an event say, before its body is there.

    Attributes:
        key: what the halves of one inference have in common.
        join_id: the id by which its logger joins them; sampling goes by it, because both halves have it.
        request_id: the caller's, where the logger passes its header on; else `join_id`.
        t_ns: when it happened, nanoseconds since the Unix epoch.
        seen: every header and attribute by lower-case name, from which the configuration's allow-list chooses.
    """

    logger: Logger
    side: Side
    key: str
    join_id: str
    request_id: str
    traceparent: str
    service: str
    model: str
    revision: str
    endpoint: str
    t_ns: int
    seen: Headers
    synthetic: bool


class Half(msgspec.Struct, frozen=True, array_like=True):
    """One side of an inference, as the journal keeps it.

    Attributes:
        left_out: by sampling; it then has no body.
        cut: whether the body is a prefix.
    """

    logger: Logger
    side: Side
    key: str
    join_id: str
    request_id: str
    traceparent: str
    service: str
    model: str
    revision: str
    endpoint: str
    protocol: str
    t_ns: int
    payload: Payload
    cut: bool
    synthetic: bool
    left_out: bool

    @property
    def n_bytes(self) -> int:
        return len(self.payload.body)


def heading_of(attributes: Attributes, headers: Headers, config: MirrorConfig, *, now_ns: int) -> Heading | None:
    """What the event is about; None when it is of a type that this sink does not take.

    Args:
        headers: of the HTTP request, names in lower case.

    Raises:
        MalformedEvent: an attribute that the join needs is missing, or `metadata` or `annotations` are no JSON object.
    """
    kind = TYPES.get(attributes["type"])
    if kind is None:
        return None
    logger, side = kind
    seen = _seen(attributes, headers)
    named = attributes.get("inferenceservicename", "")
    kubernetes_namespace = attributes.get("namespace", "")
    service = named or config.service
    if config.sink.qualify and named and kubernetes_namespace:
        service = f"{named}.{kubernetes_namespace}"
    variant = attributes.get("endpoint") or attributes.get("predictor") or ""
    if logger == "kserve":
        component = attributes.get("component", _PREDICTOR)
        model = config.model or named or config.service
        if component != _PREDICTOR:
            model = f"{model}-{component}"
        revision = config.revision
        join_id = attributes["id"]
        key = derived_id(logger, kubernetes_namespace, named, component, join_id)
    else:
        model = attributes.get("modelid") or config.model or named or config.service
        revision = config.revision or ("" if variant in _ENDPOINTS else variant)
        join_id = attributes.get("requestid") or seen.get(b"seldon-puid", b"").decode("utf-8", "replace")
        if not join_id and side != "feedback":
            raise MalformedEvent.attribute("requestid", "Seldon's halves are joined by it, and it is missing")
        key = derived_id(logger, kubernetes_namespace, named, attributes.get("modelid", ""), join_id)
    if side == "feedback":
        key = derived_id(logger, side, attributes["source"], attributes["id"])
    endpoint = variant if variant in _ENDPOINTS else config.endpoint
    return Heading(
        logger=logger,
        side=side,
        key=key,
        join_id=text(join_id.encode(), _ID_BYTES_MAX),
        request_id=_request_id(seen, config, join_id),
        traceparent=_traceparent(seen),
        service=service[:_NAME_CHARS_MAX],
        model=model[:_NAME_CHARS_MAX],
        revision=revision[:_NAME_CHARS_MAX],
        endpoint=endpoint,
        t_ns=time_ns(attributes.get("time") or attributes.get("recordedtime") or "") or now_ns,
        seen=seen,
        synthetic=is_synthetic(seen),
    )


def half_of(heading: Heading, payload: Payload, *, cut: bool, left_out: bool) -> Half:
    return Half(
        logger=heading.logger,
        side=heading.side,
        key=heading.key,
        join_id=heading.join_id,
        request_id=heading.request_id,
        traceparent=heading.traceparent,
        service=heading.service,
        model=heading.model,
        revision=heading.revision,
        endpoint=heading.endpoint,
        protocol=_protocol(heading.logger, payload.body),
        t_ns=heading.t_ns,
        payload=payload,
        cut=cut,
        synthetic=heading.synthetic,
        left_out=left_out,
    )


def _seen(attributes: Attributes, headers: Headers) -> dict[bytes, bytes]:
    """What the event says of headers: its own, its attributes as `ce-<name>`, and those that the logger passes on."""
    found = {name: value for name, value in headers.items() if not name.startswith(b"ce-")}
    found |= {f"ce-{name}".encode(): value.encode() for name, value in attributes.items()}
    for carrier in ("annotations", "metadata"):
        found |= _passed_on(attributes, carrier)
    found[b"content-type"] = attributes.get("datacontenttype", "").encode()
    return found


def _passed_on(attributes: Attributes, carrier: str) -> dict[bytes, bytes]:
    """KServe's map of headers or annotations: name to value or list of values, of which the first counts."""
    written = attributes.get(carrier)
    if not written:
        return {}
    try:
        passed = msgspec.json.decode(written, type=dict[str, str | list[str]])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MalformedEvent.attribute(carrier, f"it is no JSON object of texts: {error}") from error
    return {
        name.lower().encode(): (value if isinstance(value, str) else value[0]).encode()
        for name, value in passed.items()
        if value
    }


def _request_id(seen: Headers, config: MirrorConfig, join_id: str) -> str:
    names = (name.encode("latin-1") for name in config.request_id_headers if not name.startswith("ce-"))
    found = next((seen[name] for name in names if seen.get(name)), join_id.encode())
    return text(found, _ID_BYTES_MAX)


def _traceparent(seen: Headers) -> str:
    """The trace's parent: Seldon has it in `traceparent`, and in `ce-traceparent` a span of its own."""
    for name in (b"traceparent", b"ce-traceparent"):
        value = seen.get(name, b"").decode("latin-1")
        if context_of(value) is not None:
            return value[:55]
    return ""


def _protocol(logger: Logger, body: bytes) -> str:
    """What the logger implies: the path, which would say it, is not sent. KServe's is for the decoder to find out."""
    if logger == "kserve" or body[:1] != b"{":
        return "unknown"
    return "v2" if b'"datatype"' in body[:4096] else "seldon-v1"
