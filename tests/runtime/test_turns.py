"""Who leaves the shared track, who may come back, and whose turn it is: for any times that pipelines take."""

from __future__ import annotations

import asyncio
from math import ceil
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from govern.bus.embedded import EmbeddedBus
from govern.runtime import fairness, rota
from govern.runtime.fairness import COOL_S, COOL_SHARE, MIN_SHARE, STALL_S, UNEQUAL, WEIGH_S, Cooling, Scales
from govern.runtime.flows import Flows
from govern.runtime.holding import OWN_TRACKS, Holding
from govern.runtime.rota import Rota
from tests.runtime.acting import loaded
from tests.runtime.test_flows import TP, inference, messages

ALONE = "steps: [{name: judge, detector: {type: isolation_forest, artifact: x}, batch: {size: 2}}]"
NAMES = [f"p{number:02}" for number in range(OWN_TRACKS + 2)]
SECONDS = st.floats(0.001, STALL_S / 2)
HISTORY = st.lists(st.tuples(st.dictionaries(st.sampled_from(NAMES), SECONDS), st.booleans()), max_size=20)


class Unused:
    """A transactor of which nobody asks anything."""

    async def close(self) -> None:
        return

    def transaction(self) -> NoReturn:
        raise AssertionError("nothing is published through it")


def held(names: list[str]) -> Holding:
    pipelines = [loaded(ALONE, name=name) for name in names]
    return Holding(TP, "n", pipelines, Flows(pipelines), Unused())


@given(history=HISTORY, names=st.sets(st.sampled_from(NAMES), min_size=2), light_s=SECONDS, times=st.floats(1.0, 50.0))
def test_who_takes_too_much_leaves_and_who_does_not_stays(
    history: list[tuple[dict[str, float], bool]], names: set[str], light_s: float, times: float
) -> None:
    """One that takes `times` as much as each of the others, whatever was before."""
    scales = Scales()
    for spent_s, behind in history:
        assert scales.weigh(spent_s, behind=behind) is None or behind, "nobody leaves a track that keeps up"
    scales.weigh({}, behind=False)
    heavy, count = min(names), len(names)
    spent = dict.fromkeys(names, light_s / times) | {heavy: light_s}
    whole = sum(spent.values())
    answers = [scales.weigh(spent, behind=True) for _ in range(ceil(WEIGH_S / whole) + 1)]
    share = light_s / whole
    bound = max(MIN_SHARE, UNEQUAL / count)
    if share > bound * 1.001:
        assert heavy in answers
    if share < bound * 0.999:
        assert set(answers) == {None}
    assert scales.weigh({**spent, heavy: STALL_S}, behind=False) == heavy


@given(
    history=st.lists(st.tuples(st.floats(0, COOL_S), st.floats(0, 2 * STALL_S)), max_size=30),
    turn_s=st.floats(0.5, 10.0),
    share=st.floats(0.0, 1.0),
)
def test_who_has_become_light_comes_back_and_who_has_not_does_not(
    history: list[tuple[float, float]], turn_s: float, share: float
) -> None:
    now_s, cooling = 0.0, Cooling(0.0)
    for passed_s, spent_s in history:
        now_s += passed_s
        cooling.turn(now_s, spent_s)
    light = share < COOL_SHARE * 0.9 and share * turn_s < STALL_S
    heavy = share > COOL_SHARE * 1.1
    calm_s, came_back_s = now_s, None
    while now_s < calm_s + 3 * COOL_S:
        now_s += turn_s
        cooling.turn(now_s, share * turn_s)
        if came_back_s is None and cooling.cool(now_s):
            came_back_s = now_s - calm_s
    if light:
        assert came_back_s is not None
        assert came_back_s <= 2 * COOL_S + turn_s
    if heavy and not history:
        assert came_back_s is None


@settings(max_examples=25, deadline=None)
@given(arrivals=st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=1, max_size=4))
def test_every_track_that_has_work_gets_its_turn(arrivals: list[list[int]]) -> None:
    """However much comes for the others meanwhile, it waits for no more turns than there are other tracks."""
    names = NAMES[:4]

    async def served() -> None:
        holding, turns = held(names), Rota(EmbeddedBus(Path("unused")))
        for name in names:
            await holding.part(name)
        waited = dict.fromkeys(names, 0)
        coming = list(arrivals)
        while coming or any(track.ready for track in holding.own.values()):
            for name, count in zip(names, coming.pop(0) if coming else (0,) * 4, strict=True):
                track = holding.own[name]
                for message in messages(*(inference(i) for i in range(track.next + count)))[track.next :]:
                    track.take(message)
            ready = [name for name, track in holding.own.items() if track.ready]
            turns.own_turn([holding])
            begun = [name for name, track in holding.own.items() if not track.at_rest]
            assert len(begun) == min(1, len(ready))
            assert set(begun) <= set(ready)
            for name in ready:
                waited[name] = 0 if name in begun else waited[name] + 1
                assert waited[name] < len(names)
            assert await holding.rest(60.0)
        totals = [sum(counts) for counts in zip(*arrivals, strict=True)]
        assert [track.task.position for track in holding.own.values()] == totals
        await holding.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rota, "ROUND_S", 0.0)  # one message a turn
        asyncio.run(served())


async def test_no_more_than_eight_tracks_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "STALL_S", 0.0)
    holding = held(NAMES)
    for number, message in enumerate(messages(*(inference(i) for i in range(len(NAMES))))):
        holding.take(message)
        holding.shared.begin(0.0)
        assert await holding.rest(60.0)
        heavy = holding.heavy()
        assert (heavy is not None) == (number < OWN_TRACKS)
        if heavy is not None:
            await holding.part(heavy)
    assert len(holding.own) == OWN_TRACKS
    assert len(holding.shared.task.pipelines) == len(NAMES) - OWN_TRACKS
    await holding.close()
