"""The `govern` command as a whole: help, errors on three lines, missing extras named, commands that answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from govern import __version__
from govern.bus import open_bus
from govern.bus.topics import specs
from govern.cli.main import COMMANDS, main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["govern", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_help_lists_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, name, "--help") == 0
    assert "Usage" in capsys.readouterr().out


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert __version__ in capsys.readouterr().out


def test_an_error_is_three_lines_and_bad_input_is_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "topics", "create", "--bus", "rabbit://somewhere") == 2
    what, why, fix = capsys.readouterr().err.strip().splitlines()
    assert what.startswith("error: bus URL 'rabbit://somewhere'")
    assert why.strip().startswith("why: ")
    assert fix.strip().startswith("fix: set GOVERN_BUS")


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    """In an environment where SQLAlchemy cannot be imported."""
    script = "import sys; sys.modules['sqlalchemy'] = None; sys.argv = ['govern', 'audit', 'init']; "
    script += "from govern.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'govern[audit]'" in done.stderr


async def test_topics_are_created_and_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], embedded_url: str
) -> None:
    command = [sys.executable, "-P", "-m", "govern.cli.main", "topics"]
    bus = ["--bus", embedded_url, "--namespace", "bank"]
    subprocess.run([*command, "create", *bus, "--partitions", "3"], check=True)
    shown = subprocess.run([*command, "list", *bus], check=True, capture_output=True, text=True).stdout
    assert "govern.bank.inferences" in shown
    async with open_bus(embedded_url) as connection:
        for spec in specs("bank", partitions=3):
            assert await connection.partitions(spec.name) == spec.partitions
    again = subprocess.run([*command, "create", *bus, "--partitions", "4"], capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert "govern.bank.inferences" in again.stderr


# It imports every extra: shap, and spacy through alibi, do what their dependencies will drop (explainers/conftest.py).
@pytest.mark.filterwarnings("ignore:The set_(bad|over|under) function:PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:Importing 'parser.split_arg_string':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_doctor_says_what_is_bsl_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["govern", "doctor"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert "govern.detectors: tabular: ready" in shown
    assert "Business Source License" in shown or "pip install 'govern[alibi]'" in shown


def test_modules_of_the_current_folder_are_not_ours(tmp_path: Path) -> None:
    for name in ("audit", "detectors", "explainers", "dashboards"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was imported')\n")
    govern = Path(sys.executable).with_name("govern")
    done = subprocess.run([govern, "audit", "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
