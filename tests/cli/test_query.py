"""Rows of a query, from real databases: typed, in chunks, without writing and without telling the password."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from govern import artifact
from govern.cli import _query
from govern.cli._query import query
from govern.cli.main import main
from govern.errors import BadInput, GovernError, Unavailable
from govern.schema import FeatureSchema
from govern.table import infer_schema

SECRET = "hunter2-not-to-be-told"
PIPELINE = """
apiVersion: govern.io/v1alpha1
kind: Pipeline
metadata: {name: people}
spec:
  source: {service: income, model: income}
  schema: schema.yaml
  steps:
    - {name: drift, detector: {type: tabular, artifact: drift}, batch: {size: 20}}
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with a table of 25 people: in the first 10 rows, pay is a whole number."""
    if request.param == "sqlite":
        found = f"sqlite:///{tmp_path / 'people.db'}"
    else:
        found = request.getfixturevalue("postgres_url")
    engine = sa.create_engine(found, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE people (age integer, pay numeric(8, 2), job varchar(9))"))
        rows = [
            {"age": 20 + i, "pay": float(i) if i < 10 else i + 0.5, "job": None if i == 3 else ("cook", "smith")[i % 2]}
            for i in range(25)
        ]
        connection.execute(sa.text("INSERT INTO people VALUES (:age, :pay, :job)"), rows)
    return found


def test_rows_come_in_chunks_with_one_type_for_each_column(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_query, "CHUNK_ROWS", 4)
    table = query(url, "SELECT age, pay, job FROM people ORDER BY age")
    assert table.names == ("age", "pay", "job")
    assert table.column("age").tolist() == list(range(20, 45))
    assert table.column("pay").tolist() == [float(i) if i < 10 else i + 0.5 for i in range(25)]
    assert table.column("job").tolist()[2:5] == ["cook", None, "cook"]
    assert [one.kind for one in infer_schema(table, "m").features] == ["numeric", "numeric", "categorical"]


def test_a_query_is_taken_as_it_stands(url: str) -> None:
    table = query(url, "SELECT age FROM people WHERE job LIKE 'c%' AND '12:30' = '12:30'")
    assert len(table) == 13


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM people", "UPDATE people SET age = 1", "CREATE TABLE other (a integer)", "DROP TABLE people"],
)
def test_nothing_is_written(url: str, sql: str) -> None:
    with pytest.raises(BadInput):
        query(url, sql)
    assert len(query(url, "SELECT * FROM people WHERE age > 1")) == 25


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM nobody", "nobody"),
        ("SELECT age FROM people WHERE age < 0", "it gives no rows"),
        ("SELECT age, age FROM people", "column 'age' comes twice"),
        ("SELEKT", "the query to"),
    ],
)
def test_a_wrong_query_says_what_is_wrong(url: str, sql: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        query(url, sql)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/people", Unavailable),
        (f"postgresql+psycopg://127.0.0.1:1/people?user=me&password={SECRET}", Unavailable),
        (f"oracle://me:{SECRET}@host/people", BadInput),
        (f"me:{SECRET}@host", BadInput),
        (f"postgresql+psycopg://me:{SECRET}@host:port/people", BadInput),
    ],
)
def test_a_password_is_never_told(url: str, kind: type[GovernError]) -> None:
    with pytest.raises(kind) as refused:
        query(url, "SELECT 1")
    assert SECRET not in f"{refused.value.what} {refused.value.why} {refused.value.fix}"
    assert refused.value.__cause__ is None


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        query(f"sqlite:///{tmp_path / 'none.db'}", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_govern_fit_from_a_query_says_so_in_the_artifact(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "people.yaml").write_text(PIPELINE)
    asked = "SELECT age, job FROM people"
    words = ["--sql", url, "--query", asked, "--pipeline", str(tmp_path / "people.yaml")]
    monkeypatch.setattr(sys, "argv", ["govern", "fit", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert FeatureSchema.load(tmp_path / "schema.yaml").names == ("age", "job")
    lineage = json.loads((tmp_path / "drift" / artifact.MANIFEST).read_text())["lineage"]
    assert lineage["rows"] == 25
    assert lineage["source"]["query"] == asked
    assert lineage["source"]["database"].endswith(sa.make_url(url).database)
