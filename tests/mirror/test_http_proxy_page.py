"""docs/capture/http-proxy.md: its configuration files run, and what they promise is there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from govern.mirror.config import load
from tests.mirror.conftest import exchange, govern, records, request
from tests.services.process import Process, free_port

PAGE = (Path(__file__).parents[2] / "docs" / "capture" / "http-proxy.md").read_text(encoding="utf-8")
FILES: dict[str, str] = dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
BODY = b'{"inputs": []}'


def test_the_smallest_configuration_captures(
    uvicorn: int, proxy_process: Callable[..., Process], spool_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(FILES["mirror.yaml"])
    port = free_port()
    proxy_process(port, uvicorn, "--config", str(file))  # with ports that are free, in place of 8080 and 8000
    for path in ("/v2/models/echo/infer", "/api/v1.0/predictions", "/openai/v1/chat/completions", "/v2/health/live"):
        data = [request(path, BODY)]
        assert exchange(port, data) == exchange(uvicorn, data)
    found = records([spool_dir])
    assert [(each.service, each.protocol) for each in found] == [
        ("income", "v2"),
        ("income", "seldon-v1"),
        ("income", "openai"),
    ]
    shown = subprocess.run(
        govern("mirror", "spool", "ls", "--spool-dir", str(spool_dir)), capture_output=True, text=True, check=True
    )
    assert "yes" in shown.stdout


def test_the_other_files_are_configurations(tmp_path: Path) -> None:
    for name in ("rules.yaml", "tls.yaml"):
        file = tmp_path / name
        file.write_text(FILES[name])
        config = load(file, environ={})
        given = yaml.safe_load(FILES[name])
        assert set(given) <= config.model_fields_set
    assert config.tls.of_upstream == ("upstream_ca", "upstream_cert", "upstream_key")
