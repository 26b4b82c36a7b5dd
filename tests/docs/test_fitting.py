"""The example of the page on fitting, run as it stands there, on an embedded bus."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from detectors import artifacts, power
from govern.bus import Outgoing, open_bus
from govern.bus.topics import specs, topic
from govern.cli.main import main
from govern.codecs import cloudevents
from govern.pipeline import load_pipelines
from govern.record import Inference, Payload
from tests.docs.test_readme import ROOT, blocks

PAGE = (ROOT / "docs" / "fitting.md").read_text(encoding="utf-8")
#: 20 November 2026: before the time that the page's command names.
START_NS = 1_795_132_800 * 10**9


def calls(count: int) -> list[Outgoing]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        rows = [{"age": rng.normal(40, 9), "job": str(rng.choice(["clerk", "cook", "smith"]))} for _ in range(4)]
        request = Payload(content_type="application/json", body=json.dumps({"instances": rows}).encode())
        response = Payload(content_type="application/json", body=b'{"predictions": [1, 0, 1, 1]}')
        record = Inference(
            schema_version=1, id=f"call-{i}", namespace="default", service="income", model="income", protocol="v1",
            t_request=START_NS, t_response=START_NS + i * 10**9, status_code=200, request=request, response=response,
            synthetic=i % 10 == 0,
        )  # fmt: skip
        found.append(cloudevents.to_message(record, source="/test"))
    return found


def write_people(path: Path, rows: int) -> None:
    rng = np.random.default_rng(1)
    lines = [f"{rng.normal(40, 9):.2f},{rng.choice(['clerk', 'cook', 'smith'])}" for _ in range(rows)]
    path.write_text("\n".join(["age,job", *lines, ""]))


def command(option: str) -> str:
    """The page's command that has this option."""
    return next(one for one in blocks("", PAGE) if option in one.split())


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether power is measured well is tests/detectors/test_power.py's matter: here it is measured fast."""
    monkeypatch.setattr(power, "SPLITS", 4)
    assert power.power.__kwdefaults__ is not None
    monkeypatch.setitem(power.power.__kwdefaults__, "trials", 20)


def publish(url: str, messages: list[Outgoing]) -> None:
    async def work() -> None:
        async with open_bus(url) as bus:
            await bus.ensure_topics(specs("default", partitions=2))
            await bus.publish(topic("default", "inferences"), messages)

    asyncio.run(work())


def test_the_example_as_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    url = f"embedded://{tmp_path}/bus.db"
    publish(url, [*calls(600), Outgoing(key=b"k", value=b"no record")])
    monkeypatch.chdir(tmp_path)
    words = [url if word.startswith("embedded:") else word for word in shlex.split(blocks("", PAGE)[0])]
    first = _ran(words, monkeypatch)
    told = capsys.readouterr()
    assert first == 0, told.err
    assert "Left out of the topic: 60 are synthetic" in told.out
    assert "Left out of the topic: 1 are no records" in told.out
    assert "2 features (1 categorical, 1 numeric), from 2,000 of 2,160 rows of 540 inferences of income" in told.out
    assert len(load_pipelines(Path("people.yaml"), artifacts=True)) == 1
    told = json.loads(Path("artifacts/drift/artifact.json").read_text())["lineage"]
    assert told["source"]["topic"] == "govern.default.inferences"
    assert set(told["source"]["offsets"]) <= {"0", "1"}
    assert told["times"][0] == "2026-11-20T00:00:01Z"
    digests = [artifacts.load(Path("artifacts") / step).digest for step in ("drift", "outlier")]
    assert _ran(words, monkeypatch) == 0, "the schema is kept now"
    assert [artifacts.load(Path("artifacts") / step).digest for step in ("drift", "outlier")] == digests
    capsys.readouterr()
    assert _ran([*words, "--exclude-range", "2026-11-20T00:00:00Z/2026-11-20T00:01:40Z"], monkeypatch) == 0
    # The first hundred seconds, of which every tenth call is synthetic.
    assert "Left out of the topic: 90 were answered in a range that is left out" in capsys.readouterr().out
    assert _ran([*words, "--from", "2026-11-30T00:00:00Z"], monkeypatch) != 0
    assert "none can be used: 1 are no records" in capsys.readouterr().err


@pytest.mark.usefixtures("few_trials")
def test_power_as_the_page_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    write_people(tmp_path / "people.csv", 1_500)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    assert _ran(shlex.split(command("--power")), monkeypatch) == 0
    told = capsys.readouterr().out
    assert "false alarms / month" in told
    assert "window of 1,000 rows: a reference of 3,333 rows is needed" in told
    assert _ran([*shlex.split(command("--report")), "--step", "drift"], monkeypatch) == 0
    page = (tmp_path / "fit.html").read_text()
    for word in ("<svg", "tabular", artifacts.load(Path("artifacts/drift")).digest[:12]):
        assert word in page
    assert not re.search("<script|src=|url\\(|@import|https?:", page), "it asks nobody for anything"


def test_lineage_as_the_page_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people.yaml").write_text(blocks("yaml", PAGE)[0])
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path / "people.csv", 500)
    lines = (tmp_path / "people.csv").read_text().splitlines()
    # Every four hours from 1 December on: 18 of them lie in the three days that are left out.
    times = [np.datetime64("2026-12-01T00:00:00") + np.timedelta64(4 * hours, "h") for hours in range(500)]
    told = [f"{line},{time}Z" for line, time in zip(lines[1:], times, strict=True)]
    (tmp_path / "calls.csv").write_text("\n".join([f"{lines[0]},at", *told, ""]))
    words = shlex.split(command("--exclude-range"))
    assert _ran(words, monkeypatch) == 0
    said = capsys.readouterr().out
    assert "Left out of the table: 18 rows" in said
    assert "6 rows a day, by their times" in said
    first = json.loads((tmp_path / "artifacts/drift/artifact.json").read_text())["lineage"]
    digest = artifacts.load(Path("artifacts/drift")).digest
    assert first["source"] == {
        "path": "calls.csv", "sha256": hashlib.sha256((tmp_path / "calls.csv").read_bytes()).hexdigest(),
    }  # fmt: skip
    assert (first["version"], first["rows"], first["seed"]) == (1, 482, 0)
    assert first["excluded"] == ["2026-12-24T00:00:00Z/2026-12-27T00:00:00Z"]
    assert first["times"] == ["2026-12-01T00:00:00Z", "2027-02-22T04:00:00Z"]

    assert _ran(words, monkeypatch) == 0, "the same again"
    again = json.loads((tmp_path / "artifacts/drift/artifact.json").read_text())["lineage"]
    assert (again["version"], "parent" in again) == (1, False)
    assert _ran([*words, "--rows", "400"], monkeypatch) == 0
    third = json.loads((tmp_path / "artifacts/drift/artifact.json").read_text())["lineage"]
    assert (third["version"], third["parent"], third["rows"]) == (2, digest, 400)


def test_what_is_suggested_can_be_checked_and_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path / "people.csv", 1_000)
    lines = (tmp_path / "people.csv").read_text().splitlines()
    rows = [f"{line},{number},7" for number, line in enumerate(lines[1:])]
    (tmp_path / "people.csv").write_text("\n".join([f"{lines[0]},id,seven", *rows, ""]))
    words = shlex.split(command("--suggest"))
    assert _ran(words, monkeypatch) == 0
    told = capsys.readouterr().out
    assert "Left out of the schema: id, a different whole number in each row" in told
    assert "Left out of the schema: seven, the same value in all rows" in told
    (pipeline,) = load_pipelines(tmp_path / "suggested.yaml")
    assert [one.detector.type for one in pipeline.spec.steps if one.detector] == [
        "tabular", "data_quality", "mmd", "isolation_forest",
    ]  # fmt: skip
    assert {one.batch.size for one in pipeline.spec.steps if one.batch} <= {75, 100, 150, 200, 300}
    assert _ran(["govern", "pipeline", "check", "suggested.yaml"], monkeypatch) == 0
    assert _ran(["govern", "fit", "people.csv", "--pipeline", "suggested.yaml"], monkeypatch) == 0
    assert artifacts.load(Path("artifacts/drift")).schema.names == ("age", "job")
    assert _ran(words, monkeypatch) == 2, "a file that is there stays"
    assert "suggested.yaml is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from-topic"], "--bus is missing"),
        (["table.csv", "--from-topic", "--bus", "embedded:///b.db"], "those of two places"),
        (["--query", "SELECT 1"], "--sql is missing"),
        ([], "no rows are named to learn from"),
        (["--from-topic", "--bus", "embedded:///b.db", "--exclude", "id"], "name columns of a table"),
    ],
)
def test_rows_come_from_one_place(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("GOVERN_BUS", raising=False)
    monkeypatch.delenv("GOVERN_FIT_SQL", raising=False)
    code = _ran(["govern", "fit", *words, "--model", "m", "--out", str(tmp_path)], monkeypatch)
    assert code == 2
    assert said in capsys.readouterr().err


def _ran(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
