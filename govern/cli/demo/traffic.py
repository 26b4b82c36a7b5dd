"""What the demo sends: the later years as requests, a few deliberately wrong ones among them, and a what-if."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec
import numpy as np

from govern.cli.demo.people import Cell, Person
from govern.schema import Feature, FeatureSchema

Kind = Literal["ordinary", "tampered", "months", "default", "fraction", "malformed", "recoded"]

YEARS: Final = 3

#: One request in so many carries several people, as when a caseworker sends a list.
LIST_EVERY: Final = 12
LIST_ROWS: Final = 5

#: How many of each kind are mixed into the years, evenly. Few, so that they do not make a drift of their own.
TAMPERED: Final = 36
MONTHS: Final = 12
DEFAULTS: Final = 6
FRACTIONS: Final = 6
MALFORMED: Final = 6

#: Schooling codes of 2008 and later -> the ones before (PUMS data dictionaries of 2008 and 2007). The old numbering
#: is coarser, and each of its numbers still exists with another meaning: 13 was a bachelor's degree, and is grade 10.
OLD_SCHOOLING: Final[dict[str, str]] = {
    **dict.fromkeys(("2", "3", "4", "5", "6", "7"), "2"),
    **dict.fromkeys(("8", "9"), "3"),
    **dict.fromkeys(("10", "11"), "4"),
    **{str(new): str(new - 7) for new in range(12, 17)},
    "17": "9",
    **{str(new): str(new - 8) for new in range(18, 25)},
}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request.

    Attributes:
        people: in the order of the request's rows; empty when the body is no valid request.
    """

    request_id: str
    kind: Kind
    people: tuple[Person, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """Calls that are answered before the next segment begins."""

    name: str
    calls: tuple[Call, ...]

    @property
    def rows(self) -> int:
        return sum(len(call.people) for call in self.calls)


def ordinary_year(
    name: str,
    people: Sequence[Person],
    schema: FeatureSchema,
    *,
    tampered: Sequence[Person],
    rng: np.random.Generator,
) -> Segment:
    """One year: its people in their order, a few of them with wrong answers, and a few wrong calls in between.

    Args:
        tampered: stand for the people with the same ids.
    """
    changed = {one.id: one for one in tampered}
    others = [position for position, one in enumerate(people) if one.id not in changed]
    wrong = rng.choice(others, (DEFAULTS + MONTHS) // YEARS, replace=False).tolist()
    defaults, months = set(wrong[: DEFAULTS // YEARS]), set(wrong[DEFAULTS // YEARS :])
    singles: list[tuple[Kind, Person]] = []
    for position, one in enumerate(people):
        if one.id in changed:
            singles.append(("tampered", changed[one.id]))
        elif position in defaults:
            singles.append(("default", _all_first(one)))
        elif position in months:
            singles.append(("months", _age_in_months(one)))
        else:
            singles.append(("ordinary", one))
    calls = [_call(f"{name}_{group[0].id}", kind, group, schema) for kind, group in _grouped(singles)]
    strange = [_fraction(f"{name}_fraction-{n}", people[n], schema) for n in range(FRACTIONS // YEARS)]
    strange += [_malformed(f"{name}_malformed-{n}", n, people[n], schema) for n in range(MALFORMED // YEARS)]
    for call in strange:
        calls.insert(int(rng.integers(len(calls))), call)
    return Segment(name, tuple(calls))


def what_if(name: str, people: Sequence[Person], schema: FeatureSchema) -> Segment:
    """People whose schooling comes in the numbering of before 2008."""
    recoded = [replace(one, answers={**one.answers, "SCHL": _old_schooling(one)}) for one in people]
    return Segment(name, tuple(_call(f"{name}_{one.id}", "recoded", [one], schema) for one in recoded))


def _grouped(singles: Sequence[tuple[Kind, Person]]) -> Iterator[tuple[Kind, list[Person]]]:
    """One person a request, and now and then several."""
    position = number = 0
    while position < len(singles):
        kind, person = singles[position]
        group = [person]
        ahead = singles[position : position + LIST_ROWS]
        if number % LIST_EVERY == LIST_EVERY - 1 and all(other == "ordinary" for other, _ in ahead):
            group = [one for _, one in ahead]
        yield kind, group
        position += len(group)
        number += 1


def _all_first(person: Person) -> Person:
    """As a form sends it that fills in the first answer wherever none was chosen."""
    return replace(person, answers={**dict.fromkeys(person.answers, "1"), "AGEP": person.answers["AGEP"]})


def _age_in_months(person: Person) -> Person:
    age = person.answers["AGEP"]
    return replace(person, answers={**person.answers, "AGEP": float(age or 0) * 12})


def _old_schooling(person: Person) -> str:
    code = str(person.answers["SCHL"])
    return OLD_SCHOOLING.get(code, code)


def body(people: Sequence[Person], schema: FeatureSchema) -> bytes:
    """An Open Inference Protocol V2 request: one tensor for each feature, one row for each person."""
    return _body(people, schema.features)


def _call(request_id: str, kind: Kind, people: Sequence[Person], schema: FeatureSchema) -> Call:
    return Call(request_id, kind, tuple(people), body(people, schema))


def _fraction(request_id: str, person: Person, schema: FeatureSchema) -> Call:
    """An age with half a year: the model takes it, but the schema says that ages are whole numbers."""
    older = replace(person, answers={**person.answers, "AGEP": float(person.answers["AGEP"] or 0) + 0.5})
    features = [msgspec.structs.replace(one, datatype="FP64") if one.name == "AGEP" else one for one in schema.features]
    return Call(request_id, "fraction", (older,), _body([older], features))


def _malformed(request_id: str, number: int, person: Person, schema: FeatureSchema) -> Call:
    """No valid request: in turn JSON that breaks off, and one without the tensor of the age."""
    wrong = body([person], schema)[:-40] if number % 2 == 0 else _body([person], schema.features[1:])
    return Call(request_id, "malformed", (), wrong)


def _body(people: Sequence[Person], features: Sequence[Feature]) -> bytes:
    inputs = [
        {
            "name": one.name,
            "datatype": one.datatype,
            "shape": [len(people), 1],
            "data": [_whole(person.answers[one.name], one.datatype) for person in people],
        }
        for one in features
    ]
    return msgspec.json.encode({"inputs": inputs})


def _whole(value: Cell, datatype: str) -> Cell | int:
    return int(value) if isinstance(value, float) and datatype == "INT64" else value
