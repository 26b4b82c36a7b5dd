"""Joins that can never be met, found before the first request waits in one.

For each node the combinations of choices (which route a router takes, which of its exclusive tensors a step returns)
under which it runs are computed as the least fixed point over the graph: a node that no combination starts never runs.
A choice inside a loop is made anew on each visit, so what it excludes is looked at only where both tensors are read by
one join; what is reported never runs whatever the order of things.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Final

from govern.pipeline.checks.places import place, words
from govern.pipeline.document import Document
from govern.pipeline.errors import Problem
from govern.pipeline.graph import OUTPUT, Graph, Node, Port, reachable
from govern.pipeline.spec import JoinType

#: Choices that hold together: (step, the tensor that it returned), at most one tensor for each step.
Term = frozenset[tuple[str, str]]
#: Any of its terms suffices; empty = never.
Condition = frozenset[Term]

ALWAYS: Final[Condition] = frozenset({frozenset()})
NEVER: Final[Condition] = frozenset()
#: A condition of more terms is taken for ALWAYS: nothing wrong is then reported, and no graph takes long.
MAX_TERMS: Final = 256


def check(document: Document, one: Graph) -> list[Problem]:
    """A problem for each join that is the cause of a step that never runs, or of an output that never comes."""
    conditions = _conditions(one)
    dead = {node.name: node for node in one.nodes if not conditions[node.name]}
    found: list[Problem] = []
    blocked: dict[str, list[str]] = {}
    contradictory: set[str] = set()
    for node in dead.values():
        blockers = _blocking(node, one, conditions)
        blocked[node.name] = [writer.name for port in blockers if (writer := one.writer(port.topic)) is not None]
        if not blockers:
            contradictory.add(node.name)
            found.append(_contradiction(document, one, node, conditions))
    told: set[str] = set()
    for node in sorted(dead.values(), key=lambda node: not _mixed(node, one, conditions)):
        behind = reachable(blocked, node.name)
        together = all(node.name in reachable(blocked, name) for name in behind)
        if behind and together and not behind & (contradictory | told):
            told.add(node.name)
            found.append(_loop(document, one, node, conditions, dead))
    return found


def exclusive(node: Node) -> tuple[str, ...]:
    """The tensors of which a node returns exactly one."""
    if node.step is None:
        return ()
    if node.step.router is not None:
        return tuple(route.name for route in node.step.router.routes)
    typed = node.step.model or node.step.transformer
    return typed.one_of if typed is not None else ()


def _conditions(one: Graph) -> dict[str, Condition]:
    looped = {node.name for node in one.nodes if node.looped}
    found = {node.name: NEVER for node in one.nodes}
    changed = True
    while changed:
        changed = False
        for node in one.nodes:
            inputs = _joined([_of_port(port, one, found) for port in node.inputs], node.inputs_join)
            triggers = _joined([_of_port(port, one, found) for port in node.triggers], node.triggers_join)
            met = _and(inputs, triggers if node.triggers else ALWAYS)
            free = {frozenset((step, tensor) for step, tensor in term if step not in looped) for term in met}
            met = _simplest(free | found[node.name])
            if met != found[node.name]:
                found[node.name], changed = met, True
    return found


def _of_port(port: Port, one: Graph, conditions: Mapping[str, Condition]) -> Condition:
    writer = one.writer(port.topic)
    if writer is None:
        return ALWAYS
    condition = conditions[writer.name]
    if port.topic == writer.gives and port.tensor in exclusive(writer):
        return _and(condition, frozenset({frozenset({(writer.name, port.tensor)})}))
    return condition


def _joined(conditions: Sequence[Condition], join: JoinType) -> Condition:
    if join != "inner":
        return _simplest(term for condition in conditions for term in condition)
    met = ALWAYS
    for condition in conditions:
        met = _and(met, condition)
    return met


def _and(one: Condition, other: Condition) -> Condition:
    return _simplest(
        left | right for left in one for right in other if len({step for step, _ in left | right}) == len(left | right)
    )


def _simplest(terms: Iterable[Term]) -> Condition:
    """Without the terms that ask for more than another one."""
    kept: list[Term] = []
    for term in sorted(set(terms), key=len):
        if not any(other <= term for other in kept):
            kept.append(term)
        if len(kept) > MAX_TERMS:
            return ALWAYS
    return frozenset(kept)


def _blocking(node: Node, one: Graph, conditions: Mapping[str, Condition]) -> list[Port]:
    """The ports at which a node that never runs waits for another one that never does."""
    found: list[Port] = []
    for ports, join in ((node.inputs, node.inputs_join), (node.triggers, node.triggers_join)):
        never = [port for port in ports if not _of_port(port, one, conditions)]
        if join == "inner" or len(never) == len(ports):
            found += never
    return found


def _mixed(node: Node, one: Graph, conditions: Mapping[str, Condition]) -> bool:
    """Whether another join would start the node: some of what it reads comes."""
    return any(_of_port(port, one, conditions) for port in node.inputs)


def _contradiction(document: Document, one: Graph, node: Node, conditions: Mapping[str, Condition]) -> Problem:
    """Each of the node's ports can be served, and not all that must be at once."""
    for ports, join in ((node.inputs, node.inputs_join), (node.triggers, node.triggers_join)):
        key = "inputs" if ports is node.inputs else "triggers"
        if join != "inner" or _joined([_of_port(port, one, conditions) for port in ports], join):
            continue
        for left, right in combinations(ports, 2):
            conflict = _conflict(_of_port(left, one, conditions), _of_port(right, one, conditions))
            if conflict:
                what = f"{left.text} and {right.text} never come together"
                fix = f"write {_join_key(node, key)}: any"
                return document.problem(place(one, node, right), what, _said(conflict, one), fix)
        why = "the branches that they come from exclude each other"
        what, fix = f"the {key} of {words(node)} never come together", f"write {_join_key(node, key)}: any"
        return document.problem(place(one, node, ports[0])[:-1], what, why, fix)
    inputs = _joined([_of_port(port, one, conditions) for port in node.inputs], node.inputs_join)
    triggers = _joined([_of_port(port, one, conditions) for port in node.triggers], node.triggers_join)
    what = f"{words(node)} is never triggered when it has inputs"
    why = _said(_conflict(inputs, triggers), one)
    fix = "trigger it by the branch that its inputs come from"
    return document.problem(place(one, node, node.triggers[0]), what, why, fix)


def _conflict(left: Condition, right: Condition) -> str:
    """A step whose choice keeps two conditions apart; "" when they can hold together."""
    if _and(left, right):
        return ""
    shared = [
        sorted(step for step, tensor in one if any(step == other and tensor != name for other, name in two))
        for one in left
        for two in right
    ]
    return shared[0][0] if shared and shared[0] else ""


def _said(step: str, one: Graph) -> str:
    node = next(node for node in one.nodes if node.name == step)
    does = "takes one of its routes" if node.role == "router" else "returns one of its exclusive tensors"
    return f"{node.role} {step!r} {does} for each request: {', '.join(exclusive(node))}"


def _loop(
    document: Document, one: Graph, node: Node, conditions: Mapping[str, Condition], dead: Mapping[str, Node]
) -> Problem:
    port = _blocking(node, one, conditions)[0]
    path = _path(node, one, conditions, dead)
    what = f"{words(node)} waits for itself: {' -> '.join(path)}"
    why = f"{port.text} comes only after it has run"
    fix = f"let a step of the loop read {one.name}.inputs as well, and write inputsJoinType: any there"
    if _mixed(node, one, conditions):
        key = "inputs" if port in node.inputs else "triggers"
        fix = f"write {_join_key(node, key)}: any" if len(getattr(node, key)) > 1 else f"remove it from the {key}"
    return document.problem(place(one, node, port), what, why, fix)


def _path(node: Node, one: Graph, conditions: Mapping[str, Condition], dead: Mapping[str, Node]) -> list[str]:
    """From a node over those that wait for it back to it, in the direction of the data."""
    before: dict[str, str] = {}
    waiting = [node.name]
    while waiting:
        name = waiting.pop(0)
        for port in _blocking(dead[name], one, conditions):
            writer = one.writer(port.topic)
            assert writer is not None, "what comes from outside is never waited for in vain"
            if writer.name == node.name:
                path = [node.name, name]
                while path[-1] != node.name:
                    path.append(before[path[-1]])
                return path
            if writer.name not in before:
                before[writer.name] = name
                waiting.append(writer.name)
    raise AssertionError("only a node on a cycle is asked for its path")


def _join_key(node: Node, key: str) -> str:
    if node.name == OUTPUT:
        return "stepsJoin"
    if node.step is None:
        return "joinType" if key == "inputs" else "triggersJoinType"
    return f"{key}JoinType"
