"""Which request Seldon's feedback is about, what of it leaves the pod, and where to."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from govern.bus import Partition, open_bus
from govern.bus.topics import topic
from govern.codecs.cloudevents import from_message
from govern.mirror.redaction.keys import Keys
from govern.mirror.sink.half import heading_of
from govern.mirror.sink.inference import feedback_of
from govern.record import Feedback
from tests.mirror.sink.conftest import MakeConfig, StartSink
from tests.mirror.sink.events import seldon
from tests.mirror.test_shipper import ship_all, total

BODY = b'{"response": {"meta": {"puid": "of the body"}}, "reward": 1, "truth": {"data": {"ndarray": [[1]]}}}'


@pytest.mark.parametrize("of_the_event", ["", "of the event"])
def test_the_event_names_the_request_or_its_body_does(make_config: MakeConfig, of_the_event: str) -> None:
    attributes = {"specversion": "1.0", "id": "f-1", "source": "/seldon", "type": "io.seldon.serving.feedback"}
    if of_the_event:
        attributes["requestid"] = of_the_event
    heading = heading_of(attributes, {}, make_config(), now_ns=1)
    assert heading is not None
    feedback = feedback_of(heading, BODY, "bank")
    assert feedback.request_id == (of_the_event or "of the body")
    assert (feedback.namespace, feedback.label, feedback.reward) == ("bank", "1", 1.0)


SECRET = "planted-4711"
KEY = base64.b64encode(bytes(range(32))).decode()
ROW = {"data": {"names": ["ssn", "y"], "ndarray": [[SECRET, 1]]}}
#: Rules, a truth, the label that leaves, what the record says was done.
RULES = [
    ([{"tensor": "ssn", "action": "drop"}], ROW, "[null,1]", "truth.tensor(ssn) drop"),
    ([{"tensor": "ssn", "action": "encrypt"}], ROW, "[null,1]", "truth.tensor(ssn) drop"),
    ([{"path": "**.ssn", "action": "drop"}], {"jsonData": {"a": [{"ssn": SECRET}]}}, '{"a":[{"ssn":null}]}', None),
    ([{"path": "strData", "action": "hash"}], {"strData": SECRET}, Keys(bytes(range(32))).hash(SECRET), None),
    ([{"path": "strData", "action": "drop"}], {"strData": SECRET}, "", "truth withhold"),
    ([{"path": "jsonData.a", "action": "withhold"}], {"jsonData": {"a": SECRET}}, "", "truth withhold"),
    ([{"action": "withhold"}], {"strData": SECRET}, "", "truth withhold"),
    ([{"tensor": "ssn", "action": "drop"}], {"strData": SECRET}, "", "truth withhold"),
    ([{"path": "**.ssn", "action": "drop"}], {"strData": SECRET, "jsonData": None}, SECRET, ""),
    ([{"column": "ssn", "action": "drop"}], ROW, f'["{SECRET}",1]', ""),  # a rule for requests
    ([{"path": "**.ssn", "action": "drop"}], {"strData": SECRET * 2000}, "", "truth withhold"),  # too long to be read
    ([], ROW, f'["{SECRET}",1]', ""),
]


@pytest.mark.parametrize(("rules", "truth", "label", "done"), RULES)
async def test_the_shipper_redacts_a_truth_as_a_response_and_fans_it_out(
    start_sink: StartSink,
    embedded_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rules: list[dict[str, str]],
    truth: dict[str, object],
    label: str,
    done: str | None,
) -> None:
    monkeypatch.setenv("GOVERN_REDACTION_KEY", KEY)
    public = tmp_path / "audit.pub.pem"
    public.write_bytes(
        X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    sink = await start_sink(
        bus=embedded_url,
        namespace="bank",
        redaction={"rules": rules, "seal_to": public},
        fan_out=[
            {"topic": "labels", "filter": {"records": ["feedback"]}},
            {"namespace": "both", "filter": {"records": ["inferences", "feedback"], "model": "class*"}},
            {"topic": "none", "filter": {"records": ["feedback"], "service": "another"}},
            {"topic": "inferences"},
        ],
    )
    body = json.dumps({"reward": 0.5, "truth": truth}).encode()
    assert (await sink.send(seldon("feedback", "r1", body))).status == 202
    await sink.stop()
    await ship_all(sink.sink.config)
    for name in (topic("bank", "feedback"), topic("both", "feedback"), "labels"):
        (record,) = await feedback_in(embedded_url, name)
        assert (record.request_id, record.label, record.reward) == ("r1", label, 0.5)
        shown = [f"{each.path} {each.action}" for each in record.redactions]
        expected = done if done is not None else f"truth.{rules[0]['path']} {rules[0]['action']}"
        assert shown == ([expected] if expected else [])
    for name in ("none", "inferences", topic("both", "inferences")):
        assert await feedback_in(embedded_url, name) == []
    if SECRET not in label:
        assert [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []


async def test_a_destination_gets_feedback_by_its_own_rules_and_inferences_are_counted_without_it(
    start_sink: StartSink, embedded_url: str, tmp_path: Path
) -> None:
    second = f"embedded://{tmp_path / 'second.db'}"
    destination = {
        "name": "second",
        "bus": second,
        "filter": {"records": ["feedback"]},
        "redaction": {"rules": [{"tensor": "ssn", "action": "drop"}]},
    }
    rules = [{"tensor": "y", "action": "drop"}]
    sink = await start_sink(bus=embedded_url, namespace="bank", redaction={"rules": rules}, destinations=[destination])
    events = [seldon(side, "r1") for side in ("request", "response")]
    for event in [*events, seldon("feedback", "r1", json.dumps({"truth": ROW}).encode())]:
        assert (await sink.send(event)).status == 202
    await sink.stop()
    registry = await ship_all(sink.sink.config)
    (main,) = await feedback_in(embedded_url, topic("bank", "feedback"))
    (there,) = await feedback_in(second, topic("bank", "feedback"))
    assert (main.label, there.label) == (f'["{SECRET}",null]', "[null,null]")
    assert [each.path for each in there.redactions] == ["truth.tensor(y)", "truth.tensor(ssn)"]
    assert await feedback_in(second, topic("bank", "inferences")) == []
    assert total(registry, "capture_shipped_total") == total(registry, "destination_filtered_total") == 1
    assert total(registry, "destination_sent_total") == 0


async def feedback_in(url: str, name: str) -> list[Feedback]:
    async with open_bus(url) as bus:
        messages = [
            each for number in range(await bus.partitions(name)) for each in await bus.read(Partition(name, number), 0)
        ]
    found = [from_message(each) for each in messages]
    assert all(isinstance(each, Feedback) for each in found)
    return [each for each in found if isinstance(each, Feedback)]
