"""From an exchange to a record, and the account of those that were not kept."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from govern.errors import Unavailable
from govern.mirror.body import Body, Hold
from govern.mirror.config import RECORD_OVERHEAD_BYTES, MirrorConfig
from govern.mirror.folder import held_bytes
from govern.mirror.inspect import inspect_agents, inspect_segments
from govern.mirror.recorder import Exchange, Recorder, open_recorder
from govern.mirror.sampling import Fate, Shares
from tests.mirror.conftest import BODY_BYTES, SEGMENT_BYTES, records, segment_files, until

INFER = b"/v2/models/income/infer"
MakeConfig = Callable[..., MirrorConfig]


def play(
    recorder: Recorder,
    target: bytes = INFER,
    body: bytes = b"{}",
    *,
    error: str = "",
    status: int = 200,
    **headers: str,
) -> bool:
    """One exchange; whether it is an inference."""
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    exchange = recorder.begin(b"POST", target, named)
    if exchange is None:
        return False
    exchange.request_body(body)
    exchange.response_head(status, {b"content-type": b"application/json"})
    exchange.response_body(body)
    exchange.finish(error)
    return True


def test_a_record_says_all_that_was_seen(make_config: MakeConfig, spool_dir: Path) -> None:
    recorder = open_recorder(make_config(namespace="bank", service="loans", revision="r7", endpoint="canary"))
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    play(
        recorder,
        b"/v2/models/inc%6Fme/versions/3/infer?debug=1",
        b'{"inputs":[]}',
        x_request_id="req-1",
        traceparent=parent,
        content_type="application/json",
        content_encoding="gzip",
    )
    recorder.close()
    (found,) = records([spool_dir])
    assert (found.namespace, found.service, found.model, found.revision) == ("bank", "loans", "income", "r7")
    assert (found.endpoint, found.protocol, found.path) == ("canary", "v2", "/v2/models/inc%6Fme/versions/3/infer")
    assert (found.request_id, found.traceparent, found.status_code) == ("req-1", parent, 200)
    assert (found.request.content_type, found.request.content_encoding) == ("application/json", "gzip")
    assert found.request.body == b'{"inputs":[]}'
    assert found.request.sha256 == hashlib.sha256(b'{"inputs":[]}').hexdigest()
    assert found.t_request <= found.t_response
    assert (found.capture.pod, found.capture.seq, found.capture.dropped_before) == ("pod-1", 0, 0)
    assert (found.sampling.rate, found.sampling.strategy, found.truncated, found.synthetic) == (1.0, "all", (), False)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", found.id)


@pytest.mark.parametrize(
    ("target", "protocol", "model"),
    [
        (b"/v1/models/m:predict", "v1", "m"),
        (b"/v1/models/m:explain", "v1", "m"),
        (b"/v2/models/a%20b/infer", "v2", "a b"),
        (b"/v2/models/m/versions/9/infer", "v2", "m"),
    ],
)
def test_inference_paths_are_captured(
    make_config: MakeConfig, spool_dir: Path, target: bytes, protocol: str, model: str
) -> None:
    recorder = open_recorder(make_config())
    play(recorder, target)
    recorder.close()
    (found,) = records([spool_dir])
    assert (found.protocol, found.model) == (protocol, model)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b"/v2/models/m/infer"),
        (b"POST", b"/v2/models/m/ready"),
        (b"POST", b"/v2/models/m/infer/more"),
        (b"POST", b"/x/v1/models/m:predict"),
        (b"POST", b"/metrics"),
    ],
)
def test_other_requests_are_not(make_config: MakeConfig, method: bytes, target: bytes) -> None:
    recorder = open_recorder(make_config())
    assert recorder.begin(method, target, {}) is None
    assert recorder.spool.counts.seen == 0
    recorder.close()


def test_a_rule_of_ones_own(make_config: MakeConfig, spool_dir: Path) -> None:
    rule = {"path": r"/score/(?P<model>\w+)", "method": "PUT", "protocol": "mine"}
    recorder = open_recorder(make_config(rules=[rule]))
    exchange = recorder.begin(b"PUT", b"/score/abc", {})
    assert exchange is not None
    exchange.finish("gone")
    assert not play(recorder)
    recorder.close()
    (found,) = records([spool_dir])
    assert (found.protocol, found.model, found.error, found.status_code) == ("mine", "abc", "gone", 0)


def test_a_long_body_keeps_its_prefix_its_size_and_its_digest(make_config: MakeConfig, spool_dir: Path) -> None:
    recorder = open_recorder(make_config())
    exchange = recorder.begin(b"POST", INFER, {})
    assert exchange is not None
    parts = [bytes([number]) * 1000 for number in range(50)]
    for part in parts:
        exchange.request_body(part)
    exchange.response_head(200, {})
    exchange.response_body(b"y" * BODY_BYTES)
    exchange.finish()
    recorder.close()
    (found,) = records([spool_dir])
    whole = b"".join(parts)
    assert found.request.body == whole[:BODY_BYTES]
    assert (found.request.size, found.request.sha256) == (50_000, hashlib.sha256(whole).hexdigest())
    assert found.response.body == b"y" * BODY_BYTES
    assert found.truncated == ("request",)


@pytest.mark.parametrize(
    ("headers", "synthetic"),
    [
        ({"govern_synthetic": "1"}, True),
        ({"seldon_skip_logging": "True"}, True),
        ({"govern_synthetic": "0"}, False),
    ],
)
def test_synthetic_traffic_is_marked(
    make_config: MakeConfig, spool_dir: Path, headers: dict[str, str], synthetic: bool
) -> None:
    recorder = open_recorder(make_config())
    play(recorder, **headers)
    recorder.close()
    assert records([spool_dir])[0].synthetic is synthetic


@pytest.mark.parametrize("parent", ["", "00-x-y-01", f"ff-{'a' * 32}-{'b' * 16}-01", f"00-{'0' * 32}-{'b' * 16}-01"])
def test_without_a_valid_parent_the_trace_is_new(make_config: MakeConfig, spool_dir: Path, parent: str) -> None:
    recorder = open_recorder(make_config())
    play(recorder, traceparent=parent)
    play(recorder, traceparent=parent)
    recorder.close()
    first, second = records([spool_dir])
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", first.traceparent)
    assert first.traceparent != second.traceparent


def test_only_the_headers_of_the_allow_list_are_kept_and_only_whole(make_config: MakeConfig, spool_dir: Path) -> None:
    recorder = open_recorder(make_config(headers=["X-Tenant", "x-long", "traceparent"]))
    play(recorder, x_tenant="bank", x_long="y" * 4000, authorization="Bearer secret")
    recorder.close()
    (found,) = records([spool_dir])
    assert found.request.headers == {"x-tenant": "bank"}
    assert found.response.headers == {}
    assert found.capture.source == "proxy"


def test_text_of_a_caller_takes_no_more_than_its_room_in_a_record(make_config: MakeConfig, spool_dir: Path) -> None:
    recorder = open_recorder(make_config())
    exchange = recorder.begin(b"POST", INFER, {b"x-request-id": b"\xff" * 4000, b"content-type": b"\xfe" * 4000})
    assert exchange is not None
    exchange.response_head(200, {})
    exchange.finish()
    recorder.close()
    (found,) = records([spool_dir])
    assert 1000 < len(found.request_id.encode()) <= 1024
    assert len(found.request.content_type.encode()) <= 512


def test_headers_that_no_record_has_room_for_make_no_longer_frame(make_config: MakeConfig, spool_dir: Path) -> None:
    config = make_config(headers=["x-a", "x-b", "x-c"])
    recorder = open_recorder(config)
    long = dict.fromkeys(("x_a", "x_request_id", "content_type", "traceparent"), "v" * 60000)
    play(recorder, x_b="kept", x_c="w" * 2000, **long)
    assert recorder.spool.counts == (1, 0, 0)
    recorder.close()
    (found,) = records([spool_dir])
    assert found.request.headers == {"x-b": "kept", "x-c": "w" * 2000}
    assert (found.request_id, found.request.content_type) == ("v" * 1024, "v" * 512)
    (segment,) = inspect_segments([spool_dir])
    (frame,) = segment.frames()
    assert frame.stop - frame.start < 2 * BODY_BYTES + RECORD_OVERHEAD_BYTES


def test_the_record_of_a_frame_is_the_same_whenever_it_is_made(make_config: MakeConfig, spool_dir: Path) -> None:
    recorder = open_recorder(make_config())
    play(recorder, body=b"{}")
    recorder.close()
    first, again = records([spool_dir]) + records([spool_dir])
    assert first == again
    assert first.request.sha256 == hashlib.sha256(b"{}").hexdigest()
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", first.traceparent)


def test_sampling_is_by_request_id_and_the_same_everywhere(make_config: MakeConfig, spool_dir: Path) -> None:
    ids = [f"id-{number}" for number in range(2000)]
    chosen = {name for name in ids if Shares(0.25, 0.25).fate(name) is Fate.KEPT}
    assert 400 < len(chosen) < 600
    assert chosen <= {name for name in ids if Shares(0.5, 0.5).fate(name) is Fate.KEPT}  # raising the rate only adds
    recorders = [open_recorder(make_config(sampling_rate=0.25)) for _ in range(2)]
    for recorder in recorders:
        for name in ids:
            until(lambda recorder=recorder: recorder.spool.ahead > 0, "the next segment")
            play(recorder, x_request_id=name)
        assert recorder.spool.counts == (len(chosen), len(ids) - len(chosen), 0)
        recorder.close()
    found = records([spool_dir])
    assert sorted(each.request_id for each in found) == sorted([*chosen, *chosen])
    assert {(each.sampling.rate, each.sampling.strategy) for each in found} == {(0.25, "hash")}


def test_rates_of_services_and_models(make_config: MakeConfig) -> None:
    rates = [{"service": "other", "rate": 0.5}, {"model": "fraud-*", "rate": 1}, {"service": "inc*", "rate": 0}]
    recorder = open_recorder(make_config(sampling_rate=0.25, sampling={"rates": rates, "errors_rate": 0}))
    for number in range(50):
        play(recorder, b"/v2/models/fraud-eu/infer", x_request_id=f"r{number}")
        play(recorder, x_request_id=f"r{number}")
    assert recorder.spool.counts == (50, 50, 0)
    assert recorder.rules.shares("mine", "any") == (0.25, 0.25)
    assert recorder.rules.shares("other", "fraud-eu") == (0.5, 0.5)
    recorder.close()


def test_every_error_is_kept_and_says_with_which_probability(make_config: MakeConfig, spool_dir: Path) -> None:
    recorder = open_recorder(make_config(sampling_rate=0.1))
    ids = [f"r{number}" for number in range(60)]
    for name in ids:
        until(lambda: recorder.spool.ahead > 0, "the next segment")
        play(recorder, x_request_id=name)
        play(recorder, x_request_id=f"status-{name}", status=400, body=b"a body")
        play(recorder, x_request_id=f"broken-{name}", error="cut short")
    recorder.close()
    kept = {name for name in ids if Shares(0.1, 1).fate(name) is Fate.KEPT}
    assert 0 < len(kept) < 20
    assert recorder.spool.counts == (len(kept) + 120, 60 - len(kept), 0)
    found = {each.request_id: each for each in records([spool_dir])}
    assert found.keys() == kept | {f"{kind}-{name}" for kind in ("status", "broken") for name in ids}
    for name, each in found.items():
        assert each.sampling.strategy == ("hash" if name in kept else "errors")
        assert each.sampling.rate == (0.1 if name in kept else 1.0)
    body = found["status-r0"].response
    assert (body.body, body.size, body.sha256) == (b"a body", 6, hashlib.sha256(b"a body").hexdigest())


@pytest.mark.parametrize("piece", [1_000, 7_000, 70_000])
@pytest.mark.parametrize("limit", [0, 5_000, 20_000, 1_000_000])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("later", [False, True])
def test_a_body_has_its_digest_however_it_comes(piece: int, limit: int, held: bool, later: bool) -> None:
    whole = os.urandom(60_000)
    body = Body(limit, Hold(1_000_000) if held else None, digest_later=later)
    for at in range(0, len(whole), piece):
        body.feed(whole[at : at + piece])
    found = body.payload({}, ())
    assert (found.body, found.size) == (whole[:limit], len(whole))
    assert body.cut == (limit < len(whole))
    digest = hashlib.sha256(whole).hexdigest()
    assert found.sha256 == ("" if later and not body.cut else digest)
    assert body.digest() == found.sha256


def test_a_share_of_the_errors_and_a_status_of_ones_own(make_config: MakeConfig, spool_dir: Path) -> None:
    config = make_config(sampling_rate=0.1, sampling={"errors_rate": 0.5, "error_status": 500})
    recorder = open_recorder(config)
    for number in range(200):
        until(lambda: recorder.spool.ahead > 0, "the next segment")
        play(recorder, x_request_id=f"r{number}", status=500)
        play(recorder, x_request_id=f"r{number}", status=404)
    recorder.close()
    found = records([spool_dir])
    by_status = {status: [each for each in found if each.status_code == status] for status in (404, 500)}
    assert 70 < len(by_status[500]) < 130
    assert {each.request_id for each in by_status[404]} < {each.request_id for each in by_status[500]}
    assert {(each.sampling.rate, each.sampling.strategy) for each in by_status[500]} == {(0.5, "errors")}
    assert recorder.spool.counts == (len(found), 400 - len(found), 0)


def test_a_request_that_is_left_out_whatever_comes_is_not_even_looked_at(make_config: MakeConfig) -> None:
    recorder = open_recorder(make_config(sampling_rate=0, sampling={"errors_rate": 0}))
    untouchable: bytes = None  # type: ignore[assignment]
    play(recorder, body=untouchable, status=500)
    assert recorder.spool.counts == (0, 1, 0)
    recorder.close()


def test_what_is_held_for_a_possible_error_is_bounded_and_given_back(make_config: MakeConfig, spool_dir: Path) -> None:
    """Requests under way hold their bodies; the one that finds no room keeps size and digest."""
    recorder = open_recorder(make_config(sampling_rate=0, sampling={"held_bytes": 10_000}))
    body = os.urandom(6_000)

    def begin(name: str) -> Exchange:
        exchange = recorder.begin(b"POST", INFER, {b"x-request-id": name.encode()})
        assert exchange is not None
        for start in range(0, len(body), 1000):
            exchange.request_body(body[start : start + 1000])
        exchange.response_head(500, {})
        return exchange

    first, second = begin("first"), begin("second")
    first.finish()
    second.finish()
    assert recorder.hold.take(10_000)
    recorder.hold.give_back(10_000)
    begin("third").finish()
    for _ in range(100):
        play(recorder, body=body)  # no error: left out
    recorder.close()
    found = {each.request_id: each for each in records([spool_dir])}
    assert {each.request.sha256 for each in found.values()} == {hashlib.sha256(body).hexdigest()}
    assert {each.request.size for each in found.values()} == {6_000}
    assert [found[name].request.body for name in ("first", "second", "third")] == [body, body[:4000], body]
    assert [found[name].truncated for name in ("first", "second", "third")] == [(), ("request",), ()]
    assert recorder.spool.counts == (3, 100, 0)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_may_come_as_any_kind_of_bytes(
    make_config: MakeConfig, spool_dir: Path, kind: Callable[[bytes], bytes]
) -> None:
    recorder = open_recorder(make_config())
    play(recorder, body=kind(b"in one part"))
    exchange = recorder.begin(b"POST", INFER, {})
    assert exchange is not None
    for part in (b"in ", b"two"):
        exchange.response_body(kind(part))
    exchange.finish()
    assert recorder.spool.counts == (2, 0, 0)
    recorder.close()
    one, two = records([spool_dir])
    assert (one.request.body, one.response.body, two.response.body) == (b"in one part", b"in one part", b"in two")


@pytest.mark.parametrize("rate", [0, 1])
@pytest.mark.parametrize("extra", [0, 1])
def test_a_body_that_fills_its_limit_with_its_parts_is_cut_only_if_there_is_more(
    make_config: MakeConfig, spool_dir: Path, rate: float, extra: int
) -> None:
    recorder = open_recorder(make_config(sampling_rate=rate))
    exchange = recorder.begin(b"POST", INFER, {})
    assert exchange is not None
    whole = os.urandom(BODY_BYTES + extra)
    for part in (whole[:1000], whole[1000:BODY_BYTES], whole[BODY_BYTES:]):
        exchange.request_body(part)
    exchange.response_head(400, {})
    exchange.finish()
    recorder.close()
    (found,) = records([spool_dir])
    assert found.request.body == whole[:BODY_BYTES]
    assert (found.request.size, found.request.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert found.truncated == (("request",) if extra else ())


def test_a_full_spool_drops_and_counts_and_the_next_record_says_so(make_config: MakeConfig, spool_dir: Path) -> None:
    recorder = open_recorder(make_config(spool_bytes=4 * SEGMENT_BYTES))
    n_sent = 0

    while recorder.spool.counts.dropped < 10:
        until(lambda: recorder.spool.ahead > 0 or held_bytes(spool_dir) == 4 * SEGMENT_BYTES, "room, or the limit")
        play(recorder, body=b"z" * 5000, x_request_id=f"r{n_sent}")
        n_sent += 1
        assert recorder.spool.counts.seen == n_sent
    before = records([spool_dir])
    assert len(before) == recorder.spool.counts.captured > 10
    assert held_bytes(spool_dir) == 4 * SEGMENT_BYTES
    for segment in segment_files(spool_dir)[:2]:  # as the shipper does
        segment.unlink()
    while recorder.spool.next_seq == len(before):
        play(recorder, body=b"z" * 5000)
        n_sent += 1
    recorder.close()
    counts = recorder.spool.counts
    assert counts.seen == n_sent
    newest = records([spool_dir])[-1]
    assert newest.capture.seq == len(before)
    assert newest.capture.dropped_before == counts.dropped
    (agent,) = inspect_agents(spool_dir)
    assert agent.counts == counts
    assert not agent.alive


def test_a_record_too_long_for_a_segment_is_dropped_and_the_rest_goes_on(
    make_config: MakeConfig, spool_dir: Path
) -> None:
    recorder = open_recorder(make_config())
    assert not recorder.spool.append(b"x" * SEGMENT_BYTES)
    play(recorder)
    recorder.close()
    (found,) = records([spool_dir])
    assert (found.capture.seq, found.capture.dropped_before) == (0, 1)


def test_a_failure_of_capture_is_counted_logged_and_goes_no_further(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = open_recorder(make_config())
    not_bytes: bytes = "text"  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        play(recorder, body=not_bytes)
        recorder.begin(b"POST", INFER, None)  # type: ignore[arg-type]
    assert recorder.spool.counts == (0, 0, 2)
    assert "could not be captured" in caplog.text
    recorder.close()
    play(recorder)  # the spool is closed: nothing is raised
    assert "could not be captured" in caplog.text


def test_many_segments_are_filled_in_order_without_a_drop(make_config: MakeConfig, spool_dir: Path) -> None:
    recorder = open_recorder(make_config())
    for number in range(400):
        until(lambda: recorder.spool.ahead > 0, "the next segment")
        play(recorder, body=b"z" * 4000, x_request_id=str(number))
    recorder.close()
    found = records([spool_dir])
    assert [each.request_id for each in found] == [str(number) for number in range(400)]
    assert [each.capture.seq for each in found] == list(range(400))
    assert len(segment_files(spool_dir)) > 10


def test_a_folder_that_others_can_read_is_refused(make_config: MakeConfig, spool_dir: Path) -> None:
    spool_dir.mkdir(mode=0o755)
    with pytest.raises(Unavailable, match="others could read") as caught:
        open_recorder(make_config())
    assert "chmod 700" in caught.value.fix
