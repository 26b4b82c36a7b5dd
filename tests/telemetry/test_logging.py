from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from govern.errors import BadInput
from govern.record import Inference, Payload
from govern.telemetry.logging import bound, configure, get_logger

SECRET = "age=44,income=1234567"


@pytest.fixture(autouse=True)
def former_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _json_lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_line_has_time_level_logger_event_and_fields() -> None:
    stream = io.StringIO()
    configure("INFO", json=True, stream=stream)
    get_logger("govern.some").info("window closed", instances=500, topic="t", features=["AGEP", "SEX"])
    (line,) = _json_lines(stream)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "window closed",
        "level": "info",
        "logger": "govern.some",
        "instances": 500,
        "topic": "t",
        "features": ["AGEP", "SEX"],
    }


def test_bound_fields_are_on_every_line_of_the_block_and_of_libraries() -> None:
    stream = io.StringIO()
    configure("INFO", json=True, stream=stream)
    with bound(namespace="ns", pipeline="income", step="drift"):
        get_logger("govern.some").info("ours")
        logging.getLogger("library").warning("theirs %s", 1)
    get_logger("govern.some").info("after")
    ours, theirs, after = _json_lines(stream)
    assert (ours["namespace"], ours["pipeline"], ours["step"]) == ("ns", "income", "drift")
    assert (theirs["event"], theirs["namespace"]) == ("theirs 1", "ns")
    assert "namespace" not in after


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "console"])
def test_payloads_never_reach_the_log(as_json: bool) -> None:
    stream = io.StringIO()
    configure("DEBUG", json=as_json, stream=stream)
    log = get_logger("govern.some")
    record = Inference(id="i", request=Payload(body=SECRET.encode()))
    log.info("struct", record=record)
    log.info("bytes", data=SECRET.encode())
    log.info("named", body=SECRET, inputs_json=SECRET, headers={"authorization": SECRET})
    log.info("mapping", row={"income": SECRET})
    try:
        _fail_with_a_payload_in_a_local(SECRET)
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert SECRET not in text
    assert "<Inference>" in text
    assert f"<{len(SECRET)} bytes>" in text
    assert "<withheld>" in text
    assert "ValueError: no such row" in text


def _fail_with_a_payload_in_a_local(payload: str) -> None:
    local = payload
    raise ValueError("no such row" if local else "")


def test_long_fields_are_cut_and_errors_say_what_to_do() -> None:
    stream = io.StringIO()
    configure("INFO", json=True, stream=stream)
    get_logger("govern.some").info("cut", text="x" * 5000, many=list(range(5000)))
    get_logger("govern.some").error("refused", error=BadInput("field a", why="it is b", fix="write c"))
    cut, refused = _json_lines(stream)
    assert len(str(cut["text"])) < 1100
    assert cut["many"] == "<5000 items>"
    assert refused["error"] == {"code": "bad-input", "what": "field a", "why": "it is b", "fix": "write c"}


def test_level_is_kept_and_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("INFO", json=True, stream=first)
    configure("WARNING", json=False, stream=second)
    get_logger("govern.some").info("quiet")
    get_logger("govern.some").warning("loud", step="drift")
    assert first.getvalue() == ""
    assert "quiet" not in second.getvalue()
    assert "loud" in second.getvalue()
    assert "step=drift" in second.getvalue()


def test_a_plugin_that_uses_structlog_itself_speaks_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure("INFO", json=True, stream=stream)
    structlog.get_logger("plugin").info("fitted", rows=3)
    (line,) = _json_lines(stream)
    assert (line["event"], line["rows"], line["logger"]) == ("fitted", 3, "plugin")
    assert capsys.readouterr().out == ""


def test_in_a_foreign_process_lines_go_through_its_own_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        get_logger("govern.some").info("shipped", records=3)
    (line,) = caplog.records
    assert (line.getMessage(), line.__dict__["records"]) == ("shipped", 3)
