from __future__ import annotations

import pytest

from govern import record as records
from govern.bus import open_bus
from govern.bus.topics import Stream, specs, topic
from govern.cli.demo.stages.replay import UNKNOWN, drift_line, p_in_words, segments_of
from govern.cli.demo.watch import Place, Seen, Watch
from govern.codecs import cloudevents
from govern.record import Capture, FeatureResult, Inference, InstanceResult, Verdict, Window
from govern.schema import Feature, FeatureSchema

SCHEMA = FeatureSchema(
    format_version=1,
    model="employment",
    features=(
        Feature(name="AGEP", kind="numeric", title="age"),
        Feature(name="SCHL", kind="categorical", title="schooling", categories=("1", "2")),
    ),
)


def _inference(number: int, *, synthetic: bool = False, dropped: int = 0) -> Inference:
    return Inference(
        schema_version=records.SCHEMA_VERSION,
        id=f"i{number}",
        request_id=f"2016_{number}",
        namespace="demo",
        service="s",
        model="m",
        status_code=200,
        synthetic=synthetic,
        capture=Capture(agent="a", seq=number, dropped_before=dropped),
    )


def _drift(*features: FeatureResult, first: int = 0, last: int = 9) -> Verdict:
    window = Window(partition=0, first_offset=first, last_offset=last, n_instances=10)
    return Verdict(
        schema_version=records.SCHEMA_VERSION, id="v", namespace="demo", kind="drift", features=features, window=window
    )


async def test_the_watch_counts_what_lies_on_the_bus(embedded_url: str) -> None:
    flagged = Verdict(
        schema_version=records.SCHEMA_VERSION,
        id="v1",
        namespace="demo",
        step="outlier",
        kind="outlier",
        window=Window(n_instances=2),
        instances=(
            InstanceResult(instance_id="i0/0", request_id="2016_0", score=0.9, flagged=True),
            InstanceResult(instance_id="i1/0", request_id="2016_1", score=0.1),
        ),
    )
    async with open_bus(embedded_url) as bus:
        await bus.ensure_topics(specs("demo"))
        watch = Watch(bus, "demo")

        async def publish(stream: Stream, *all_: records.Record) -> None:
            await bus.publish(topic("demo", stream), [cloudevents.to_message(one, source="/test") for one in all_])

        await publish("inferences", _inference(0), _inference(1, dropped=2))
        await watch.look()
        await publish("inferences", _inference(2, synthetic=True))
        await publish("verdicts", flagged)
        await watch.look()
        await watch.look()

    seen = watch.seen
    assert seen.captured == {"2016_0": 1, "2016_1": 1}
    assert seen.synthetic == 1
    assert seen.lost == {"a": 2}
    assert seen.flags["outlier"] == {"2016_0": 0.9}
    assert (seen.flagged["outlier"], seen.judged["outlier"]) == (1, 2)
    assert seen.audited == 4


def test_a_drift_line_names_what_differs_the_surest_first() -> None:
    seen = Seen(requests={Place(0, 0): "2016_1", Place(0, 9): "2017_7"})
    verdict = _drift(
        FeatureResult(feature="AGEP", p_value=1e-4, threshold=6e-4, is_drift=True),
        FeatureResult(feature="SCHL", p_value=0.0, threshold=6e-4, is_drift=True),
    )

    line = drift_line(verdict, seen, SCHEMA)

    assert "2016/2017" in line
    assert line.index("schooling (p < 1e-09)") < line.index("age (p = 0.0001)")


def test_a_quiet_window_says_how_close_it_was() -> None:
    seen = Seen(requests={Place(0, 0): "2016_1", Place(0, 9): "2016_2"})
    verdict = _drift(
        FeatureResult(feature="AGEP", p_value=0.4, threshold=6e-4),
        FeatureResult(feature="SCHL", p_value=0.03, threshold=6e-4),
    )

    line = drift_line(verdict, seen, SCHEMA)

    assert "no drift" in line
    assert "closest: schooling (p = 0.03; an alarm is below 0.0006)" in line


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2016_1", "2016_5", "2016"),
        ("what-if_1", "what-if_5", "what-if"),
        ("2016_fraction-0", "2016_malformed-1", "2016"),
    ],
)
def test_a_window_is_of_the_segment_of_its_requests(first: str, last: str, expected: str) -> None:
    seen = Seen(requests={Place(0, 0): first, Place(0, 9): last})

    assert segments_of(_drift(), seen) == expected


def test_a_window_whose_inferences_are_not_read_yet_is_of_no_known_segment() -> None:
    assert UNKNOWN in segments_of(_drift(), Seen(requests={Place(0, 0): "2016_1"}))


def test_small_p_values_are_not_told_in_full() -> None:
    assert p_in_words(0.0) == "p < 1e-09"
    assert p_in_words(0.0123) == "p = 0.012"
