"""What a worker tells Prometheus and the tracer about the work that it has committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from opentelemetry.trace import SpanKind, Tracer
from prometheus_client import Counter, Histogram

from govern.detection import stated_contamination
from govern.record import DeadLetter, Inference, Verdict
from govern.runtime.chained.tasks import Made
from govern.runtime.loader import LoadedPipeline
from govern.runtime.task import Effects
from govern.telemetry import spans
from govern.telemetry.metrics import Metrics, labels
from govern.telemetry.tracing import context_of, exemplar, links_of, traceparent_of

#: The labels of an inference, in the order of what `_inference` looks its metrics up by.
_STREAM: Final = ("namespace", "service", "model", "revision", "endpoint", "pipeline")


class Observed(NamedTuple):
    """The metrics of one stream's inferences, looked up once for a commit rather than for each of thousands."""

    names: tuple[str, ...]
    inferences: Counter
    duration: Histogram


class Standing(NamedTuple):
    """How a pipeline stands in this worker.

    Attributes:
        lag: records between where it is and the end, over the partitions held here.
        turn_s: how long the turn that it is at work in has lasted, seconds; 0 when it is not.
        own_tracks: partitions on which it has a track of its own.
    """

    pipeline: str
    lag: int
    turn_s: float
    own_tracks: int


class Reporter:
    """Emits for one worker.

    Args:
        tracer: None when traces go nowhere; a verdict then carries the trace of its window's last instance.
    """

    def __init__(self, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._standing: set[tuple[str, ...]] = set()
        self._stated: set[tuple[str, ...]] = set()

    def lag(self, namespace: str, records: int, *, step: str = "worker") -> None:
        self._metrics.consumer_lag.labels(*labels(namespace=namespace, step=step)).set(records)

    def paused(self, namespace: str, partitions: int) -> None:
        self._metrics.worker_paused.labels(*labels(namespace=namespace)).set(partitions)

    def standing(self, namespace: str, pipelines: Sequence[Standing]) -> None:
        """Show how each pipeline stands, and no longer those that are not among them."""
        shown = {labels(namespace=namespace, pipeline=one.pipeline): one for one in pipelines}
        for names in self._standing - shown.keys():
            self._metrics.forget_pipeline(names)
        for names, one in shown.items():
            self._metrics.pipeline_lag.labels(*names).set(one.lag)
            self._metrics.pipeline_turn.labels(*names).set(one.turn_s)
            self._metrics.pipeline_own_tracks.labels(*names).set(one.own_tracks)
        self._standing = set(shown)

    def stated(self, namespace: str, pipelines: Sequence[LoadedPipeline]) -> None:
        """Show what contamination the detectors of these pipelines state, and no longer that of others.

        A window that slides flags a row once for each window that holds it: nothing to hold against a share of rows.
        """
        shown = {
            labels(namespace=namespace, pipeline=one.plan.name, step=step): share
            for one in pipelines
            for step, detector in one.detectors.items()
            if not one.plan.step(step).rolling and (share := stated_contamination(detector)) is not None
        }
        for names in self._stated - shown.keys():
            self._metrics.stated_contamination.remove(*names)
        for names, share in shown.items():
            self._metrics.stated_contamination.labels(*names).set(share)
        self._stated = set(shown)

    def refused(self, namespace: str, pipelines: frozenset[str]) -> None:
        """Which pipelines are refused now: no others are any more."""
        self._metrics.pipelines_refused.clear()
        for name in pipelines:
            self._metrics.pipelines_refused.labels(*labels(namespace=namespace, pipeline=name)).set(1)

    def forget_windows(self, pipelines: frozenset[str] | None = None) -> None:
        """Stop showing the newest windows, those of these pipelines only if any are given: they go on elsewhere, or
        never."""
        self._metrics.forget_windows(pipelines)

    def judged(self, verdict: Verdict, traceparents: Sequence[str]) -> str:
        """Record the span of a verdict, child of its newest instance's and linked to others; return its traceparent."""
        if self._tracer is None:
            return verdict.traceparent
        span = self._tracer.start_span(
            spans.JUDGE,
            context=context_of(traceparents[-1]),
            kind=SpanKind.CONSUMER,
            links=links_of(traceparents),
            attributes={
                spans.NAMESPACE: verdict.namespace,
                spans.SERVICE: verdict.service,
                spans.MODEL: verdict.model,
                spans.REVISION: verdict.revision,
                spans.ENDPOINT: verdict.endpoint,
                spans.PIPELINE: verdict.pipeline,
                spans.STEP: verdict.step,
                spans.VERDICT_ID: verdict.id,
                spans.VERDICT_KIND: verdict.kind,
                spans.VERDICT_ALARM: verdict.alarm,
                spans.DETECTOR_DIGEST: verdict.detector_digest,
                spans.WINDOW_INSTANCES: verdict.window.n_instances,
                spans.WINDOW_CLOSED_BY: verdict.window.closed_by,
            },
        )
        span.end()
        return traceparent_of(span)

    def committed(self, namespace: str, effects: Effects, now_ns: int) -> None:
        seen: dict[tuple[str, ...], Observed] = {}
        for pipeline, inference in effects.observed:
            self._inference(pipeline, inference, seen)
        for judgement in effects.judgements:
            self._verdict(judgement.verdict, judgement.new, now_ns)
        for pipeline, spent_s in effects.spent_s.items():
            self._metrics.pipeline_judging.labels(*labels(namespace=namespace, pipeline=pipeline)).inc(spent_s)
        for pipeline, lost in effects.lost.items():
            self._metrics.pipeline_lost.labels(*labels(namespace=namespace, pipeline=pipeline)).inc(lost)
        self._letters(namespace, effects.dead_letters)

    def joined(self, namespace: str, made: Made) -> None:
        for counter, counts in ((self._metrics.join_dropped, made.dropped), (self._metrics.join_late, made.late)):
            for pipeline, count in counts.items():
                counter.labels(*labels(namespace=namespace, pipeline=pipeline)).inc(count)
        self._letters(namespace, made.dead_letters)

    def _letters(self, namespace: str, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self._metrics.dead_letters.labels(
                *labels(namespace=namespace, pipeline=letter.pipeline, step=letter.step)
            ).inc()

    def _inference(self, pipeline: str, inference: Inference, seen: dict[tuple[str, ...], Observed]) -> None:
        stream = (
            inference.namespace,
            inference.service,
            inference.model,
            inference.revision,
            inference.endpoint,
            pipeline,
        )
        observed = seen.get(stream)
        if observed is None:
            names = labels(**dict(zip(_STREAM, stream, strict=True)))
            observed = seen[stream] = Observed(
                names, self._metrics.inferences.labels(*names), self._metrics.inference_duration.labels(*names)
            )
        observed.inferences.inc()
        if inference.error or inference.status_code == 0 or inference.status_code >= 400:
            self._metrics.inference_errors.labels(*observed.names).inc()
        observed.duration.observe(
            max(0, inference.t_response - inference.t_request) / 1e9, exemplar(inference.traceparent)
        )

    def _verdict(self, verdict: Verdict, new: int, now_ns: int) -> None:
        metrics = self._metrics
        names = labels(
            namespace=verdict.namespace,
            service=verdict.service,
            model=verdict.model,
            revision=verdict.revision,
            endpoint=verdict.endpoint,
            pipeline=verdict.pipeline,
            step=verdict.step,
        )
        metrics.verdicts.labels(*names).inc()
        metrics.alarms.labels(*names).inc(int(verdict.alarm))
        metrics.instances.labels(*names).inc(new)
        metrics.window_instances.labels(*names).set(verdict.window.n_instances)
        metrics.window_completeness.labels(*names).set(verdict.window.completeness)
        metrics.verdict_freshness.labels(*names).observe(
            max(0, now_ns - verdict.window.t_last) / 1e9, exemplar(verdict.traceparent)
        )
        if verdict.kind == "drift":
            metrics.drift_detected.labels(*names).set(int(verdict.alarm))
            for feature in verdict.features:
                each = (*names, feature.label)
                metrics.drift_feature_detected.labels(*each).set(int(feature.is_drift))
                metrics.drift_p_value.labels(*each).set(feature.p_value)
                metrics.drift_threshold.labels(*each).set(feature.threshold)
                metrics.drift_statistic.labels(*each).set(feature.statistic)
                metrics.drift_effect_size.labels(*each).set(feature.effect_size)
        else:
            metrics.flagged.labels(*names).inc(sum(one.flagged for one in verdict.instances))
            metrics.instance_score_max.labels(*names).set(verdict.statistic)
            metrics.instance_score_threshold.labels(*names).set(verdict.threshold)
