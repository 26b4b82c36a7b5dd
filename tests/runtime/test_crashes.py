"""Any pipelines, any stream, any batches, any crashes: the same as one run without a break.

The worker's part is played to the letter: what a batch gave rise to, the checkpoint and the position become visible
together or not at all, and whoever takes the partition next knows nothing but these.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from typing import Final, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from govern.bus import Message, Partition
from govern.record import Capture, encode
from govern.runtime import checkpoint
from govern.runtime.flows import Flows
from govern.runtime.holding import Holding
from govern.runtime.loader import LoadedPipeline
from govern.runtime.task import Effects, PartitionTask
from govern.runtime.track import Track
from tests.runtime.conftest import START_NS, Make, message_of, payload
from tests.runtime.remembering import Remembering

TP: Final = Partition("govern.default.inferences", 0)
SECOND_MS: Final = 1000
#: Of a checkpoint's messages: what a detector remembers is more than one of the smaller ones.
PIECE_BYTES: Final = (200, checkpoint.PIECE_BYTES)
#: Of a chunk: windows have several of the smaller ones.
CHUNK_ROWS: Final = (7, checkpoint.CHUNK_ROWS)
DETECTORS: Final = ("drift", "outlier", "adversarial")


@dataclass
class Topics:
    """What the bus holds of a partition: only whole transactions."""

    table: dict[bytes, bytes] = field(default_factory=dict)
    published: Effects = field(default_factory=Effects)
    committed: int | None = None

    def commit(self, task: PartitionTask, effects: Effects) -> None:
        self.write(task.changed_state(), effects)
        self.committed = task.position

    def write(self, state: list[tuple[bytes, bytes | None]], effects: Effects) -> None:
        for key, value in state:
            if value is None:
                self.table.pop(key, None)
            else:
                self.table[key] = value
        self.published.extend(effects)


@st.composite
def pipelines_of(draw: st.DrawFn, fitted: LoadedPipeline) -> list[LoadedPipeline]:
    """One to three pipelines over the fitted detectors, each step with a window of its own by count and time, which
    may slide; some with a detector that remembers instead, and takes offence at windows."""
    found = []
    for number in range(draw(st.integers(1, 3), label="pipelines")):
        names = draw(st.sets(st.sampled_from(DETECTORS), min_size=1), label="steps")
        steps = tuple(
            with_fields(
                step,
                batch_size=draw(st.integers(2, 40), label=f"size of {step.name}"),
                window_ms=draw(st.sampled_from((0, 3, 10, 60)), label=f"seconds of {step.name}") * SECOND_MS,
                rolling=step.name == "drift" and draw(st.booleans(), label="drift slides"),
            )
            for step in fitted.plan.steps
            if step.name in names or (step.kind == "explainer" and "outlier" in names)
        )
        outputs = tuple(draw(st.sets(st.sampled_from(sorted(names))), label="outputs"))
        plan = with_fields(fitted.plan, name=f"watch-{number}", steps=steps, outputs=outputs)
        detectors = {name: fitted.detectors[name] for name in sorted(names)}
        for name in draw(st.sets(st.sampled_from(sorted(names))), label="that remember"):
            if plan.step(name).rolling:
                continue
            detectors[name] = Remembering(fitted.schema, refuses=draw(st.booleans(), label=f"{name} refuses"))
        found.append(with_fields(fitted, plan=plan, detectors=detectors))
    return found


@st.composite
def stream_of(draw: st.DrawFn, make: Make) -> list[Message]:
    """Calls of several rows, revisions and agents that drop some; a few that failed, are synthetic or unreadable."""
    messages, dropped, offset, second = [], {"a": 0, "b": 0}, 0, 0
    for i in range(draw(st.integers(1, 60), label="messages")):
        agent = draw(st.sampled_from("ab"))
        dropped[agent] += draw(st.sampled_from((0, 0, 0, 2)))
        second += draw(st.integers(0, 4))
        changes: dict[str, object] = draw(
            st.sampled_from(({}, {}, {}, {}, {"error": "reset"}, {"synthetic": True}, {"request": payload(b"{")}))
        )
        call = make(
            i,
            rows=draw(st.integers(1, 5)),
            revision=draw(st.sampled_from(("1", "2"))),
            t_response=START_NS + second * 10**9,
            capture=Capture(agent=agent, seq=i, dropped_before=dropped[agent]),
            **changes,
        )
        messages.append(message_of(call, offset=offset))
        offset += draw(st.integers(1, 3))
    return messages


def wire(effects: Effects) -> tuple[list[tuple[bytes, int]], list[bytes], list[bytes]]:
    return (
        [(encode(one.verdict), one.new) for one in effects.judgements],
        [encode(one) for one in effects.explain_requests],
        [encode(one) for one in effects.dead_letters],
    )


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_crash_changes_what_is_published(
    pipeline: LoadedPipeline, make_inference: Make, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    monkeypatch.setattr(checkpoint, "PIECE_BYTES", data.draw(st.sampled_from(PIECE_BYTES), label="bytes"))
    monkeypatch.setattr(checkpoint, "CHUNK_ROWS", data.draw(st.sampled_from(CHUNK_ROWS), label="rows"))
    pipelines = data.draw(pipelines_of(pipeline), label="pipelines")
    messages = data.draw(stream_of(make_inference), label="stream")
    whole = PartitionTask(TP, "default", pipelines).process(messages)

    topics = Topics()
    task, pending = PartitionTask(TP, "default", pipelines), Effects()
    while topics.committed is None or topics.committed <= messages[-1].offset:
        waiting = [one for one in messages if one.offset >= task.position]
        pending.extend(task.process(waiting[: data.draw(st.sampled_from((20, 13, 7, 3, 1)), label="batch")]))
        match data.draw(st.sampled_from(("commit", "go on", "crash", "commit, then crash")), label="then"):
            case "commit":
                topics.commit(task, pending)
                pending = Effects()
            case "crash" | "commit, then crash" as how:
                if how != "crash":
                    topics.commit(task, pending)
                task, pending = PartitionTask(TP, "default", pipelines), Effects()
                task.restore(topics.table, topics.committed)
    assert wire(topics.published) == wire(whole)
    heir = PartitionTask(TP, "default", pipelines)
    heir.restore(topics.table, topics.committed)
    assert wire(heir.expire(2 * START_NS)) == wire(task.expire(2 * START_NS))


class Unused:
    """A transactor of which nobody asks anything: the topics above are written by hand."""

    async def close(self) -> None:
        return

    def transaction(self) -> NoReturn:
        raise AssertionError("nothing is published through it")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_track_of_its_own_changes_what_a_pipeline_says(
    pipeline: LoadedPipeline, make_inference: Make, data: st.DataObject
) -> None:
    """Pipelines leave the shared track and come back at random, tracks come as far as they like, are committed alone or
    together, and all of it crashes: each pipeline says the same in the same order."""
    pipelines = data.draw(pipelines_of(pipeline), label="pipelines")
    messages = data.draw(stream_of(make_inference), label="stream")
    whole = PartitionTask(TP, "default", pipelines).process(messages)

    def begin() -> Holding:
        holding = Holding(TP, "default", pipelines, Flows(pipelines), Unused())
        holding.restore(topics.table, topics.committed)
        return holding

    def between(start: int, end: int) -> list[Message]:
        return [one for one in messages if start <= one.offset < end]

    def work(track: Track) -> None:
        waiting = between(track.task.position, messages[-1].offset + 1)
        track.pending.extend(
            track.task.process(waiting[: data.draw(st.sampled_from((20, 13, 7, 3, 1)), label="batch")])
        )

    def commit(*tracks: Track) -> None:
        for track in tracks:
            topics.write(holding.state(track), track.pending)
            track.committed()
        if holding.shared in tracks:
            topics.committed = holding.shared.task.position

    def done() -> bool:
        return all(track.task.position > messages[-1].offset for track in holding.tracks)

    topics = Topics()
    holding = begin()
    while not done():
        work(data.draw(st.sampled_from(list(holding.tracks)), label="track"))
        match data.draw(st.sampled_from(("go on", "commit one", "commit all", "part", "reunite", "crash", "restart"))):
            case "commit one":
                commit(data.draw(st.sampled_from(list(holding.tracks))))
            case "commit all":
                commit(*holding.tracks)
            case "part" if holding.shared.task.pipelines:
                name = data.draw(st.sampled_from(sorted(holding.shared.task.pipelines)))
                asyncio.run(holding.part(name))
                commit(holding.shared, holding.own[name])
            case "reunite":
                for name, track in list(holding.own.items()):
                    place = holding.shared.task.position
                    track.pending.extend(track.task.process(between(track.task.position, place)))
                    if track.task.position == place:
                        asyncio.run(holding.reunite(name))
                        commit(holding.shared)
            case "crash":
                holding = begin()
            case "restart":
                asyncio.run(holding.restart(topics.table, topics.committed))
    commit(*holding.tracks)
    for name in (*sorted(one.plan.name for one in pipelines), ""):
        assert wire(said_by(name, topics.published)) == wire(said_by(name, whole))


def said_by(pipeline: str, effects: Effects) -> Effects:
    return Effects(
        judgements=[one for one in effects.judgements if one.verdict.pipeline == pipeline],
        explain_requests=[one for one in effects.explain_requests if one.pipeline == pipeline],
        dead_letters=[one for one in effects.dead_letters if one.pipeline == pipeline],
    )
