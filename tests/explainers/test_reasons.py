from __future__ import annotations

from typing import Any

import pytest

from explainers.base import Explained
from explainers.predicate import Predicate
from explainers.reasons import reasons
from explainers.target import Target
from govern.record import AnchorRule, Attribution
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

SCHEMA = FeatureSchema(
    format_version=FORMAT_VERSION,
    model="credit",
    features=(
        Feature(name="AGEP", kind="numeric", title="age", protected=True),
        Feature(
            name="MAR",
            kind="categorical",
            title="marital status",
            categories=("1", "5"),
            labels={"5": "never married"},
        ),
        Feature(name="debt", kind="numeric"),
        Feature(name="SEX", kind="categorical", title="sex", categories=("1", "2"), protected=True),
    ),
)


def attributed(prediction: float = 0.3, unit: Any = "probability", **contributions: float) -> Explained:
    values = {"AGEP": "62", "MAR": "5", "debt": "", "SEX": "2"}
    return Explained(
        method="shap_tree",
        output_name="",
        output_unit=unit,
        prediction=prediction,
        base_value=0.5,
        attributions=tuple(
            Attribution(feature=name, value=values[name], contribution=contributions.get(name, 0.0)) for name in values
        ),
    )


def texts(explained: Explained, target: Target = Target(), **options: Any) -> list[str]:  # noqa: B008
    return [one.text for one in reasons(explained, SCHEMA, target, **options)]


def test_a_refusal_is_explained_by_what_pushed_towards_it() -> None:
    explained = attributed(AGEP=-0.213, MAR=-0.05, debt=0.3)
    assert texts(explained) == [
        "Your age (62) lowered the score by 0.21. Age is a protected characteristic.",
        "Your marital status (never married) lowered the score by 0.050.",
    ]


def test_an_approval_is_explained_by_what_helped() -> None:
    assert texts(attributed(prediction=0.9, MAR=0.4, debt=-0.1)) == [
        "Your marital status (never married) raised the score by 0.40."
    ]


def test_where_less_is_better_a_refusal_is_what_raised_the_number() -> None:
    risk = Target(favourable="low", words="risk")
    assert texts(attributed(prediction=0.8, MAR=0.2, SEX=-0.1), risk) == [
        "Your marital status (never married) raised the risk by 0.20."
    ]


def test_log_odds_are_judged_by_the_thresholds_log_odds_and_named() -> None:
    assert texts(attributed(prediction=-0.2, unit="log-odds", MAR=-1.25, debt=1.0)) == [
        "Your marital status (never married) lowered the score by 1.2 (log-odds)."
    ]
    assert texts(attributed(prediction=-5000.0, unit="log-odds", MAR=-1.25)) != []


def test_protected_characteristics_are_never_hidden() -> None:
    explained = attributed(AGEP=-0.01, MAR=-0.2, debt=-0.1, SEX=-0.001)
    told = reasons(explained, SCHEMA, Target(), top_k=2)
    assert [one.feature for one in told] == ["MAR", "debt", "AGEP", "SEX"]
    assert told[-1].text == "Your sex (2) lowered the score by 0.0010. Sex is a protected characteristic."


def test_a_missing_value_is_said() -> None:
    assert texts(attributed(debt=-0.1)) == ["Your debt (not given) lowered the score by 0.10."]


def test_rounding_noise_is_no_reason() -> None:
    assert texts(attributed(MAR=-0.2, SEX=-1e-9)) == ["Your marital status (never married) lowered the score by 0.20."]
    assert texts(attributed()) == []


def test_ties_stand_in_schema_order() -> None:
    told = reasons(attributed(AGEP=-0.1, MAR=-0.1, debt=-0.1, SEX=-0.1), SCHEMA, Target())
    assert [one.feature for one in told] == ["AGEP", "MAR", "debt", "SEX"]


def anchored(*predicates: Predicate) -> Explained:
    return Explained(
        method="anchors",
        output_name="",
        output_unit="probability",
        prediction=0.3,
        base_value=0.5,
        predicates=predicates,
        anchor=AnchorRule(predicates=tuple(map(str, predicates)), precision=0.979, precision_lower=0.951, coverage=0.2),
    )


@pytest.mark.parametrize(
    ("predicates", "text"),
    [
        ((), "Whatever the values are, the answer is the same in 97 % of cases (at least 95 %)."),
        (
            (Predicate("debt", high=38.0),),
            "Whenever your debt is at most 38, the answer is the same in 97 % of cases (at least 95 %).",
        ),
        (
            (Predicate("debt", low=21.0, high=60.0), Predicate("MAR", category="5")),
            "Whenever your debt is above 21 and at most 60 and your marital status is never married, "
            "the answer is the same in 97 % of cases (at least 95 %).",
        ),
        (
            (Predicate("AGEP", low=60.0), Predicate("debt", missing=True), Predicate("SEX", category="2")),
            "Whenever your age is above 60, your debt is not given and your sex is 2, the answer is the same in 97 % "
            "of cases (at least 95 %). Age and sex are protected characteristics.",
        ),
    ],
)
def test_an_anchor_reads_as_a_sentence(predicates: tuple[Predicate, ...], text: str) -> None:
    assert texts(anchored(*predicates)) == [text]
