"""Stage 5: what was found, beside what was really sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import httpx
import numpy as np

from govern.cli.demo import traffic
from govern.cli.demo.client import Reply
from govern.cli.demo.model import THRESHOLD
from govern.cli.demo.plan import WHAT_IF
from govern.cli.demo.scrape import scrape
from govern.cli.demo.stack import Stack
from govern.cli.demo.stages.replay import Replayed, segments_of
from govern.cli.demo.story import Story
from govern.cli.demo.watch import Seen
from govern.frame import Frame
from govern.record import Verdict

#: What was sent, in words, in the order in which it is told.
KINDS: Final[dict[traffic.Kind, str]] = {
    "ordinary": "ordinary people",
    "recoded": "what-if: schooling in old codes",
    "tampered": "answers changed to be admitted",
    "months": "age given in months",
    "default": "every answer the first of the form",
}


async def findings(story: Story, stack: Stack, seen: Seen, replayed: Replayed, reference: Frame) -> None:
    story.stage(
        "What was found, and what it was worth",
        "The demo knows what it sent, so it can say which alarms were right.",
    )
    await _capture(story, stack, seen, replayed)
    _drift(story, seen, replayed, reference)
    _people(story, seen, replayed)
    _dead_letters(story, seen, replayed)


async def _capture(story: Story, stack: Stack, seen: Seen, replayed: Replayed) -> None:
    async with httpx.AsyncClient() as client:
        counts = await scrape(client, f"{stack.at.shipper_metrics}/metrics")
    passed, captured, left_out, dropped = (
        int(counts[f"govern_capture_{name}_total"]) for name in ("seen", "captured", "sampled_out", "dropped")
    )
    answered = replayed.answered
    story.say(
        f"[bold]Capture.[/] {len(answered):,} requests were answered in {replayed.seconds:.0f} s"
        f" ({len(answered) / replayed.seconds:.0f} a second): {passed:,} seen = {captured:,} captured"
        f" + {left_out:,} sampled out + {dropped:,} dropped."
    )
    story.check(
        "every request that was answered is on the bus exactly once",
        all(seen.captured[one.request_id] == 1 for one in answered) and not any(seen.lost.values()),
    )
    story.check("seen = captured + sampled out + dropped", passed == captured + left_out + dropped >= len(answered))


def _drift(story: Story, seen: Seen, replayed: Replayed, reference: Frame) -> None:
    schema = reference.schema
    years = [one for one in seen.drift if WHAT_IF not in segments_of(one, seen)]
    last = [one for one in seen.drift if segments_of(one, seen) == WHAT_IF]
    story.gap()
    alarms = Counter(name for one in years for name in drifted(one))
    if alarms:
        parts = [
            f"[bold]{schema[name].words}[/] in {count} of {len(years)} windows" + _shares(name, replayed, reference)
            for name, count in alarms.most_common()
        ]
        story.say(f"[bold]Drift in the real years.[/] {'; '.join(parts)}. Nobody planted this: it is in the survey.")
    else:
        story.say(f"[bold]Drift in the real years.[/] None of the {len(years)} windows differs from 2015.")
    before, after = (_refused(replies) for replies in (_real(replayed), replayed.replies[WHAT_IF]))
    surest = {schema[drifted(one)[0]].words for one in last if one.alarm}
    story.say(
        f"[bold]Drift in the what-if.[/] Found, and surest in: {', '.join(sorted(surest)) or 'nothing'}."
        f" Under it the model refuses {after:.0%} of people instead of {before:.0%}, and no error is raised anywhere:"
        " the alarm is the first that anyone hears of it."
    )
    story.check(
        "the what-if is found as drift, and above all in schooling",
        bool(last) and all(drifted(one)[:1] == ["SCHL"] for one in last),
    )


def drifted(verdict: Verdict) -> list[str]:
    """The features that differ, the surest first."""
    found = sorted((one for one in verdict.features if one.is_drift), key=lambda one: one.p_value)
    return [one.feature for one in found]


def _shares(name: str, replayed: Replayed, reference: Frame) -> str:
    """How the most changed answer's share moved from 2015 to the last year; empty for a number."""
    feature = reference.schema[name]
    if feature.kind != "categorical":
        return ""
    codes = reference[name]
    then = {category: float(np.mean(codes == code)) for code, category in enumerate(feature.categories)}
    people = [one for reply in replayed.replies["2018"] for one in reply.call.people]
    now = {category: sum(one.answers[name] == category for one in people) / len(people) for category in then}
    most = max(then, key=lambda category: abs(now[category] - then[category]))
    return f" (“{feature.label(most)}”: {then[most]:.0%} of people in 2015, {now[most]:.0%} in 2018)"


def _people(story: Story, seen: Seen, replayed: Replayed) -> None:
    sent: Counter[traffic.Kind] = Counter()
    flagged: dict[str, Counter[traffic.Kind]] = {"outlier": Counter(), "adversarial": Counter()}
    for reply in replayed.answered:
        if reply.status == httpx.codes.OK and reply.call.kind in KINDS and len(reply.call.people) == 1:
            sent[reply.call.kind] += 1
            for step, counts in flagged.items():
                counts[reply.call.kind] += reply.request_id in seen.flags[step]
    story.gap()
    story.say("[bold]Single people.[/] Share flagged by each watcher (the first line is its false-alarm rate):")
    story.table(
        ("what was sent", "people", "outlier", "adversarial"),
        [
            (words, f"{sent[kind]:,}", *(_rate(counts[kind], sent[kind]) for counts in flagged.values()))
            for kind, words in KINDS.items()
        ],
    )
    story.say(
        "[dim]No watcher sees everything: a flag means “look at this”, and one watcher sees what another misses.[/]"
    )
    rates = {step: {kind: counts[kind] / max(1, sent[kind]) for kind in KINDS} for step, counts in flagged.items()}
    story.check("the broken form is found by the outlier step", rates["outlier"]["default"] >= 0.8)
    story.check("ages in months are found by the adversarial step", rates["adversarial"]["months"] >= 0.8)
    story.check(
        "changed answers are flagged more often than honest ones",
        rates["adversarial"]["tampered"] > 2 * rates["adversarial"]["ordinary"],
    )


def _dead_letters(story: Story, seen: Seen, replayed: Replayed) -> None:
    kinds: Counter[traffic.Kind] = Counter(one.call.kind for one in replayed.answered)
    refused = [one for one in replayed.answered if one.call.kind == "malformed"]
    unread = [one for one in seen.dead_letters if one.code == "undecodable-payload"]
    story.gap()
    story.say(
        f"[bold]What cannot be judged is kept, with the reason.[/] {len(refused)} malformed requests got"
        f" {_listed(sorted({one.status for one in refused}))} from the model and are captured like all others."
        f" {kinds['fraction']} requests were answered by the model, but do not fit the schema; each is a dead letter:"
    )
    if unread:
        one = unread[0]
        story.facts([("what", one.what), ("why", one.why), ("fix", one.fix)])
    story.check(
        "all requests that the model answered and nobody could read are dead letters", len(unread) == kinds["fraction"]
    )
    story.check(
        "malformed requests are captured with their status",
        all(one.status == httpx.codes.BAD_REQUEST and seen.captured[one.request_id] == 1 for one in refused),
    )


def _real(replayed: Replayed) -> list[Reply]:
    return [
        one
        for name, replies in replayed.replies.items()
        if name != WHAT_IF
        for one in replies
        if one.call.kind == "ordinary"
    ]


def _refused(replies: Sequence[Reply]) -> float:
    answers = [probability < THRESHOLD for one in replies for probability in one.probabilities]
    return sum(answers) / max(1, len(answers))


def _rate(count: int, of: int) -> str:
    return f"{count / of:.0%}  ({count:,})" if of else "none sent"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"
