"""The alert rules. Each alarm names what is wrong, with which model, and the page that says what to do.

A counter that is born at 1 shows no increase to Prometheus; `_grows` counts its birth as growth, so that the very
first dropped record or dead letter raises its alarm.
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml

#: Where runbooks lie when nothing else is said; the Helm chart puts its `alerts.runbookUrl` in its place.
RUNBOOKS = "docs/runbooks/"

_VERDICT_LABELS = "namespace, service, model, revision, endpoint, pipeline, step"
_STEP = "namespace, pipeline, step"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule. `hold` is how long the expression must be true, `runbook` the page's name."""

    name: str
    expr: str
    hold: str
    severity: str
    runbook: str
    summary: str
    description: str

    def rule(self) -> dict[str, object]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{RUNBOOKS}{self.runbook}.md",
            },
        }


def _grows(counter: str, by: str, window: str) -> str:
    total = f"sum by ({by}) ({counter})"
    return (
        f"sum by ({by}) (increase({counter}[{window}])) > 0 "
        f"or ({total} > 0 unless sum by ({by}) ({counter} offset {window}))"
    )


def _flagged_above_stated(window: str) -> str:
    """More than twice the stated share, and by five standard deviations of a binomial count."""
    flagged, judged = (
        f"sum by ({_STEP}) (increase({counter}[{window}]))"
        for counter in ("govern_flagged_instances_total", "govern_instances_total")
    )
    stated = f"max by ({_STEP}) (govern_stated_contamination_ratio)"
    return f"{flagged} > 2 * {stated} * {judged} + 5 * sqrt({stated} * (1 - {stated}) * {judged})"


ALERTS = (
    Alert(
        name="GovernDriftDetected",
        expr=f"max by ({_VERDICT_LABELS}) (govern_drift_detected) == 1",
        hold="1m",
        severity="warning",
        runbook="drift-detected",
        summary="{{ $labels.model }} of {{ $labels.service }} sees other data than it was trained on",
        description="Step {{ $labels.step }} of pipeline {{ $labels.pipeline }} ({{ $labels.namespace }}): the newest "
        "window differs from the reference.",
    ),
    Alert(
        name="GovernFlaggedShareHigh",
        expr=_flagged_above_stated("1d"),
        hold="15m",
        severity="warning",
        runbook="flagged-share-high",
        summary="Step {{ $labels.step }} of {{ $labels.pipeline }} flags far more rows than its detector states",
        description="Over the last day it ({{ $labels.namespace }}) flagged more than twice the stated contamination, "
        "beyond what chance gives. Its threshold no longer fits the rows.",
    ),
    Alert(
        name="GovernCaptureLosingRecords",
        expr=_grows("govern_capture_dropped_total", "namespace, service", "10m")
        + " or "
        + _grows("govern_spool_corrupt_records_total", "namespace, service", "10m"),
        hold="0m",
        severity="critical",
        runbook="capture-losing-records",
        summary="Inferences of {{ $labels.service }} are being lost before they are recorded",
        description="The spool of {{ $labels.service }} ({{ $labels.namespace }}) is full, or a record in it cannot be "
        "read back. The model's answers are not affected; its verdicts and the audit log miss records.",
    ),
    Alert(
        name="GovernDeadLettersGrowing",
        expr=_grows("govern_dead_letters_total", "namespace, pipeline, step", "10m"),
        hold="0m",
        severity="warning",
        runbook="dead-letters-growing",
        summary="Records of {{ $labels.namespace }} cannot be read or judged",
        description="Step {{ $labels.step }} of pipeline {{ $labels.pipeline }} sends records to "
        "govern.{{ $labels.namespace }}.dead-letter, each with its reason.",
    ),
    Alert(
        name="GovernPipelineLagging",
        # Summed over workers, each of which is behind on partitions of its own; the least of ten minutes, so that a
        # burst that is being worked off does not ring.
        expr="sum by (namespace, pipeline) (min_over_time(govern_pipeline_lag_records[10m])) > 1000 "
        "or max by (namespace, pipeline) (govern_pipeline_turn_seconds) > 60",
        hold="5m",
        severity="warning",
        runbook="pipeline-lagging",
        summary="Pipeline {{ $labels.pipeline }} of {{ $labels.namespace }} does not keep up",
        description="It has been more than 1,000 records behind for ten minutes, or one of its steps has been at one "
        "piece of work for more than a minute. Its verdicts come late; those of other pipelines do not wait for it.",
    ),
    Alert(
        name="GovernAuditWriterStalled",
        # The last known checkpoint, even of a writer that is gone and no longer scraped.
        expr="time() - max by (namespace) (last_over_time(govern_audit_checkpoint_timestamp_seconds[1d])) > 600 "
        "and on (namespace) sum by (namespace) (increase(govern_inferences_total[10m])) > 0",
        hold="5m",
        severity="critical",
        runbook="audit-writer-stalled",
        summary="The audit log of {{ $labels.namespace }} does not grow although there is traffic",
        description="The newest signed checkpoint is {{ $value | humanizeDuration }} old. Records wait on the bus; "
        "they are lost only if its retention ends first.",
    ),
    Alert(
        name="GovernExplanationFailures",
        expr="sum by (namespace, service, model) (increase(govern_explanation_failures_total[15m])) > 0.1 * ("
        "sum by (namespace, service, model) (increase(govern_explanations_total[15m])) "
        "or sum by (namespace, service, model) (increase(govern_explanation_failures_total[15m])))",
        hold="5m",
        severity="warning",
        runbook="explanation-failures",
        summary="Explanations of {{ $labels.model }} fail",
        description="More than one explanation in ten of {{ $labels.service }} ({{ $labels.namespace }}) failed in the "
        "last 15 minutes.",
    ),
)


def rules_yaml() -> str:
    """The rules as a file for Prometheus' `rule_files`."""
    groups = {"groups": [{"name": "govern", "rules": [alert.rule() for alert in ALERTS]}]}
    # A person reads the file when an alarm is disputed: keep the order and do not fold expressions too early.
    text = yaml.safe_dump(groups, sort_keys=False, width=110, allow_unicode=True)
    return f"# Generated by `python -m dashboards.build` from dashboards/rules.py.\n{text}"
