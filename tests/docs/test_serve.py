"""The example of the page on served steps, run as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import httpx
import numpy as np

from tests.docs.test_readme import ROOT, blocks
from tests.mirror.conftest import govern
from tests.services.process import Process

PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")


def test_the_example_as_the_page_shows_it(tmp_path: Path) -> None:
    (tmp_path / "guard.yaml").write_text(blocks("yaml", PAGE)[0])
    draws = np.random.default_rng(0).normal([40, 38], [12, 6], (500, 2)).round(1)
    (tmp_path / "reference.csv").write_text("age,hours\n" + "".join(f"{age},{hours}\n" for age, hours in draws))
    fit, serve = (shlex.split(line) for line in blocks("", PAGE)[0].splitlines())
    subprocess.run(govern(*fit[1:]), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert serve[2] == "guard.yaml"
    there = [str(tmp_path / "guard.yaml"), *(re.sub(r":\d+$", ":0", word) for word in serve[3:])]
    process = Process(govern("serve", *there), log=tmp_path / "log")
    process.start(lambda log: "serving guard-outlier" in log)
    try:
        address = re.search(r"http://\S+", process.log())
        assert address is not None
        (path,) = re.findall(r"`(/v2/models/\S+/infer)`", PAGE)
        answer = httpx.post(address.group() + path, content=blocks("json", PAGE)[0], timeout=60)
    finally:
        process.stop()
    assert answer.json()["outputs"] == json.loads(blocks("text", PAGE)[0])
