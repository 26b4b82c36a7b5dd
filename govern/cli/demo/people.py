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


def replay(rows: int) -> list[Person]:
    """So many people, a third from each later year, in time order, the years' first ones.

    Raises:
        BadInput: there are not so many.
    """
    table = read("replay")
    each = rows // len(YEARS)
    people: list[Person] = []
    for year in YEARS:
        found = [person for person in _people(table) if person.year == year]
        if each > len(found):
            raise BadInput(
                f"--rows {rows}",
                why=f"the package carries {table.num_rows} people of 2016-2018",
                fix=f"ask for at most {table.num_rows}",
            )
        people.extend(found[:each])
    return people


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
