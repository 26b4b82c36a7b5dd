"""The example of the page on multivariate drift, run as it stands there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from govern.cli.main import main
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "multivariate-drift.md").read_text(encoding="utf-8")


def test_the_example_as_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    rng = np.random.default_rng(0)
    schooling = rng.normal(13, 3, 2500)
    pay = 2 * schooling + rng.normal(0, 2, 2500)
    pay[2000:] = rng.permutation(pay[2000:])
    rows = np.column_stack((schooling, rng.normal(38, 6, 2500), pay)).round(2)
    for name, table in (("reference", rows[:2000]), ("window", rows[2000:])):
        lines = [",".join(map(str, row)) for row in table.tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join(["schooling,hours,pay", *lines]) + "\n")
    command = shlex.split(blocks("", PAGE)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    capsys.readouterr()
    exec(blocks("python", PAGE)[0], {})
    told = capsys.readouterr().out
    assert told == blocks("text", PAGE)[0]
