"""One partition's work on real rows: what it finds, what it refuses, and that a crash changes nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace as with_fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from govern.bus import Message, Partition
from govern.codecs import v2
from govern.codecs.protocols import CODECS
from govern.codecs.tensor import Tensor
from govern.detection import Scores
from govern.frame import Frame
from govern.pipeline import Plan
from govern.pipeline.spec import Source
from govern.record import Capture, DeadLetter, ExplainRequest, Payload, Sampling, Verdict, encode
from govern.runtime import checkpoint
from govern.runtime.loader import LoadedPipeline
from govern.runtime.task import READ_AHEAD, Effects, PartitionTask
from tests.runtime.conftest import START_NS, Make, message_of, payload

TP = Partition("govern.default.inferences", 0)


def new_task(pipeline: LoadedPipeline) -> PartitionTask:
    return PartitionTask(TP, "default", [pipeline])


def run(task: PartitionTask, messages: Sequence[Message]) -> Effects:
    return task.process(messages)


def verdicts(effects: Effects, step: str | None = None) -> list[Verdict]:
    return [one.verdict for one in effects.judgements if step in (None, one.verdict.step)]


def stream(make_inference: Make, n: int, rows: int = 1) -> list[Message]:
    # Every third offset is missing, as Kafka's transaction markers make it.
    return [message_of(make_inference(i, rows=rows), offset=i + i // 2) for i in range(n)]


def test_each_step_judges_every_instance_once_in_order(pipeline: LoadedPipeline, make_inference: Make) -> None:
    effects = run(new_task(pipeline), stream(make_inference, 130, rows=3))
    assert not effects.dead_letters
    for step, size in (("drift", 300), ("outlier", 20), ("adversarial", 50)):
        found = verdicts(effects, step)
        assert [one.window.n_instances for one in found] == [size] * (390 // size)
        for before, after in itertools.pairwise(found):
            assert (after.window.first_offset, after.window.first_row) > (
                before.window.last_offset,
                before.window.last_row,
            )
        judged = [one.instance_id for verdict in found for one in verdict.instances]
        if step != "drift":
            assert judged == [f"inference-{i}/{row}" for i in range(130) for row in range(3)][: len(judged)]
    assert len({one.id for one in verdicts(effects)}) == len(verdicts(effects))


def test_a_verdict_says_what_the_detector_says_of_those_rows(pipeline: LoadedPipeline, make_inference: Make) -> None:
    messages = stream(make_inference, 300)
    (verdict,) = verdicts(run(new_task(pipeline), messages), "drift")
    detector = pipeline.detectors["drift"]
    from govern.codecs.inference import decode

    window = Frame.concat([decode(make_inference(i), pipeline.schema) for i in range(300)])
    scores = detector.score(window)
    assert verdict.features == scores.features  # type: ignore[union-attr]
    assert verdict.alarm == scores.alarm  # type: ignore[union-attr]
    assert (verdict.detector_digest, verdict.reference_digest) == (detector.digest, detector.reference_digest)
    assert verdict.window.completeness == 1.0
    assert verdict.window.t_last == START_NS + 299 * 10**9 + 5_000_000
    assert verdict.traceparent == f"00-{300:032x}-{300:016x}-01"


def test_the_strangest_flagged_instances_are_handed_to_the_explainer(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    effects = run(new_task(pipeline), stream(make_inference, 1500))
    flagged = {
        verdict.id: sorted((one for one in verdict.instances if one.flagged), key=lambda one: -one.score)
        for verdict in verdicts(effects, "outlier")
    }
    expected = {one.instance_id for many in flagged.values() for one in many[:2]}
    assert expected, "the sample holds outliers"
    assert {one.instance_id for one in effects.explain_requests} == expected
    request = effects.explain_requests[0]
    assert (request.explainer, request.step, request.pipeline) == ("why", "explain", "watch")
    assert set(json.loads(request.inputs_json)) == set(pipeline.schema.names)


def test_a_step_that_is_no_output_triggers_without_publishing(pipeline: LoadedPipeline, make_inference: Make) -> None:
    messages = stream(make_inference, 1500)
    quiet = with_fields(pipeline, plan=with_fields(pipeline.plan, outputs=("drift",)))
    effects = run(new_task(quiet), messages)
    assert {one.step for one in verdicts(effects)} == {"drift"}
    assert effects.explain_requests == run(new_task(pipeline), messages).explain_requests


def crash_and_restore(task: PartitionTask, table: dict[bytes, bytes], pipeline: LoadedPipeline) -> PartitionTask:
    again = new_task(pipeline)
    again.restore(table, committed=None)
    return again


@pytest.mark.parametrize("piece_bytes", [checkpoint.PIECE_BYTES, 700], ids=["whole chunks", "chunks in pieces"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_a_crash_between_any_two_commits_changes_nothing(
    pipeline: LoadedPipeline,
    make_inference: Make,
    monkeypatch: pytest.MonkeyPatch,
    piece_bytes: int,
    data: st.DataObject,
) -> None:
    monkeypatch.setattr(checkpoint, "PIECE_BYTES", piece_bytes)
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=30, max_size=60), label="rows of each request")
    messages = [message_of(make_inference(i, rows=rows), offset=i + i // 2) for i, rows in enumerate(sizes)]
    whole = run(new_task(pipeline), messages)

    table: dict[bytes, bytes] = {}
    published = Effects()
    task = new_task(pipeline)
    while task.position <= messages[-1].offset:
        batch = [one for one in messages if one.offset >= task.position]
        batch = batch[: data.draw(st.integers(1, 15), label="messages before the commit")]
        effects = run(task, batch)
        if data.draw(st.booleans(), label="crash before the commit"):
            task = crash_and_restore(task, table, pipeline)
            continue
        for key, value in task.changed_state():
            if value is None:
                table.pop(key, None)
            else:
                assert key == checkpoint.POSITION_KEY or len(value) <= piece_bytes
                table[key] = value
        published.extend(effects)
        if data.draw(st.booleans(), label="crash after the commit"):
            task = crash_and_restore(task, table, pipeline)

    def wire(effects: Effects) -> tuple[list[bytes], list[ExplainRequest], list[DeadLetter]]:
        return [encode(one) for one in verdicts(effects)], effects.explain_requests, effects.dead_letters

    assert wire(published) == wire(whole)
    assert crash_and_restore(task, table, pipeline).changed_state() == task.changed_state()[-1:], (
        "nothing is left behind"
    )


def test_messages_read_together_are_judged_as_if_read_one_by_one(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    changes: dict[int, dict[str, object]] = {
        40: {"request": payload(b'{"inputs": []}')},
        41: {"response": payload(b"{")},
        90: {"status_code": 500},
        140: {"revision": "2"},
        141: {"truncated": ("request",)},
        142: {"protocol": "unknown"},
        200: {"capture": Capture(agent="agent", seq=200, dropped_before=3)},
        201: {"synthetic": True},
        202: {"model": "another"},
    }
    messages = [
        message_of(make_inference(i, rows=1 + i % 3, **changes.get(i, {})), offset=i) for i in range(READ_AHEAD * 2)
    ]
    messages[60] = replace(messages[60], value=b"no protobuf")
    together, one_by_one = new_task(pipeline), new_task(pipeline)
    expected = Effects()
    for message in messages:
        expected.extend(one_by_one.process([message]))
    found = together.process(messages)
    assert len(found.judgements) > 10
    assert len(found.dead_letters) >= 3
    assert [encode(one.verdict) for one in found.judgements] == [encode(one.verdict) for one in expected.judgements]
    assert [one.traceparents for one in found.judgements] == [one.traceparents for one in expected.judgements]
    assert (found.explain_requests, found.dead_letters) == (expected.explain_requests, expected.dead_letters)
    assert found.observed == expected.observed
    assert together.changed_state() == one_by_one.changed_state()


def test_a_pipeline_that_comes_back_begins_a_window_anew(pipeline: LoadedPipeline, make_inference: Make) -> None:
    other = with_fields(pipeline, plan=with_fields(pipeline.plan, name="other"))
    table: dict[bytes, bytes] = {}

    def go_on(pipelines: Sequence[LoadedPipeline], numbers: range) -> Effects:
        task = PartitionTask(TP, "default", pipelines)
        task.restore(table, committed=None)
        effects = run(task, [message_of(make_inference(i), offset=i) for i in numbers])
        for key, value in task.changed_state():
            if value is None:
                table.pop(key, None)
            else:
                table[key] = value
        return effects

    go_on([pipeline, other], range(10))
    go_on([other], range(10, 15))
    assert not [key for key in table if b'"watch"' in key]
    found = verdicts(go_on([pipeline, other], range(15, 35)), "outlier")
    assert [(one.pipeline, one.window.first_offset, one.window.last_offset) for one in found] == [
        ("other", 0, 19),
        ("watch", 15, 34),
    ]


def test_a_malformed_payload_is_a_dead_letter_and_the_stream_goes_on(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    broken = {
        3: b"{not json",
        5: v2.encode_request([Tensor("AGEP", "FP64", np.ones((1, 1)))]),
        7: v2.encode_request([Tensor("nonsense", "FP64", np.ones((1, 1)))]),
        9: make_inference(9).request.body.replace(b'"AGEP"', b'"AGEP2"'),
    }
    messages = [
        message_of(make_inference(i, **({"request": payload(broken[i])} if i in broken else {})), offset=i)
        for i in range(24)
    ]
    effects = run(new_task(pipeline), messages)
    letters = {letter.source_offset: letter for letter in effects.dead_letters}
    assert set(letters) == set(broken)
    assert "nonsense" in letters[7].what
    for offset, letter in letters.items():
        assert letter.code == "undecodable-payload"
        assert letter.why
        assert letter.fix
        assert letter.value == messages[offset].value
        assert letter.pipeline == "watch"
    (verdict,) = verdicts(effects, "outlier")
    assert verdict.window.completeness == 20 / 24


UNDECODABLE = {
    "v1": Payload(body=b'{"instances": [{"AGEP": {"b64": "?"}}]}'),
    "v2": Payload(body=b'{"inputs": []}', headers={"inference-header-content-length": "900"}),
    "v2-grpc": Payload(body=b"\0\0\0\0\x09cut", content_type="application/grpc"),
    "seldon-v1": Payload(body=b'{"data": {"tensor": {"shape": [9], "values": [1]}}}'),
    "openai": Payload(body=b'{"messages": [{"role": "user", "content": "hi"}]}'),
    "csv": Payload(body=b"1,2\n3\n", content_type="text/csv"),
    "mlflow": Payload(body=b'{"dataframe_split": {"columns": ["AGEP"], "data": [[1, 2]]}}'),
    "soap": Payload(body=b"<x/>"),
    "unknown": Payload(body=b"\x1f\x8bno gzip"),
}


def test_an_undecodable_payload_of_every_protocol_is_a_dead_letter(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    assert set(UNDECODABLE) - {"soap", "unknown"} == set(CODECS)
    messages = [
        message_of(make_inference(i, protocol=protocol, request=body), offset=i)
        for i, (protocol, body) in enumerate(UNDECODABLE.items())
    ]
    effects = run(new_task(pipeline), messages)
    assert not effects.judgements
    for message, letter in zip(messages, effects.dead_letters, strict=True):
        assert (letter.code, letter.value) == ("undecodable-payload", message.value)
        assert letter.what
        assert letter.why
        assert letter.fix


def test_what_is_no_inference_is_a_dead_letter(pipeline: LoadedPipeline, make_inference: Make) -> None:
    good = message_of(make_inference(0), offset=0)
    foreign = [
        replace(good, offset=1, headers=()),
        replace(good, offset=2, value=b"\xff\xff\xff"),
        replace(good, offset=3, value=None),
        replace(good, offset=4, headers=(("ce_type", b"io.govern.verdict.v1"),), value=encode(Verdict(id="x"))),
        message_of(make_inference(5, schema_version=99), offset=5),
    ]
    effects = run(new_task(pipeline), [good, *foreign])
    assert [letter.source_offset for letter in effects.dead_letters] == [1, 2, 3, 4, 5]
    assert {letter.code for letter in effects.dead_letters} == {"bad-input"}


def test_only_the_answers_of_the_watched_model_are_judged(pipeline: LoadedPipeline, make_inference: Make) -> None:
    aside = [
        make_inference(0, synthetic=True),
        make_inference(1, service="another"),
        make_inference(2, model="another"),
        make_inference(3, status_code=500),
        make_inference(4, status_code=0, error="upstream closed the connection"),
    ]
    task = new_task(pipeline)
    effects = run(task, [message_of(one, offset=i) for i, one in enumerate(aside)])
    assert not effects.judgements
    assert not effects.dead_letters
    effects = run(task, [message_of(make_inference(i), offset=i) for i in range(5, 25)])
    (verdict,) = verdicts(effects, "outlier")
    assert verdict.window.first_offset == 5
    assert verdict.window.completeness == 1.0


class Unread:
    """The plan of a pipeline that nothing but the making of its task may read."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.sealed = False

    def __getattr__(self, name: str) -> object:
        assert not self.sealed, f"`{name}` of a pipeline that watches another model was looked up"
        return getattr(self._plan, name)


def test_pipelines_of_other_models_cost_a_message_nothing(pipeline: LoadedPipeline, make_inference: Make) -> None:
    """A thousand models in one worker: what a message costs does not depend on how many others there are."""
    plans = [
        Unread(with_fields(pipeline.plan, name=f"other-{i}", source=Source(service="income", model=f"m{i}")))
        for i in range(1000)
    ]
    others = [with_fields(pipeline, plan=plan) for plan in plans]
    task = PartitionTask(TP, "default", [*others[:500], pipeline, *others[500:]])
    for plan in plans:
        plan.sealed = True
    messages = stream(make_inference, 60)
    found, alone = run(task, messages), run(new_task(pipeline), messages)
    assert [encode(one) for one in verdicts(found)] == [encode(one) for one in verdicts(alone)] != []
    assert len(found.observed) == 60


def test_a_response_without_the_needed_output_costs_that_step_alone(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    bare = payload(v2.encode_response("employment", [Tensor("other", "FP64", np.ones((1, 1)))]))
    messages = [message_of(make_inference(i, **({"response": bare} if i == 4 else {})), offset=i) for i in range(51)]
    effects = run(new_task(pipeline), messages)
    (letter,) = effects.dead_letters
    assert (letter.step, letter.source_offset) == ("adversarial", 4)
    assert "probability" in letter.what
    (adversarial,) = verdicts(effects, "adversarial")
    assert adversarial.window.completeness == 50 / 51
    assert len(verdicts(effects, "outlier")) == 2


class Raising:
    """A user's detector with a bug: it wraps a good one and fails on its first window."""

    def __init__(self, good: object) -> None:
        self._good = good
        self._failed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._good, name)

    def score(self, window: Frame) -> Scores:
        if not self._failed:
            self._failed = True
            raise ZeroDivisionError("division by zero")
        return self._good.score(window)  # type: ignore[attr-defined, no-any-return]


def test_a_detector_that_raises_costs_its_window_alone(pipeline: LoadedPipeline, make_inference: Make) -> None:
    detectors = {**pipeline.detectors, "outlier": Raising(pipeline.detectors["outlier"])}
    effects = run(new_task(with_fields(pipeline, detectors=detectors)), stream(make_inference, 60))  # type: ignore[arg-type]
    (letter,) = effects.dead_letters
    assert (letter.step, letter.code, letter.why) == (
        "outlier",
        "detector-failed",
        "ZeroDivisionError: division by zero",
    )
    assert len(verdicts(effects, "outlier")) == 2
    assert len(verdicts(effects, "adversarial")) == 1


def test_revisions_and_endpoints_never_share_a_window(pipeline: LoadedPipeline, make_inference: Make) -> None:
    messages = [
        message_of(make_inference(i, revision=f"r{i % 2}", endpoint="canary" if i % 4 == 3 else "default"), offset=i)
        for i in range(120)
    ]
    found = verdicts(run(new_task(pipeline), messages), "outlier")
    assert sorted((one.revision, one.endpoint) for one in found) == [
        ("r0", "default"), ("r0", "default"), ("r0", "default"), ("r1", "canary"), ("r1", "default")
    ]  # fmt: skip
    for verdict in found:
        numbers = [int(one.request_id.removeprefix("request-")) for one in verdict.instances]
        assert {f"r{n % 2}" for n in numbers} == {verdict.revision}


def test_records_dropped_at_capture_lower_the_completeness_once(pipeline: LoadedPipeline, make_inference: Make) -> None:
    dropped = [0] * 10 + [5] * 50
    messages = [
        message_of(make_inference(i, capture=Capture(agent="a", seq=i, dropped_before=dropped[i])), offset=i)
        for i in range(60)
    ]
    first, second, third = verdicts(run(new_task(pipeline), messages), "outlier")
    assert first.window.completeness == 20 / 25
    assert second.window.completeness == third.window.completeness == 1.0


def test_a_quiet_stream_gets_its_verdict_by_time(pipeline: LoadedPipeline, make_inference: Make) -> None:
    task = new_task(pipeline)
    run(task, stream(make_inference, 7))
    hour_ns = 3600 * 10**9
    assert not task.expire(START_NS + hour_ns - 1).judgements
    found = {one.step: one for one in verdicts(task.expire(START_NS + hour_ns + 5_000_000))}
    assert found["outlier"].window.n_instances == 7
    assert found["outlier"].window.closed_by == "time"


def test_a_truncated_or_withheld_body_is_a_dead_letter_that_says_so(
    pipeline: LoadedPipeline, make_inference: Make
) -> None:
    cut = make_inference(0, truncated=("request",))
    withheld = make_inference(1, request=Payload(size=10, sha256="x"), sampling=Sampling(rate=1.0, strategy="all"))
    effects = run(new_task(pipeline), [message_of(cut, offset=0), message_of(withheld, offset=1)])
    assert ["cut" in effects.dead_letters[0].what, "not in the record" in effects.dead_letters[1].what] == [True, True]


def test_missing_and_unseen_values_are_judged_not_lost(
    pipeline: LoadedPipeline, make_inference: Make, tmp_path: Path
) -> None:
    def tampered(i: int) -> bytes:
        tensors = list(v2.decode_request(make_inference(i).request.body).inputs)
        for position, tensor in enumerate(tensors):
            if tensor.name == "AGEP":
                tensors[position] = Tensor("AGEP", "FP64", np.full((1, 1), np.nan))
            if tensor.name == "MAR":
                tensors[position] = Tensor("MAR", "BYTES", np.array([["never heard of"]], dtype=object))
        return v2.encode_request(tensors)

    messages = [message_of(make_inference(i, request=payload(tampered(i))), offset=i) for i in range(300)]
    effects = run(new_task(pipeline), messages)
    assert not effects.dead_letters
    (drift,) = verdicts(effects, "drift")
    drifted = {one.feature for one in drift.features if one.is_drift}
    assert "MAR" in drifted
    assert verdicts(effects, "outlier")


@pytest.mark.parametrize("committed", [None, 17])
def test_without_a_checkpoint_the_group_offset_counts(pipeline: LoadedPipeline, committed: int | None) -> None:
    assert new_task(pipeline).restore({}, committed) == (committed or 0)
