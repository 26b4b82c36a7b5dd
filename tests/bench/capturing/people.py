"""A realistic model, and who asks it: people of the American Community Survey (`tests/data`)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from sklearn.ensemble import HistGradientBoostingClassifier

from govern.cli.demo.people import FEATURES, LABEL

SAMPLE: Final = Path(__file__).parents[2] / "data" / "acs_sample.parquet"
#: The model learns from the one and is asked about the other.
LEARNT_YEAR: Final = 2015
ASKED_YEAR: Final = 2018
#: Requests with a person each, asked in turn.
N_ASKED: Final = 500


@cache
def model() -> HistGradientBoostingClassifier:
    """Who is employed? Every answer of the survey is a number: the age, or a code."""
    x, employed = people(LEARNT_YEAR)
    return HistGradientBoostingClassifier(random_state=0).fit(x, employed)


def bodies() -> list[str]:
    """Requests in the V2 protocol, each about one person."""
    x, _ = people(ASKED_YEAR)
    named = {"name": "people", "shape": [1, len(FEATURES)], "datatype": "FP64"}
    return [json.dumps({"inputs": [{**named, "data": row.tolist()}]}) for row in x[:N_ASKED]]


def people(year: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """x: (n, features), and whether each is employed: (n,)."""
    table = pq.read_table(SAMPLE, filters=[("year", "==", year)])
    columns = [np.asarray(table[name].to_pylist(), dtype=np.float64) for name in FEATURES]
    return np.column_stack(columns), table[LABEL].to_numpy()
