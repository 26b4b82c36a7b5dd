from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import yaml

from govern.cli.demo import people, traffic
from govern.cli.demo.attack import FIXED, MAX_CHANGES, attack, refused
from govern.cli.demo.model import MODEL, THRESHOLD, Classifier, train
from govern.cli.demo.people import Person
from govern.cli.demo.plan import WHAT_IF, WINDOW, plan
from govern.cli.demo.stages.prepare import Prepared
from govern.codecs import v2
from govern.codecs.frames import from_rows, to_frame
from govern.errors import DecodeError
from govern.frame import Frame
from govern.schema import FeatureSchema
from govern.table import Table, frame_of, infer_schema


@pytest.fixture(scope="module")
def reference() -> Frame:
    table = Table("reference", people.read("reference")).head(4000)
    titles = yaml.safe_load((people.DATA / "titles.yaml").read_text(encoding="utf-8"))
    schema = infer_schema(
        table,
        MODEL,
        exclude=["id", "year", people.LABEL],
        titles={name: words["title"] for name, words in titles.items()},
    )
    return frame_of(table, schema)


@pytest.fixture(scope="module")
def classifier(reference: Frame, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    employed = people.read("reference")[people.LABEL].to_numpy()[: len(reference)].astype(np.int64)
    path = tmp_path_factory.mktemp("model") / "model.skops"
    path.write_bytes(train(reference, employed, seed=0))
    return Classifier(path)


@pytest.fixture
def year(reference: Frame, classifier: Classifier) -> traffic.Segment:
    some = people.replay(1000)[:1000]
    chosen = refused(some, classifier, reference.schema)[:12]
    return traffic.ordinary_year(
        "2016",
        some,
        reference.schema,
        tampered=attack(chosen, classifier, reference),
        rng=np.random.default_rng(1),
    )


def _decoded(call: traffic.Call, schema: FeatureSchema) -> Frame:
    return to_frame(v2.decode_request(call.body).inputs, schema)


def test_everybody_is_sent_once_in_order(year: traffic.Segment) -> None:
    sent = [one.id for call in year.calls if call.kind != "fraction" for one in call.people]

    assert sent == [one.id for one in people.replay(1000)[:1000]]
    assert len({call.request_id for call in year.calls}) == len(year.calls)


def test_the_wrong_ones_are_as_many_as_announced(year: traffic.Segment) -> None:
    kinds = Counter(call.kind for call in year.calls)

    assert kinds["tampered"] * 3 == traffic.TAMPERED
    assert kinds["months"] * 3 == traffic.MONTHS
    assert kinds["default"] * 3 == traffic.DEFAULTS
    assert kinds["fraction"] * 3 == traffic.FRACTIONS
    assert kinds["malformed"] * 3 == traffic.MALFORMED
    assert max(len(call.people) for call in year.calls) == traffic.LIST_ROWS


def test_ordinary_bodies_say_what_the_people_answered(year: traffic.Segment, reference: Frame) -> None:
    calls = [call for call in year.calls if call.kind == "ordinary"]
    call = next(one for one in calls if len(one.people) > 1)

    frame = _decoded(call, reference.schema)

    assert [frame.row(n) for n in range(len(frame))] == [one.answers for one in call.people]


def test_malformed_bodies_cannot_be_decoded_and_a_fraction_only_by_the_model(
    year: traffic.Segment, reference: Frame
) -> None:
    for call in year.calls:
        if call.kind in ("malformed", "fraction"):
            with pytest.raises(DecodeError):
                _decoded(call, reference.schema)


def test_an_attack_changes_few_answers_and_gets_people_admitted(reference: Frame, classifier: Classifier) -> None:
    chosen = refused(people.replay(1000)[:300], classifier, reference.schema)[:20]

    changed = attack(chosen, classifier, reference)

    def admitted(group: list[Person]) -> float:
        matrix = from_rows([one.answers for one in group], reference.schema).matrix()
        return float(np.mean(classifier.probabilities(matrix)[:, 1] >= THRESHOLD))

    assert admitted(chosen) == 0.0
    assert admitted(changed) > 0.7
    for before, after in zip(chosen, changed, strict=True):
        differing = {name for name in people.FEATURES if before.answers[name] != after.answers[name]}
        assert len(differing) <= MAX_CHANGES
        assert not differing & FIXED


def test_the_what_if_recodes_schooling_alone(reference: Frame) -> None:
    some = people.replay(1000)[:200]

    segment = traffic.what_if("what-if", some, reference.schema)

    assert segment.rows == 200
    for before, call in zip(some, segment.calls, strict=True):
        after = call.people[0]
        assert {**after.answers, "SCHL": before.answers["SCHL"]} == before.answers
    recoded = {
        str(one.answers["SCHL"]): str(call.people[0].answers["SCHL"])
        for one, call in zip(some, segment.calls, strict=True)
    }
    assert recoded["21"] == "13", "a bachelor's degree was 13 before 2008"
    assert recoded["16"] == "9", "a high school diploma was 9 before 2008"


def test_every_new_code_of_schooling_has_an_old_one() -> None:
    assert set(traffic.OLD_SCHOOLING) == {str(code) for code in range(2, 25)}
    assert set(traffic.OLD_SCHOOLING.values()) == {str(code) for code in range(2, 17)}


@pytest.mark.parametrize("rows", [3000, 3500, 4999])
def test_the_what_if_fills_a_window_by_itself(rows: int, reference: Frame, classifier: Classifier) -> None:
    segments = plan(Prepared(reference.schema, reference, classifier), rows, seed=0)

    judged = [sum(len(c.people) for c in one.calls if c.kind not in ("fraction", "malformed")) for one in segments]
    assert [one.name for one in segments] == ["2016", "2017", "2018", WHAT_IF]
    assert judged[0] == judged[1] == judged[2] == rows // 3
    assert sum(judged) % WINDOW == 0
    assert WINDOW <= judged[3] < 2 * WINDOW
