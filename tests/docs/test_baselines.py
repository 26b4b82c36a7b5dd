"""The examples of the page on baselines, run as they stand there."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from detectors.baseline.detector import MovingBaselineDrift
from govern.cli.main import main
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "baselines.md").read_text(encoding="utf-8")


def write(path: Path, rows: np.ndarray) -> None:
    path.write_text("\n".join(["age,pay", *(",".join(map(str, row)) for row in rows.round(3).tolist())]) + "\n")


def test_the_examples_as_the_page_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    rows = np.column_stack((rng.normal(40, 9, 5_000), rng.normal(20, 5, 5_000)))
    rows[2_000:, 1] += np.repeat([0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8, 3.2, 6.0], 300)
    write(tmp_path / "reference.csv", rows[:2_000])
    write(tmp_path / "stream.csv", rows[2_000:])
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    fit, signing, worker = blocks("", PAGE)
    assert run(fit)[0] == 0
    exec(blocks("python", PAGE)[0], {})
    assert capsys.readouterr().out == blocks("text", PAGE)[0]
    keygen, sign, verify = signing.splitlines()
    assert run(keygen)[0] == 0
    assert run(verify)[0] != 0, "it is not signed yet"
    assert run(worker)[0] != 0
    assert run(sign)[0] == 0
    status, shown = run(verify)
    assert status == 0
    assert json.loads(shown)["name"] == MovingBaselineDrift.method


def test_the_defaults_are_those_of_the_page() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
    told = {name.strip(" `"): default for cells in rows if len(cells) == 3 for name, default in _pairs(*cells[:2])}
    made = MovingBaselineDrift()._params
    for name in ("detector", "p_val", "size", "min_rows", "hours", "weeks"):
        assert told[name] == str(made[name])


def _pairs(names: str, defaults: str) -> list[tuple[str, str]]:
    return list(zip(names.split(","), [one.strip(" `") for one in defaults.split(",")], strict=False))
