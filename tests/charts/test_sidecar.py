"""The sidecar's templates in a model's own chart (`model/`), rendered by real Helm."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from govern.mirror.config import MirrorConfig, load
from govern.mirror.grpc.config import GrpcConfig

HERE = Path(__file__).parent
CHARTS = HERE.parents[1] / "charts"

Render = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def chart(tmp_path: Path, run_helm: Callable[..., Any]) -> Path:
    """The model's chart with its dependency fetched, in a copy of the tree that its `file://` address expects."""
    copy = shutil.copytree(HERE / "model", tmp_path / "tests" / "charts" / "model")
    shutil.copytree(CHARTS / "govern-sidecar", tmp_path / "charts" / "govern-sidecar")
    done = run_helm("dependency", "update", copy)
    assert done.returncode == 0, done.stderr
    return copy


@pytest.fixture
def pod(chart: Path, render: Render) -> dict[str, Any]:
    (deployment,) = render(chart, {})
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def grpc_pod(chart: Path, render: Render) -> dict[str, Any]:
    """A model that speaks gRPC only, with a configuration file and a key for redaction."""
    template = chart / "templates" / "deployment.yaml"
    template.write_text(template.read_text().replace("govern.mirror.proxy", "govern.mirror.grpc"))
    values = {
        "grpcUpstream": 9000,
        "config": "income-mirror",
        "redactionKey": {"secretName": "income", "key": "redaction"},
        "secrets": {"kafka-client": "/etc/kafka"},
        "bus": "kafka://kafka:9093?tls=true&ca=/etc/kafka/ca.crt",
        "upstream": None,
    }
    (deployment,) = render(chart, {"govern": values})
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def _settings(container: dict[str, Any]) -> MirrorConfig:
    """What `govern mirror` makes of the container's environment."""
    environment = {one["name"]: one.get("value", "pod-1") for one in container["env"]}
    known = {f"GOVERN_MIRROR_{name.upper()}" for name in MirrorConfig.model_fields}
    known |= {f"GOVERN_MIRROR_GRPC_{name.upper()}" for name in GrpcConfig.model_fields}
    assert environment.keys() - known <= {"GOVERN_BUS", "GOVERN_NAMESPACE"}
    return load(environ=environment)


def test_proxy_stands_in_front_of_the_model(pod: dict[str, Any]) -> None:
    model, proxy = pod["containers"]
    assert model["name"] == "model"
    assert proxy["args"] == ["mirror", "proxy"]
    settings = _settings(proxy)
    assert settings.upstream_address == ("127.0.0.1", 8000)
    assert settings.listen_address == ("0.0.0.0", proxy["ports"][0]["containerPort"])
    assert (settings.service, settings.pod) == ("income", "pod-1")
    assert settings.sampling_rate == 0, "0 is a value, not an absent one"
    assert pod["terminationGracePeriodSeconds"] > proxy["lifecycle"]["preStop"]["sleep"]["seconds"] + settings.drain_s


def test_shipper_starts_before_and_ends_after_the_others(pod: dict[str, Any]) -> None:
    (shipper,) = pod["initContainers"]
    assert shipper["restartPolicy"] == "Always"
    assert shipper["args"] == ["mirror", "ship"]
    settings = _settings(shipper)
    assert settings.bus == "kafka://kafka:9092"
    assert settings.metrics_address == ("0.0.0.0", shipper["ports"][0]["containerPort"])


def test_both_share_a_spool_in_memory_that_fits_its_volume(pod: dict[str, Any]) -> None:
    containers = [pod["initContainers"][0], pod["containers"][1]]
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    assert volumes["govern-spool"] == {"medium": "Memory", "sizeLimit": "128Mi"}
    for container in containers:
        settings = _settings(container)
        mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
        assert settings.spool_dir.parent == mounts["govern-spool"]
        assert settings.disk_dir is not None
        assert settings.disk_dir.parent == mounts["govern-disk"]
        assert settings.spool_bytes == 128 * 2**20 * 9 // 10
        assert settings.disk_bytes == 2 * 2**30 * 9 // 10
        assert container["securityContext"]["runAsUser"] == 10001
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_grpc_proxy_takes_its_rules_from_a_file_and_the_key_goes_to_the_shipper_alone(
    grpc_pod: dict[str, Any],
) -> None:
    (shipper,), (_, proxy) = grpc_pod["initContainers"], grpc_pod["containers"]
    assert proxy["args"] == ["mirror", "grpc", "--config", "/etc/govern/mirror.yaml"]
    assert shipper["args"] == ["mirror", "ship", "--config", "/etc/govern/mirror.yaml"]
    settings = _settings(proxy)
    assert settings.grpc.upstream_address == ("127.0.0.1", 9000)
    assert settings.grpc.listen == f"0.0.0.0:{proxy['ports'][0]['containerPort']}"
    (volume,) = [one for one in grpc_pod["volumes"] if one["name"] == "govern-config"]
    assert volume["configMap"] == {"name": "income-mirror"}
    (volume,) = [one for one in grpc_pod["volumes"] if one["name"] == "govern-secret-kafka-client"]
    assert volume["secret"] == {"secretName": "kafka-client"}
    for container in (shipper, proxy):
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["govern-config"] == "/etc/govern"
        assert mounts["govern-secret-kafka-client"] == "/etc/kafka"
    holders = [one["name"] for one in (shipper, proxy) if "GOVERN_REDACTION_KEY" in str(one["env"])]
    assert holders == ["govern-shipper"]
    (key,) = [one for one in shipper["env"] if one["name"] == "GOVERN_REDACTION_KEY"]
    assert key["valueFrom"] == {"secretKeyRef": {"name": "income", "key": "redaction"}}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"upstream": None}, "upstream"),
        ({"service": None}, "service"),
        ({"bus": None}, "kafka://host:port"),
        ({"spoolSize": "1.5Gi"}, "spoolSize"),
    ],
    ids=["no upstream", "no service", "no bus", "odd size"],
)
def test_wrong_values_are_refused_by_name(
    wrong: dict[str, Any], says: str, chart: Path, run_helm: Callable[..., Any], tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"govern": wrong}))
    done = run_helm("template", "demo", chart, "--values", values)
    assert done.returncode != 0
    assert says in done.stderr
