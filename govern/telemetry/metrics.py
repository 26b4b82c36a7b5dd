"""Every Prometheus metric of govern, declared once: name, unit, help, labels.

All metrics carry the same labels, in the same order; one that does not apply is the empty string. So any two
series join on all of them, and a dashboard variable works on every panel.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LABELS: Final = ("namespace", "service", "model", "revision", "endpoint", "pipeline", "step")
FEATURE_LABELS: Final = (*LABELS, "feature")
DESTINATION_LABELS: Final = (*LABELS, "destination")

#: Request latencies of models: 1 ms to 10 s.
_LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Background work, from one event to its result: 10 ms to 10 min (a window by time may wait that long).
_WORK_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)


def labels(
    *,
    namespace: str = "",
    service: str = "",
    model: str = "",
    revision: str = "",
    endpoint: str = "",
    pipeline: str = "",
    step: str = "",
) -> tuple[str, ...]:
    """Label values in the order of `LABELS`."""
    return (namespace, service, model, revision, endpoint, pipeline, step)


class Metrics:
    """The instruments, registered in one registry. Hand it to whatever emits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, help_: str, names: tuple[str, ...] = LABELS) -> Counter:
            return Counter(name, help_, names, registry=registry)

        def gauge(name: str, help_: str, names: tuple[str, ...] = LABELS) -> Gauge:
            return Gauge(name, help_, names, registry=registry)

        def histogram(name: str, help_: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, help_, LABELS, buckets=buckets, registry=registry)

        self.capture_seen = counter("govern_capture_seen", "Inferences that passed a capture agent.")
        self.capture_captured = counter("govern_capture_captured", "Inferences written to the spool.")
        self.capture_sampled_out = counter("govern_capture_sampled_out", "Inferences left out by sampling.")
        self.capture_dropped = counter("govern_capture_dropped", "Inferences lost because the spool was full.")
        self.capture_shipped = counter("govern_capture_shipped", "Inferences published to the bus.")
        self.capture_withheld = counter(
            "govern_capture_withheld_bodies", "Bodies left out of records: a rule says so, or they cannot be redacted."
        )
        self.capture_rules_refused = gauge(
            "govern_capture_rules_refused", "Processes that refuse their configuration file and go by older rules."
        )
        self.spool_corrupt = counter(
            "govern_spool_corrupt_records", "Captured inferences that could not be read back from the spool."
        )
        self.spool_bytes = gauge("govern_spool_bytes", "Bytes that the spool holds, in memory and on disk.")
        self.spool_pending = gauge("govern_spool_pending_records", "Captured inferences not yet on the bus.")

        self.destination_sent = counter(
            "govern_destination_sent", "Captured inferences published to the destination.", DESTINATION_LABELS
        )
        self.destination_filtered = counter(
            "govern_destination_filtered", "Captured inferences that are not for the destination.", DESTINATION_LABELS
        )
        self.destination_dropped = counter(
            "govern_destination_dropped",
            "Captured inferences that the destination does not get: given up for want of room, or unreadable.",
            DESTINATION_LABELS,
        )
        self.destination_pending = gauge(
            "govern_destination_pending_records", "Captured inferences not yet at the destination.", DESTINATION_LABELS
        )

        self.inline_judged = counter("govern_inline_judged", "Captured calls that an inline step judged in time.")
        self.inline_alarms = counter("govern_inline_alarms", "Captured calls at which an inline step alarmed.")
        self.inline_unjudged = counter(
            "govern_inline_unjudged", "Captured calls that an inline step failed to judge: passed or refused unjudged."
        )

        self.sink_joined = counter("govern_sink_joined", "Inferences whose two halves the sink joined.")
        self.sink_orphaned = counter("govern_sink_orphaned", "Inferences recorded with one half only.")
        self.sink_feedback = counter("govern_sink_feedback", "Feedback events recorded.")
        self.sink_duplicates = counter("govern_sink_duplicates", "Events that were delivered before.")
        self.sink_refused = counter("govern_sink_refused", "Events answered 503 for want of room; the broker repeats.")
        self.sink_malformed = counter("govern_sink_malformed", "Events answered 4xx: no CloudEvents, or too long.")
        self.sink_ignored = counter("govern_sink_ignored", "Events of types that the sink does not record.")
        self.sink_pending = gauge("govern_sink_pending_halves", "Halves that wait for their other half.")

        self.inferences = counter("govern_inferences", "Inferences that a pipeline read.")
        self.inference_errors = counter("govern_inference_errors", "Inferences with status >= 400 or no response.")
        self.inference_duration = histogram(
            "govern_inference_duration_seconds", "Time the model took to answer.", _LATENCY_BUCKETS_S
        )
        self.instances = counter("govern_instances", "Instances (rows) that a step judged, each counted once.")
        self.verdicts = counter("govern_verdicts", "Verdicts published.")
        self.alarms = counter("govern_alarms", "Verdicts with an alarm.")
        self.flagged = counter("govern_flagged_instances", "Instances flagged by an outlier or adversarial step.")
        self.instance_score_max = gauge("govern_instance_score_max", "Highest score in the newest window.")
        self.instance_score_threshold = gauge("govern_instance_score_threshold", "Score above which a row is flagged.")
        self.stated_contamination = gauge(
            "govern_stated_contamination_ratio", "Share of rows that the step's detector was fitted to flag, at most."
        )
        self.drift_detected = gauge("govern_drift_detected", "1 while the newest window of the step drifted, else 0.")
        self.drift_feature_detected = gauge(
            "govern_drift_feature_detected", "1 while the feature drifted in the newest window.", FEATURE_LABELS
        )
        self.drift_p_value = gauge("govern_drift_p_value", "p-value in the newest window.", FEATURE_LABELS)
        self.drift_threshold = gauge("govern_drift_threshold", "p-value below which it is drift.", FEATURE_LABELS)
        self.drift_statistic = gauge("govern_drift_statistic", "Test statistic in the newest window.", FEATURE_LABELS)
        self.drift_effect_size = gauge("govern_drift_effect_size", "Effect size in the newest window.", FEATURE_LABELS)
        self.window_instances = gauge("govern_window_instances", "Instances in the newest closed window.")
        self.window_completeness = gauge("govern_window_completeness_ratio", "Completeness of the newest window.")
        self.verdict_freshness = histogram(
            "govern_verdict_freshness_seconds", "From a window's last response to its verdict.", _WORK_BUCKETS_S
        )
        self.dead_letters = counter("govern_dead_letters", "Records sent to the dead-letter topic.")
        self.join_dropped = counter(
            "govern_join_dropped_requests", "Requests that a join gave up: not all it waits for came within the window."
        )
        self.join_late = counter(
            "govern_join_late_parts", "Parts that came again, or after the join had passed their request on."
        )
        self.pipelines_refused = gauge(
            "govern_pipelines_refused", "1 while the newest form of a pipeline of the fleet is refused by this worker."
        )
        self.consumer_lag = gauge("govern_consumer_lag_records", "Records between the position and the end.")
        self.worker_paused = gauge(
            "govern_worker_paused_partitions", "Partitions of which a worker has more than it can judge for now."
        )
        self.pipeline_lag = gauge("govern_pipeline_lag_records", "Records between a pipeline's position and the end.")
        self.pipeline_judging = counter(
            "govern_pipeline_judging_seconds", "Time that reading and judging for a pipeline took."
        )
        self.pipeline_own_tracks = gauge(
            "govern_pipeline_own_tracks", "Partitions on which the other pipelines do not wait for this one."
        )
        self.pipeline_lost = counter(
            "govern_pipeline_lost_records", "Records that were deleted from the bus before the pipeline came to them."
        )
        self.pipeline_turn = gauge(
            "govern_pipeline_turn_seconds", "How long a worker has been at a pipeline without a break; 0 between turns."
        )

        self.explanations = counter("govern_explanations", "Explanations published.")
        self.explanation_failures = counter("govern_explanation_failures", "Explanations that failed.")
        self.explanation_duration = histogram(
            "govern_explanation_duration_seconds", "Time to compute an explanation.", _WORK_BUCKETS_S
        )

        self.serve_duration = histogram(
            "govern_serve_duration_seconds", "Time to answer a call of a step, waiting included.", _LATENCY_BUCKETS_S
        )
        self.serve_failures = counter("govern_serve_failures", "Calls of a step that were answered with an error.")
        self.serve_refused = counter("govern_serve_refused", "Calls of a step refused for want of room.")

        self.audit_entries = counter("govern_audit_entries", "Entries appended to the audit log.")
        self.audit_tree_size = gauge("govern_audit_tree_size", "Leaves in the audit log's Merkle tree.")
        self.audit_checkpoint_time = gauge(
            "govern_audit_checkpoint_timestamp_seconds", "When the newest checkpoint was signed, Unix time."
        )
        self.audit_append_duration = histogram(
            "govern_audit_append_duration_seconds", "Time to append one batch.", _WORK_BUCKETS_S
        )
        self.audit_gaps = counter(
            "govern_audit_gaps", "Times that messages were deleted from the bus before the log could record them."
        )
        self.audit_reads = counter("govern_audit_reads", "Reads of the audit log, each logged as an entry.")

    def forget_destination(self, names: tuple[str, ...]) -> None:
        """Take back what describes a destination that is taken out."""
        for each in (
            self.destination_sent,
            self.destination_filtered,
            self.destination_dropped,
            self.destination_pending,
        ):
            each.remove(*names)

    def forget_pipeline(self, names: tuple[str, ...]) -> None:
        """Take back how a pipeline stands, which is taken out."""
        for each in (self.pipeline_lag, self.pipeline_own_tracks, self.pipeline_turn):
            each.remove(*names)

    def forget_windows(self, pipelines: Collection[str] | None = None) -> None:
        """Take back what describes newest windows, because this process no longer judges them.

        A worker calls it when partitions are taken from it: a gauge that stayed behind would say "drifted" for ever
        beside the newer word of the worker that judges the windows now.
        """
        for newest in (
            self.drift_detected,
            self.drift_feature_detected,
            self.drift_p_value,
            self.drift_threshold,
            self.drift_statistic,
            self.drift_effect_size,
            self.instance_score_max,
            self.instance_score_threshold,
            self.window_instances,
            self.window_completeness,
        ):
            if pipelines is None:
                newest.clear()
                continue
            for sample in [each for family in newest.collect() for each in family.samples]:
                if sample.labels["pipeline"] in pipelines:
                    newest.remove(*sample.labels.values())
