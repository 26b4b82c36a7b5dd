"""New rules while traffic flows: taken over, refused, put on record; no record lost or counted twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from govern.bus import Partition, open_bus
from govern.bus.protocol import TopicSpec
from govern.bus.topics import topic
from govern.codecs.cloudevents import from_message
from govern.mirror.config import MirrorConfig, load
from govern.mirror.recorder import Recorder, open_recorder
from govern.mirror.reload import Reload, digest, reloading
from govern.record import ConfigChange
from tests.mirror.conftest import DEADLINE_S, HERE, SEGMENT_BYTES, exchange, govern, records, renew, request, until
from tests.mirror.test_delivery import Load, dropped_of, half_empty
from tests.mirror.test_shipper import capture, on_the_bus, scrape
from tests.mirror.test_shipper import shipper as make_shipper
from tests.services.process import Process, free_port, listening

HUNDRED = 100


async def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"not in {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.01)


def rate_of(recorder: Recorder) -> float:
    return recorder.rules.shares("model", "income").rate


async def test_the_file_is_read_again_when_it_changes_and_on_sighup_and_refused_when_it_is_wrong(
    spool_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text("sampling_rate: 0.5\n")
    flags = {"spool_dir": spool_dir}
    config = load(file, flags=flags, environ={})
    recorder = open_recorder(config)
    caplog.set_level(logging.INFO)
    async with reloading(Reload(file, flags, config), recorder):
        under_way = recorder.begin(b"POST", b"/v2/models/income/infer", {})
        assert under_way is not None
        await asyncio.sleep(0)
        renew(file, "sampling_rate: 0.25\nlisten: 127.0.0.1:1\n")
        await eventually(lambda: rate_of(recorder) == 0.25, "the new rate")
        await eventually(lambda: "a change of listen takes effect at the next start" in caplog.text, "the warning")

        renew(file, "sampling_rate: 0.1\nrules: [{path: '('}]\n")
        await eventually(lambda: "is refused, the rules in force stay" in caplog.text, "the refusal")
        assert f"{file}:2: rules.0.path" in caplog.text
        assert rate_of(recorder) == 0.25

        renew(file, "sampling_rate: 0.75\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: rate_of(recorder) == 0.75, "the new rate")
        caplog.clear()
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: "the rules are the same as before" in caplog.text, "an answer to the signal")
        under_way.response_head(500, {})
        under_way.finish()
    assert recorder.spool.counts == (1, 0, 0)
    recorder.close()


async def test_rules_that_cannot_be_taken_over_are_not_the_last_ones_to_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text("sampling_rate: 0.5\n")
    config = load(file, environ={})
    taken: list[float] = []
    refused: list[bool] = []

    class Unlucky:
        def apply(self, new: MirrorConfig) -> None:
            if new.sampling_rate == 0.25:
                raise RuntimeError("no such luck")
            taken.append(new.sampling_rate)

        def refused(self, standing: bool) -> None:
            refused.append(standing)

    async with reloading(Reload(file, {}, config), Unlucky()):
        await eventually(lambda: refused == [False], "the first look")
        renew(file, "sampling_rate: 0.25\n")
        await eventually(lambda: "no such luck" in caplog.text, "the failure in the log")
        assert refused[-1]
        renew(file, "sampling_rate: &a [*a]\n")
        await eventually(lambda: "contains itself" in caplog.text, "the refusal")
        assert refused[-1]
        renew(file, "sampling_rate: 0.125\n")
        await eventually(lambda: taken == [0.125], "the rules after those")
        await eventually(lambda: not refused[-1], "that they are not refused")


def proxy(file: Path, port: int, uvicorn: int) -> list[str]:
    return govern(
        *("mirror", "proxy", "--config", str(file), "--listen", f"127.0.0.1:{port}"),
        *("--upstream", f"http://127.0.0.1:{uvicorn}"),
    )


APPLICATION = """
from pathlib import Path
from upstream_app import app as inner
from govern.mirror.asgi import MirrorMiddleware
from govern.mirror.reload import follow

app = MirrorMiddleware(inner, follow(Path({file!r})))
"""


def middleware(file: Path, port: int, uvicorn: int) -> list[str]:
    folder = file.with_name("theirs")
    folder.mkdir()
    (folder / "application.py").write_text(APPLICATION.format(file=str(file)))
    (folder / "upstream_app.py").write_text((HERE / "upstream_app.py").read_text())
    where = ["--app-dir", str(folder), "--port", str(port), "--log-level", "warning"]
    return [sys.executable, "-m", "uvicorn", "application:app", *where]


#: The command of a process that captures, which follows a file and listens on a port.
Way = Callable[[Path, int, int], list[str]]
WAYS = pytest.mark.parametrize("way", [proxy, middleware])


@WAYS
async def test_new_rules_under_load_lose_nothing_and_are_on_record(
    way: Way,
    make_config: Callable[..., MirrorConfig],
    bus_url: str,
    unique: str,
    spool_dir: Path,
    tmp_path: Path,
    uvicorn: int,
) -> None:
    # Segments of thousands of records: seconds, and a busy machine keeps the thread waiting that makes the next one.
    room = {"segment_bytes": 32 * SEGMENT_BYTES, "spool_bytes": 512 * SEGMENT_BYTES, "body_bytes": 256}
    config = make_config(bus=bus_url, namespace=unique, **room)
    file = tmp_path / "mirror.yaml"
    common = {
        "namespace": unique,
        "spool_dir": str(spool_dir),
        "bus": bus_url,
        **room,
        "drain_s": 20,
    }
    targets = [{"topic": f"{unique}-copy"}]
    file.write_text(json.dumps(common))
    port = free_port()
    capturing = Process(way(file, port, uvicorn), log=tmp_path / "capturing.log")
    metrics = free_port()
    shipper = Process(
        govern("mirror", "ship", "--config", str(file), "--metrics-listen", f"127.0.0.1:{metrics}"),
        log=tmp_path / "ship.log",
    )
    load_ = Load(port, room=lambda: half_empty(config))
    try:
        capturing.start(lambda _: listening(port))
        shipper.start(lambda text: "shipping" in text)
        load_.start()
        url = f"http://127.0.0.1:{metrics}/metrics"
        until(lambda: scrape(url).get("capture_shipped_total", 0) >= HUNDRED, "some records on the bus")
        renew(file, json.dumps({**common, "headers": ["x-request-id"], "fan_out": targets}))
        until(lambda: "new rules are taken over" in capturing.log(), "the process that captures to follow")
        until(lambda: "new rules are in force" in shipper.log(), "the shipper to follow")
        answered = load_.answered
        until(lambda: load_.answered >= answered + HUNDRED, "some answers under the new rules")
        load_.end()
        # Not within drain_s, which a busy broker exceeds.
        until(lambda: scrape(url)["capture_shipped_total"] >= load_.answered, "all records on the bus")
        capturing.stop()
        shipper.stop()
    finally:
        capturing.kill()
        shipper.kill()
        if load_.is_alive():
            load_.end()
    found = [record for _, record in await on_the_bus(config)]
    assert load_.wrong == []
    assert dropped_of(load_, found, rate=1.0) == 0
    with_header = [
        record.request_id for record in found if record.request.headers == {"x-request-id": record.request_id}
    ]
    assert with_header == load_.names()[-len(with_header) :]
    assert HUNDRED <= len(with_header) <= len(found) - HUNDRED
    copied = [record.request_id for _, record in await on_the_bus(config, f"{unique}-copy")]
    assert copied == load_.names()[-len(copied) :]
    assert HUNDRED <= len(copied) <= len(found) - HUNDRED
    async with open_bus(bus_url) as bus:
        (message,) = await bus.read(Partition(topic(unique, "config"), 0), 0)
    change = from_message(message)
    assert isinstance(change, ConfigChange)
    assert (change.subject, change.action) == ("capture/model", "changed")
    assert change.digest == digest(load(file, environ={}))
    assert change.detail.startswith("instead of ")


@WAYS
def test_a_file_that_is_refused_leaves_the_rules_in_force_and_shows_in_the_metrics(
    way: Way, unique: str, spool_dir: Path, tmp_path: Path, uvicorn: int
) -> None:
    file = tmp_path / "mirror.yaml"
    good = f"namespace: {unique}\nspool_dir: {spool_dir}\nbus: embedded://{tmp_path}/bus.db\nheaders: [x-request-id]\n"
    file.write_text(good)
    port, metrics = free_port(), free_port()
    capturing = Process(way(file, port, uvicorn), log=tmp_path / "capturing.log")
    shipper = Process(
        govern("mirror", "ship", "--config", str(file), "--metrics-listen", f"127.0.0.1:{metrics}"),
        log=tmp_path / "ship.log",
    )
    url = f"http://127.0.0.1:{metrics}/metrics"

    def answered(name: str) -> None:
        assert exchange(port, [request("/v2/models/echo/infer", headers=[f"X-Request-Id: {name}"])]).endswith(b"{}")

    try:
        capturing.start(lambda _: listening(port))
        shipper.start(lambda text: "shipping" in text)
        answered("before")  # the middleware begins with the first event
        until(lambda: scrape(url).get("capture_rules_refused") == 0, "that nobody refuses anything")
        renew(file, f"{good}sampling_rate: 7\nrules: []\n")
        until(lambda: scrape(url)["capture_rules_refused"] == 2, "that both refuse the file")
        for process in (capturing, shipper):
            assert f"is refused, the rules in force stay: {file}:5: sampling_rate" in process.log()
        answered("meanwhile")
        renew(file, good)
        until(lambda: scrape(url)["capture_rules_refused"] == 0, "that nobody refuses the file any more")
        until(lambda: scrape(url).get("capture_shipped_total") == 2, "both records on the bus")
    finally:
        capturing.stop()
        shipper.stop()


@WAYS
def test_a_file_that_takes_long_to_read_holds_no_request_up(
    way: Way, spool_dir: Path, tmp_path: Path, uvicorn: int
) -> None:
    file, pipe, after = tmp_path / "mirror.yaml", tmp_path / "pipe", tmp_path / "after.yaml"
    file.write_text(f"spool_dir: {spool_dir}\nheaders: [x-request-id]\n")
    after.write_text(f"spool_dir: {spool_dir}\n")
    port = free_port()
    capturing = Process(way(file, port, uvicorn), log=tmp_path / "capturing.log")

    def answered(name: str) -> None:
        assert exchange(port, [request("/v2/models/echo/infer", headers=[f"X-Request-Id: {name}"])]).endswith(b"{}")

    writers: list[int] = []

    def somebody_reads() -> bool:
        with contextlib.suppress(OSError):  # ENXIO: nobody does yet
            writers.append(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    try:
        capturing.start(lambda _: listening(port))
        answered("first")
        os.mkfifo(pipe)
        pipe.rename(file)
        until(somebody_reads, "the file to be read")
        for number in range(HUNDRED):
            answered(f"meanwhile-{number}")
        settings = after.read_bytes()
        after.rename(file)
        os.write(writers[0], settings)
        os.close(writers.pop())
        until(lambda: "new rules are taken over" in capturing.log(), "the new rules")
        answered("last")
    finally:
        for writer in writers:
            os.close(writer)
        capturing.stop()
    found = [(record.request_id, dict(record.request.headers)) for record in records([spool_dir])]
    before = ["first", *(f"meanwhile-{number}" for number in range(HUNDRED))]
    assert found == [*((name, {"x-request-id": name}) for name in before), ("last", {})]


async def test_rules_that_the_bus_refuses_leave_those_in_force(
    make_config: Callable[..., MirrorConfig], embedded_url: str, unique: str, caplog: pytest.LogCaptureFixture
) -> None:

    config = make_config(bus=embedded_url, namespace=unique)
    made, _ = make_shipper(config)
    recorder = open_recorder(config)
    capture(recorder, "r0")
    recorder.close()
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics([TopicSpec(name="state", compacted=True)])  # of another kind than a target
    made.apply(make_config(bus=embedded_url, namespace=unique, fan_out=[{"topic": "state"}]))
    stop = asyncio.Event()
    stop.set()
    await made.run(stop)
    assert "the new rules are refused" in caplog.text
    assert [record.request_id for _, record in await on_the_bus(config)] == ["r0"]
    async with open_bus(embedded_url) as bus:
        assert await bus.read(Partition(topic(unique, "config"), 0), 0) == []
