from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Payload(_message.Message):
    __slots__ = ("content_type", "content_encoding", "body", "body_ref", "size", "sha256", "headers", "sealed")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_ENCODING_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    BODY_REF_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    content_type: str
    content_encoding: str
    body: bytes
    body_ref: str
    size: int
    sha256: str
    headers: _containers.ScalarMap[str, str]
    sealed: bytes
    def __init__(self, content_type: _Optional[str] = ..., content_encoding: _Optional[str] = ..., body: _Optional[bytes] = ..., body_ref: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("rate", "strategy")
    RATE_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    rate: float
    strategy: str
    def __init__(self, rate: _Optional[float] = ..., strategy: _Optional[str] = ...) -> None: ...

class Redaction(_message.Message):
    __slots__ = ("path", "action")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    path: str
    action: str
    def __init__(self, path: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class Capture(_message.Message):
    __slots__ = ("agent", "pod", "seq", "dropped_before", "source")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    agent: str
    pod: str
    seq: int
    dropped_before: int
    source: str
    def __init__(self, agent: _Optional[str] = ..., pod: _Optional[str] = ..., seq: _Optional[int] = ..., dropped_before: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class Inference(_message.Message):
    __slots__ = ("schema_version", "id", "request_id", "traceparent", "namespace", "service", "model", "revision", "endpoint", "protocol", "t_request", "t_response", "status_code", "request", "response", "error", "sampling", "truncated", "redactions", "principal_hash", "synthetic", "capture", "path", "missing", "grpc_status")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    T_REQUEST_FIELD_NUMBER: _ClassVar[int]
    T_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    REDACTIONS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_HASH_FIELD_NUMBER: _ClassVar[int]
    SYNTHETIC_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    GRPC_STATUS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    request_id: str
    traceparent: str
    namespace: str
    service: str
    model: str
    revision: str
    endpoint: str
    protocol: str
    t_request: int
    t_response: int
    status_code: int
    request: Payload
    response: Payload
    error: str
    sampling: Sampling
    truncated: _containers.RepeatedScalarFieldContainer[str]
    redactions: _containers.RepeatedCompositeFieldContainer[Redaction]
    principal_hash: str
    synthetic: bool
    capture: Capture
    path: str
    missing: _containers.RepeatedScalarFieldContainer[str]
    grpc_status: str
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., request_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[str] = ..., endpoint: _Optional[str] = ..., protocol: _Optional[str] = ..., t_request: _Optional[int] = ..., t_response: _Optional[int] = ..., status_code: _Optional[int] = ..., request: _Optional[_Union[Payload, _Mapping]] = ..., response: _Optional[_Union[Payload, _Mapping]] = ..., error: _Optional[str] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., truncated: _Optional[_Iterable[str]] = ..., redactions: _Optional[_Iterable[_Union[Redaction, _Mapping]]] = ..., principal_hash: _Optional[str] = ..., synthetic: _Optional[bool] = ..., capture: _Optional[_Union[Capture, _Mapping]] = ..., path: _Optional[str] = ..., missing: _Optional[_Iterable[str]] = ..., grpc_status: _Optional[str] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("topic", "partition", "first_offset", "last_offset", "first_row", "last_row", "n_instances", "completeness", "t_first", "t_last", "closed_by")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROW_FIELD_NUMBER: _ClassVar[int]
    LAST_ROW_FIELD_NUMBER: _ClassVar[int]
    N_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    COMPLETENESS_FIELD_NUMBER: _ClassVar[int]
    T_FIRST_FIELD_NUMBER: _ClassVar[int]
    T_LAST_FIELD_NUMBER: _ClassVar[int]
    CLOSED_BY_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    first_row: int
    last_row: int
    n_instances: int
    completeness: float
    t_first: int
    t_last: int
    closed_by: str
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., first_offset: _Optional[int] = ..., last_offset: _Optional[int] = ..., first_row: _Optional[int] = ..., last_row: _Optional[int] = ..., n_instances: _Optional[int] = ..., completeness: _Optional[float] = ..., t_first: _Optional[int] = ..., t_last: _Optional[int] = ..., closed_by: _Optional[str] = ...) -> None: ...

class FeatureResult(_message.Message):
    __slots__ = ("feature", "statistic_name", "statistic", "p_value", "effect_size", "effect_size_name", "threshold", "n", "is_drift", "signal")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_NAME_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_SIZE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_SIZE_NAME_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    IS_DRIFT_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    feature: str
    statistic_name: str
    statistic: float
    p_value: float
    effect_size: float
    effect_size_name: str
    threshold: float
    n: int
    is_drift: bool
    signal: str
    def __init__(self, feature: _Optional[str] = ..., statistic_name: _Optional[str] = ..., statistic: _Optional[float] = ..., p_value: _Optional[float] = ..., effect_size: _Optional[float] = ..., effect_size_name: _Optional[str] = ..., threshold: _Optional[float] = ..., n: _Optional[int] = ..., is_drift: _Optional[bool] = ..., signal: _Optional[str] = ...) -> None: ...

class FeatureShare(_message.Message):
    __slots__ = ("feature", "share")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    feature: str
    share: float
    def __init__(self, feature: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class InstanceResult(_message.Message):
    __slots__ = ("instance_id", "request_id", "score", "flagged", "features")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    request_id: str
    score: float
    flagged: bool
    features: _containers.RepeatedCompositeFieldContainer[FeatureShare]
    def __init__(self, instance_id: _Optional[str] = ..., request_id: _Optional[str] = ..., score: _Optional[float] = ..., flagged: _Optional[bool] = ..., features: _Optional[_Iterable[_Union[FeatureShare, _Mapping]]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("schema_version", "id", "namespace", "service", "model", "revision", "endpoint", "pipeline", "step", "kind", "method", "alarm", "statistic", "p_value", "threshold", "correction", "features", "instances", "window", "detector_digest", "reference_digest", "seed", "t_verdict", "traceparent", "memory_digest", "alarm_row")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    T_VERDICT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ALARM_ROW_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    namespace: str
    service: str
    model: str
    revision: str
    endpoint: str
    pipeline: str
    step: str
    kind: str
    method: str
    alarm: bool
    statistic: float
    p_value: float
    threshold: float
    correction: str
    features: _containers.RepeatedCompositeFieldContainer[FeatureResult]
    instances: _containers.RepeatedCompositeFieldContainer[InstanceResult]
    window: Window
    detector_digest: str
    reference_digest: str
    seed: int
    t_verdict: int
    traceparent: str
    memory_digest: str
    alarm_row: int
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[str] = ..., endpoint: _Optional[str] = ..., pipeline: _Optional[str] = ..., step: _Optional[str] = ..., kind: _Optional[str] = ..., method: _Optional[str] = ..., alarm: _Optional[bool] = ..., statistic: _Optional[float] = ..., p_value: _Optional[float] = ..., threshold: _Optional[float] = ..., correction: _Optional[str] = ..., features: _Optional[_Iterable[_Union[FeatureResult, _Mapping]]] = ..., instances: _Optional[_Iterable[_Union[InstanceResult, _Mapping]]] = ..., window: _Optional[_Union[Window, _Mapping]] = ..., detector_digest: _Optional[str] = ..., reference_digest: _Optional[str] = ..., seed: _Optional[int] = ..., t_verdict: _Optional[int] = ..., traceparent: _Optional[str] = ..., memory_digest: _Optional[str] = ..., alarm_row: _Optional[int] = ...) -> None: ...

class Attribution(_message.Message):
    __slots__ = ("feature", "value", "contribution")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    feature: str
    value: str
    contribution: float
    def __init__(self, feature: _Optional[str] = ..., value: _Optional[str] = ..., contribution: _Optional[float] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("feature", "text", "contribution")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    feature: str
    text: str
    contribution: float
    def __init__(self, feature: _Optional[str] = ..., text: _Optional[str] = ..., contribution: _Optional[float] = ...) -> None: ...

class AnchorRule(_message.Message):
    __slots__ = ("predicates", "precision", "precision_lower", "coverage", "n_samples")
    PREDICATES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    PRECISION_LOWER_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    N_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    predicates: _containers.RepeatedScalarFieldContainer[str]
    precision: float
    precision_lower: float
    coverage: float
    n_samples: int
    def __init__(self, predicates: _Optional[_Iterable[str]] = ..., precision: _Optional[float] = ..., precision_lower: _Optional[float] = ..., coverage: _Optional[float] = ..., n_samples: _Optional[int] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("schema_version", "id", "namespace", "service", "model", "revision", "endpoint", "instance_id", "request_id", "pipeline", "step", "method", "output_name", "output_unit", "prediction", "base_value", "attributions", "anchor", "reasons", "fidelity", "error_bound", "model_digest", "background_digest", "seed", "t_created", "status", "error", "traceparent")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_NAME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_UNIT_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    BASE_VALUE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    FIDELITY_FIELD_NUMBER: _ClassVar[int]
    ERROR_BOUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    T_CREATED_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    namespace: str
    service: str
    model: str
    revision: str
    endpoint: str
    instance_id: str
    request_id: str
    pipeline: str
    step: str
    method: str
    output_name: str
    output_unit: str
    prediction: float
    base_value: float
    attributions: _containers.RepeatedCompositeFieldContainer[Attribution]
    anchor: AnchorRule
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    fidelity: float
    error_bound: float
    model_digest: str
    background_digest: str
    seed: int
    t_created: int
    status: str
    error: str
    traceparent: str
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[str] = ..., endpoint: _Optional[str] = ..., instance_id: _Optional[str] = ..., request_id: _Optional[str] = ..., pipeline: _Optional[str] = ..., step: _Optional[str] = ..., method: _Optional[str] = ..., output_name: _Optional[str] = ..., output_unit: _Optional[str] = ..., prediction: _Optional[float] = ..., base_value: _Optional[float] = ..., attributions: _Optional[_Iterable[_Union[Attribution, _Mapping]]] = ..., anchor: _Optional[_Union[AnchorRule, _Mapping]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., fidelity: _Optional[float] = ..., error_bound: _Optional[float] = ..., model_digest: _Optional[str] = ..., background_digest: _Optional[str] = ..., seed: _Optional[int] = ..., t_created: _Optional[int] = ..., status: _Optional[str] = ..., error: _Optional[str] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("schema_version", "id", "namespace", "service", "model", "request_id", "instance_id", "label", "reward", "t_feedback", "redactions")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    T_FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    REDACTIONS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    namespace: str
    service: str
    model: str
    request_id: str
    instance_id: str
    label: str
    reward: float
    t_feedback: int
    redactions: _containers.RepeatedCompositeFieldContainer[Redaction]
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ..., model: _Optional[str] = ..., request_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., label: _Optional[str] = ..., reward: _Optional[float] = ..., t_feedback: _Optional[int] = ..., redactions: _Optional[_Iterable[_Union[Redaction, _Mapping]]] = ...) -> None: ...

class ConfigChange(_message.Message):
    __slots__ = ("schema_version", "id", "namespace", "subject", "action", "digest", "actor", "t_change", "detail")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    T_CHANGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    namespace: str
    subject: str
    action: str
    digest: str
    actor: str
    t_change: int
    detail: str
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., namespace: _Optional[str] = ..., subject: _Optional[str] = ..., action: _Optional[str] = ..., digest: _Optional[str] = ..., actor: _Optional[str] = ..., t_change: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Access(_message.Message):
    __slots__ = ("schema_version", "id", "namespace", "actor", "role", "action", "subject", "t_access", "purpose")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    T_ACCESS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    namespace: str
    actor: str
    role: str
    action: str
    subject: str
    t_access: int
    purpose: str
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., namespace: _Optional[str] = ..., actor: _Optional[str] = ..., role: _Optional[str] = ..., action: _Optional[str] = ..., subject: _Optional[str] = ..., t_access: _Optional[int] = ..., purpose: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("schema_version", "id", "namespace", "service", "model", "revision", "endpoint", "explainer", "instance_id", "request_id", "pipeline", "step", "inputs_json", "deadline_s", "actor", "t_created", "traceparent")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    INPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    T_CREATED_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    namespace: str
    service: str
    model: str
    revision: str
    endpoint: str
    explainer: str
    instance_id: str
    request_id: str
    pipeline: str
    step: str
    inputs_json: str
    deadline_s: float
    actor: str
    t_created: int
    traceparent: str
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., namespace: _Optional[str] = ..., service: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[str] = ..., endpoint: _Optional[str] = ..., explainer: _Optional[str] = ..., instance_id: _Optional[str] = ..., request_id: _Optional[str] = ..., pipeline: _Optional[str] = ..., step: _Optional[str] = ..., inputs_json: _Optional[str] = ..., deadline_s: _Optional[float] = ..., actor: _Optional[str] = ..., t_created: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("schema_version", "id", "namespace", "source_topic", "source_partition", "source_offset", "pipeline", "step", "code", "what", "why", "fix", "key", "value", "headers", "t_failed", "value_size")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TOPIC_FIELD_NUMBER: _ClassVar[int]
    SOURCE_PARTITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    PIPELINE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    FIX_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    T_FAILED_FIELD_NUMBER: _ClassVar[int]
    VALUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    id: str
    namespace: str
    source_topic: str
    source_partition: int
    source_offset: int
    pipeline: str
    step: str
    code: str
    what: str
    why: str
    fix: str
    key: bytes
    value: bytes
    headers: _containers.ScalarMap[str, bytes]
    t_failed: int
    value_size: int
    def __init__(self, schema_version: _Optional[int] = ..., id: _Optional[str] = ..., namespace: _Optional[str] = ..., source_topic: _Optional[str] = ..., source_partition: _Optional[int] = ..., source_offset: _Optional[int] = ..., pipeline: _Optional[str] = ..., step: _Optional[str] = ..., code: _Optional[str] = ..., what: _Optional[str] = ..., why: _Optional[str] = ..., fix: _Optional[str] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., headers: _Optional[_Mapping[str, bytes]] = ..., t_failed: _Optional[int] = ..., value_size: _Optional[int] = ...) -> None: ...
