"""The examples of the page on online drift, run as they stand there."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from detectors.online.detector import OnlineDrift
from govern import plugins
from govern.cli.main import main
from govern.codecs import v2
from govern.codecs.tensor import Tensor
from govern.record import Inference
from govern.runtime.loader import load
from tests.docs.test_readme import ROOT, blocks
from tests.runtime.conftest import payload
from tests.runtime.test_flows import Worked, inference

PAGE = (ROOT / "docs" / "online-drift.md").read_text(encoding="utf-8")


def test_the_example_as_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    rows = np.column_stack((rng.normal(40, 9, 2_600), rng.normal(20, 5, 2_600))).round(3)
    rows[2_430:, 1] += 8.0
    for name, table in (("reference", rows[:2_000]), ("stream", rows[2_000:])):
        lines = [",".join(map(str, row)) for row in table.tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,pay", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(blocks("", PAGE)[0]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    capsys.readouterr()
    exec(blocks("python", PAGE)[0], {})
    assert capsys.readouterr().out == blocks("text", PAGE)[0]


async def test_errors_that_a_step_finds_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "errors.yaml").write_text(blocks("yaml", PAGE)[1])
    (tmp_path / "comparing.py").write_text(blocks("python", PAGE)[1])
    rng = np.random.default_rng(1)
    rows = np.column_stack((rng.normal(40, 9, 1_000).round(3), rng.random(1_000) < 0.1))
    (tmp_path / "past.csv").write_text("\n".join(["age,wrong", *(f"{age},{wrong:g}" for age, wrong in rows)]) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(blocks("", PAGE)[1]))
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main)
    assert not ended.value.code
    capsys.readouterr()

    def call(i: int, truth: float) -> Inference:
        def tensor(name: str, value: float) -> Tensor:
            return Tensor(name, "FP64", np.array([[value]]))

        return inference(
            i,
            service="income",
            model="income",
            namespace="default",
            request=payload(v2.encode_request([tensor("age", 40.0 + i % 7)])),
            response=payload(v2.encode_response("income", [tensor("answer", 1.0), tensor("truth", truth)])),
        )

    pipelines = load(tmp_path / "errors.yaml")
    truths = np.concatenate((rng.random(200) >= 0.1, rng.random(100) >= 0.6)).astype(float)
    effects = await Worked(*pipelines).of(*(call(i, truth) for i, truth in enumerate(truths.tolist())))
    assert not [one.why for one in effects.dead_letters]
    verdicts = [one.verdict for one in effects.judgements]
    assert [(one.step, one.alarm) for one in verdicts] == [("worse", False), ("worse", False), ("worse", True)]
    (one,) = verdicts[0].features
    assert (one.feature, one.n) == ("error", 100)


def test_every_online_detector_is_on_the_page() -> None:
    known = [name for name in plugins.names(plugins.DETECTORS) if not name.startswith("alibi_detect.")]
    mine = {name for name in known if issubclass(plugins.load(plugins.DETECTORS, name), OnlineDrift)}
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert {name.strip(" `") for cell in cells[1:] for name in cell.split(",")} == mine
