from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from govern.cli.demo import make_data, people
from govern.errors import BadInput

TITLES = yaml.safe_load((people.DATA / "titles.yaml").read_text(encoding="utf-8"))


def test_the_years_come_in_order_and_in_equal_parts() -> None:
    found = people.replay(1000)

    assert [one.year for one in found] == [2016] * 1000 + [2017] * 1000 + [2018] * 1000
    assert len({one.id for one in found}) == 3000
    assert all(16 <= float(one.answers["AGEP"] or 0) <= 66 for one in found)


def test_more_people_extend_each_year_and_change_none() -> None:
    few, many = people.replay(100), people.replay(200)

    assert few[:100] == many[:100]
    assert few[100:200] == many[200:300]


def test_more_people_than_there_are_is_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(BadInput, match="20001 people") as error:
        people.replay(20_001)

    assert "20000" in error.value.fix


@pytest.mark.parametrize("name", ["reference", "replay"])
def test_every_answer_has_words(name: str) -> None:
    table = people.read(name)

    assert tuple(TITLES) == people.FEATURES
    for feature in people.FEATURES[1:]:
        assert set(table[feature].unique().to_pylist()) <= set(TITLES[feature]["labels"]), feature


def test_the_reference_is_of_2015_and_the_replay_of_later_years() -> None:
    assert people.read("reference")["year"].unique().to_pylist() == [2015]
    assert people.read("replay")["year"].unique().to_pylist() == [2016, 2017, 2018]


def test_the_package_stays_small() -> None:
    assert sum(file.stat().st_size for file in people.DATA.iterdir()) < 1_500_000


def test_the_data_are_made_from_the_survey_by_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    source, made = tmp_path / "source", tmp_path / "made"
    source.mkdir()
    made.mkdir()
    first = 0
    for name, years, rows in (("reference", [2015], 16_000), ("analysis", [2016, 2017, 2018], 63_000)):
        ids = np.arange(first, first + rows)
        first += rows
        columns: dict[str, object] = {"id": ids, "year": np.repeat(years, rows // len(years))}
        columns |= {feature: rng.integers(1, 3, rows).astype(str) for feature in people.FEATURES}
        columns["AGEP"] = np.where(ids % 50, 40.0, 12.0)
        labels = {"id": ids, "employed": rng.integers(0, 2, rows)}
        if name == "reference":
            pq.write_table(pa.table({**columns, **labels}), source / "employment_MA_reference.pq")
        else:
            pq.write_table(pa.table(columns), source / "employment_MA_analysis.pq")
            pq.write_table(pa.table(labels), source / "employment_MA_analysis_target.pq")
    monkeypatch.setattr("sys.argv", ["make_data", str(source)])
    monkeypatch.setattr(make_data, "DATA", made)

    make_data.main()

    reference, replay = pq.read_table(made / "reference.parquet"), pq.read_table(made / "replay.parquet")
    assert reference.num_rows == make_data.REFERENCE_ROWS
    assert replay["year"].to_pylist() == sorted(replay["year"].to_pylist())
    assert replay.num_rows == 3 * make_data.REPLAY_ROWS_PER_YEAR
    assert set(reference["AGEP"].to_pylist()) == {40}
    assert reference.schema == people.read("reference").schema
