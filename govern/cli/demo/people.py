"""The people of the demo: rows of the American Community Survey, read from the two files that the package carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from govern.errors import BadInput

FEATURES: Final = (
    "AGEP",
    "SCHL",
    "MAR",
    "RELP",
    "DIS",
    "ESP",
    "CIT",
    "MIG",
    "MIL",
    "ANC",
    "NATIVITY",
    "DEAR",
    "DEYE",
    "DREM",
    "SEX",
    "RAC1P",
)
LABEL: Final = "employed"
DATA: Final = Path(__file__).parent / "data"
YEARS: Final = (2016, 2017, 2018)

Cell = float | str | None


@dataclass(frozen=True, slots=True)
class Person:
    """One row.

    Attributes:
        id: the row's number in the survey's file.
        answers: feature -> what the person answered: the age as a number, every other as the survey's code.
        employed: what turned out to be true.
    """

    id: int
    year: int
    answers: dict[str, Cell]
    employed: bool


def read(name: str) -> pa.Table:
    """The table `reference` or `replay`.

    Raises:
        BadInput: the package's data file is not there.
    """
    path = DATA / f"{name}.parquet"
    try:
        return pq.read_table(path)
    except OSError as error:
        raise BadInput(
            f"the demo's data file {path} cannot be read", why=str(error), fix="install govern again, with its data"
        ) from error


def replay(each: int) -> list[Person]:
    """So many people of each later year, in time order: the first ones of the year.

    Raises:
        BadInput: there are not so many.
    """
    everybody = _people(read("replay"))
    years = [[one for one in everybody if one.year == year] for year in YEARS]
    most = min(map(len, years))
    if each > most:
        raise BadInput(f"{each} people of each year", why=f"the package carries {most}", fix=f"ask for {most} or fewer")
    return [one for year in years for one in year[:each]]


def _people(table: pa.Table) -> Sequence[Person]:
    return [
        Person(
            id=row["id"],
            year=row["year"],
            answers={name: float(row[name]) if name == "AGEP" else row[name] for name in FEATURES},
            employed=bool(row[LABEL]),
        )
        for row in table.to_pylist()
    ]
