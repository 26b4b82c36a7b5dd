"""kill -9 of the sink and of the shipper, again and again: every acknowledged event is in exactly one record."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from govern.bus import Partition, open_bus
from govern.bus.topics import topic
from govern.codecs.cloudevents import from_message
from govern.codecs.inference import decode
from govern.mirror.config import MirrorConfig
from govern.record import Feedback, Inference
from govern.schema import Feature, FeatureSchema
from tests.mirror.conftest import BODY_BYTES, SEGMENT_BYTES, govern, until
from tests.mirror.sink.conftest import MakeConfig, entries, sides_of
from tests.mirror.sink.events import acknowledged, kserve, seldon
from tests.mirror.test_shipper import running, ship_all, total
from tests.services.process import Process, free_port, listening

FOUR = FeatureSchema(
    format_version=1, model="income", features=tuple(Feature(name=name, kind="numeric") for name in "abcd")
)
#: How many inferences each sender sends; one in five has no answer.
PER_SENDER = 120
KILLS = 6
SENDERS = 3


def sink_process(config: MirrorConfig, port: int, log: Path) -> Process:
    file = log.with_suffix(".yaml")
    file.write_text(
        f"spool_bytes: {config.spool_bytes}\nsegment_bytes: {SEGMENT_BYTES}\nbody_bytes: {BODY_BYTES}\n"
        f"namespace: {config.namespace}\nspool_dir: {config.spool_dir}\nsink: {{join_s: 3600}}\n"
    )
    return Process(govern("mirror", "sink", "--config", str(file), "--listen", f"127.0.0.1:{port}"), log=log)


class Senders:
    """Loggers behind a broker: what is not acknowledged is sent again, until it is."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent: set[tuple[str, str]] = set()
        self._allowed = 0
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(SENDERS)]

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Send in the block, up to what `some_more` lets through."""
        for thread in self._threads:
            thread.start()
        yield
        self._allowed = 1 << 30
        for thread in self._threads:
            thread.join()

    def some_more(self, count: int, *, under_way: int) -> None:
        """Let so many events through; return when all but the last of them, which are under way, are acknowledged."""
        self._allowed += count
        goal = self._allowed - under_way
        until(lambda: len(self.sent) >= goal or not self.busy, f"{goal} events acknowledged")

    def _send(self, number: int) -> None:
        source = random.Random(number)
        late: list[tuple[str, str, bytes]] = []
        for count in range(PER_SENDER):
            name = f"s{number}-{count}"
            events = [(name, "request", kserve("request", name))]
            if count % 5:
                events.append((name, "response", kserve("response", name)))
            if count % 10 == 1:
                events.append((name, "feedback", seldon("feedback", name, b'{"reward": 0.5}')))
            source.shuffle(events)
            late.append(events.pop())  # one of them comes later, as a rule in another run of the sink
            if len(late) > source.randrange(30):
                events.append(late.pop(source.randrange(len(late))))
            for event in events:
                self._deliver(event)
        for event in late:
            self._deliver(event)

    def _deliver(self, event: tuple[str, str, bytes]) -> None:
        name, side, data = event
        until(lambda: len(self.sent) < self._allowed, "leave to send")
        while not acknowledged(self._port, data):
            threading.Event().wait(0.01)
        self.sent.add((name, side))


def kill_again_and_again(
    senders: Senders, config: MirrorConfig, port: int, tmp_path: Path, *, with_shipper: bool
) -> None:
    source = random.Random(20261125)
    kills = 0
    with contextlib.ExitStack() as last, senders.sending():
        while senders.busy:
            process = sink_process(config, port, tmp_path / "sink.log")
            process.start(lambda _: listening(port))
            if kills == KILLS:
                last.callback(process.kill)
                return
            with running(config, tmp_path / "shipper.log") if with_shipper else contextlib.nullcontext():
                senders.some_more(source.randrange(20, 100), under_way=source.randrange(15))
                process.kill()
                kills += 1
    raise AssertionError("the events were all sent before the sink was killed often enough")


async def on_the_bus(config: MirrorConfig) -> tuple[list[Inference], list[Feedback]]:
    found: list[Inference] = []
    labels: list[Feedback] = []
    async with open_bus(config.bus) as bus:
        for name in (topic(config.namespace, "inferences"), topic(config.namespace, "feedback")):
            for number in range(await bus.partitions(name)):
                start = 0
                while messages := await bus.read(Partition(name, number), start):
                    start = messages[-1].offset + 1
                    for message in messages:
                        record = from_message(message)
                        if isinstance(record, Inference):
                            found.append(record)
                        else:
                            assert isinstance(record, Feedback)
                            labels.append(record)
    return found, labels


def check(senders: Senders, found: list[Inference], labels: list[Feedback]) -> None:
    counts = Counter(
        [(each.request_id, side) for each in found for side in ("request", "response") if side not in each.missing]
        + [(each.request_id, "feedback") for each in labels]
    )
    assert senders.sent == set(counts)
    assert [name for name, count in counts.items() if count > 1] == []
    # Halves that both came are in one record, whichever run of the sink each of them met.
    answered = {name for name, side in senders.sent if side == "response"}
    assert {each.request_id for each in found if each.missing == ()} == answered
    assert {each.missing for each in found} == {(), ("response",)}


async def test_kill_9_of_sink_and_shipper_then_one_record_each_on_the_bus_and_it_decodes(
    make_config: MakeConfig, bus_url: str, unique: str, tmp_path: Path
) -> None:
    config = make_config(bus=bus_url, namespace=unique, spool_bytes=1024 * SEGMENT_BYTES)
    port = free_port()
    senders = Senders(port)
    kill_again_and_again(senders, config, port, tmp_path, with_shipper=True)
    process = sink_process(config, port, tmp_path / "sink.log")
    process.start(lambda _: listening(port))
    process.stop()  # in order: what waits is recorded alone
    registry = await ship_all(config)
    found, labels = await on_the_bus(config)
    check(senders, found, labels)
    assert total(registry, "capture_captured_total") == total(registry, "capture_seen_total") == len(found)
    frame = decode(next(each for each in found if each.missing == ()), FOUR)
    assert frame.row(0) == {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert frame.outputs["p"].tolist() == [[0.1, 0.9]]
    by_agent: dict[str, list[int]] = {}
    for each in found:
        by_agent.setdefault(each.capture.agent, []).append(each.capture.seq)
    assert all(sorted(seqs) == list(range(len(seqs))) for seqs in by_agent.values())


async def test_kill_9_of_the_sink_alone_at_any_moment(make_config: MakeConfig, tmp_path: Path, spool_dir: Path) -> None:
    """No shipper: more kills a second, nearer to each other."""
    config = make_config(spool_bytes=2048 * SEGMENT_BYTES)
    port = free_port()
    senders = Senders(port)
    kill_again_and_again(senders, config, port, tmp_path, with_shipper=False)
    process = sink_process(config, port, tmp_path / "sink.log")
    process.start(lambda _: listening(port))
    process.stop()
    counts = Counter(name for entry in entries(spool_dir) for name in sides_of(entry))
    assert set(counts) == senders.sent
    assert set(counts.values()) == {1}
