"""Combiner, router and transformer, each by itself."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.bus.protocol import MAX_MESSAGE_BYTES
from govern.codecs.tensor import Tensor, objects
from govern.errors import BadInput, ConfigError
from govern.pipeline.spec import CombinerSpec, Route, RouterSpec, TransformerSpec
from govern.record import Feedback
from govern.runtime.flow import Call, Flow, FlowModel, Part
from govern.runtime.flow.steps import open_routes
from govern.runtime.flow.steps.bandit import Bandit, choose
from govern.runtime.flow.steps.combiner import Combiner
from govern.runtime.flow.steps.open_routes import OpenRoutes
from govern.runtime.flow.steps.router import Router
from govern.runtime.flow.steps.transformer import BadReturn, transformer
from govern.runtime.serving.model import ModelMetadata
from tests.runtime.flow.conftest import graph_of, tensors
from tests.runtime.flow.conftest import step as function_step


def call(*given_: Tensor, request_id: str = "r", missing: int = -1) -> Call:
    parts = [Part(f"s{at}.outputs", at, (one,)) for at, one in enumerate(given_)]
    return Call(request_id, 0, tuple(part for part in parts if part.position != missing))


def fp(values: list[float], datatype: str = "FP64") -> Tensor:
    return Tensor("x", datatype, np.array(values, np.float32 if datatype == "FP32" else np.float64))


async def test_means_are_of_each_element() -> None:
    mean = Combiner(CombinerSpec(method="mean", output="m"))
    (one,) = await mean(call(fp([1, 2], "FP32"), fp([3, 6], "FP32")))
    assert (one.name, one.datatype, one.data.dtype, one.data.tolist()) == ("m", "FP32", np.float32, [2, 4])
    (one,) = await mean(call(fp([1, 2], "FP32"), Tensor("n", "INT64", np.array([2, 3]))))
    assert (one.datatype, one.data.tolist()) == ("FP64", [1.5, 2.5])
    weighted = Combiner(CombinerSpec(method="weighted", weights=(3.0, 1.0, 0.0)))
    (one,) = await weighted(call(fp([4]), fp([8]), fp([100])))
    assert (one.name, one.data.tolist()) == ("output", [5])
    (one,) = await weighted(call(fp([4]), fp([8]), fp([100]), missing=0))
    assert one.data.tolist() == [8]


async def test_a_vote_keeps_the_type_and_the_first_of_equals() -> None:
    vote = Combiner(CombinerSpec(method="vote"))
    texts = [Tensor("x", "BYTES", objects(one)) for one in (["a", "a"], ["b", "b"], ["b", "c"])]
    (one,) = await vote(call(*texts))
    assert (one.datatype, one.data.tolist()) == ("BYTES", ["b", "a"])
    (one,) = await vote(call(fp([1.0]), fp([np.nan]), fp([np.nan])))
    assert np.isnan(one.data).all()


@pytest.mark.parametrize(
    ("method", "given_", "message"),
    [
        ("mean", [fp([1]), fp([1, 2])], r"s1.outputs: tensor 'x' has shape \[2\].*s0.outputs: tensor 'x' has shape"),
        ("mean", [Tensor("x", "BYTES", objects(["a"]))], "'x' is BYTES: a mean is taken of numbers"),
        ("vote", [fp([1]), fp([1], "FP32")], "'x' has datatype FP32: .* has datatype FP64"),
        ("weighted", [fp([1])], "their weights are 0"),
    ],
)
async def test_what_cannot_be_combined_is_named(method: str, given_: list[Tensor], message: str) -> None:
    weights = (0.0, 1.0) if method == "weighted" else ()
    combiner = Combiner(CombinerSpec.model_validate({"method": method, "weights": weights}))
    with pytest.raises(BadInput, match=message):
        await combiner(call(*given_))


async def test_an_input_of_several_tensors_is_named() -> None:
    with pytest.raises(ConfigError, match="a brings y, z: a combiner takes one tensor"):
        await Combiner(CombinerSpec(method="mean"))(Call("r", 0, (Part("a", 0, tuple(tensors(y=1, z=2))),)))


def spec(strategy: str, *weights: float, epsilon: float = 0.1, seed: int = 0) -> RouterSpec:
    routes = tuple(Route(name=f"r{at}", weight=weight) for at, weight in enumerate(weights or (1.0, 1.0)))
    return RouterSpec.model_validate({"strategy": strategy, "routes": routes, "epsilon": epsilon, "seed": seed})


def test_weights_are_shares_and_a_route_of_weight_0_is_closed() -> None:
    taken = Counter(choose(spec("weighted", 1, 0, 3), Bandit(), (f"{at}",)) for at in range(4000))
    assert taken.keys() == {"r0", "r2"}
    assert taken["r0"] == pytest.approx(1000, abs=110)  # four standard deviations


@given(st.sampled_from(["weighted", "epsilon-greedy", "thompson"]), st.integers(0, 9), st.text(max_size=5))
def test_a_route_follows_from_seed_request_and_what_was_learned(strategy: str, seed: int, request_id: str) -> None:
    known = Bandit().update("r0", 1.0).update("r1", 0.5)
    again = msgspec.json.decode(msgspec.json.encode(known), type=Bandit)
    assert again == known
    one, two = (choose(spec(strategy, seed=seed), each, ("router", request_id)) for each in (known, again))
    assert one == two


def test_seeds_are_other_experiments() -> None:
    one, two = ([choose(spec("weighted", seed=seed), Bandit(), (f"{at}",)) for at in range(64)] for seed in (0, 1))
    assert one != two


@pytest.mark.parametrize(("strategy", "least"), [("epsilon-greedy", 800), ("thompson", 800)])
async def test_a_bandit_finds_the_better_route_by_feedback(strategy: str, least: int) -> None:
    """Of r0, worth 0.3 on average, and r1, worth 0.6; rewards are drawn by a seeded generator."""
    router = Router("choose", spec(strategy))
    random = np.random.default_rng(0)
    routes: Counter[str] = Counter()
    for at in range(1000):
        (tensor,) = await router(call(fp([1]), request_id=f"{at}"))
        routes[tensor.name] += 1
        reward = float(random.random() < {"r0": 0.3, "r1": 0.6}[tensor.name])
        assert router.learn(Feedback(request_id=f"{at}", reward=reward))
    assert routes["r1"] > least
    assert router.state().keys() == {"bandit"}


async def test_feedback_is_learned_once_and_only_for_requests_that_were_routed() -> None:
    router = Router("choose", spec("thompson"))
    (tensor,) = await router(call(fp([1])))
    assert (tensor.datatype, tensor.data.tolist()) == ("BOOL", [True])
    assert not router.learn(Feedback(request_id="other", reward=1.0))
    assert not router.learn(Feedback(request_id="r", label="approved"))
    with pytest.raises(BadInput, match=r"reward 7: .*between 0 and 1"):
        router.learn(Feedback(request_id="r", reward=7.0))
    successor = Router("choose", spec("thompson"))
    successor.restore(router.state())
    assert successor.learn(Feedback(request_id="r", reward=1.0))
    assert not successor.learn(Feedback(request_id="r", reward=1.0))
    assert successor.bandit == Bandit(rewards={tensor.name: 1}, total={tensor.name: 1.0})


def test_what_a_router_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_routes, "OPEN_REQUESTS_MAX", 2)
    routes = OpenRoutes()
    for request_id in ("a", "b", "a", "c"):
        routes.put(request_id, "r0")
    assert [routes.get(request_id) for request_id in ("a", "b", "c")] == ["r0", None, "r0"]


def test_no_chunk_of_open_routes_is_longer_than_a_message() -> None:
    routes = OpenRoutes()
    for number in range(1000):
        routes.put(chr(1) * (open_routes.ID_CHARS_MAX - 4) + f"{number:04}", "r" * 63)  # six bytes each, as JSON
    routes.put("x" * 10**6, "r0")
    assert len(routes) == 1000
    assert max(len(msgspec.json.encode(chunk)) for chunk in routes.chunks().values()) < MAX_MESSAGE_BYTES / 2


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["put", "remove", "keep", "restart"])), max_size=60))
def test_what_is_kept_of_open_routes_is_what_is_remembered(steps: list[tuple[int, str]]) -> None:
    """A table of the changes, each written when it is asked for, restores all that was put before the last of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_routes, "CHUNK", 3)
        routes, table = OpenRoutes(), dict[int, dict[str, str]]()
        remembered: dict[str, str] = {}
        for at, (request, what) in enumerate(steps):
            if what == "put":
                routes.put(f"{request}", f"r{at}")
                remembered.pop(f"{request}", None)
                remembered[f"{request}"] = f"r{at}"
            elif what == "remove":
                routes.remove(f"{request}")
                remembered.pop(f"{request}", None)
            else:
                changed = routes.changed()
                table = {n: chunk for n, chunk in (table | changed).items() if chunk is not None}
            if what == "restart":
                routes = OpenRoutes()
                routes.put("early", "r")
                routes.restore(table)
                remembered["early"] = "r"
            assert {one: route for chunk in routes.chunks().values() for one, route in chunk.items()} == remembered
            assert all(len(chunk) <= 3 for chunk in routes.chunks().values())


async def test_a_model_hands_feedback_to_its_routers() -> None:
    text = """
    steps:
      - {name: choose, router: {strategy: thompson, routes: [{name: r0}, {name: r1}]}}
      - {name: left, inputs: [p.inputs], triggers: [choose.outputs.r0]}
      - {name: right, inputs: [p.inputs], triggers: [choose.outputs.r1]}
    output: {steps: [left, right], stepsJoin: any}
    """
    router = Router("choose", spec("thompson"))
    left, right = (function_step(lambda x, name=name: {name: x}) for name in ("left", "right"))
    flow = Flow(graph_of(text), {"choose": router, "left": left, "right": right})
    model = FlowModel(flow, ModelMetadata(name="p", inputs=(), outputs=()), routers=[router])
    (answer,) = await model.infer(tensors(x=1), request_id="asked")
    assert json.loads(router.state()["0"]) == {"asked": {"left": "r0", "right": "r1"}[answer.name]}
    assert model.learn(Feedback(request_id="asked", reward=1.0))


def scale(given_: dict[str, Tensor], *, by: float = 2.0) -> dict[str, object]:
    return {name: one.data * by for name, one in given_.items()} | {"text": np.array(["a", "b"])}


async def later(given_: dict[str, Tensor]) -> dict[str, Tensor]:
    return given_


def wrong(given_: dict[str, Tensor], what: str) -> object:
    return {"list": [1], "value": {"y": [1.0]}, "dtype": {"y": np.array([1j])}}[what]


def step(name: str, **params: float | str) -> TransformerSpec:
    return TransformerSpec(callable=f"{__name__}:{name}", params=dict(params))


async def test_a_function_of_tensors_is_a_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    scaled, text = await transformer("s", step("scale", by=3.0))(call(fp([1, 2])))
    assert (scaled.name, scaled.datatype, scaled.data.tolist()) == ("x", "FP64", [3, 6])
    assert (text.datatype, text.data.tolist()) == ("BYTES", ["a", "b"])
    (same,) = await transformer("s", step("later"))(call(fp([1])))
    assert same.data.tolist() == [1]


@pytest.mark.parametrize(
    ("what", "message"),
    [("list", "returned list"), ("value", "returned 'y': it is list"), ("dtype", "no datatype for numpy's complex128")],
)
async def test_what_is_no_tensors_is_named(what: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    with pytest.raises(BadReturn, match=message):
        await transformer("s", step("wrong", what=what))(call(fp([1])))


@pytest.mark.parametrize(
    ("callable_", "params", "message"),
    [
        ("nowhere_at_all:f", {}, "step 's': transformer.callable nowhere_at_all:f: module .* cannot be imported"),
        ("json:nothing", {}, "no attribute 'nothing'.*behind the colon"),
        ("json:__name__", {}, "it is str, no function"),
        ("json:loads", {"by": 1, "s": 2}, "does not take the step's params: multiple values"),
    ],
)
def test_a_function_that_is_not_there_is_named(callable_: str, params: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        transformer("s", TransformerSpec(callable=callable_, params=dict(params)))


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest imports this module without making it importable by its name."""
    import sys
    from types import ModuleType

    module = ModuleType(__name__)
    for function in (scale, later, wrong):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, __name__, module)
