"""A case in short, for a person: computed from the leaves and disclosed values of a case file, and from them alone.

Whoever verifies the file computes it again and compares, so that the part that people read is covered too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from audit.document import Json, JsonObject, int_at, iso_time, object_at, objects_at, text_at


@dataclass(frozen=True, slots=True)
class Part:
    """One entry of a case.

    Attributes:
        data: "disclosed", "erased", "undisclosed", or "" when nothing is withheld.
        values: the disclosed values, as `audit.document.disclose` shows them.
        erased_by: the entry that is said to record the erasure.
    """

    index: int
    leaf: JsonObject
    data: str = ""
    values: Mapping[str, Json] = field(default_factory=dict)
    erased_by: int | None = None

    @property
    def kind(self) -> str:
        return text_at(self.leaf, "kind")

    @property
    def record(self) -> JsonObject:
        return object_at(self.leaf, "record")

    @property
    def request_id(self) -> str:
        return text_at(self.leaf, "concerns") or text_at(self.record, "request_id")

    @property
    def key_id(self) -> str:
        """Of the data key that seals its withheld fields; "" when there are none."""
        return text_at(object_at(self.leaf, "withheld"), "key")

    def value(self, path: str) -> Json:
        shown = self.values.get(path)
        return shown.get("value") if isinstance(shown, dict) else None


def covers(verdict: JsonObject, inference: JsonObject) -> bool:
    """Whether the window of a verdict's leaf covers an inference's leaf: the same stream, its place within."""
    window = object_at(object_at(verdict, "record"), "window")
    source = object_at(inference, "source")
    return (
        stream(object_at(verdict, "record")) == stream(object_at(inference, "record"))
        and text_at(window, "topic") == text_at(source, "topic")
        and int_at(window, "partition") == int_at(source, "partition")
        and int_at(window, "first_offset") <= int_at(source, "offset") <= int_at(window, "last_offset")
    )


def stream(record: JsonObject) -> tuple[str, ...]:
    """What a verdict's window is of: one version of one model behind one endpoint."""
    return tuple(text_at(record, name) for name in ("service", "model", "revision", "endpoint"))


def summarise(request_id: str, parts: Sequence[Part]) -> JsonObject:
    def of(kind: str) -> list[Part]:
        return [part for part in parts if part.kind == kind]

    inferences = of("inference")
    ids = {text_at(part.record, "id") for part in inferences}
    return {
        "request_id": request_id,
        "inferences": [_inference(part) for part in inferences],
        "verdicts": [_verdict(part, request_id, ids) for part in of("verdict")],
        "explanations": [_explanation(part) for part in of("explanation")],
        "feedback": [_feedback(part) for part in of("feedback")],
        "accesses": [_access(part) for part in of("access")],
        "dead_letters": [_dead_letter(part) for part in of("dead-letter")],
        "erasures": [_erasure(part) for part in of("erasure")],
    }


def _inference(part: Part) -> JsonObject:
    record = part.record
    return {
        "entry": part.index,
        "id": text_at(record, "id"),
        **{name: text_at(record, name) for name in ("namespace", "service", "model", "revision", "endpoint")},
        "received": iso_time(int_at(record, "t_request")),
        "answered": iso_time(int_at(record, "t_response")),
        "status_code": int_at(record, "status_code"),
        "error": text_at(record, "error"),
        "synthetic": record.get("synthetic") is True,
        "data": part.data,
        "request": part.value("request.body"),
        "response": part.value("response.body"),
    }


def _verdict(part: Part, request_id: str, inference_ids: set[str]) -> JsonObject:
    record, window = part.record, object_at(part.record, "window")
    results: list[Json] = [
        {
            "instance_id": text_at(one, "instance_id"),
            "score": one.get("score", 0),
            "flagged": one.get("flagged") is True,
        }
        for one in objects_at(record, "instances")
        if text_at(one, "instance_id").rpartition("/")[0] in inference_ids or text_at(one, "request_id") == request_id
    ]
    return {
        "entry": part.index,
        **{
            name: text_at(record, name)
            for name in ("pipeline", "step", "kind", "method", "detector_digest", "memory_digest")
        },
        "alarm": record.get("alarm") is True,
        "at": iso_time(int_at(record, "t_verdict")),
        "drifted_features": [
            text_at(one, "feature") for one in objects_at(record, "features") if one.get("is_drift") is True
        ],
        "results": results,
        "window": {
            "topic": text_at(window, "topic"),
            **{name: int_at(window, name) for name in ("partition", "first_offset", "last_offset", "n_instances")},
        },
    }


def _explanation(part: Part) -> JsonObject:
    reasons = part.value("reasons")
    anchor = part.value("anchor")
    return {
        "entry": part.index,
        **{name: text_at(part.record, name) for name in ("id", "instance_id", "method", "status", "error")},
        "at": iso_time(int_at(part.record, "t_created")),
        "data": part.data,
        "prediction": part.value("prediction"),
        "reasons": [text_at(one, "text") for one in reasons if isinstance(one, dict)]
        if isinstance(reasons, list)
        else [],
        "anchor": anchor.get("predicates", []) if isinstance(anchor, dict) else [],
    }


def _feedback(part: Part) -> JsonObject:
    return {
        "entry": part.index,
        "at": iso_time(int_at(part.record, "t_feedback")),
        "data": part.data,
        "label": part.value("label"),
    }


def _access(part: Part) -> JsonObject:
    return {
        "entry": part.index,
        "at": iso_time(int_at(part.record, "t_access")),
        **{name: text_at(part.record, name) for name in ("actor", "role", "action", "purpose")},
    }


def _dead_letter(part: Part) -> JsonObject:
    return {
        "entry": part.index,
        "at": iso_time(int_at(part.record, "t_failed")),
        **{name: text_at(part.record, name) for name in ("pipeline", "step", "code")},
        "data": part.data,
        "what": part.value("what"),
        "why": part.value("why"),
    }


def _erasure(part: Part) -> JsonObject:
    return {
        "entry": part.index,
        "at": iso_time(int_at(part.record, "t_erased")),
        **{name: text_at(part.record, name) for name in ("actor", "reason")},
    }
