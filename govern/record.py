"""The records that travel: values in memory, protobuf (`record.proto`) on the wire.

Every class mirrors the message of the same name in `record.proto`, where the fields are documented.
Defaults equal protobuf's, so an absent field and a default one are the same thing; a number with a default of its own
is `optional` there.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin

import msgspec

from govern.errors import BadInput

SCHEMA_VERSION: Final = 1

Kind = Literal["drift", "outlier", "adversarial"]


class Payload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    content_type: str = ""
    content_encoding: str = ""
    body: bytes = b""
    body_ref: str = ""
    size: int = 0
    sha256: str = ""
    headers: dict[str, str] = {}
    sealed: bytes = b""


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    rate: float = 0.0
    strategy: str = ""


class Redaction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    path: str = ""
    action: str = ""


class Capture(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    agent: str = ""
    pod: str = ""
    seq: int = 0
    dropped_before: int = 0
    source: str = ""


class Inference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int = 0
    id: str = ""
    request_id: str = ""
    traceparent: str = ""
    namespace: str = ""
    service: str = ""
    model: str = ""
    revision: str = ""
    endpoint: str = ""
    protocol: str = ""
    t_request: int = 0
    t_response: int = 0
    status_code: int = 0
    request: Payload = Payload()
    response: Payload = Payload()
    error: str = ""
    sampling: Sampling = Sampling()
    truncated: tuple[str, ...] = ()
    redactions: tuple[Redaction, ...] = ()
    principal_hash: str = ""
    synthetic: bool = False
    capture: Capture = Capture()
    path: str = ""
    missing: tuple[str, ...] = ()
    grpc_status: str = ""


class Window(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    topic: str = ""
    partition: int = 0
    first_offset: int = 0
    last_offset: int = 0
    first_row: int = 0
    last_row: int = 0
    n_instances: int = 0
    completeness: float = 0.0
    t_first: int = 0
    t_last: int = 0
    closed_by: str = ""


class FeatureResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    feature: str = ""
    statistic_name: str = ""
    statistic: float = 0.0
    p_value: float = 0.0
    effect_size: float = 0.0
    effect_size_name: str = ""
    threshold: float = 0.0
    n: int = 0
    is_drift: bool = False
    signal: str = ""

    @property
    def label(self) -> str:
        """`<feature>`, or `<feature>:<signal>`: one name for each test of a verdict."""
        return f"{self.feature}:{self.signal}" if self.signal else self.feature


class FeatureShare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    feature: str = ""
    share: float = 0.0


class InstanceResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    instance_id: str = ""
    request_id: str = ""
    score: float = 0.0
    flagged: bool = False
    features: tuple[FeatureShare, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int = 0
    id: str = ""
    namespace: str = ""
    service: str = ""
    model: str = ""
    revision: str = ""
    endpoint: str = ""
    pipeline: str = ""
    step: str = ""
    kind: str = ""
    method: str = ""
    alarm: bool = False
    statistic: float = 0.0
    p_value: float = 0.0
    threshold: float = 0.0
    correction: str = ""
    features: tuple[FeatureResult, ...] = ()
    instances: tuple[InstanceResult, ...] = ()
    window: Window = Window()
    detector_digest: str = ""
    reference_digest: str = ""
    seed: int = 0
    t_verdict: int = 0
    traceparent: str = ""
    memory_digest: str = ""
    alarm_row: int = -1


class Attribution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    feature: str = ""
    value: str = ""
    contribution: float = 0.0


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    feature: str = ""
    text: str = ""
    contribution: float = 0.0


class AnchorRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    predicates: tuple[str, ...] = ()
    precision: float = 0.0
    precision_lower: float = 0.0
    coverage: float = 0.0
    n_samples: int = 0


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int = 0
    id: str = ""
    namespace: str = ""
    service: str = ""
    model: str = ""
    revision: str = ""
    endpoint: str = ""
    instance_id: str = ""
    request_id: str = ""
    pipeline: str = ""
    step: str = ""
    method: str = ""
    output_name: str = ""
    output_unit: str = ""
    prediction: float = 0.0
    base_value: float = 0.0
    attributions: tuple[Attribution, ...] = ()
    anchor: AnchorRule = AnchorRule()
    reasons: tuple[Reason, ...] = ()
    fidelity: float = 0.0
    error_bound: float = 0.0
    model_digest: str = ""
    background_digest: str = ""
    seed: int = 0
    t_created: int = 0
    status: str = ""
    error: str = ""
    traceparent: str = ""


class Feedback(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int = 0
    id: str = ""
    namespace: str = ""
    service: str = ""
    model: str = ""
    request_id: str = ""
    instance_id: str = ""
    label: str = ""
    reward: float = 0.0
    t_feedback: int = 0
    redactions: tuple[Redaction, ...] = ()


class ConfigChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int = 0
    id: str = ""
    namespace: str = ""
    subject: str = ""
    action: str = ""
    digest: str = ""
    actor: str = ""
    t_change: int = 0
    detail: str = ""


class Access(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int = 0
    id: str = ""
    namespace: str = ""
    actor: str = ""
    role: str = ""
    action: str = ""
    subject: str = ""
    t_access: int = 0
    purpose: str = ""


class ExplainRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int = 0
    id: str = ""
    namespace: str = ""
    service: str = ""
    model: str = ""
    revision: str = ""
    endpoint: str = ""
    explainer: str = ""
    instance_id: str = ""
    request_id: str = ""
    pipeline: str = ""
    step: str = ""
    inputs_json: str = ""
    deadline_s: float = 0.0
    actor: str = ""
    t_created: int = 0
    traceparent: str = ""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    schema_version: int = 0
    id: str = ""
    namespace: str = ""
    source_topic: str = ""
    source_partition: int = 0
    source_offset: int = 0
    pipeline: str = ""
    step: str = ""
    code: str = ""
    what: str = ""
    why: str = ""
    fix: str = ""
    key: bytes = b""
    value: bytes = b""
    headers: dict[str, bytes] = {}
    t_failed: int = 0
    value_size: int = 0


Record = Inference | Verdict | Explanation | Feedback | ConfigChange | Access | ExplainRequest | DeadLetter
R = TypeVar("R", bound=msgspec.Struct)


@cache
def _messages() -> ModuleType:
    """protobuf's classes, on first need: capture, which has none, runs in processes with other protobuf releases."""
    from govern import record_pb2

    return record_pb2


def encode(record: Record) -> bytes:
    """The protobuf wire form of a record (message of the same name in `record.proto`); equal records, equal bytes."""
    fields = msgspec.to_builtins(record, builtin_types=(bytes,))
    message = getattr(_messages(), type(record).__name__)(**fields)
    return typing.cast(bytes, message.SerializeToString(deterministic=True))


def decode(kind: type[R], data: bytes) -> R:
    """Read a record of class `kind` from its protobuf wire form.

    Raises:
        BadInput: the bytes are no such message, or of a newer schema version than this code knows.
    """
    message = getattr(_messages(), kind.__name__)()
    try:
        message.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError class differs by backend
        raise BadInput(
            f"record of type {kind.__name__} cannot be read",
            why=f"{len(data)} bytes are no protobuf message of that type: {error}",
            fix="send messages of govern/record.proto; see the header ce_type",
        ) from error
    if message.schema_version > SCHEMA_VERSION:
        raise BadInput(
            f"{kind.__name__}.schema_version is {message.schema_version}",
            why=f"this release reads record versions up to {SCHEMA_VERSION}",
            fix="upgrade the consumers before the producers",
        )
    return _from_message(kind, message)


class _Plan(NamedTuple):
    """How a protobuf message becomes a record.

    Attributes:
        fields: all, by name.
        values: of a message, gets the values of all fields.
        others: those that are no scalars: position, name, shape and, of a message, its class.
    """

    fields: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]]
    others: tuple[tuple[int, str, str, type], ...]


_plans: dict[type, _Plan] = {}


def _plan(kind: type) -> _Plan:
    plan = _plans.get(kind)
    if plan is None:
        others: list[tuple[int, str, str, type]] = []
        defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
        hints = typing.get_type_hints(kind)
        for position, (name, hint) in enumerate(hints.items()):
            if get_origin(hint) is tuple:
                item = get_args(hint)[0]
                nested = isinstance(item, type) and issubclass(item, msgspec.Struct)
                others.append((position, name, "structs" if nested else "scalars", item))
            elif get_origin(hint) is dict:
                others.append((position, name, "map", dict))
            elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
                others.append((position, name, "struct", hint))
            elif hint is int and defaults[name] != 0:
                others.append((position, name, "optional", int))
        plan = _plans[kind] = _Plan(tuple(hints), attrgetter(*hints), tuple(others))
    return plan


def _from_message(kind: type[R], message: Any) -> R:
    fields, get, others = _plan(kind)
    found = get(message)
    values = dict(zip(fields, found, strict=True))
    for position, name, shape, item in others:
        value = found[position]
        if shape == "optional":
            if not message.HasField(name):
                del values[name]
        elif shape == "struct":
            if message.HasField(name):
                values[name] = _from_message(item, value)
            else:
                del values[name]  # the default says the same
        elif shape == "structs":
            values[name] = tuple([_from_message(item, one) for one in value])
        elif shape == "scalars":
            values[name] = tuple(value)
        else:
            values[name] = dict(value)
    return kind(**values)
