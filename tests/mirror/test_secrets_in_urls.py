"""A password in a URL is refused before anything could show it: no start line, no log, no --print-config does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from govern.bus import open_bus
from govern.errors import ConfigError
from govern.mirror.config import MirrorConfig
from tests.mirror.conftest import DEADLINE_S, govern

SECRET = "pl4nted"
BUSES = [
    f"kafka://govern:{SECRET}@127.0.0.1:9092",
    f"kafka://govern:{SECRET}/x@127.0.0.1:9092",
    f"kafka://govern:x?{SECRET}@127.0.0.1:9092",
    f"kafka://govern:x#{SECRET}@127.0.0.1:9092",
    f"kafka://127.0.0.1:9092?sasl=PLAIN&user=govern&password={SECRET}",
    f"embedded://govern:{SECRET}@host/tmp/bus.db",
    f"amqp://govern:{SECRET}@127.0.0.1",
    f"govern:{SECRET}@127.0.0.1:9092",
]
SERVER = f"http://govern:{SECRET}@127.0.0.1:8000"


@pytest.mark.parametrize("url", BUSES)
def test_a_bus_url_with_a_secret_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_bus(url)
    error = refused.value
    assert SECRET not in f"{error.what} {error.why} {error.fix}"
    assert "password_file" in error.fix


@pytest.mark.parametrize("values", [{"bus": BUSES[0]}, {"seldon": {"bus": BUSES[0]}}, {"upstream": SERVER}])
def test_an_application_that_reads_a_wrong_configuration_does_not_tell_it_either(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        MirrorConfig.model_validate(values)
    assert SECRET not in str(refused.value)


def test_a_file_of_any_name_is_no_secret(tmp_path: Path) -> None:
    open_bus(f"embedded://{tmp_path}/a@b.db")


@pytest.mark.parametrize("shown", [(), ("--print-config",)], ids=["run", "print-config"])
@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("ship", {"bus": BUSES[0]}),
        ("ship", {"bus": BUSES[4]}),
        ("ship", {"destinations": [{"name": "lake", "bus": BUSES[5]}]}),
        ("seldon-topics", {"bus": BUSES[0]}),
        ("seldon-topics", {"bus": "kafka://127.0.0.1:9092", "seldon": {"bus": BUSES[1]}}),
        ("proxy", {"upstream": SERVER}),
        ("grpc", {"grpc": {"upstream": SERVER}}),
    ],
)
def test_no_command_tells_a_secret_of_its_file(
    command: str, settings: dict[str, object], shown: tuple[str, ...], spool_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(yaml.safe_dump({"spool_dir": str(spool_dir), "metrics_listen": "127.0.0.1:0", **settings}))
    done = run(command, "--config", str(file), *shown)
    assert done.returncode == 2
    assert "it holds a user or a password" in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("command", [("mirror", "ship"), ("mirror", "seldon-topics"), ("doctor",), ("topics",)])
def test_no_command_tells_a_secret_of_its_environment(command: tuple[str, ...], spool_dir: Path) -> None:
    environment = os.environ | {"GOVERN_BUS": BUSES[0], "GOVERN_MIRROR_SPOOL_DIR": str(spool_dir)}
    done = subprocess.run(govern(*command), capture_output=True, text=True, timeout=DEADLINE_S, env=environment)
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(govern("mirror", *arguments), capture_output=True, text=True, timeout=DEADLINE_S)
