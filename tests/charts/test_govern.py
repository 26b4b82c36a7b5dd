"""The chart, rendered by real Helm: what it makes, what it refuses."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.services.prometheus import promtool

CHARTS = Path(__file__).parents[2] / "charts"
CHART = CHARTS / "govern"

VALUES: dict[str, Any] = {
    "image": {"repository": "registry.example/govern"},
    "namespace": "bank",
    "bus": "kafka://kafka:9092",
    "otlpEndpoint": "http://collector:4318",
    "trustArtifactsSignedBy": ["/etc/govern/verifier-key.txt"],
    "worker": {"pipelines": ["income.yaml"], "volume": {"persistentVolumeClaim": {"claimName": "income"}}},
    "explainer": {"enabled": True, "volume": {"persistentVolumeClaim": {"claimName": "income"}}},
    "serve": {
        "enabled": True,
        "pipelines": ["income.yaml"],
        "volume": {"persistentVolumeClaim": {"claimName": "income"}},
    },
    "seldonTopics": {"enabled": True, "volume": {"configMap": {"name": "govern-seldon"}}},
    "sink": {"enabled": True, "volume": {"configMap": {"name": "govern-mirror"}}},
    "audit": {
        "writerDatabase": {"secretName": "audit-writer"},
        "readerDatabase": {"secretName": "audit-reader"},
        "tokenKey": {"secretName": "audit-token"},
        "keys": {"persistentVolumeClaim": {"claimName": "audit-keys"}},
    },
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "runbookUrl": "https://runbooks.example/"},
        "dashboard": {"enabled": True},
    },
}

COMPONENTS = ["worker", "explainer", "serve", "seldon-topics", "audit-writer", "audit-api"]

#: What worker and serve are given, so that they use no artifact that nobody vouches for.
TRUSTED = ["--trust-artifacts-signed-by", "/etc/govern/verifier-key.txt"]

Objects = dict[tuple[str, str], dict[str, Any]]
Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def objects(render: Render) -> Objects:
    return {(one["kind"], one["metadata"]["name"]): one for one in render(CHART, VALUES)}


def _pod(objects: Objects, component: str) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment", f"demo-govern-{component}"]["spec"]["template"]["spec"]
    return spec


def _env(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


@pytest.mark.parametrize("chart", ["govern", "govern-sidecar"])
def test_helm_lint_is_content(chart: str, run_helm: Callable[..., Any], tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES if chart == "govern" else {}))
    done = run_helm("lint", CHARTS / chart, "--strict", "--values", values)
    assert done.returncode == 0, done.stdout


def test_all_components_are_there(objects: Objects) -> None:
    assert sorted(objects) == sorted(
        [("Deployment", f"demo-govern-{component}") for component in [*COMPONENTS, "sink"]]
        + [("Service", f"demo-govern-{component}") for component in ("explainer", "serve", "audit-api", "sink")]
        + [("ServiceAccount", "demo-govern"), ("PodMonitor", "demo-govern")]
        + [("PrometheusRule", "demo-govern"), ("ConfigMap", "demo-govern-dashboard")]
    )


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_pod_is_confined_and_ends_in_time(objects: Objects, component: str) -> None:
    pod = _pod(objects, component)
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["terminationGracePeriodSeconds"] == 45
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == "registry.example/govern:0.1.0"
    assert container["resources"]["limits"]["memory"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    environment = _env(container)
    assert environment["GOVERN_BUS"] == "kafka://kafka:9092"
    assert environment["GOVERN_NAMESPACE"] == "bank"
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    if component == "seldon-topics":
        assert container["args"][-2:] == ["--metrics-listen", f"0.0.0.0:{named['metrics']}"]
    else:
        assert str(named["metrics"]) == environment["GOVERN_METRICS_PORT"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_services_reach_their_pods(objects: Objects) -> None:
    for component in ("explainer", "serve", "audit-api", "sink"):
        service = objects["Service", f"demo-govern-{component}"]["spec"]
        template = objects["Deployment", f"demo-govern-{component}"]["spec"]["template"]
        assert service["selector"].items() <= template["metadata"]["labels"].items()
        names = [port["targetPort"] for port in service["ports"]]
        assert set(names) <= {one["name"] for one in template["spec"]["containers"][0]["ports"]}
        assert len(names) == (2 if component == "serve" else 1)


def test_the_audit_log_has_one_writer_with_its_keys_and_the_api_can_only_read(objects: Objects) -> None:
    writer = objects["Deployment", "demo-govern-audit-writer"]["spec"]
    assert (writer["replicas"], writer["strategy"]["type"]) == (1, "Recreate")
    (container,) = writer["template"]["spec"]["containers"]
    assert _env(container)["GOVERN_AUDIT_DB"] == {"secretKeyRef": {"name": "audit-writer", "key": "url"}}
    assert {"name": "data", "mountPath": "/var/lib/govern", "readOnly": False} in container["volumeMounts"]
    assert _env(container)["GOVERN_AUDIT_KEYS"].startswith("/var/lib/govern/")
    (api,) = _pod(objects, "audit-api")["containers"]
    assert _env(api)["GOVERN_AUDIT_DB"] == {"secretKeyRef": {"name": "audit-reader", "key": "url"}}
    assert _env(api)["GOVERN_AUDIT_TOKEN_KEY"] == {"secretKeyRef": {"name": "audit-token", "key": "token-key"}}
    assert "GOVERN_AUDIT_KEYS" not in _env(api)
    assert [volume["name"] for volume in _pod(objects, "audit-api")["volumes"]] == ["tmp"]


def test_the_worker_runs_its_pipelines_from_the_volume(objects: Objects) -> None:
    pod = _pod(objects, "worker")
    (container,) = pod["containers"]
    assert container["args"] == ["worker", "/etc/govern/income.yaml", *TRUSTED]
    assert {"name": "data", "mountPath": "/etc/govern", "readOnly": True} in container["volumeMounts"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "income"}} in pod["volumes"]


def test_workers_with_names_are_a_stateful_set(render: Render) -> None:
    values = copy.deepcopy(VALUES)
    values["worker"]["staticMembership"] = {"enabled": True}
    workers = next(one for one in render(CHART, values) if one["metadata"]["name"] == "demo-govern-worker")
    assert (workers["kind"], workers["spec"]["podManagementPolicy"]) == ("StatefulSet", "Parallel")
    assert "strategy" not in workers["spec"]
    environment = _env(workers["spec"]["template"]["spec"]["containers"][0])
    assert environment["GOVERN_GROUP_INSTANCE_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert environment["GOVERN_SESSION_TIMEOUT_S"] == "45"


def test_each_placement_is_a_deployment_of_the_same_pipelines(render: Render) -> None:
    values = copy.deepcopy(VALUES)
    gpu = {
        "name": "gpu",
        "replicas": 2,
        "nodeSelector": {"accelerator": "nvidia"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    }
    values["worker"]["placements"] = [gpu, {"name": "far"}]
    found = {one["metadata"]["name"]: one for one in render(CHART, values) if one["kind"] == "Deployment"}
    home, placed, far = (found[f"demo-govern-worker{name}"]["spec"] for name in ("", "-gpu", "-far"))
    assert (home["replicas"], placed["replicas"], far["replicas"]) == (1, 2, 1)
    selectors = [one["selector"]["matchLabels"]["app.kubernetes.io/component"] for one in (home, placed, far)]
    assert selectors == ["worker", "worker-gpu", "worker-far"]
    pods = [one["template"]["spec"] for one in (home, placed, far)]
    containers = [pod["containers"][0] for pod in pods]
    assert [_env(one).get("GOVERN_PLACEMENT") for one in containers] == [None, "gpu", "far"]
    assert [one["args"] for one in containers] == [["worker", "/etc/govern/income.yaml", *TRUSTED]] * 3
    assert [pod.get("nodeSelector") for pod in pods] == [None, gpu["nodeSelector"], None]
    assert [pod.get("tolerations") for pod in pods] == [None, gpu["tolerations"], None]
    limits = [one["resources"]["limits"] for one in containers]
    assert limits == [{"memory": "2Gi"}, {"memory": "2Gi", "nvidia.com/gpu": 1}, {"memory": "2Gi"}]


def test_pipelines_are_served_over_both_protocols(objects: Objects, render: Render) -> None:
    pod = _pod(objects, "serve")
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["args"] == [
        *("serve", "/etc/govern/income.yaml"),
        *("--http", f"0.0.0.0:{ports['http']}", "--grpc", f"0.0.0.0:{ports['grpc']}"),
        *TRUSTED,
    ]
    assert {"name": "data", "mountPath": "/etc/govern", "readOnly": True} in container["volumeMounts"]
    values = copy.deepcopy(VALUES)
    values["serve"]["learns"] = True
    serving = next(
        one
        for one in render(CHART, values)
        if one["kind"] != "Service" and one["metadata"]["name"] == "demo-govern-serve"
    )
    assert serving["kind"] == "StatefulSet"
    (container,) = serving["spec"]["template"]["spec"]["containers"]
    assert _env(container)["GOVERN_SERVE_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}


def test_seldons_topics_have_one_reader_with_its_file(objects: Objects) -> None:
    reader = objects["Deployment", "demo-govern-seldon-topics"]["spec"]
    assert (reader["replicas"], reader["strategy"]["type"]) == (1, "Recreate")
    (container,) = reader["template"]["spec"]["containers"]
    assert container["args"][:4] == ["mirror", "seldon-topics", "--config", "/etc/govern/mirror.yaml"]
    assert {"name": "data", "mountPath": "/etc/govern", "readOnly": True} in container["volumeMounts"]
    assert {"name": "data", "configMap": {"name": "govern-seldon"}} in reader["template"]["spec"]["volumes"]


def test_the_sink_and_its_shipper_share_a_spool_in_memory(objects: Objects) -> None:
    pod = _pod(objects, "sink")
    (sink,), (shipper,) = pod["containers"], pod["initContainers"]
    assert shipper["restartPolicy"] == "Always"  # starts first, ends last
    folder = ["--config", "/etc/govern/mirror.yaml", "--spool-dir", "/var/run/govern/spool/segments"]
    assert sink["args"] == ["mirror", "sink", *folder, "--listen", "0.0.0.0:8080"]
    assert shipper["args"] == ["mirror", "ship", *folder, "--metrics-listen", "0.0.0.0:9464"]
    assert {"name": "spool", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}} in pod["volumes"]
    for container, port in ((sink, "sink"), (shipper, "metrics")):
        assert {"name": "spool", "mountPath": "/var/run/govern/spool"} in container["volumeMounts"]
        assert {"name": "data", "mountPath": "/etc/govern", "readOnly": True} in container["volumeMounts"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": port}
        assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": port}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["limits"]["memory"] == "1Gi"
        environment = _env(container)
        assert (environment["GOVERN_BUS"], environment["GOVERN_NAMESPACE"]) == ("kafka://kafka:9092", "bank")
        assert environment["GOVERN_MIRROR_POD"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert "GOVERN_METRICS_PORT" not in environment
    assert objects["Service", "demo-govern-sink"]["spec"]["sessionAffinity"] == "ClientIP"


def test_scraping_keeps_our_labels_and_finds_every_pod(objects: Objects) -> None:
    monitor = objects["PodMonitor", "demo-govern"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["podMetricsEndpoints"] == [
        {"port": port, "interval": "15s", "honorLabels": True} for port in ("metrics", "sink")
    ]
    for component in COMPONENTS:
        labels = objects["Deployment", f"demo-govern-{component}"]["spec"]["template"]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.prometheus
def test_rules_are_the_generated_ones_with_links_that_open(objects: Objects, tmp_path: Path) -> None:
    rule = objects["PrometheusRule", "demo-govern"]["spec"]
    urls = [one["annotations"]["runbook_url"] for one in rule["groups"][0]["rules"]]
    assert all(url.startswith("https://runbooks.example/") and url.endswith(".md") for url in urls)
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(rule))
    done = subprocess.run([promtool(), "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    generated = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    assert [one["expr"] for one in rule["groups"][0]["rules"]] == [
        one["expr"] for one in generated["groups"][0]["rules"]
    ]


def test_dashboard_reaches_grafana_unchanged(objects: Objects) -> None:
    config = objects["ConfigMap", "demo-govern-dashboard"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["govern-drift.json"]) == json.loads((CHART / "files" / "drift.json").read_text())


def test_parts_can_be_left_out(render: Render) -> None:
    values = copy.deepcopy(VALUES) | {"audit": {"enabled": False}, "monitoring": {}}
    values |= {
        "explainer": {"enabled": False},
        "serve": {"enabled": False},
        "seldonTopics": {"enabled": False},
        "sink": {"enabled": False},
    }
    assert sorted(one["kind"] for one in render(CHART, values)) == ["Deployment", "ServiceAccount"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"image": {"repository": ""}}, "/image/repository"),
        ({"bus": "embedded:///bus.db"}, "/bus"),
        ({"worker": {"enabled": True, "pipelines": []}}, "/worker/pipelines"),
        (
            {"worker": {**VALUES["worker"], "staticMembership": {"sessionTimeoutSeconds": 1}}},
            "/worker/staticMembership/sessionTimeoutSeconds",
        ),
        ({"worker": {**VALUES["worker"], "placements": [{"name": "G P U"}]}}, "/worker/placements/0/name"),
        ({"serve": {"enabled": True, "pipelines": []}}, "/serve/pipelines"),
        ({"seldonTopics": {"enabled": True}}, "/seldonTopics/volume"),
        ({"sink": {"enabled": True}}, "/sink/volume"),
        ({"audit": {**VALUES["audit"], "keys": {"secret": {"secretName": "keys"}}}}, "/audit/keys"),
        ({"audit": {**VALUES["audit"], "writerDatabase": {"secretName": ""}}}, "/audit/writerDatabase"),
        ({"terminationGracePeriodSeconds": 1}, "/terminationGracePeriodSeconds"),
        ({"workers": {}}, "workers"),
    ],
    ids=[
        "no image",
        "embedded bus",
        "no pipeline",
        "no session",
        "no placement",
        "nothing served",
        "no file",
        "no file of the sink",
        "keys from a secret",
        "no database",
        "no grace",
        "misspelt",
    ],
)
def test_wrong_values_are_refused_by_name(
    wrong: dict[str, Any], says: str, run_helm: Callable[..., Any], tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES | wrong))
    done = run_helm("template", "demo", CHART, "--values", values)
    assert done.returncode != 0
    assert says in done.stderr
