"""Traffic goes on whoever stands still, and its account is exact: real processes, a real broker, a frozen disk."""

from __future__ import annotations

import http.client
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from govern.mirror.config import MirrorConfig
from govern.mirror.folder import held_bytes
from govern.mirror.sampling import Fate, Shares
from govern.record import Inference
from tests.mirror.conftest import DEADLINE_S, SEGMENT_BYTES, until
from tests.mirror.test_shipper import on_the_bus, running, scrape
from tests.services.kafka import Kafka
from tests.services.process import Process, free_port

#: Answered while a party stands still; one that the request path waited for would let at most one through.
ENOUGH = 300
#: 30 records fill a segment's worth of memory soon: the spool's limit is reached while a party stands still.
BODY = b"x" * 8000
RATE = 0.9


class Load(threading.Thread):
    """A client on one connection, one request after the other: r0, r1 ... and what it was answered.

    Args:
        room: whether to ask on; where nothing may be dropped, a client waits for a shipper that is slower than it is.
    """

    def __init__(self, port: int, *, room: Callable[[], bool] = lambda: True) -> None:
        super().__init__()
        self._port = port
        self._room = room
        self._ending = threading.Event()
        self.answered = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        with suppress(ConnectionError, http.client.HTTPException):  # a proxy that ends closes the connection
            while not self._ending.is_set():
                if not self._room():
                    self._ending.wait(0.01)
                    continue
                connection.request("POST", "/v2/models/echo/infer", BODY, {"X-Request-Id": f"r{self.answered}"})
                answer = connection.getresponse()
                if answer.status != 200 or answer.read() != BODY:
                    self.wrong.append(f"r{self.answered}: {answer.status}")
                self.answered += 1
        connection.close()

    def names(self) -> list[str]:
        """The ids of the requests that were answered."""
        return [f"r{number}" for number in range(self.answered)]

    def goes_on(self) -> None:
        """Wait until many more are answered."""
        answered = self.answered
        until(lambda: self.answered >= answered + ENOUGH, "requests to be answered")

    def end(self) -> None:
        self._ending.set()
        self.join()


class Scraper(threading.Thread):
    """Reads the metrics all the time and keeps those whose account does not add up."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._ending = threading.Event()
        self.scrapes = 0
        self.wrong: list[dict[str, float]] = []

    def run(self) -> None:
        while not self._ending.wait(0.02):
            with suppress(OSError):  # no answer: the shipper stands still
                shown = scrape(self._url)
                self.scrapes += 1
                parts = ("captured", "sampled_out", "dropped")
                if shown["capture_seen_total"] != sum(shown[f"capture_{part}_total"] for part in parts):
                    self.wrong.append(shown)

    def end(self) -> None:
        self._ending.set()
        self.join()


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A file system of its own, that can be frozen."""
    image, mount = folder / "disk.img", folder / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    mount.chmod(0o700)
    try:
        (mount / "lost+found").rmdir()
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


@contextmanager
def frozen(mount: Path) -> Iterator[None]:
    """Whoever writes there waits, and cannot even be killed meanwhile."""
    subprocess.run(["fsfreeze", "--freeze", mount], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", mount], check=True)


def waits_for_the_disk(pid: int) -> bool:
    """Whether a thread of the process is in uninterruptible sleep."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
            if path.read_text().rpartition(")")[2].split()[0] == "D":
                return True
    return False


@pytest.fixture
def loaded(
    make_config: Callable[..., MirrorConfig],
    spool_dir: Path,
    tmp_path: Path,
    uvicorn: int,
    proxy_process: Callable[..., Process],
) -> Callable[..., tuple[MirrorConfig, Process, Load]]:
    """A proxy with a small spool, and a client that has begun to ask."""

    def start(*, dropping: bool = True, **values: object) -> tuple[MirrorConfig, Process, Load]:
        config = make_config(**{"spool_bytes": 16 * SEGMENT_BYTES, "sampling_rate": RATE, **values})
        file = tmp_path / "proxy.yaml"
        file.write_text(
            f"spool_bytes: {config.spool_bytes}\nsegment_bytes: {config.segment_bytes}\n"
            f"body_bytes: {config.body_bytes}\nsampling_rate: {RATE}\nnamespace: {config.namespace}\n"
        )
        port = free_port()
        proxy = proxy_process(port, uvicorn, "--config", str(file))
        return config, proxy, Load(port) if dropping else Load(port, room=lambda: half_empty(config))

    return start


@pytest.mark.kafka
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting and freezing a file system needs root")
async def test_requests_go_on_while_shipper_broker_and_disk_stand_still(
    loaded: Callable[..., tuple[MirrorConfig, Process, Load]], tmp_path: Path
) -> None:
    with Kafka() as kafka, disk(tmp_path) as mount:
        config, proxy, load = loaded(bus=kafka.url, disk_dir=mount)
        with running(config, tmp_path / "shipper.log", disk_dir=mount) as (shipper, metrics):
            until(lambda: "capture_seen_total" in scrape(metrics), "the shipper to see the proxy")
            scraper = Scraper(metrics)
            scraper.start()
            load.start()
            try:
                load.goes_on()
                catches_up(metrics)

                shipper.pause()
                load.goes_on()
                shipper.resume()
                catches_up(metrics)

                kafka.pause()
                until(lambda: any(mount.glob("*.seg")), "segments to move to the disk")
                load.goes_on()
                with frozen(mount):
                    until(lambda: waits_for_the_disk(shipper.pid), "the shipper to wait for the disk")
                    load.goes_on()
                load.goes_on()
                kafka.resume()
                catches_up(metrics)
                until(lambda: scraper.scrapes > 20, "enough scrapes to compare")
            finally:
                shipper.resume()
                kafka.resume()
                load.end()
                scraper.end()
            proxy.stop()
            shipper.stop()
        found = [record for _, record in await on_the_bus(config)]
    assert load.wrong == []
    assert scraper.wrong == []
    assert dropped_of(load, found) > 0, "the spool's limit was never reached"


def half_empty(config: MirrorConfig) -> bool:
    """Whether the spool has room for more than is under way."""
    return held_bytes(config.spool_dir) < config.spool_bytes // 2


def catches_up(metrics: str) -> None:
    goal = scrape(metrics)["capture_captured_total"]
    until(lambda: scrape(metrics).get("capture_shipped_total", 0) >= goal, "the shipper to catch up")


def dropped_of(load: Load, found: list[Inference], *, rate: float = RATE) -> int:
    """How many were dropped; each request is on the bus once, left out by its id, or counted before the next one."""
    assert [each.capture.seq for each in found] == list(range(len(found)))
    at = {each.request_id: each.capture.dropped_before for each in found}
    assert len(at) == len(found)
    shares, dropped = Shares(rate, 1.0), 0
    for name in load.names():
        if name in at:
            assert at[name] == dropped, f"{name} counts other drops than there were"
        elif shares.fate(name) is Fate.KEPT:
            dropped += 1
    return dropped


@pytest.mark.kafka
async def test_a_broker_that_was_away_gets_all_of_it_and_one_that_hangs_holds_no_pod_up(
    loaded: Callable[..., tuple[MirrorConfig, Process, Load]], tmp_path: Path
) -> None:
    with Kafka() as kafka:
        config, proxy, load = loaded(bus=kafka.url, drain_s=1.0)
        with running(config, tmp_path / "shipper.log") as (shipper, metrics):
            until(lambda: "capture_seen_total" in scrape(metrics), "the shipper to see the proxy")
            load.start()
            try:
                load.goes_on()
                kafka.kill()
                load.goes_on()
                kafka.start()
                catches_up(metrics)
                kafka.pause()
                load.goes_on()
                shipper.terminate()
                assert shipper.wait() == 0
                assert "records wait in the spool" in shipper.log()
                load.goes_on()
            finally:
                load.end()
                kafka.resume()
        proxy.stop()
        patient = config.model_copy(update={"drain_s": DEADLINE_S})
        with running(patient, tmp_path / "shipper.log") as (shipper, _):
            shipper.terminate()
            assert shipper.wait() == 0
            assert "wait in the spool" not in shipper.log()
        found = [record for _, record in await on_the_bus(config)]
    assert load.wrong == []
    dropped_of(load, found)


async def test_all_that_was_answered_is_on_the_bus_when_a_pod_has_shut_down(
    loaded: Callable[..., tuple[MirrorConfig, Process, Load]], bus_url: str, tmp_path: Path, unique: str
) -> None:
    """Proxy and shipper are asked to end at the same moment, under load, as when Knative scales to zero."""
    # Segments that last longer than a busy machine keeps the thread waiting that makes the next one.
    room = {"segment_bytes": 32 * SEGMENT_BYTES, "spool_bytes": 512 * SEGMENT_BYTES}
    config, proxy, load = loaded(bus=bus_url, namespace=unique, drain_s=DEADLINE_S, dropping=False, **room)
    with running(config, tmp_path / "shipper.log") as (shipper, _):
        load.start()
        until(lambda: load.answered >= 50, "some answers")
        shipper.terminate()
        proxy.terminate()
        assert proxy.wait() == 0
        assert shipper.wait() == 0
        load.end()
        assert "wait in the spool" not in shipper.log()
    assert load.wrong == []
    found = [record for _, record in await on_the_bus(config)]
    assert dropped_of(load, found) == 0
