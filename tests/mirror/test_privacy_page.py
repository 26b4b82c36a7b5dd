"""docs/capture/privacy.md: its example runs, with the keys that its commands make, and is what it says."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from govern.mirror.recorder import open_recorder
from govern.mirror.redaction.keys import Keys
from govern.schema import Feature, FeatureSchema
from tests.mirror.conftest import govern
from tests.mirror.test_shipper import MakeConfig, capture, on_the_bus, ship_all

PAGE = (Path(__file__).parents[2] / "docs" / "capture" / "privacy.md").read_text(encoding="utf-8")
(CONFIG,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("openssl ")]
SCHEMA = FeatureSchema(
    format_version=1,
    model="income",
    features=(
        Feature(name="age", kind="numeric"),
        Feature(name="ssn", kind="text", datatype="BYTES", pii=True),
        Feature(name="embedding", kind="embedding"),
    ),
)
BODY = {
    "parameters": {"user": "ada", "free_text": "call me", "limit": 3},
    "inputs": [
        {"name": "age", "datatype": "FP64", "shape": [1, 1], "data": [41.5]},
        {"name": "ssn", "datatype": "BYTES", "shape": [1, 1], "data": ["123-45"]},
        {"name": "embedding", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.5]},
    ],
}


def opened(*command: str, given: str, folder: Path) -> bytes:
    """What a command writes for what it is given on standard input."""
    done = subprocess.run(govern("mirror", *command), input=given.encode(), cwd=folder, capture_output=True, check=True)
    return done.stdout


async def test_the_example_does_what_the_page_says(
    make_config: MakeConfig, embedded_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) == 3
    for command in COMMANDS:
        subprocess.run(command, shell=True, check=True)
    (tmp_path / "income.schema.yaml").write_text(SCHEMA.to_yaml())
    (tmp_path / "mirror.yaml").write_text(CONFIG)
    monkeypatch.setenv("GOVERN_REDACTION_KEY", (tmp_path / "redaction.key").read_text())
    config = make_config(bus=embedded_url, **yaml.safe_load(CONFIG))
    recorder = open_recorder(config)
    capture(recorder, "r1", body=json.dumps(BODY).encode())
    recorder.close()
    await ship_all(config)
    ((_, record),) = await on_the_bus(config)
    shown = json.loads(record.request.body)
    keys = Keys(base64.b64decode((tmp_path / "redaction.key").read_text()))
    age, ssn, embedding = shown["inputs"]
    assert age == BODY["inputs"][0]  # type: ignore[index]
    assert ssn["data"] == [keys.hash("123-45")]
    assert embedding["data"] == [None, None]
    token = shown["parameters"]["user"]
    assert shown["parameters"] == {"user": token, "free_text": None, "limit": 3}
    assert [f"{each.path} {each.action}" for each in record.redactions if each.path.startswith("request")] == [
        "request.column(ssn) hash",
        "request.parameters.user tokenise",
        "request.parameters.free_text encrypt",
        "request.tensor(embedding) drop",
    ]
    assert opened("detokenise", "--config", "mirror.yaml", given=f"{token}\n", folder=tmp_path) == b'"ada"\n'
    box = base64.b64encode(record.request.sealed).decode()
    options = ("--key", "audit.pem", "--id", record.id, "--side", "request")
    assert json.loads(opened("unseal", *options, given=box, folder=tmp_path)) == {
        "request.parameters.free_text": ["call me"]
    }
    key = (tmp_path / "redaction.key").read_text().strip()
    assert key.encode() not in opened("ship", "--config", "mirror.yaml", "--print-config", given="", folder=tmp_path)
