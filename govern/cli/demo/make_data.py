"""Make `data/reference.parquet` and `data/replay.parquet` from the whole ACS files; see `data/README.md`.

    python -m govern.cli.demo.make_data FOLDER

FOLDER holds `employment_MA_reference.pq`, `employment_MA_analysis.pq` and `employment_MA_analysis_target.pq` of
nannyml 0.13.1. The same files give the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from govern.cli.demo.people import FEATURES, LABEL, YEARS

SEED: Final = 2015
#: Working age: the survey asks about work from 16 on, and the full retirement age in those years was 66.
AGES: Final = (16, 66)
#: Enough to train on and to compare with; more would only make the package larger.
REFERENCE_ROWS: Final = 15_000
#: What `govern demo --rows` can replay at most, for each of the three years.
REPLAY_ROWS_PER_YEAR: Final = 20_000

DATA: Final = Path(__file__).parent / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rng = np.random.default_rng(SEED)

    reference = _of_working_age(pq.read_table(folder / "employment_MA_reference.pq"))
    _write(_sample(reference, REFERENCE_ROWS, rng), DATA / "reference.parquet")

    analysis = pq.read_table(folder / "employment_MA_analysis.pq")
    labels = pq.read_table(folder / "employment_MA_analysis_target.pq")
    later = _of_working_age(analysis.join(labels, keys="id").sort_by("id"))
    years = [_sample(_where(later, later["year"].to_numpy() == year), REPLAY_ROWS_PER_YEAR, rng) for year in YEARS]
    _write(pa.concat_tables(years), DATA / "replay.parquet")


def _of_working_age(table: pa.Table) -> pa.Table:
    low, high = AGES
    age = table["AGEP"].to_numpy()
    return _where(table, (age >= low) & (age <= high))


def _where(table: pa.Table, mask: npt.NDArray[np.bool_]) -> pa.Table:
    return table.take(np.flatnonzero(mask).tolist())


def _sample(table: pa.Table, rows: int, rng: np.random.Generator) -> pa.Table:
    """So many rows in random order.

    Within a year the survey has no order in time, and the files have one by accident: those of 2018 begin with
    everyone who lives in a hall of residence or an institution.
    """
    return table.take(rng.choice(table.num_rows, rows, replace=False).tolist())


def _write(table: pa.Table, path: Path) -> None:
    kinds: dict[str, pa.DataType] = {"id": pa.int32(), "year": pa.int16()}
    kinds |= {name: pa.string() for name in FEATURES}
    kinds |= {"AGEP": pa.int16(), LABEL: pa.int8()}
    plain = table.select(list(kinds)).cast(pa.schema(kinds))
    pq.write_table(plain, path, compression="zstd", compression_level=19, use_dictionary=True)


if __name__ == "__main__":
    main()
