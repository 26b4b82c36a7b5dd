"""Every span of govern and every attribute that it may carry, declared once.

One trace runs through an inference: the caller's span, then `CAPTURE` in the proxy, then, on the other side of the
bus, `JUDGE`, `EXPLAIN` and `AUDIT`. A span of the other side that belongs to one inference is a child of that
inference's span; one that belongs to many (a window, a batch) is a child of the newest and carries links to the
newest `MAX_LINKS` (OpenTelemetry messaging conventions: a batch is linked, not parented).

Attribute names follow OpenTelemetry's naming rules: lower case, dots between namespaces; `govern.` is ours.
"""

from __future__ import annotations

from typing import Final

#: One exchange, from the first request byte to the spool. Kind SERVER.
CAPTURE: Final = "govern.capture"
#: One closed window, from its last instance to its verdict. Kind CONSUMER.
JUDGE: Final = "govern.judge"
#: One batch of records appended to the audit log. Kind CONSUMER.
AUDIT: Final = "govern.audit"
#: One explanation, from its request to its result. Kind CONSUMER, or SERVER when the API computes it.
EXPLAIN: Final = "govern.explain"

#: Links per span. A window may hold 10^5 instances; a trace view reads a few dozen, and the SDK keeps 128.
MAX_LINKS: Final = 32

NAMESPACE: Final = "govern.namespace"
SERVICE: Final = "govern.service"
MODEL: Final = "govern.model"
REVISION: Final = "govern.revision"
ENDPOINT: Final = "govern.endpoint"
PIPELINE: Final = "govern.pipeline"
STEP: Final = "govern.step"

INFERENCE_ID: Final = "govern.inference.id"
REQUEST_ID: Final = "govern.request.id"
VERDICT_ID: Final = "govern.verdict.id"
VERDICT_KIND: Final = "govern.verdict.kind"
VERDICT_ALARM: Final = "govern.verdict.alarm"
DETECTOR_DIGEST: Final = "govern.detector.digest"
WINDOW_INSTANCES: Final = "govern.window.instances"
WINDOW_CLOSED_BY: Final = "govern.window.closed_by"
EXPLANATION_ID: Final = "govern.explanation.id"
EXPLAINER: Final = "govern.explainer"
AUDIT_TREE_SIZE: Final = "govern.audit.tree_size"
AUDIT_ENTRIES: Final = "govern.audit.entries"
ERROR_CODE: Final = "govern.error.code"

#: OpenTelemetry's own names, where they say what we mean.
HTTP_STATUS_CODE: Final = "http.response.status_code"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_PARTITION: Final = "messaging.destination.partition.id"
MESSAGING_OFFSET: Final = "messaging.kafka.offset"
MESSAGING_BATCH: Final = "messaging.batch.message_count"
