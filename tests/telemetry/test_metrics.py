from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry

from govern.telemetry.metrics import FEATURE_LABELS, LABELS, Metrics, labels

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_document_lists_every_metric_with_its_type_and_help() -> None:
    families = list(Metrics(CollectorRegistry()).registry.collect())
    rows = [line.split(" | ") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `govern_")]
    written = {(row[0].strip("| `"), row[1].split(",")[0], row[3].removesuffix(" |")) for row in rows}
    declared = {
        (f"{family.name}{'_total' * (family.type == 'counter')}", family.type, family.documentation)
        for family in families
    }
    assert written == declared
    assert len(rows) == len(families)


def test_labels_come_in_the_declared_order() -> None:
    values = {name: f"the {name}" for name in LABELS}
    assert labels(**values) == tuple(values.values())
    assert (*LABELS, "feature") == FEATURE_LABELS


def test_windows_that_left_this_worker_are_forgotten_and_counters_stay() -> None:
    metrics = Metrics(CollectorRegistry())
    names = labels(namespace="ns", model="m", step="drift")
    metrics.drift_detected.labels(*names).set(1)
    metrics.drift_p_value.labels(*names, "AGEP").set(0.001)
    metrics.window_instances.labels(*names).set(500)
    metrics.alarms.labels(*names).inc()
    metrics.forget_windows()
    samples = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert samples == {"govern_alarms_total", "govern_alarms_created"}
