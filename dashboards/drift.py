"""The dashboard "govern: model drift": is a model drifting, where, and can the numbers be trusted?

Read from top to bottom: what is wrong now; which features; which instances; the traffic that it rests on; how
fresh and how complete the verdicts are; whether explanations and the audit log keep up.
"""

from __future__ import annotations

import itertools

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.panels import DATASOURCE, PanelBuilder, lines, newest, number, query, states

UID = "govern-model-drift"

# What a metric can be filtered by: the labels that its emitter knows (docs/metrics.md). Audit and dead letters know
# the namespace only, since an undecodable record has no model.
_NAMESPACE = '{namespace=~"$namespace"}'
_SERVICE = '{namespace=~"$namespace",service=~"$service"}'
_MODEL = '{namespace=~"$namespace",service=~"$service",model=~"$model"}'
_JUDGED = '{namespace=~"$namespace",service=~"$service",model=~"$model",pipeline=~"$pipeline"}'
_PIPELINE = '{namespace=~"$namespace",pipeline=~"$pipeline"}'
_RATE = "[$__rate_interval]"
_RANGE = "[$__range]"

#: A p-value of 0 (below the smallest double) has no place on a logarithmic axis.
_SMALLEST_P_VALUE = "1e-16"


def dashboard() -> Dashboard:
    built = (
        Dashboard("govern: model drift")
        .uid(UID)
        .description("Drift, outliers and adversarial inputs of the models in production, and how far to trust them.")
        .tags(["govern", "drift", "machine-learning"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .timezone("browser")
        .refresh("30s")
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in _variables():
        built = built.with_variable(variable)
    ids = itertools.count(1)
    for title, panels in _rows():
        built = built.with_row(Row(title).id(next(ids)))
        for panel in panels:
            panel.build().id_val = next(ids)  # `build` hands out the panel that the builder keeps
            built = built.with_panel(panel)
    return built


def _variables() -> list[QueryVariable]:
    seen = '{__name__=~"govern_(inferences|capture_seen)_total"'
    within = 'namespace=~"$namespace",service=~"$service"'
    return [
        _variable("namespace", "Namespace", f"label_values({seen}}}, namespace)"),
        _variable("service", "Service", f'label_values({seen},namespace=~"$namespace"}}, service)'),
        _variable("model", "Model", f"label_values(govern_inferences_total{{{within}}}, model)"),
        _variable(
            "pipeline", "Pipeline", f'label_values(govern_inferences_total{{{within},model=~"$model"}}, pipeline)'
        ),
    ]


def _variable(name: str, label: str, values: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"qryType": 5, "query": values, "refId": f"variable-{name}"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # ".*" and not the list of known values: a metric whose emitter does not know the label has it empty.
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _rows() -> list[tuple[str, list[PanelBuilder]]]:
    return [
        ("Now", _overview()),
        ("Drift by feature", _drift()),
        ("Outliers and adversarial inputs", _instances()),
        ("Traffic and latency", _traffic()),
        ("CloudEvents sink", _sink()),
        ("Freshness and lag", _freshness()),
        ("Pipelines side by side", _pipelines()),
        ("Served steps", _served()),
        ("Explanations and audit", _audit()),
    ]


def _overview() -> list[PanelBuilder]:
    return [
        number(
            "Drifting now",
            "Drift steps whose newest window drifted. Above 0: look at which features below, then at what changed "
            "upstream. The alarm ends with the first window that does not drift.",
            "sum(max by (namespace, service, model, revision, endpoint, pipeline, step) "
            f"(govern_drift_detected{_JUDGED})) or vector(0)",
            bad=True,
        ),
        number(
            "Alarms",
            "Verdicts with an alarm in the time range shown: drift, outliers and adversarial inputs together.",
            f"sum(increase(govern_alarms_total{_JUDGED}{_RANGE})) or vector(0)",
        ),
        number(
            "Flagged instances",
            "Single instances (rows) that an outlier or adversarial step flagged in the time range shown.",
            f"sum(increase(govern_flagged_instances_total{_JUDGED}{_RANGE})) or vector(0)",
        ),
        number(
            "Dead letters",
            "Records in the time range shown that could not be read or judged. Nothing is lost: each lies in the "
            "dead-letter topic with its reason. Above 0: read the reasons there.",
            f"sum(increase(govern_dead_letters_total{_NAMESPACE}{_RANGE})) or vector(0)",
            bad=True,
        ),
        number(
            "Audit log size",
            "Entries in the audit log's Merkle tree. It only ever grows; if it does not while there is traffic, the "
            "writer stands still.",
            f"sum(max by (namespace) (govern_audit_tree_size{_NAMESPACE})) or vector(0)",
        ),
        number(
            "Capture loss",
            "Inferences that the capture agents saw and neither captured nor sampled out, since they started: "
            "seen - captured - sampled out. Anything but 0 is missing from every verdict and from the audit log.",
            f"sum(govern_capture_seen_total{_SERVICE}) - (sum(govern_capture_captured_total{_SERVICE}) or vector(0))"
            f" - (sum(govern_capture_sampled_out_total{_SERVICE}) or vector(0)) or vector(0)",
            bad=True,
        ),
    ]


def _drift() -> list[PanelBuilder]:
    by = "(namespace, service, model, pipeline, step, feature)"
    return [
        states(
            "Drifted features",
            "One band per feature: red while its newest window differs from the reference, after correction for "
            "testing many features. One red band: that feature's source. Most bands red: the population, or a "
            "change in how requests are built.",
            f"max by {by} (govern_drift_feature_detected{_JUDGED})",
            "{{model}} {{step}} {{feature}}",
            names={0: ("as the reference", "green"), 1: ("drifted", "red")},
        ),
        lines(
            "p-value by feature",
            "How likely the newest window would be if nothing had changed. Below the dashed line it counts as drift. "
            "A p-value falls with the size of the window: read it beside the effect size.",
            query(
                f"clamp_min(min by {by} (govern_drift_p_value{_JUDGED}), {_SMALLEST_P_VALUE})", "{{step}} {{feature}}"
            ),
            query(
                f"min by (namespace, service, model, pipeline, step) (govern_drift_threshold{_JUDGED})",
                "{{step}} threshold",
            ),
            unit="none",
            log=True,
            dashed="threshold$",
        ),
        lines(
            "Effect size by feature",
            "How large the difference is, whatever the size of the window (0: none). Significant and tiny is often "
            "harmless; significant and large rarely is.",
            query(f"max by {by} (govern_drift_effect_size{_JUDGED})", "{{step}} {{feature}}"),
            unit="none",
        ),
        newest(
            "Newest window, feature by feature",
            "The numbers behind the newest verdict of each step, to be quoted in a ticket.",
            {
                "drifted": f"max by {by} (govern_drift_feature_detected{_JUDGED})",
                "p-value": f"min by {by} (govern_drift_p_value{_JUDGED})",
                "threshold": f"min by {by} (govern_drift_threshold{_JUDGED})",
                "statistic": f"max by {by} (govern_drift_statistic{_JUDGED})",
                "effect size": f"max by {by} (govern_drift_effect_size{_JUDGED})",
            },
            by=("namespace", "service", "model", "pipeline", "step", "feature"),
        ),
    ]


def _instances() -> list[PanelBuilder]:
    by = "(namespace, service, model, pipeline, step)"
    return [
        lines(
            "Highest score of the newest window",
            "The most unusual instance of the newest window. Above the dashed line it was flagged.",
            query(f"max by {by} (govern_instance_score_max{_JUDGED})", "{{step}}"),
            query(f"max by {by} (govern_instance_score_threshold{_JUDGED})", "{{step}} threshold"),
            unit="none",
            dashed="threshold$",
        ),
        lines(
            "Flagged share",
            "Share of judged instances that were flagged. A small steady share is expected (the detector's "
            "contamination); a jump is an incident or an attack.",
            query(
                f"sum by {by} (rate(govern_flagged_instances_total{_JUDGED}{_RATE}))"
                f" / sum by {by} (rate(govern_instances_total{_JUDGED}{_RATE}))",
                "{{step}}",
            ),
            unit="percentunit",
        ),
    ]


def _traffic() -> list[PanelBuilder]:
    by = "(service, model, revision, endpoint)"
    # Several pipelines may read one model: each counts every inference, so the largest is the traffic.
    per_pipeline = "(service, model, revision, endpoint, pipeline)"

    def traffic(metric: str) -> str:
        return f"max by {by} (sum by {per_pipeline} (rate({metric}{_JUDGED}{_RATE})))"

    def latency(quantile: float) -> str:
        buckets = f"sum by (le, service, model) (rate(govern_inference_duration_seconds_bucket{_JUDGED}{_RATE}))"
        return f"histogram_quantile({quantile}, {buckets})"

    def captured(metric: str) -> str:
        seen = f"sum by (service) (rate(govern_capture_seen_total{_SERVICE}{_RATE}))"
        return f"sum by (service) (rate({metric}{_SERVICE}{_RATE})) or 0 * {seen}"

    def further(metric: str) -> str:
        return f"sum by (destination) (rate({metric}{_SERVICE}{_RATE}))"

    def asked(metric: str) -> str:
        return f"sum by (step) (rate({metric}{_SERVICE}{_RATE}))"

    inferences, errors = traffic("govern_inferences_total"), traffic("govern_inference_errors_total")
    return [
        lines(
            "Inferences",
            "Calls per second that reached the pipelines. A fall to zero: no traffic, or capture stands still.",
            query(inferences, "{{model}} {{revision}} {{endpoint}}"),
            unit="reqps",
            span=8,
        ),
        lines(
            "Failed inferences",
            "Share of calls that the model answered with status 400 or above, or not at all.",
            query(f"({errors} or 0 * {inferences}) / {inferences}", "{{model}} {{revision}} {{endpoint}}"),
            unit="percentunit",
            span=8,
        ),
        lines(
            "Model latency",
            "Time the model took to answer, as its caller saw it. Dots are exemplars: each opens one call's trace.",
            query(latency(0.5), "{{model}} p50"),
            query(latency(0.95), "{{model}} p95"),
            query(latency(0.99), "{{model}} p99", exemplars=True),
            unit="s",
            span=8,
        ),
        lines(
            "Capture",
            "What became of the calls that the capture agents saw. Dropped and unreadable must stay at 0.",
            query(captured("govern_capture_captured_total"), "{{service}} captured"),
            query(captured("govern_capture_sampled_out_total"), "{{service}} sampled out"),
            query(captured("govern_capture_dropped_total"), "{{service}} dropped"),
            query(captured("govern_capture_withheld_bodies_total"), "{{service}} bodies withheld"),
            query(captured("govern_spool_corrupt_records_total"), "{{service}} unreadable"),
            query(captured("govern_capture_shipped_total"), "{{service}} shipped"),
            unit="reqps",
            dashed="(dropped|unreadable)$",
        ),
        lines(
            "Spool: records waiting",
            "Captured inferences that are not on the bus yet. It grows while the bus is away and drains after.",
            query(f"sum by (service) (govern_spool_pending_records{_SERVICE})", "{{service}}"),
            span=4,
        ),
        lines(
            "Spool: size",
            "Bytes that the spool holds in memory and on disk. At its limit records are dropped and counted.",
            query(f"sum by (service) (govern_spool_bytes{_SERVICE})", "{{service}}"),
            unit="bytes",
            span=4,
        ),
        lines(
            "Rules refused",
            "Processes that refuse their configuration file and go by older rules; their logs say why. Must stay at 0.",
            query(f"sum by (service) (govern_capture_rules_refused{_SERVICE})", "{{service}}"),
            span=4,
        ),
        lines(
            "Inline steps",
            "What steps said of captured calls before their callers were answered; empty where none is asked. What a "
            "step failed to judge passed, or was refused, as its policy says.",
            query(asked("govern_inline_judged_total"), "{{step}} judged"),
            query(asked("govern_inline_alarms_total"), "{{step}} alarms"),
            query(asked("govern_inline_unjudged_total"), "{{step}} unjudged"),
            unit="reqps",
            dashed="unjudged$",
        ),
        lines(
            "Further buses",
            "What became of captured inferences at each further bus (destinations); empty where there is none. Dropped "
            "must stay at 0: it was away for so long that the records had to make room for new ones.",
            query(further("govern_destination_sent_total"), "{{destination}} sent"),
            query(further("govern_destination_filtered_total"), "{{destination}} filtered"),
            query(further("govern_destination_dropped_total"), "{{destination}} dropped"),
            unit="reqps",
            dashed="dropped$",
        ),
        lines(
            "Further buses: records waiting",
            "Captured inferences that are not on a further bus yet. It grows while that one is away and drains after.",
            query(
                f"sum by (service, destination) (govern_destination_pending_records{_SERVICE})",
                "{{service}} {{destination}}",
            ),
        ),
    ]


def _sink() -> list[PanelBuilder]:
    def events(metric: str) -> str:
        return f"sum by (namespace) (rate({metric}{_NAMESPACE}{_RATE}))"

    return [
        lines(
            "Inferences from other loggers",
            "What became of the halves that KServe's and Seldon's loggers sent. Recorded alone: the other half did not "
            "come in time; KServe sends none for a call that failed.",
            query(events("govern_sink_joined_total"), "{{namespace}} joined"),
            query(events("govern_sink_orphaned_total"), "{{namespace}} recorded alone"),
            query(events("govern_sink_feedback_total"), "{{namespace}} feedback"),
            unit="reqps",
            span=8,
        ),
        lines(
            "Events not recorded",
            "Delivered again, refused for want of room (the broker repeats them), malformed, or of a type that is not "
            "recorded. Refused for long: the shipper does not reach the bus, or halves wait for others in vain.",
            query(events("govern_sink_duplicates_total"), "{{namespace}} delivered again"),
            query(events("govern_sink_refused_total"), "{{namespace}} refused"),
            query(events("govern_sink_malformed_total"), "{{namespace}} malformed"),
            query(events("govern_sink_ignored_total"), "{{namespace}} of other types"),
            unit="reqps",
            span=8,
        ),
        lines(
            "Halves that wait",
            "Halves whose other one has not come yet. At sink.pending the sink refuses more.",
            query(f"sum by (namespace) (govern_sink_pending_halves{_NAMESPACE})", "{{namespace}}"),
            unit="none",
            span=8,
        ),
    ]


def _freshness() -> list[PanelBuilder]:
    by = "(pipeline, step)"

    def freshness(quantile: float) -> str:
        buckets = f"sum by (le, pipeline, step) (rate(govern_verdict_freshness_seconds_bucket{_JUDGED}{_RATE}))"
        return f"histogram_quantile({quantile}, {buckets})"

    return [
        lines(
            "Age of a verdict when it appears",
            "From a window's last response to its verdict. Rises with lag, or when the detector needs longer than "
            "the windows come.",
            query(freshness(0.5), "{{step}} p50"),
            query(freshness(0.95), "{{step}} p95", exemplars=True),
            unit="s",
            span=8,
        ),
        lines(
            "Consumer lag",
            "Records on the bus that the workers have not read. Growing without end: add workers, or lanes.",
            query(
                f"sum by (namespace, pipeline, step) (govern_consumer_lag_records{_NAMESPACE})",
                "{{namespace}} {{step}}",
            ),
            span=8,
        ),
        lines(
            "Instances judged",
            "Instances (rows) per second for which a verdict was published.",
            query(f"sum by {by} (rate(govern_instances_total{_JUDGED}{_RATE}))", "{{pipeline}} {{step}}"),
            unit="cps",
            span=8,
        ),
        lines(
            "Window size",
            "Instances in the newest window. Small windows (closed by time) find only large drift.",
            query(f"min by {by} (govern_window_instances{_JUDGED})", "{{pipeline}} {{step}}"),
            span=8,
        ),
        lines(
            "Window completeness",
            "Share of the instances that belonged to the newest window and are in it. Below 100 %: records were "
            "lost or could not be read.",
            query(f"min by {by} (govern_window_completeness_ratio{_JUDGED})", "{{pipeline}} {{step}}"),
            unit="percentunit",
            span=8,
        ),
        lines(
            "Dead letters",
            "Records per second that could not be read or judged; each lies in the dead-letter topic with its reason.",
            query(
                f"sum by {by} (rate(govern_dead_letters_total{_NAMESPACE}{_RATE})) or vector(0)",
                "{{pipeline}} {{step}}",
            ),
            unit="cps",
            span=8,
        ),
        lines(
            "Joins",
            "Requests that a join gave up, because not all that it waits for came within its window, and parts that "
            "came too late or again. Much of either: the window is too short, or a branch is behind.",
            query(
                f"sum by (pipeline) (rate(govern_join_dropped_requests_total{_PIPELINE}{_RATE})) or vector(0)",
                "{{pipeline}} given up",
            ),
            query(
                f"sum by (pipeline) (rate(govern_join_late_parts_total{_PIPELINE}{_RATE})) or vector(0)",
                "{{pipeline}} too late",
            ),
            unit="cps",
        ),
        lines(
            "Workers that refuse a pipeline",
            "Workers that do not run the newest form of a pipeline of the fleet, but the one before; their logs say "
            "why. Must stay at 0.",
            query(
                f"sum by (namespace, pipeline) (govern_pipelines_refused{_PIPELINE}) or vector(0)",
                "{{namespace}} {{pipeline}}",
            ),
        ),
    ]


def _pipelines() -> list[PanelBuilder]:
    return [
        lines(
            "Lag by pipeline",
            "Records before each pipeline. All lines rise together: the workers are too few. One line rises alone: "
            "that pipeline needs longer than its records come, and the others go on without it.",
            query(
                f"sum by (namespace, pipeline) (govern_pipeline_lag_records{_PIPELINE})", "{{namespace}} {{pipeline}}"
            ),
            span=8,
        ),
        lines(
            "Time judging by pipeline",
            "Seconds a second that the workers read and judge for each pipeline, added over workers. The top line is "
            "what to make cheaper, or to give workers of its own.",
            query(
                f"sum by (namespace, pipeline) (rate(govern_pipeline_judging_seconds_total{_PIPELINE}{_RATE}))",
                "{{namespace}} {{pipeline}}",
            ),
            unit="s",
            span=8,
        ),
        lines(
            "At one pipeline without a break",
            "How long a worker has been in the code of a pipeline's steps. A line that climbs and does not come down "
            "is a detector that hangs.",
            query(
                f"max by (namespace, pipeline) (govern_pipeline_turn_seconds{_PIPELINE})", "{{namespace}} {{pipeline}}"
            ),
            unit="s",
            span=8,
        ),
        lines(
            "Tracks of their own",
            "Partitions on which the other pipelines do not wait for this one, because it took more than its share or "
            "did not return. What it judges is the same there, only later.",
            query(
                f"sum by (namespace, pipeline) (govern_pipeline_own_tracks{_PIPELINE})", "{{namespace}} {{pipeline}}"
            ),
            span=8,
        ),
        lines(
            "Records lost to a pipeline",
            "Records that the topic's retention deleted before a pipeline came to them; its windows count them as "
            "missing. Must stay at 0.",
            query(
                f"sum by (pipeline) (rate(govern_pipeline_lost_records_total{_PIPELINE}{_RATE})) or vector(0)",
                "{{pipeline}}",
            ),
            unit="cps",
            span=8,
        ),
        lines(
            "Paused partitions",
            "Partitions of which the workers hold as much as they keep in memory, so that they fetch no more for now. "
            "Above 0 for long: the workers are too few, or one pipeline too slow.",
            query(f"sum by (namespace) (govern_worker_paused_partitions{_NAMESPACE})", "{{namespace}}"),
            span=8,
        ),
    ]


def _served() -> list[PanelBuilder]:
    def quantile(share: float) -> str:
        return f"histogram_quantile({share}, sum by (le) (rate(govern_serve_duration_seconds_bucket{_MODEL}{_RATE})))"

    by = "by (pipeline, step)"
    return [
        lines(
            "Calls of served steps",
            "Calls per second that others make of steps which `govern serve` serves: answered, those of them that were "
            "answered with an error, and those turned away for want of room.",
            query(f"sum {by} (rate(govern_serve_duration_seconds_count{_MODEL}{_RATE}))", "{{pipeline}} {{step}}"),
            query(f"sum(rate(govern_serve_failures_total{_MODEL}{_RATE})) or vector(0)", "failed"),
            query(f"sum(rate(govern_serve_refused_total{_MODEL}{_RATE})) or vector(0)", "turned away"),
            unit="cps",
            dashed="failed",
        ),
        lines(
            "Time to answer a call of a step",
            "From a call of a served step to its answer, waiting for a place included. A caller waits for it.",
            query(quantile(0.5), "p50"),
            query(quantile(0.95), "p95"),
            unit="s",
        ),
    ]


def _audit() -> list[PanelBuilder]:
    def quantile(share: float, metric: str, selector: str) -> str:
        return f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{selector}{_RATE})))"

    return [
        lines(
            "Explanations",
            "Explanations per second: published, and failed.",
            query(f"sum(rate(govern_explanations_total{_MODEL}{_RATE})) or vector(0)", "published"),
            query(f"sum(rate(govern_explanation_failures_total{_MODEL}{_RATE})) or vector(0)", "failed"),
            unit="cps",
            span=8,
            dashed="failed",
        ),
        lines(
            "Time to explain",
            "Time to compute one explanation. Near the deadline, answers lose fidelity (they say so).",
            query(quantile(0.5, "govern_explanation_duration_seconds", _MODEL), "p50"),
            query(quantile(0.95, "govern_explanation_duration_seconds", _MODEL), "p95", exemplars=True),
            unit="s",
            span=8,
        ),
        lines(
            "Audit entries",
            "Entries appended to the audit log per second, reads of it (each is an entry too), and gaps: messages that "
            "the bus had deleted before they were recorded.",
            query(f"sum by (namespace) (rate(govern_audit_entries_total{_NAMESPACE}{_RATE}))", "{{namespace}} entries"),
            query(f"sum(rate(govern_audit_reads_total{_NAMESPACE}{_RATE})) or vector(0)", "reads"),
            query(f"sum(rate(govern_audit_gaps_total{_NAMESPACE}{_RATE})) or vector(0)", "gaps"),
            unit="cps",
            span=8,
        ),
        lines(
            "Age of the newest checkpoint",
            "Time since the audit log last signed its tree. It must stay below a few minutes while there is traffic.",
            query(
                f"time() - max by (namespace) (govern_audit_checkpoint_timestamp_seconds{_NAMESPACE})", "{{namespace}}"
            ),
            unit="s",
        ),
        lines(
            "Time to append",
            "Time to append one batch to the audit log, signature and database commit included.",
            query(quantile(0.5, "govern_audit_append_duration_seconds", _NAMESPACE), "p50"),
            query(quantile(0.95, "govern_audit_append_duration_seconds", _NAMESPACE), "p95"),
            unit="s",
        ),
    ]
