"""Stage 4: the later years pass as real requests, and everybody watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from govern import record as records
from govern.bus import Bus
from govern.bus.topics import topic
from govern.cli.demo import traffic
from govern.cli.demo.client import Reply, send
from govern.cli.demo.model import MODEL, SERVICE
from govern.cli.demo.plan import WHAT_IF
from govern.cli.demo.scrape import scrape
from govern.cli.demo.stack import Stack
from govern.cli.demo.story import Story
from govern.cli.demo.view import Status, View
from govern.cli.demo.watch import Place, Seen, Watch
from govern.codecs import cloudevents
from govern.ids import derived_id
from govern.record import Feedback, Verdict
from govern.schema import FeatureSchema

#: How long what was answered may take to arrive everywhere: windows by time, transactions, a busy machine.
SETTLE_DEADLINE_S: Final = 90.0
_LOOK_S: Final = 0.25
#: Stands for a segment whose inferences were not read yet.
UNKNOWN: Final = "?"
#: Below this a p-value says nothing more.
SMALLEST_P: Final = 1e-9
#: The pipeline's steps that judge people one by one.
STEPS: Final = ("outlier", "adversarial")
#: Of one person in so many it becomes known whether they found work.
FEEDBACK_EVERY: Final = 10


@dataclass(slots=True)
class Replayed:
    """What the client saw.

    Attributes:
        replies: segment -> its answered requests.
        known: request id -> what became known of the person, sent as feedback.
    """

    replies: dict[str, list[Reply]] = field(default_factory=dict)
    known: dict[str, bool] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def answered(self) -> list[Reply]:
        return [reply for replies in self.replies.values() for reply in replies]


class Replay:
    """Sends the segments and shows what the others see of it."""

    def __init__(self, story: Story, stack: Stack, bus: Bus, watch: Watch, segments: Sequence[traffic.Segment]) -> None:
        self.result = Replayed()
        self._story = story
        self._stack = stack
        self._bus = bus
        self._watch = watch
        self._segments = segments
        self._view = View(story.console, sum(one.rows for one in segments))
        self._phase = ""
        self._people = 0
        self._told = 0

    async def run(self, schema: FeatureSchema) -> Replayed:
        """Send everything, and wait until all of it was captured, judged and recorded."""
        self._announce()
        began = time.monotonic()
        async with httpx.AsyncClient() as client:
            with self._view.shown():
                async with asyncio.TaskGroup() as tasks:
                    looking = tasks.create_task(self._look(client, schema))
                    for segment in self._segments:
                        await self._send(segment)
                    self.result.seconds = time.monotonic() - began
                    self._phase = "the last records arrive"
                    await self._settle(client)
                    looking.cancel()
                self._tell(schema)
        return self.result

    def _announce(self) -> None:
        calls = [call for one in self._segments if one.name != WHAT_IF for call in one.calls]
        years = len({person.id for call in calls for person in call.people})
        self._story.stage(
            "Three years pass",
            f"{years:,} real people of 2016, 2017 and 2018 apply, in the order of the years, as HTTP requests to the"
            " proxy. The drift watcher judges each thousand of them as it fills up.",
        )
        self._story.say(
            f"Mixed in on purpose: {traffic.TAMPERED} people who changed up to three answers so that the model admits"
            f" them; a broken client that gives the age in months ({traffic.MONTHS} times) or sends the first answer"
            f" of every list ({traffic.DEFAULTS} times); and {traffic.FRACTIONS + traffic.MALFORMED} requests that are"
            " malformed or do not fit the schema."
        )
        self._story.say(
            f"At the end comes a what-if, which is [bold]not[/] real: {self._segments[-1].rows:,} people of 2018 whose"
            " schooling arrives in the survey's numbering of before 2008, as after a careless change of supplier. 13"
            " then meant a bachelor's degree; today it means grade 10."
        )

    async def _send(self, segment: traffic.Segment) -> None:
        self._phase = f"replaying {segment.name}"
        replies = self.result.replies.setdefault(segment.name, [])

        def answered(reply: Reply) -> None:
            replies.append(reply)
            self._people += len(reply.call.people)

        await send(self._stack.at.proxy, segment.calls, answered)
        # Connections overtake one another: in the order of sending, the same seed gives the same story.
        place = {call.request_id: number for number, call in enumerate(segment.calls)}
        replies.sort(key=lambda one: place[one.call.request_id])
        if segment.name != WHAT_IF:
            await self._feedback(replies)

    async def _feedback(self, replies: Sequence[Reply]) -> None:
        """A year later it is known of some people whether they had work."""
        alone = [one for one in replies if one.call.kind == "ordinary" and len(one.call.people) == 1]
        known = {one.request_id: one.call.people[0].employed for one in alone[::FEEDBACK_EVERY]}
        self.result.known |= known
        messages = [
            cloudevents.to_message(
                Feedback(
                    schema_version=records.SCHEMA_VERSION,
                    id=derived_id("demo-feedback", self._stack.namespace, request_id),
                    namespace=self._stack.namespace,
                    service=SERVICE,
                    model=MODEL,
                    request_id=request_id,
                    label="employed" if employed else "not employed",
                    t_feedback=time.time_ns(),
                ),
                source="/govern/demo",
            )
            for request_id, employed in known.items()
        ]
        await self._bus.publish(topic(self._stack.namespace, "feedback"), messages)

    async def _look(self, client: httpx.AsyncClient, schema: FeatureSchema) -> None:
        while True:
            await self._watch.look()
            self._tell(schema)
            self._view.update(await self._status(client))
            await asyncio.sleep(_LOOK_S)

    async def _settle(self, client: httpx.AsyncClient) -> None:
        """Wait until the figures of all processes say that nothing is under way."""
        deadline = time.monotonic() + SETTLE_DEADLINE_S
        answered = len(self.result.answered)
        judged = sum(
            len(one.call.people)
            for one in self.result.answered
            if one.status == httpx.codes.OK and one.call.kind != "fraction"
        )
        seen = self._watch.seen
        while time.monotonic() < deadline:
            status = await self._status(client)
            everywhere = (
                status.seen >= answered,
                seen.captured.total() >= answered,
                all(seen.judged[step] >= judged for step in STEPS),
                status.audit_entries >= seen.audited,
            )
            if all(everywhere):
                return
            await asyncio.sleep(_LOOK_S)

    async def _status(self, client: httpx.AsyncClient) -> Status:
        at, seen = self._stack.at, self._watch.seen
        capture = await scrape(client, f"{at.shipper_metrics}/metrics")
        writer = await scrape(client, f"{at.writer_metrics}/metrics")
        return Status(
            phase=self._phase,
            people=self._people,
            requests=len(self.result.answered),
            seen=int(capture["govern_capture_seen_total"]),
            captured=int(capture["govern_capture_captured_total"]),
            sampled_out=int(capture["govern_capture_sampled_out_total"]),
            dropped=int(capture["govern_capture_dropped_total"]),
            on_bus=seen.captured.total(),
            flagged={step: (seen.flagged[step], seen.judged[step]) for step in STEPS},
            drift_windows=len(seen.drift),
            drift_alarms=sum(verdict.alarm for verdict in seen.drift),
            dead_letters=len(seen.dead_letters),
            audit_entries=int(writer["govern_audit_tree_size"]),
        )

    def _tell(self, schema: FeatureSchema) -> None:
        """A line for each window that the drift step has judged."""
        for verdict in self._watch.seen.drift[self._told :]:
            if UNKNOWN in segments_of(verdict, self._watch.seen):
                return  # its inferences come with the next look
            self._view.event(drift_line(verdict, self._watch.seen, schema))
            self._told += 1


def drift_line(verdict: Verdict, seen: Seen, schema: FeatureSchema) -> str:
    """A window's verdict in words."""
    where = segments_of(verdict, seen)
    found = sorted((one for one in verdict.features if one.is_drift), key=lambda one: one.p_value)
    if found:
        names = ", ".join(f"{schema[one.feature].words} ({p_in_words(one.p_value)})" for one in found)
        return f"[bold yellow]drift[/]     {where:<12} {names}"
    closest = min(verdict.features, key=lambda one: one.p_value)
    return (
        f"[green]no drift[/]  {where:<12} [dim]closest: {schema[closest.feature].words}"
        f" ({p_in_words(closest.p_value)}; an alarm is below {closest.threshold:.1g})[/]"
    )


def p_in_words(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value >= SMALLEST_P else f"p < {SMALLEST_P:g}"


def segments_of(verdict: Verdict, seen: Seen) -> str:
    """Which segments the window's requests are of: "2016", or "2016/2017" when it spans two."""
    window = verdict.window
    ends = [
        seen.requests.get(Place(window.partition, offset), UNKNOWN)
        for offset in (window.first_offset, window.last_offset)
    ]
    names = [one.partition("_")[0] for one in ends]
    return "/".join(dict.fromkeys(names))
