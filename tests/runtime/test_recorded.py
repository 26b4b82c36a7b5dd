"""Rows to fit on from the topic: which inferences count, and that the draw is uniform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from govern.bus import Bus, Outgoing, open_bus
from govern.bus.topics import specs, topic
from govern.codecs import cloudevents
from govern.errors import BadInput, NotFound
from govern.record import Inference
from govern.runtime.recorded import Stream, Wanted
from govern.schema import FeatureSchema
from tests.runtime.conftest import START_NS, Fitted, Make, payload

ANY = Wanted("employment")


@pytest.fixture
def schema(fitted: Fitted) -> FeatureSchema:
    return FeatureSchema.load(fitted.folder / "schema.yaml")


async def published(bus: Bus, namespace: str, given: Sequence[Inference | Outgoing]) -> Stream:
    await bus.ensure_topics(specs(namespace, partitions=1))
    messages = [one if isinstance(one, Outgoing) else cloudevents.to_message(one, source="/test") for one in given]
    await bus.publish(topic(namespace, "inferences"), messages)
    return await Stream.open(bus, namespace)


async def test_what_a_worker_would_not_judge_is_left_out_and_counted(
    bus_url: str, unique: str, make_inference: Make, schema: FeatureSchema
) -> None:
    no_output = make_inference(5, response=payload(b"{}"))
    given = [
        make_inference(0, 3),
        make_inference(1, synthetic=True),
        make_inference(2, status_code=503),
        Outgoing(key=b"k", value=b"\xff", headers=()),
        make_inference(3, model="another"),
        make_inference(4, request=payload(b"no JSON")),
        no_output,
        make_inference(6, service="elsewhere"),
        make_inference(7, 2, revision="r2"),
    ]
    async with open_bus(bus_url) as bus:
        stream = await published(bus, unique, given)
        read: list[int] = []
        found = await stream.draw(ANY, schema, rows=100, seed=0, outputs=["probability"], progress=read.append)
        newer = await stream.draw(Wanted("employment", revision="r2"), schema, rows=100, seed=0)
        theirs = await stream.draw(Wanted("employment", service="elsewhere"), schema, rows=100, seed=0)
        without = await stream.draw(ANY, schema, rows=100, seed=0)
    assert (found.inferences, found.rows, len(found.frame)) == (3, 6, 6)
    assert found.left_out.counts == {
        "are synthetic": 1,
        "were not answered": 1,
        "are no records": 1,
        "cannot be read": 1,
        "have no output 'probability' for its rows": 1,
    }
    assert all(unique in example for example in found.left_out.examples.values())
    assert found.frame.outputs["probability"].shape == (6, 1)
    assert (found.t_first, found.t_last) == (START_NS + 5_000_000, START_NS + 7 * 10**9 + 5_000_000)
    assert sum(read) >= len(given)
    assert set(newer.frame.instance_ids) == {"inference-7/0", "inference-7/1"}
    assert theirs.frame.instance_ids == ("inference-6/0",)
    assert without.inferences == 4
    assert "probability" not in without.frame.outputs


async def test_the_draw_is_uniform_and_is_the_same_for_a_seed(
    embedded_url: str, unique: str, make_inference: Make, schema: FeatureSchema
) -> None:
    given = [make_inference(i, 4) for i in range(100)]
    async with open_bus(embedded_url) as bus:
        stream = await published(bus, unique, given)
        drawn = [(await stream.draw(ANY, schema, rows=40, seed=seed)).frame.instance_ids for seed in range(30)]
        again = await stream.draw(ANY, schema, rows=40, seed=7)
        first = (await stream.draw(ANY, schema, rows=400, seed=0)).frame.instance_ids
    assert again.frame.instance_ids == drawn[7]
    assert again.rows == 400
    assert drawn[0] != drawn[1]
    place = {name: number for number, name in enumerate(first)}
    places = np.array([[place[name] for name in one] for one in drawn])
    assert (np.diff(places) > 0).all(), "rows keep their order, none twice"
    # 1,200 places of 0..399: the standard error of their mean is at most 115 / sqrt(1,200) = 3.3.
    assert abs(places.mean() - 199.5) < 5 * 3.3
    assert len(np.unique(places)) > 360, "0.9 ** 30 = 4 % of the places are expected to be never drawn"


async def test_a_schema_is_drawn_from_the_requests(
    embedded_url: str, unique: str, make_inference: Make, schema: FeatureSchema
) -> None:
    broken = make_inference(100, request=payload(b"{}"))
    other = make_inference(
        101, request=payload(b'{"inputs": [{"name": "z", "shape": [1], "datatype": "FP64", "data": [1]}]}')
    )
    async with open_bus(embedded_url) as bus:
        stream = await published(bus, unique, [broken, *(make_inference(i, 20) for i in range(100)), other])
        found = await stream.describe(ANY, protected=["SEX"], pii=["AGEP"])
        frame = (await stream.draw(ANY, found, rows=5000, seed=0)).frame
        known = (await stream.draw(ANY, schema, rows=5000, seed=0)).frame
    assert found.names == schema.names
    assert [one.kind for one in found.features] == [one.kind for one in schema.features]
    assert [one.datatype for one in found.features] == [one.datatype for one in schema.features]
    assert found["SEX"].protected
    assert found["AGEP"].pii
    assert [frame.row(i) for i in range(50)] == [known.row(i) for i in range(50)]


async def test_columns_of_one_tensor_are_numbered(embedded_url: str, unique: str, make_inference: Make) -> None:
    bodies = [b'{"instances": [[%d.5, "red"], [%d.25, "blue"]]}' % (i, i) for i in range(30)]
    given = [make_inference(i, protocol="v1", request=payload(body)) for i, body in enumerate(bodies)]
    async with open_bus(embedded_url) as bus:
        stream = await published(bus, unique, given)
        found = await stream.describe(ANY, protected=[], pii=[])
        frame = (await stream.draw(ANY, found, rows=100, seed=0)).frame
    assert found.names == ("instances_0", "instances_1")
    assert [one.kind for one in found.features] == ["numeric", "categorical"]
    assert frame.row(1) == {"instances_0": 0.25, "instances_1": "blue"}


async def test_nothing_to_use_says_why(
    embedded_url: str, unique: str, make_inference: Make, schema: FeatureSchema
) -> None:
    async with open_bus(embedded_url) as bus:
        stream = await published(bus, unique, [make_inference(0, protocol="csv"), make_inference(1, status_code=500)])
        with pytest.raises(
            NotFound, match=r"1 cannot be read without a schema, such as .*@0: a request of protocol 'csv'"
        ):
            await stream.describe(ANY, protected=[], pii=[])
        with pytest.raises(NotFound, match="it has none that you ask for"):
            await stream.draw(Wanted("nobody"), schema, rows=1, seed=0)


async def test_columns_of_several_types_are_told(embedded_url: str, unique: str, make_inference: Make) -> None:
    bodies = [b'{"instances": [{"a": 1}]}', b'{"instances": [{"a": "text"}]}']
    given = [make_inference(i, protocol="v1", request=payload(body)) for i, body in enumerate(bodies)]
    async with open_bus(embedded_url) as bus:
        stream = await published(bus, unique, given)
        with pytest.raises(BadInput, match="column 'a' of the requests"):
            await stream.describe(ANY, protected=[], pii=[])
