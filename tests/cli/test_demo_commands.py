from __future__ import annotations

from pathlib import Path

import pytest

from govern.cli.demo import checks, people
from govern.cli.demo.checks import check_extras, check_urls
from govern.cli.demo.commands import environment, run
from govern.cli.demo.plan import MAX_ROWS, MIN_ROWS, check_rows
from govern.cli.demo.work import Work
from govern.errors import BadInput, ConfigError, MissingExtra, Unavailable


def test_children_know_nothing_of_another_govern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOVERN_BUS", "kafka://production:9092")
    monkeypatch.setenv("HOME", "/home/somebody")

    found = environment({"GOVERN_AUDIT_TOKEN_KEY": "x"})

    assert "GOVERN_BUS" not in found
    assert found["GOVERN_AUDIT_TOKEN_KEY"] == "x"
    assert found["HOME"] == "/home/somebody"
    assert found["OMP_NUM_THREADS"] == "1"


async def test_a_command_that_fails_is_shown_with_its_words() -> None:
    with pytest.raises(Unavailable, match="govern pipeline check") as error:
        await run(["pipeline", "check", "/nowhere/pipeline.yaml"])

    assert "/nowhere/pipeline.yaml" in error.value.why


async def test_a_command_that_may_fail_gives_its_code() -> None:
    ran = await run(["pipeline", "check", "/nowhere/pipeline.yaml"], may_fail=True)

    assert ran.returncode != 0
    assert ran.shown == "govern pipeline check /nowhere/pipeline.yaml"


@pytest.mark.parametrize("rows", [MIN_ROWS - 1, MAX_ROWS + 1, 0, -5])
def test_so_many_rows_cannot_be_replayed(rows: int) -> None:
    with pytest.raises(BadInput, match=f"--rows {rows}"):
        check_rows(rows)


@pytest.mark.parametrize(
    ("bus", "database"), [("mqtt://here", "sqlite:////a.db"), ("kafka://a:1", "oracle://here"), ("kafka://a:1", "x")]
)
def test_urls_of_no_known_form_are_refused(bus: str, database: str) -> None:
    with pytest.raises(ConfigError):
        check_urls(bus, database)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "EXTRAS", {"explain": ("no_such_module",)})

    with pytest.raises(MissingExtra) as error:
        check_extras()

    assert "govern[explain]" in error.value.fix


def test_missing_data_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(people, "DATA", tmp_path)

    with pytest.raises(BadInput, match=r"reference\.parquet"):
        people.read("reference")


def test_a_work_folder_is_made_or_must_be_empty(tmp_path: Path) -> None:
    made = Work.open(tmp_path / "a" / "b")

    assert made.folder.is_dir()
    assert made.bus_url == f"embedded://{made.folder}/bus.db"
    (made.folder / "x").touch()
    with pytest.raises(BadInput, match="is not empty"):
        Work.open(made.folder)


def test_a_work_folder_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Unavailable, match="work folder"):
        Work.open(tmp_path / "file" / "a")
