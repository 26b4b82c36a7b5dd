"""What the API takes and gives, as OpenAPI shows it."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from explainers.answer import DEFAULT_DEADLINE_S, MAX_DEADLINE_S
from explainers.catalogue import Card
from govern.record import AnchorRule, Explanation

#: The longest that a caller may be kept waiting: below the idle time-outs of common proxies (60 s).
MAX_WAIT_S: Final = 30.0

_BY_ID: Final[JsonDict] = {"request_id": "018f3c1e-7b1a-7cc0-9d55-0c2f6f8f0a11", "explainer": "shap", "wait_s": 5}
_BY_INPUTS: Final[JsonDict] = {"inputs": [{"AGEP": 62, "SCHL": "16", "SEX": "2"}], "explainer": "anchors"}


class Ask(BaseModel):
    """What is to be explained, and how."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_BY_ID, _BY_INPUTS]})

    explainer: str = Field(description="Name of the explainer; GET /v1/explainers lists them.")
    request_id: str | None = Field(None, min_length=1, description="Of a captured request.")
    row: int = Field(0, ge=0, description="Which row of that request, or of the inputs.")
    inputs: list[dict[str, Any]] | dict[str, Any] | None = Field(
        None, description="A list with one row (feature -> value), or an Open Inference Protocol V2 request."
    )
    wait_s: float = Field(2.0, ge=0, le=MAX_WAIT_S, description="How long to wait before 202 is answered, seconds.")
    deadline_s: float = Field(DEFAULT_DEADLINE_S, gt=0, le=MAX_DEADLINE_S, description="For the computation, seconds.")

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.request_id is None) == (self.inputs is None):
            raise ValueError("give either request_id or inputs")
        return self


class AttributionView(BaseModel):
    feature: str
    value: str
    contribution: float


class ReasonView(BaseModel):
    feature: str
    text: str
    contribution: float


class AnchorView(BaseModel):
    predicates: list[str]
    precision: float
    precision_lower: float
    coverage: float
    n_samples: int


class ExplanationView(BaseModel):
    """An explanation. With status "failed", `error` says why; with "deadline" it is the best that time allowed."""

    id: str
    status: Literal["ok", "deadline", "failed"]
    error: str
    method: str
    reasons: list[ReasonView]
    prediction: float
    base_value: float
    output_name: str
    output_unit: str
    attributions: list[AttributionView]
    anchor: AnchorView | None
    fidelity: float
    error_bound: float | None = Field(description="null = not known")
    model: str
    service: str
    revision: str
    request_id: str
    instance_id: str
    model_digest: str
    background_digest: str
    seed: int
    t_created_ns: int
    traceparent: str

    @classmethod
    def of(cls, record: Explanation) -> ExplanationView:
        anchor = None
        if record.anchor != AnchorRule():
            anchor = AnchorView(
                predicates=list(record.anchor.predicates),
                precision=record.anchor.precision,
                precision_lower=record.anchor.precision_lower,
                coverage=record.anchor.coverage,
                n_samples=record.anchor.n_samples,
            )
        return cls.model_validate(
            {
                name: getattr(record, name)
                for name in cls.model_fields
                if name not in ("reasons", "attributions", "anchor", "error_bound", "t_created_ns")
            }
            | {
                "reasons": [
                    {"feature": r.feature, "text": r.text, "contribution": r.contribution} for r in record.reasons
                ],
                "attributions": [
                    {"feature": a.feature, "value": a.value, "contribution": a.contribution}
                    for a in record.attributions
                ],
                "anchor": anchor,
                "error_bound": record.error_bound if math.isfinite(record.error_bound) else None,
                "t_created_ns": record.t_created,
            }
        )


class Pending(BaseModel):
    """It is being computed: ask again at `Location`."""

    id: str
    status: Literal["pending"] = "pending"


class FeatureView(BaseModel):
    name: str
    kind: str
    title: str
    protected: bool


class ExplainerView(BaseModel):
    """An explainer that is served."""

    name: str
    method: str
    model: str
    output: str
    digest: str
    background_digest: str
    seed: int
    features: list[FeatureView]

    @classmethod
    def of(cls, card: Card) -> ExplainerView:
        return cls(
            name=card.name,
            method=card.method,
            model=card.schema.model,
            output=card.target.output,
            digest=card.digest,
            background_digest=card.background_digest,
            seed=card.seed,
            features=[
                FeatureView(name=one.name, kind=one.kind, title=one.words, protected=one.protected)
                for one in card.schema.features
            ],
        )
