"""Reasons: an explanation in words that the person concerned can read.

Adverse-action notices name the principal reasons for a refusal (in the US: Regulation B, 12 CFR 1002.9(b)(2), and the
official interpretation that more than four reasons are not likely to be helpful). Reasons therefore say what pushed
towards the answer that was given, strongest first. A protected characteristic that did so is always among them,
whatever its rank, and is marked: hiding it would hide the very thing that a reviewer must see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from explainers.base import Explained
from explainers.predicate import Predicate
from explainers.target import Target
from govern.record import Attribution, Reason
from govern.schema import Feature, FeatureSchema

#: Regulation B's official interpretation: disclosure of more than four reasons is not likely to be helpful.
TOP_K: Final = 4
#: Contributions below this share of the largest are rounding: TreeSHAP works in single precision.
_NOISE: Final = 1e-6
#: Significant digits of a contribution; two tell a person how much it mattered.
_DIGITS: Final = 2


def reasons(explained: Explained, schema: FeatureSchema, target: Target, *, top_k: int = TOP_K) -> tuple[Reason, ...]:
    """The reasons for the answer that was given: at most `top_k`, and every protected characteristic beyond them.

    An anchor gives one reason, whose feature is "" and whose contribution is 0. Equal explanations give equal
    reasons, in the same order.
    """
    if explained.anchor is not None:
        return (_rule(explained, schema),)
    helped = target.is_favourable(explained.prediction, explained.output_unit)
    upwards = helped == (target.favourable == "high")
    noise = _NOISE * max((abs(one.contribution) for one in explained.attributions), default=0.0)
    pushed = [
        one for one in explained.attributions if abs(one.contribution) > noise and (one.contribution > 0) == upwards
    ]
    pushed.sort(key=lambda one: (-abs(one.contribution), schema.index(one.feature)))
    kept = [one for rank, one in enumerate(pushed) if rank < top_k or schema[one.feature].protected]
    return tuple(_reason(one, schema[one.feature], explained.output_unit, target) for one in kept)


def _reason(one: Attribution, feature: Feature, unit: str, target: Target) -> Reason:
    verb = "raised" if one.contribution > 0 else "lowered"
    amount = f"{_rounded(abs(one.contribution))}{' (log-odds)' if unit == 'log-odds' else ''}"
    value = feature.label(one.value) if one.value else "not given"
    text = f"Your {feature.words} ({value}) {verb} the {target.words} by {amount}."
    return Reason(feature=one.feature, text=text + _mark([feature]), contribution=one.contribution)


def _rule(explained: Explained, schema: FeatureSchema) -> Reason:
    assert explained.anchor is not None
    precision, at_least = explained.anchor.precision, explained.anchor.precision_lower
    same = f"the answer is the same in {_percent(precision)} of cases (at least {_percent(at_least)})."
    if not explained.predicates:
        return Reason(text=f"Whatever the values are, {same}")
    features = [schema[one.feature] for one in explained.predicates]
    said = [_condition(one, feature) for one, feature in zip(explained.predicates, features, strict=True)]
    return Reason(text=f"Whenever {_listed(said)}, {same}" + _mark(features))


def _condition(one: Predicate, feature: Feature) -> str:
    words = f"your {feature.words}"
    if one.missing:
        return f"{words} is not given"
    if one.category is not None:
        return f"{words} is {feature.label(one.category)}"
    if one.low is None:
        return f"{words} is at most {one.high:g}"
    if one.high is None:
        return f"{words} is above {one.low:g}"
    return f"{words} is above {one.low:g} and at most {one.high:g}"


def _mark(features: Sequence[Feature]) -> str:
    protected = [feature.words for feature in features if feature.protected]
    if not protected:
        return ""
    names = _listed(protected)
    verb, what = ("is", "a protected characteristic") if len(protected) == 1 else ("are", "protected characteristics")
    return f" {names[0].upper()}{names[1:]} {verb} {what}."


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _percent(share: float) -> str:
    """Rounded down, so that no figure promises more than was measured."""
    return f"{math.floor(share * 100 + 1e-9):d} %"


def _rounded(value: float) -> str:
    """Two significant digits, never in exponent form: 0.21, 0.0034, 13, 120."""
    places = max(0, _DIGITS - 1 - math.floor(math.log10(value)))
    return f"{value:.{places}f}"
