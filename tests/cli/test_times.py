"""Ranges of time that are left out of a table."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from govern.cli._times import ranges, without
from govern.errors import BadInput
from govern.table import Table

NOON = datetime(2026, 12, 24, 12, tzinfo=UTC)
LEFT_OUT = ranges(["2026-12-24T00:00:00Z/2026-12-25T00:00:00Z"])


def table(values: list[object], kind: pa.DataType | None = None) -> Table:
    return Table("t", pa.table({"at": pa.array(values, kind), "x": list(range(len(values)))}))


@pytest.mark.parametrize(
    "times",
    [
        table([NOON, NOON + timedelta(days=1), None]),
        table([NOON.replace(tzinfo=None), datetime(2026, 12, 25), None]),
        table([date(2026, 12, 24), date(2026, 12, 25), None]),
        table(["2026-12-24T12:00:00Z", "2026-12-25T00:00:00+00:00", None]),
        table(["2026-12-24 12:00:00", "2026-12-25 00:00:00", None]),
        table([NOON, NOON + timedelta(days=1), None], pa.timestamp("s", tz="Europe/Berlin")),
    ],
    ids=["zone", "none", "dates", "text with zones", "text", "elsewhere"],
)
def test_rows_of_the_range_and_without_a_time_are_left_out(times):
    found = without(times, "at", LEFT_OUT)
    assert found.table.column("x").tolist() == [1]
    assert found.left_out == 2
    assert found.span[0] == found.span[1] >= LEFT_OUT[0][1]


def test_zones_are_heard():
    berlin = NOON.replace(hour=0, minute=30, tzinfo=timezone(timedelta(hours=1)))
    assert without(table([berlin, NOON]), "at", LEFT_OUT).table.column("x").tolist() == [0]


def test_mistakes_are_named():
    for column, values, said in (
        ("", [NOON], "which column has the time"),
        ("when", [NOON], "time column 'when' is missing"),
        ("at", [3.5], "it is double"),
        ("at", ["yesterday"], "holds no times"),
        ("at", [NOON], "no row is left"),
    ):
        with pytest.raises(BadInput) as caught:
            without(table(values), column, LEFT_OUT)
        assert said in f"{caught.value.what}: {caught.value.why}"
    with pytest.raises(BadInput):
        ranges(["2026-12-24T00:00:00/2026-12-25T00:00:00"])
