"""Instruments filled as the processes of a small installation in trouble would fill them."""

from __future__ import annotations

import time

from govern.telemetry.metrics import Metrics, labels
from govern.telemetry.tracing import exemplar

NAMESPACE, SERVICE, MODEL, PIPELINE = "bank", "income", "income-model", "income-watch"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#: Older than what the rule of a stalled writer forgives.
CHECKPOINT_AGE_S = 900


def emit(metrics: Metrics) -> None:
    """Emit one round of everything; counters grow with each call."""
    _mirror(metrics)
    _worker(metrics)
    _explainer(metrics)
    _audit(metrics)
    _served(metrics)


def _mirror(metrics: Metrics) -> None:
    names = labels(namespace=NAMESPACE, service=SERVICE)
    metrics.capture_seen.labels(*names).inc(100)
    metrics.capture_captured.labels(*names).inc(80)
    metrics.capture_sampled_out.labels(*names).inc(18)
    metrics.capture_dropped.labels(*names).inc(2)
    metrics.capture_withheld.labels(*names).inc(3)
    metrics.capture_shipped.labels(*names).inc(80)
    metrics.capture_rules_refused.labels(*names).set(1)
    metrics.spool_corrupt.labels(*names).inc()
    metrics.spool_bytes.labels(*names).set(4096)
    metrics.spool_pending.labels(*names).set(3)
    further = (*names, "archive")
    metrics.destination_sent.labels(*further).inc(70)
    metrics.destination_filtered.labels(*further).inc(8)
    metrics.destination_dropped.labels(*further).inc(1)
    metrics.destination_pending.labels(*further).set(1)
    asked = labels(namespace=NAMESPACE, service=SERVICE, step="outlier")
    metrics.inline_judged.labels(*asked).inc(70)
    metrics.inline_alarms.labels(*asked).inc(6)
    metrics.inline_unjudged.labels(*asked).inc(2)
    metrics.sink_joined.labels(*names).inc(50)
    metrics.sink_orphaned.labels(*names).inc(2)
    metrics.sink_feedback.labels(*names).inc(4)
    metrics.sink_duplicates.labels(*names).inc(3)
    sink = labels(namespace=NAMESPACE)
    metrics.sink_refused.labels(*sink).inc(1)
    metrics.sink_malformed.labels(*sink).inc(1)
    metrics.sink_ignored.labels(*sink).inc(1)
    metrics.sink_pending.labels(*sink).set(7)


def _worker(metrics: Metrics) -> None:
    model = {"namespace": NAMESPACE, "service": SERVICE, "model": MODEL, "revision": "1", "endpoint": "default"}
    read = labels(**model, pipeline=PIPELINE)
    metrics.inferences.labels(*read).inc(80)
    metrics.inference_duration.labels(*read).observe(0.02, exemplar(TRACEPARENT))
    metrics.consumer_lag.labels(*labels(namespace=NAMESPACE, step="worker")).set(12)
    metrics.dead_letters.labels(*labels(namespace=NAMESPACE, pipeline=PIPELINE, step="drift")).inc()
    metrics.worker_paused.labels(*labels(namespace=NAMESPACE)).set(1)
    pipeline = labels(namespace=NAMESPACE, pipeline=PIPELINE)
    metrics.pipeline_lag.labels(*pipeline).set(5_000)
    metrics.pipeline_judging.labels(*pipeline).inc(2.5)
    metrics.pipeline_own_tracks.labels(*pipeline).set(1)
    metrics.pipeline_lost.labels(*pipeline).inc(20)
    metrics.pipeline_turn.labels(*pipeline).set(90.0)
    metrics.join_dropped.labels(*pipeline).inc()
    metrics.join_late.labels(*pipeline).inc()
    metrics.pipelines_refused.labels(*pipeline).set(1)

    drift = labels(**model, pipeline=PIPELINE, step="drift")
    outlier = labels(**model, pipeline=PIPELINE, step="outlier")
    for step in (drift, outlier):
        metrics.verdicts.labels(*step).inc()
        metrics.alarms.labels(*step).inc()
        metrics.instances.labels(*step).inc(80)
        metrics.window_instances.labels(*step).set(80)
        metrics.window_completeness.labels(*step).set(0.98)
        metrics.verdict_freshness.labels(*step).observe(0.4, exemplar(TRACEPARENT))
    metrics.drift_detected.labels(*drift).set(1)
    for feature, p_value in {"AGEP": 0.0, "SEX": 0.7}.items():
        metrics.drift_feature_detected.labels(*drift, feature).set(int(p_value < 0.025))
        metrics.drift_p_value.labels(*drift, feature).set(p_value)
        metrics.drift_threshold.labels(*drift, feature).set(0.025)
        metrics.drift_statistic.labels(*drift, feature).set(0.3)
        metrics.drift_effect_size.labels(*drift, feature).set(0.2)
    metrics.flagged.labels(*outlier).inc(30)
    metrics.stated_contamination.labels(*labels(namespace=NAMESPACE, pipeline=PIPELINE, step="outlier")).set(0.01)
    metrics.instance_score_max.labels(*outlier).set(0.9)
    metrics.instance_score_threshold.labels(*outlier).set(0.6)


def _explainer(metrics: Metrics) -> None:
    names = labels(namespace=NAMESPACE, service=SERVICE, model=MODEL, step="shap")
    metrics.explanations.labels(*names).inc(4)
    metrics.explanation_failures.labels(*names).inc(2)
    metrics.explanation_duration.labels(*names).observe(0.8, exemplar(TRACEPARENT))


def _audit(metrics: Metrics) -> None:
    names = labels(namespace=NAMESPACE)
    metrics.audit_entries.labels(*names).inc(85)
    metrics.audit_tree_size.labels(*names).inc(85)
    metrics.audit_checkpoint_time.labels(*names).set(time.time() - CHECKPOINT_AGE_S)
    metrics.audit_append_duration.labels(*names).observe(0.01)
    metrics.audit_reads.labels(*names).inc()
    metrics.audit_gaps.labels(*names).inc()


def _served(metrics: Metrics) -> None:
    names = labels(namespace=NAMESPACE, service=SERVICE, model=MODEL, pipeline=PIPELINE, step="outlier")
    metrics.serve_duration.labels(*names).observe(0.004)
    metrics.serve_failures.labels(*names).inc()
    metrics.serve_refused.labels(*names).inc()
