"""`govern demo` in real processes: embedded until Ctrl-C, and once on Kafka with PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from audit.checkpoint import VerifierKey
from audit.verify import verify_case
from govern.cli.demo.stages.person import CASEWORKER
from govern.cli.demo.stages.proof import AUDITOR

pytestmark = pytest.mark.e2e

#: One window of a thousand for each year, the least that the demo replays.
ROWS = 3000
DEADLINE_S = 900.0

EXPECTED = (
    "every step and every explainer has its fitted artifact",
    "every request that was answered is on the bus exactly once",
    "seen = captured + sampled out + dropped",
    "the what-if is found as drift, and above all in schooling",
    "the broken form is found by the outlier step",
    "ages in months are found by the adversarial step",
    "changed answers are flagged more often than honest ones",
    "all requests that the model answered and nobody could read are dead letters",
    "malformed requests are captured with their status",
    "it explains the very answer that was given, and the shares add up to it",
    "the rule was measured: under it the model refuses most people",
    "what the explainers asked is on record as synthetic, and none of it was judged",
    "the case file proves itself offline, with nothing but the log's public key",
    "it says who looked, and why",
    "the change is found, and named: entry",
)


def demo(work: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "govern.cli.main", "demo"),
        *("--rows", str(ROWS), "--work", str(work), *flags),
    ]


def run(work: Path, *flags: str) -> str:
    """The demo's output; it must end well."""
    done = subprocess.run(
        demo(work, "--once", *flags),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd="/",
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs(work)}"
    return done.stdout


def logs(work: Path) -> str:
    return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted((work / "logs").glob("*.log")))


def check_output(output: str) -> None:
    lines = output.splitlines()
    assert "NOT SO" not in output
    held = [line.strip() for line in lines if line.strip().startswith("✓")]
    for claim in EXPECTED:
        assert any(claim in line for line in held), f"{claim!r} was not checked:\n{output}"
    assert f"All {len(held)} checks held" in output
    assert max(map(len, lines)) <= 100 + len("Stopped. The files are in ") + 200  # only paths may be longer
    assert sum("no drift  2016" in line for line in lines) == 1
    assert sum("drift     what-if      schooling (p < 1e-09)" in line for line in lines) == 1


def check_case(work: Path) -> None:
    """Verified here, too, and about somebody who was refused although they had work."""
    document = (work / "case.json").read_bytes()
    trusted = VerifierKey.parse((work / "keys" / "verifier-key.txt").read_text())
    report = verify_case(document, trusted)
    assert report.ok, report.findings
    assert report.opened >= 4  # the inference, the feedback, two explanations
    summary = json.loads(document)["summary"]
    (decision,) = summary["inferences"]
    answer = json.loads(decision["response"]) if isinstance(decision["response"], str) else decision["response"]
    outputs = {one["name"]: one["data"] for one in answer["outputs"]}
    assert outputs["prediction"] == [0]
    assert outputs["probability"][1] < 0.5
    assert {one["method"] for one in summary["explanations"]} == {"shap_tree", "anchors"}
    assert all(one["reasons"] for one in summary["explanations"])
    assert {one["actor"] for one in summary["accesses"]} == {CASEWORKER, AUDITOR}
    assert [one["label"] for one in summary["feedback"]] == ["employed"]
    assert {one["kind"] for one in summary["verdicts"]} == {"drift", "outlier", "adversarial"}
    assert not verify_case(document.replace(b'"2015"', b'"2016"', 1), trusted).ok


def nothing_left(work: Path) -> bool:
    """Whether no process of the demo outlived it."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if str(work).encode() in command:
                return False
    return True


@pytest.mark.timeout(DEADLINE_S + 300)
def test_the_demo_embedded_leaves_everything_running_until_ctrl_c(tmp_path: Path) -> None:
    work, log = tmp_path / "work", tmp_path / "log"
    with started(demo(work), log) as process:
        wait_for("Ctrl-C ends it.", log, process)
        output = log.read_text()
        look_around(output)
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 0, log.read_text()

    check_output(output)
    check_case(work)
    assert (work / "bus.db").exists()
    assert (work / "audit-changed.db").exists()
    assert nothing_left(work)


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.timeout(DEADLINE_S + 300)
def test_the_demo_on_kafka_and_postgres(tmp_path: Path, kafka_url: str, postgres_url: str) -> None:
    work = tmp_path / "work"

    output = run(work, "--bus", kafka_url, "--db", postgres_url)

    check_output(output)
    check_case(work)
    assert not list(work.glob("*.db"))
    assert nothing_left(work)


def look_around(output: str) -> None:
    """Every address that is printed answers, the last one to the token that is printed with it."""
    shown = output[output.index("Look around") :]
    *addresses, case = re.findall(r"http://127\.0\.0\.1:\d+\S*", shown)
    (token,) = re.findall(r"TOKEN=(\S+)", shown)
    assert Counter(address.rpartition("/")[2] for address in addresses) == {"employment": 1, "docs": 3, "metrics": 5}
    for address in addresses:
        answer = httpx.get(address, timeout=DEADLINE_S)
        assert answer.status_code == 200, address
        told = {"docs": "swagger", "metrics": "# HELP", "employment": "inputs"}[address.rpartition("/")[2]]
        assert told in answer.text, address
    answer = httpx.get(case, headers={"authorization": f"Bearer {token}"}, timeout=DEADLINE_S)
    assert answer.json()["format"] == "io.govern.case.v1"


@contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "COLUMNS": "100"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd="/", env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(text: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)


@pytest.mark.timeout(DEADLINE_S + 300)
@pytest.mark.parametrize(
    ("name", "during"), [("SIGINT", "replaying 2016"), ("SIGTERM", "$ govern explain fit anchors")]
)
def test_a_signal_in_the_middle_ends_every_process(tmp_path: Path, name: str, during: str) -> None:
    work, log = tmp_path / "work", tmp_path / "log"
    with started(demo(work), log) as process:
        wait_for(during, log, process)
        process.send_signal(signal.Signals[name])
        returncode = process.wait(240)

    assert returncode == 130
    assert str(work) in log.read_text().splitlines()[-1]
    assert nothing_left(work)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rows", "10"], ["--rows 10", "3000"]),
        (["--rows", "99999999"], ["--rows 99999999", "54000"]),
        (["--bus", "carrier-pigeon://here"], ["carrier-pigeon", "kafka://host:port"]),
        (["--db", "oracle://here"], ["oracle", "postgresql+psycopg://"]),
    ],
)
def test_wrong_flags_are_refused_at_once(tmp_path: Path, flags: list[str], words: list[str]) -> None:
    done = subprocess.run(
        [*demo(tmp_path / "work", "--once"), *flags], capture_output=True, text=True, timeout=240, check=False, cwd="/"
    )

    assert done.returncode == 2
    for word in words:
        assert word in done.stderr


def test_a_work_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")

    done = subprocess.run(demo(tmp_path, "--once"), capture_output=True, text=True, timeout=240, check=False, cwd="/")

    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]
