"""What loggers send over HTTP, and what the sink makes of it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
from pathlib import Path

import pytest

from govern.mirror.captured import CapturedFeedback
from govern.mirror.folder import held_bytes, in_memory
from govern.mirror.sink.event import time_ns
from tests.mirror.conftest import BODY_BYTES, SEGMENT_BYTES
from tests.mirror.sink.conftest import StartSink, entries
from tests.mirror.sink.events import (
    SAMPLES,
    SELDON_REQUEST,
    SELDON_RESPONSE,
    V2_REQUEST,
    V2_RESPONSE,
    kserve,
    kserve_headers,
    post,
    seldon,
    seldon_headers,
)

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
JSON = {"Content-Type": "application/cloudevents+json"}


@pytest.mark.parametrize("order", [("request", "response"), ("response", "request")])
async def test_what_kserves_agent_sent_becomes_one_inference(start_sink: StartSink, order: tuple[str, str]) -> None:
    """The bytes were recorded from the agent itself."""
    sink = await start_sink(namespace="bank")
    sent = {side: (SAMPLES / f"kserve-logger-{side}.http").read_bytes() for side in order}
    for side in order:
        assert (await sink.send(sent[side])).status == 202
    (found,) = sink.recorded()
    ident = "19b64182-e3e8-42f5-a68d-104c5f92731f"
    assert (found.namespace, found.service, found.model, found.endpoint) == ("bank", "isvc", "isvc", "default")
    assert (found.request_id, found.status_code, found.error, found.missing) == (ident, 200, "", ())
    assert found.capture.source == "kserve"
    assert found.t_request == time_ns("2026-11-24T00:18:39.563031467Z")
    assert found.t_response == time_ns("2026-11-24T00:18:39.563734945Z")
    for payload, side in ((found.request, "request"), (found.response, "response")):
        body = sent[side].partition(b"\r\n\r\n")[2]
        assert (payload.body, payload.size) == (body, len(body))
        assert payload.sha256 == hashlib.sha256(body).hexdigest()
    sink.sink.tick()  # the gauge is as of the last one
    assert (sink.count("joined_total"), sink.count("pending_halves")) == (1, 0)


async def test_seldons_halves_have_ids_of_their_own_and_are_joined_by_request_and_node(start_sink: StartSink) -> None:
    sink = await start_sink()
    for model in ("classifier", "scaler"):
        for side in ("response", "request"):
            data = seldon(side, "r1", modelid=model, traceparent=PARENT, endpoint="canary")
            assert (await sink.send(data)).status == 202
    found = {each.model: each for each in sink.recorded()}
    assert set(found) == {"classifier", "scaler"}
    one = found["classifier"]
    assert (one.service, one.request_id, one.endpoint, one.revision) == ("income", "r1", "canary", "")
    assert (one.protocol, one.traceparent, one.capture.source) == ("seldon-v1", PARENT, "seldon-v1")
    assert (one.request.body, one.response.body) == (SELDON_REQUEST, SELDON_RESPONSE)


async def test_older_seldon_names_its_predictor_and_puid_and_what_it_does_not_know(start_sink: StartSink) -> None:
    sink = await start_sink(service="fallback")
    for side in ("request", "response"):
        headers = seldon_headers(side, "x", specversion="0.2", inferenceservicename="NOTIMPLEMENTED")
        del headers["CE-requestid"], headers["CE-endpoint"]
        await sink.send(post({**headers, "Seldon-Puid": "puid-1", "CE-Predictor": "blue"}, SELDON_REQUEST))
    (found,) = sink.recorded()
    assert (found.request_id, found.revision, found.endpoint) == ("puid-1", "blue", "default")
    assert (found.service, found.model) == ("fallback", "classifier")


async def test_headers_annotations_and_attributes_are_kept_by_the_allow_list_only(start_sink: StartSink) -> None:
    sink = await start_sink(headers=["x-tenant", "ce-component", "team", "ce-recordedtime", "x-other"])
    metadata = json.dumps({"X-Tenant": ["t1", "t2"], "Authorization": ["Bearer secret"], "X-Request-Id": ["caller-1"]})
    annotations = json.dumps({"team": "risk", "note": "private"})
    recorded = "2026-11-24T00:18:40Z"
    for side in ("request", "response"):
        data = kserve(side, "h", metadata=metadata, annotations=annotations, recordedtime=recorded)
        assert (await sink.send(data)).status == 202
    (found,) = sink.recorded()
    kept = {"x-tenant": "t1", "ce-component": "predictor", "team": "risk", "ce-recordedtime": recorded}
    assert found.request.headers == found.response.headers == kept
    assert found.request_id == "caller-1"
    assert not any(b"secret" in path.read_bytes() for path in sink.spool_dir.rglob("*.seg"))


async def test_components_of_one_service_are_models_of_their_own(start_sink: StartSink) -> None:
    """A transformer passes the caller's ce-id on, so both loggers send the same id."""
    sink = await start_sink(sink={"qualify": True})
    for component in ("transformer", "predictor"):
        for side in ("request", "response"):
            await sink.send(kserve(side, "same", component=component))
    found = sink.recorded()
    assert {(each.service, each.model) for each in found} == {
        ("income.prod", "income-transformer"),
        ("income.prod", "income"),
    }


@pytest.mark.parametrize("declared", [True, False])
async def test_gzip_is_known_by_its_first_bytes(start_sink: StartSink, declared: bool) -> None:
    sink = await start_sink()
    packed = gzip.compress(V2_REQUEST)
    headers = kserve_headers("request", "g") | ({"Content-Encoding": "gzip"} if declared else {})
    await sink.send(post(headers, packed))
    await sink.send(kserve("response", "g"))
    (found,) = sink.recorded()
    assert (found.request.content_encoding, found.request.body) == ("gzip", packed)
    assert (found.response.content_encoding, found.response.body) == ("", V2_RESPONSE)


def envelope(side: str, ident: str, **fields: object) -> dict[str, object]:
    attributes = {
        name[3:].lower(): value for name, value in kserve_headers(side, ident).items() if name != "Content-Type"
    }
    return {**attributes, "datacontenttype": "application/json", **fields}


@pytest.mark.parametrize("packed", [False, True])
async def test_structured_mode_with_json_and_with_base64(start_sink: StartSink, packed: bool) -> None:
    sink = await start_sink()
    text = f'{json.dumps(envelope("request", "s"))[:-1]}, "data": {{"instances":[[1.50, 2]],  "é": 1}}}}'
    pack = gzip.compress if packed else bytes
    assert (await sink.send(post(JSON, pack(text.encode())))).status == 202
    data = base64.b64encode(V2_RESPONSE).decode()
    body = json.dumps(envelope("response", "s", data_base64=data)).encode()
    assert (await sink.send(post(JSON, pack(body)))).status == 202
    (found,) = sink.recorded()
    assert found.request.body == '{"instances":[[1.50, 2]],  "é": 1}'.encode()  # byte for byte
    assert (found.response.body, found.request.content_type) == (V2_RESPONSE, "application/json")
    assert found.request.content_encoding == ""


async def test_version_0_3_says_base64_in_another_way(start_sink: StartSink) -> None:
    sink = await start_sink()
    for side, data in (("request", V2_REQUEST), ("response", V2_RESPONSE)):
        encoded = base64.b64encode(data).decode()
        event = envelope(side, "v", specversion="0.3", datacontentencoding="base64", data=encoded)
        assert (await sink.send(post(JSON, json.dumps(event).encode()))).status == 202
    (found,) = sink.recorded()
    assert (found.request.body, found.response.body) == (V2_REQUEST, V2_RESPONSE)


async def test_a_batch_is_taken_whole_or_not_at_all(start_sink: StartSink) -> None:
    sink = await start_sink()
    batch = {"Content-Type": "application/cloudevents-batch+json"}
    good = [envelope(side, f"b{number}", data=number) for number in range(3) for side in ("request", "response")]
    bad = {**envelope("request", "b9"), "id": ""}
    refused = await sink.send(post(batch, json.dumps([*good, bad]).encode()))
    assert refused.status == 400
    assert "event 6 of the batch" in str(refused.problem["detail"])
    assert (sink.recorded(), sink.count("pending_halves")) == ([], 0)
    assert (await sink.send(post(batch, json.dumps(good).encode()))).status == 202
    assert sorted(each.request_id for each in sink.recorded()) == ["b0", "b1", "b2"]


async def test_a_body_over_the_limit_keeps_a_prefix_its_size_and_its_digest(start_sink: StartSink) -> None:
    sink = await start_sink(sink={"event_bytes": 4_000_000})
    big = os.urandom(3_000_000)
    assert (await sink.send(kserve("request", "big", big))).status == 202
    assert (await sink.send(kserve("response", "big"))).status == 202
    (found,) = sink.recorded()
    assert (found.truncated, found.request.size, found.request.body) == (("request",), len(big), big[:BODY_BYTES])
    assert found.request.sha256 == hashlib.sha256(big).hexdigest()
    refused = await sink.send(kserve("request", "bigger", bytes(4_000_001)))
    assert refused.status == 413
    assert "sink.event_bytes" in str(refused.problem["detail"])
    assert sink.count("malformed_total") == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"Ce-id": ""}, "id"),
        ({"Ce-type": ""}, "type"),
        ({"Ce-source": ""}, "source"),
        ({"Ce-specversion": "9"}, "specversion"),
        ({"Ce-time": "yesterday"}, "time"),
        ({"Ce-metadata": "{"}, "metadata"),
        ({"Ce-metadata": '{"a": 7}'}, "metadata"),
        ({"Ce-annotations": "[1]"}, "annotations"),
        ({"Ce-metadata": f'"{"x" * 20_000}"'}, "metadata"),
    ],
)
async def test_a_malformed_event_is_refused_by_the_attributes_name(
    start_sink: StartSink, change: dict[str, str], named: str
) -> None:
    sink = await start_sink()
    refused = await sink.send(post(kserve_headers("request", "m") | change, V2_REQUEST))
    assert refused.status == 400
    assert refused.problem["title"] == f"CloudEvents attribute {named!r}"
    assert (sink.count("malformed_total"), sink.count("pending_halves")) == (1, 0)


#: Without the time: it would be in the test's name, and workers that run side by side must agree on the names.
CUT_SHORT = gzip.compress(b"{}", mtime=0)[:-9]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\x1f\x8bno gzip", CUT_SHORT, b"{}"])
async def test_an_envelope_that_is_none_is_refused(start_sink: StartSink, body: bytes) -> None:
    sink = await start_sink()
    assert (await sink.send(post(JSON, body))).status == 400


async def test_seldons_halves_without_a_request_id_cannot_be_joined_and_are_refused(start_sink: StartSink) -> None:
    sink = await start_sink()
    refused = await sink.send(seldon("request", "r", requestid="NOTIMPLEMENTED"))
    assert (refused.status, refused.problem["title"]) == (400, "CloudEvents attribute 'requestid'")


async def test_other_types_are_acknowledged_counted_and_not_recorded(start_sink: StartSink) -> None:
    """A trigger without a filter must not make the broker repeat what nobody will ever take."""
    sink = await start_sink(sink={"join_s": 0.01})
    assert (await sink.send(seldon("request", "r", type="io.seldon.serving.inference.outlier"))).status == 202
    assert sink.count("ignored_total") == 1
    assert sink.recorded() == []


async def test_a_half_whose_other_never_comes_is_recorded_alone_and_a_late_one_too(start_sink: StartSink) -> None:
    sink = await start_sink(sink={"join_s": 0.05})
    await sink.send(kserve("request", "o1"))
    (alone,) = await sink.until_recorded(1)
    assert (alone.missing, alone.status_code, alone.t_response) == (("response",), 0, alone.t_request)
    assert "did not come within 0.05 s" in alone.error
    await sink.send(kserve("response", "o1"))  # too late to be joined: it does not wait again
    _, late = sink.recorded()
    assert (late.request_id, late.missing, late.status_code) == ("o1", ("request",), 200)
    assert late.response.body == V2_RESPONSE
    for side in ("request", "response"):
        assert (await sink.send(kserve(side, "o1"))).status == 202
    assert len(sink.recorded()) == 2
    assert (sink.count("orphaned_total"), sink.count("duplicates_total")) == (2, 2)


async def test_events_delivered_again_are_recorded_once(start_sink: StartSink) -> None:
    sink = await start_sink()
    for side in ("request", "request", "response", "response", "request"):
        assert (await sink.send(kserve(side, "d"))).status == 202
    assert [each.request_id for each in sink.recorded()] == ["d"]
    assert sink.count("duplicates_total") == 3


@pytest.mark.parametrize("limits", [{"pending": 2}, {"pending_bytes": 2 * len(V2_REQUEST)}])
async def test_past_the_limit_events_are_refused_and_taken_once_there_is_room(
    start_sink: StartSink, limits: dict[str, int]
) -> None:
    sink = await start_sink(sink=limits)
    for number in range(2):
        assert (await sink.send(kserve("request", f"p{number}"))).status == 202
    refused = await sink.send(kserve("request", "p2"))
    assert (refused.status, refused.headers["retry-after"]) == (503, "2")
    assert "sink.pending" in str(refused.problem["detail"])
    assert sink.count("refused_total") == 1
    assert (await sink.send(kserve("response", "p0"))).status == 202  # the other half of a waiting one makes room
    assert (await sink.send(kserve("request", "p2"))).status == 202
    await sink.stop()
    assert sorted((each.request_id, each.missing) for each in sink.recorded()) == [
        ("p0", ()),
        ("p1", ("response",)),
        ("p2", ("response",)),
    ]


async def test_a_full_spool_refuses_and_loses_nothing(start_sink: StartSink) -> None:
    sink = await start_sink(spool_bytes=4 * SEGMENT_BYTES, sink={"pending": 10}, drain_s=0.2)
    taken, number = [], 0
    while True:
        number += 1
        status = (await sink.send(kserve("request", f"f{number}", os.urandom(6000)))).status
        if status == 202:
            taken.append(f"f{number}")
            await sink.send(kserve("response", f"f{number}", os.urandom(6000)))
        elif sink.sink.spool.ahead == 0 and held_bytes(sink.spool_dir) == 4 * SEGMENT_BYTES:
            break  # and not because the next segment is just being made
    assert status == 503
    async with asyncio.timeout(60):
        health = await sink.send(b"GET /healthz HTTP/1.1\r\nHost: sink\r\n\r\n")
    assert health.status == 503
    lying = {each.request_id for each in sink.recorded()}
    assert len(lying) < len(taken)
    for path in sorted(sink.spool_dir.glob("*.seg"))[:2]:  # as the shipper does
        path.unlink()
    async with asyncio.timeout(60):
        while (lying := lying | {each.request_id for each in sink.recorded()}) < set(taken):
            await asyncio.sleep(0.01)
    assert lying == set(taken)
    assert sink.sink.spool.counts.dropped == 0


async def test_sampling_leaves_both_halves_out_without_keeping_a_byte(start_sink: StartSink) -> None:
    sink = await start_sink(sampling_rate=0.5, sampling={"errors_rate": 0})
    for number in range(100):
        for side in ("request", "response"):
            await sink.send(kserve(side, f"s{number}"))
    counts = sink.sink.spool.counts
    assert counts.captured == len(sink.recorded())
    assert (counts.seen, counts.dropped) == (100, 0)
    assert 20 < counts.sampled_out < 80


async def test_an_inference_without_an_answer_is_an_error_to_sampling(start_sink: StartSink) -> None:
    sink = await start_sink(sampling_rate=0)
    for side in ("request", "response"):
        await sink.send(kserve(side, "whole"))
    await sink.send(kserve("request", "failed"))
    await sink.stop()  # before its other half could have come
    (found,) = sink.recorded()
    assert (found.request_id, found.sampling.strategy, found.sampling.rate) == ("failed", "errors", 1.0)
    assert sink.sink.spool.counts == (1, 1, 0)


async def test_health_metrics_and_what_is_no_event(start_sink: StartSink) -> None:
    sink = await start_sink()
    await sink.send(kserve("request", "w"))
    assert (await sink.send(b"GET /healthz HTTP/1.1\r\nHost: sink\r\n\r\n")).body == b"ok\n"
    assert (await sink.send(b"GET / HTTP/1.1\r\nHost: sink\r\n\r\n")).status == 405
    page = await sink.send(b"GET /metrics HTTP/1.1\r\nHost: sink\r\n\r\n")
    assert page.status == 200
    assert b"govern_sink_refused_total" in page.body


@pytest.mark.parametrize("request_mode", ["binary", "structured"])
@pytest.mark.parametrize("response_mode", ["binary", "structured"])
async def test_what_cncfs_sdk_sends_is_taken(start_sink: StartSink, request_mode: str, response_mode: str) -> None:
    """The bytes are of the `cloudevents` package: see samples/make_sdk_samples.py."""
    sink = await start_sink(headers=["x-tenant"])
    for side, mode in (("request", request_mode), ("response", response_mode)):
        assert (await sink.send((SAMPLES / f"sdk-{mode}-{side}.http").read_bytes())).status == 202
    (found,) = sink.recorded()
    assert (found.service, found.endpoint, found.request_id) == ("income", "default", "sdk-1")
    assert found.request.headers == {"x-tenant": 'Zürich "a" 100%'}
    assert json.loads(found.request.body) == {"instances": [[1, 2, 3, 4]]}
    assert json.loads(found.response.body) == {"predictions": [0.9]}


FEEDBACK = [
    ({"reward": 0.5, "truth": {"data": {"ndarray": [[1]]}}}, "1", 0.5),
    ({"truth": {"data": {"names": ["y"], "tensor": {"shape": [2], "values": [0.0, 1.0]}}}}, "[0.0,1.0]", 0.0),
    ({"request": {}, "truth": {"strData": "cat"}}, "cat", 0.0),
    ({"truth": {"jsonData": {"class": "cat"}}}, '{"class":"cat"}', 0.0),
    ({"reward": 1}, "", 1.0),
]


@pytest.mark.parametrize(("body", "label", "reward"), FEEDBACK)
async def test_seldons_feedback_becomes_a_label_and_a_reward(
    start_sink: StartSink, body: object, label: str, reward: float
) -> None:
    sink = await start_sink(namespace="bank")
    packed = gzip.compress(json.dumps(body).encode())
    for _ in range(2):
        assert (await sink.send(seldon("feedback", "r1", packed, time="2026-11-24T00:18:39Z"))).status == 202
    (entry,) = entries(sink.spool_dir)
    assert isinstance(entry, CapturedFeedback)
    found = entry.feedback
    assert (found.namespace, found.service, found.model, found.request_id) == ("bank", "income", "classifier", "r1")
    assert (found.label, found.reward, found.t_feedback) == (label, reward, time_ns("2026-11-24T00:18:39Z"))
    assert sink.sink.spool.counts.seen == 0  # feedback is no inference
    assert (sink.count("feedback_total"), sink.count("duplicates_total")) == (1, 1)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"reward": "much"}', b'{"truth": 3}'])
async def test_feedback_that_is_none_is_refused(start_sink: StartSink, body: bytes) -> None:
    sink = await start_sink()
    refused = await sink.send(seldon("feedback", "r1", body))
    assert (refused.status, refused.problem["title"]) == (400, "CloudEvents attribute 'data'")


@pytest.mark.parametrize("kept", [True, False])
async def test_at_the_end_halves_that_wait_are_recorded_or_kept_as_configured(
    start_sink: StartSink, kept: bool
) -> None:
    sink = await start_sink(sink={"on_stop": "keep" if kept else "record"})
    await sink.send(kserve("request", "w"))
    await sink.stop()
    assert [each.missing for each in sink.recorded()] == ([] if kept else [("response",)])
    again = await start_sink()
    await again.send(kserve("response", "w"))
    found = sorted(each.missing for each in again.recorded())
    assert found == ([()] if kept else [("request",), ("response",)])


async def test_what_rules_take_out_lies_on_no_disk_while_halves_wait(
    start_sink: StartSink, tmp_path: Path, spool_dir: Path
) -> None:
    """Where the spool is on no tmpfs its segments are encrypted; the journal's are, too, and are read back."""
    spool_dir.parent.mkdir(exist_ok=True)
    disk = tmp_path / "spool"
    if in_memory(tmp_path):
        pytest.skip("the tests' temporary folder is on tmpfs: there is no disk to look at")
    rules = {"rules": [{"path": "*", "action": "drop"}], "spool_key_dir": spool_dir.parent}
    options = {"spool_dir": disk, "redaction": rules, "sink": {"on_stop": "keep"}}
    sink = await start_sink(**options)
    await sink.send(kserve("request", "secret-id", b'{"inputs": "planted-secret"}'))
    await sink.stop()
    lying = [path.read_bytes() for path in disk.rglob("*.seg")]
    assert lying
    assert not any(b"planted-secret" in data or b"secret-id" in data for data in lying)
    again = await start_sink(**options)
    assert again.sink.pending == 1
    await again.send(kserve("response", "secret-id"))
    assert again.sink.spool.counts.captured == 1
    assert again.count("joined_total") == 1


async def test_what_is_being_read_is_bounded_and_given_back_also_by_who_leaves(start_sink: StartSink) -> None:
    size = 20_000
    sink = await start_sink(sink={"event_bytes": size, "buffer_bytes": size})
    body = json.dumps(envelope("request", "slow", data="x" * (size - 1000))).encode().ljust(size)
    for leaves in (True, False):
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(post(JSON, body)[:-1])
        await writer.drain()
        async with asyncio.timeout(60):  # until the server has begun to read it
            while (refused := await sink.send(kserve("request", "other"))).status != 503:
                await asyncio.sleep(0.01)
        assert "sink.buffer_bytes" in str(refused.problem["detail"])
        if not leaves:
            writer.write(body[-1:])
            assert (await reader.readline()).startswith(b"HTTP/1.1 202")
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(60):
            while (await sink.send(kserve("request", "other"))).status != 202:
                await asyncio.sleep(0.01)
    await sink.stop()
    assert sorted(each.request_id for each in sink.recorded()) == ["other", "slow"]
