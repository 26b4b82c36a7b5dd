"""Joins across streams: against a reference that looks at everything anew each time, and over every interleaving."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from govern.pipeline.spec import JoinType
from govern.runtime.chained.joins import SILENT_NS, Dropped, Joined, JoinKey, JoinRule, Joins, Outcome, Part, Waiting

WINDOW_NS = 100
#: Far from zero, so that a time before the first one is a time, too.
START_NS = 10**15
joins = st.sampled_from(("inner", "outer", "any"))
rules = st.builds(
    JoinRule,
    inputs=st.integers(1, 3),
    inputs_join=joins,
    triggers=st.integers(0, 2),
    triggers_join=joins,
    window_ns=st.just(WINDOW_NS),
).filter(lambda rule: len(rule.ports) > 1)


def part(request: str, port: int, at: int = 0, *, arrived: int = 0) -> Part:
    body = f"{request}/{port}/{at}".encode()
    return Part(JoinKey("b", request), port, START_NS + at, START_NS + arrived, body)


class Reference:
    """The same by its rules alone: all parts that came, looked through from the beginning for each new one."""

    def __init__(self, rule: JoinRule) -> None:
        self.rule = rule
        self.newest: dict[int, int] = {}
        self.calls: list[tuple[JoinKey, list[Part], bool]] = []

    def add(self, one: Part) -> list[Outcome]:
        found: list[Outcome] = []
        mine = [call for call in self.calls if call[0] == one.key]
        for call in mine:
            if abs(call[1][0].time_ns - one.time_ns) > WINDOW_NS:
                found += self.end(call)
        mine = [call for call in self.calls if call[0] == one.key]
        if mine and (mine[0][2] or any(other.port == one.port for other in mine[0][1])):
            found.append(Dropped(one.key, late=True))
        else:
            parts = [*mine[0][1], one] if mine else [one]
            self.calls = [call for call in self.calls if call[0] != one.key]
            met = self.met(parts, over=False)
            self.calls.append((one.key, parts, met is not None))
            if met is not None:
                found.append(Joined(one.key, met))
        self.newest[one.port] = max(one.time_ns, self.newest.get(one.port, 0))
        if all(port in self.newest for port in self.rule.ports):
            reached = min(self.newest.values())
            for call in sorted(self.calls, key=lambda call: (call[1][0].time_ns, call[0])):
                if call[1][0].time_ns + WINDOW_NS < reached:
                    found += self.end(call)
        return found

    def end(self, call: tuple[JoinKey, list[Part], bool]) -> list[Outcome]:
        self.calls.remove(call)
        if call[2]:
            return []
        met = self.met(call[1], over=True)
        return [Dropped(call[0]) if met is None else Joined(call[0], met)]

    def met(self, parts: list[Part], *, over: bool) -> tuple[bytes, ...] | None:
        rule = self.rule
        ports = {one.port for one in parts}
        inputs, triggers = set(range(rule.inputs)), set(rule.ports) - set(range(rule.inputs))
        came = [one for one in parts if one.port in inputs]
        allowed = triggers <= ports if rule.triggers_join == "inner" else not triggers or bool(triggers & ports)
        ready = {
            "inner": inputs <= ports,
            "outer": inputs <= ports or (over and bool(came)),
            "any": bool(came),
        }[rule.inputs_join]
        if not (allowed and ready):
            return None
        if rule.inputs_join == "any":
            return (came[0].body,)
        return tuple(one.body for one in sorted(came, key=lambda one: one.port))


@given(rules, st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 4), st.integers(0, 500)), max_size=40))
def test_it_does_what_the_reference_does_also_when_it_is_restored_after_each_part(
    rule: JoinRule, drawn: list[tuple[str, int, int]]
) -> None:
    parts = [part(request, port % len(rule.ports), at) for request, port, at in drawn]
    reference, whole, kept = Reference(rule), Joins({"b": rule}), Joins({"b": rule})
    for one in parts:
        expected = reference.add(one)
        assert whole.add(one) == expected
        heir = Joins({"b": rule})
        heir.restore(kept.waiting, kept.progress)
        kept = heir
        assert kept.add(one) == expected
    assert kept.waiting == whole.waiting


@given(st.data())
def test_neither_the_order_of_streams_nor_a_pause_of_one_changes_what_is_joined(data: st.DataObject) -> None:
    """Each stream is in order; of the parts of one request all, some or one come, within the window of each other."""
    join: JoinType = data.draw(st.sampled_from(("inner", "outer")))
    rule = JoinRule(2, join, data.draw(st.integers(0, 1)), "inner", WINDOW_NS)
    streams: list[list[Part]] = [[] for _ in rule.ports]
    for number, at in enumerate(sorted(data.draw(st.lists(st.integers(0, 2000), max_size=12)))):
        for port in rule.ports:
            if data.draw(st.booleans()):
                streams[port].append(part(f"request-{number}", port, at + data.draw(st.integers(0, WINDOW_NS // 2))))
    for stream in streams:
        stream.sort(key=lambda one: one.time_ns)
    for port, stream in enumerate(streams):  # each goes on until all of the windows are over
        stream.append(part(f"last-{port}", port, 9000))

    def outcomes(order: list[int]) -> Counter[Outcome]:
        rest = [iter(stream) for stream in streams]
        state = Joins({"b": rule})
        return Counter(chain.from_iterable(state.add(next(rest[port])) for port in order))

    ports = [port for port in rule.ports for _ in streams[port]]
    assert outcomes(data.draw(st.permutations(ports))) == outcomes(ports)


def test_a_silent_stream_is_waited_for_beyond_the_window_but_not_for_ever() -> None:
    state = Joins({"b": JoinRule(2, "outer", 0, "inner", WINDOW_NS)})
    assert state.add(part("x", 0)) == []
    assert state.add(part("y", 0, 5000)) == []  # the other stream may be behind
    waited = START_NS + WINDOW_NS + SILENT_NS
    assert state.expire(waited) == []
    assert state.expire(waited + 1, watched_since_ns=START_NS + 10) == []  # nobody was there before
    assert state.expire(waited + 1) == [
        Joined(JoinKey("b", "x"), (b"x/0/0",)),
        Joined(JoinKey("b", "y"), (b"y/0/5000",)),
    ]
    assert state.add(part("x", 1, 3)) == [Dropped(JoinKey("b", "x"), late=True)]
    assert state.expire(waited + 2) == []
    assert state.expire(2 * waited) == []
    assert state.waiting == {}


def test_what_waits_is_bounded_in_number_and_in_bytes() -> None:
    rule = JoinRule(2, "inner", 0, "inner", 10**12)
    few = Joins({"b": rule}, max_requests=3)
    assert [one for number in range(5) for one in few.add(part(f"r{number}", 0, number))] == [
        Dropped(JoinKey("b", "r0")),
        Dropped(JoinKey("b", "r1")),
    ]
    small = Joins({"b": rule}, max_bytes=13)
    assert [one for number in range(4) for one in small.add(part(f"r{number}", 0, number))] == [
        Dropped(JoinKey("b", "r0")),
        Dropped(JoinKey("b", "r1")),
    ]
    assert small.add(part("r2", 1, 2)) == [Joined(JoinKey("b", "r2"), (b"r2/0/2", b"r2/1/2"))]
    assert small.add(part("r4", 0, 4)) == []  # what was passed on takes no room


def test_what_a_changed_file_joins_no_more_is_left_behind() -> None:
    state = Joins({"b": JoinRule(2, "inner", 0, "inner", WINDOW_NS)})
    gone, kept = JoinKey("gone", "x"), JoinKey("b", "x")
    state.restore(
        {key: Waiting(START_NS, START_NS, {0: b"body"}) for key in (gone, kept)}, {"gone": {0: 1}, "b": {0: 1, 7: 2}}
    )
    assert (list(state.waiting), state.progress, state.changed) == ([kept], {"b": {0: 1}}, set())
