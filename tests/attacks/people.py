"""People of the census of 2015 as rows of numbers, as a model and its attacker see them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from govern.schema import FORMAT_VERSION, Feature, FeatureSchema
from tests.attacks.endpoint import Floats

SAMPLE: Final = Path(__file__).parents[1] / "data" / "acs_sample.parquet"
#: What a person cannot claim on a form, because it is known.
KNOWN: Final = ("SEX", "RAC1P")
_NO_FEATURES: Final = ("id", "employed", "year", "prediction", "predicted_probability")


def people() -> tuple[FeatureSchema, Floats, npt.NDArray[np.int64]]:
    """The schema, (4000, 16) ages and codes of categories, and (4000,) whether each is employed."""
    table = pq.read_table(SAMPLE)
    table = table.filter(pa.compute.equal(table["year"], 2015))
    features, columns = [], []
    for name in table.column_names:
        if name in _NO_FEATURES:
            continue
        values = table[name].combine_chunks()
        if not pa.types.is_dictionary(values.type):
            features.append(Feature(name=name, kind="numeric"))
            columns.append(values.to_numpy().astype(np.float64))
            continue
        categories, codes = np.unique(values.to_pylist(), return_inverse=True)
        features.append(Feature(name=name, kind="categorical", categories=tuple(categories.tolist())))
        columns.append(codes.astype(np.float64))
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="census", features=tuple(features))
    return schema, np.column_stack(columns), table["employed"].to_numpy().astype(np.int64)
