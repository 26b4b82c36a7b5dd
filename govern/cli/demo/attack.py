"""People who change a few of their answers so that the model admits them: a greedy attack on the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from govern.cli.demo.model import THRESHOLD, Classifier
from govern.cli.demo.people import Person
from govern.codecs.frames import from_rows
from govern.frame import Frame
from govern.schema import FeatureSchema

#: So many answers are changed at most.
MAX_CHANGES: Final = 3
#: Only to answers that at least so many of the reference give: a rare one would draw attention.
MIN_SHARE: Final = 0.01
#: What nobody would change.
FIXED: Final = frozenset({"AGEP", "SEX", "RAC1P"})


def attack(people: Sequence[Person], model: Classifier, reference: Frame) -> list[Person]:
    """The people with those answers changed that raise the model's probability most, one answer after the other."""
    schema = reference.schema
    with threadpool_limits(limits=1):  # as in `model.train`
        rows = _raised(from_rows([one.answers for one in people], schema).matrix(), model, reference)
    return [_changed(one, row, schema) for one, row in zip(people, rows, strict=True)]


def _raised(rows: npt.NDArray[np.float64], model: Classifier, reference: Frame) -> npt.NDArray[np.float64]:
    moves = _moves(reference)
    for _ in range(MAX_CHANGES):
        tried = np.repeat(rows[:, None, :], len(moves), axis=1)
        for number, (column, code) in enumerate(moves):
            tried[:, number, column] = code
        better = model.probabilities(tried.reshape(-1, rows.shape[1]))[:, 1].reshape(len(rows), len(moves))
        best = better.argmax(axis=1)
        gained = better[np.arange(len(rows)), best] > model.probabilities(rows)[:, 1]
        rows[gained] = tried[gained, best[gained]]
    return rows


def refused(people: Sequence[Person], model: Classifier, schema: FeatureSchema) -> list[Person]:
    """Those of the people whom the model refuses."""
    answers = model.probabilities(from_rows([one.answers for one in people], schema).matrix())
    return [one for one, row in zip(people, answers, strict=True) if row[1] < THRESHOLD]


def _moves(reference: Frame) -> list[tuple[int, int]]:
    """(column, code) of every answer that is common enough."""
    found: list[tuple[int, int]] = []
    for column, feature in enumerate(reference.schema.features):
        if feature.kind == "categorical" and feature.name not in FIXED:
            shares = [float(np.mean(reference.columns[column] == code)) for code in range(len(feature.categories))]
            found.extend((column, code) for code, share in enumerate(shares) if share >= MIN_SHARE)
    return found


def _changed(person: Person, row: npt.NDArray[np.float64], schema: FeatureSchema) -> Person:
    answers = dict(person.answers)
    for feature, value in zip(schema.features, row.tolist(), strict=True):
        if feature.kind == "categorical" and not np.isnan(value) and value >= 0:
            answers[feature.name] = feature.categories[int(value)]
    return replace(person, answers=answers)
