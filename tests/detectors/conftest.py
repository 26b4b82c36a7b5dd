from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

SAMPLE = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
NOT_FEATURES = ("id", "employed", "year", "prediction", "predicted_probability")

MakeTable = Callable[..., Frame]


@pytest.fixture(scope="session")
def acs() -> dict[int, Frame]:
    """Year -> 4,000 people: 1 numeric and 15 categorical features, and the model's probability as an output."""
    table = pq.read_table(SAMPLE)
    names = [name for name in table.column_names if name not in NOT_FEATURES]
    features, columns = [], []
    for name in names:
        values = table[name].combine_chunks()
        if pa.types.is_dictionary(values.type):
            seen = sorted(set(values.to_pylist()))
            features.append(Feature(name=name, kind="categorical", datatype="BYTES", categories=tuple(seen)))
            columns.append(np.array([seen.index(value) for value in values.to_pylist()], dtype=np.int32))
        else:
            features.append(Feature(name=name, kind="numeric"))
            columns.append(values.to_numpy().astype(np.float64))
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="employment", features=tuple(features))
    years = table["year"].to_numpy()
    outputs = {
        "predict_proba": table["predicted_probability"].to_numpy()[:, None],
        "employed": table["employed"].to_numpy().astype(np.float64)[:, None],
    }
    whole = Frame(schema=schema, columns=tuple(columns), outputs=outputs)
    return {year: whole.take(np.flatnonzero(years == year)) for year in (2015, 2018)}


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    """Build a seeded table of independent features: `make_table(rows, seed=0, numeric=3, categorical=2, shift=0.0)`.

    `shift` moves the first numeric feature by that many standard deviations. `missing` blanks that share of every
    numeric feature. The output `predict_proba` is a logistic model of the numeric features.
    """

    def make(
        rows: int,
        *,
        seed: int = 0,
        numeric: int = 3,
        categorical: int = 2,
        categories: int = 5,
        shift: float = 0.0,
        missing: float = 0.0,
        nullable: bool = False,
    ) -> Frame:
        rng = np.random.default_rng(seed)
        features: list[Feature] = []
        columns: list[npt.NDArray[np.generic]] = []
        logit = np.zeros(rows)
        for position in range(numeric):
            column = rng.normal(size=rows)
            column[:] += shift if position == 0 else 0.0
            logit += column
            column[rng.random(rows) < missing] = np.nan
            features.append(Feature(name=f"x{position}", kind="numeric", nullable=nullable))
            columns.append(column)
        weights = np.arange(1.0, categories + 1)
        for position in range(categorical):
            names = tuple(f"v{code}" for code in range(categories))
            features.append(Feature(name=f"c{position}", kind="categorical", datatype="BYTES", categories=names))
            columns.append(rng.choice(categories, size=rows, p=weights / weights.sum()).astype(np.int32))
        schema = FeatureSchema(format_version=FORMAT_VERSION, model="made", features=tuple(features))
        outputs = {"predict_proba": 1.0 / (1.0 + np.exp(-logit))[:, None]}
        return Frame(schema=schema, columns=tuple(columns), outputs=outputs)

    return make
