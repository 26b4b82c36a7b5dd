"""What the proxy is told of one inference, before it answers or just after."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from govern.codecs.inference import decode
from govern.detection import Scores, WindowScores
from govern.record import Inference, Kind
from govern.runtime.serving.step import DetectorStep


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to `POST /v1/pipelines/{pipeline}/steps/{step}/judge`.

    Attributes:
        flagged: numbers of the rows that an outlier or adversarial step flagged, from 0.
        score, threshold: there is an alarm when the score is above the threshold. Of the strangest row; of a drift
            step 1 - p of the feature nearest to drift, and 1 - its corrected threshold.
        detector_digest: of the fitted state, as in the verdicts of a worker.
        plan_digest: of the pipeline and all its artifacts.
    """

    pipeline: str
    step: str
    kind: Kind
    alarm: bool
    n_instances: int
    flagged: tuple[int, ...]
    score: float
    threshold: float
    detector_digest: str
    plan_digest: str


def judge(step: DetectorStep, inference: Inference) -> Judgement:
    """Decode an inference by the pipeline's schema, and score its rows.

    Its response may be missing unless the detector compares it. Which step judges which model is the caller's choice:
    the record's `service` and `model` are not looked at, its tensors are.

    Raises:
        BadInput: a record that cannot be decoded, or not be judged by this step.
    """
    frame = decode(inference, step.schema)
    scores = step.score(frame)
    score, threshold = _worst(scores)
    return Judgement(
        pipeline=step.pipeline,
        step=step.name,
        kind=step.kind,
        alarm=scores.alarm if isinstance(scores, WindowScores) else bool(np.any(scores.flagged)),
        n_instances=len(frame),
        flagged=() if isinstance(scores, WindowScores) else tuple(np.flatnonzero(scores.flagged).tolist()),
        score=score,
        threshold=threshold,
        detector_digest=step.detector.digest,
        plan_digest=step.plan_digest,
    )


def _worst(scores: Scores) -> tuple[float, float]:
    if not isinstance(scores, WindowScores):
        return float(np.max(scores.scores)), scores.threshold
    judged = [(one.p_value, one.threshold) for one in scores.features] or [(scores.p_value, scores.threshold)]
    p_value, threshold = min(judged, key=lambda one: math.inf if math.isnan(one[0] - one[1]) else one[0] - one[1])
    return 1 - p_value, 1 - threshold
