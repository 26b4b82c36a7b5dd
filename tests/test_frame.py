from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs.frames import from_rows
from govern.errors import BadInput
from govern.frame import MISSING, UNSEEN, Frame
from govern.schema import Feature, FeatureSchema

SCHEMA = FeatureSchema(
    format_version=1,
    model="m",
    features=(
        Feature(name="n", kind="numeric"),
        Feature(name="c", kind="categorical", datatype="BYTES", categories=("x", "y")),
        Feature(name="t", kind="text", datatype="BYTES"),
    ),
)
TABULAR = FeatureSchema(format_version=1, model="m", features=SCHEMA.features[:2])

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "c": st.none() | st.sampled_from(["x", "y", "unseen", "other"]),
            "t": st.none() | st.text(min_size=1, max_size=3),
        }
    ),
    min_size=1,
    max_size=8,
)


def frame_of(rows: list[dict[str, object]], prefix: str = "id") -> Frame:
    frame = from_rows(rows, SCHEMA)
    return Frame(
        schema=SCHEMA,
        columns=frame.columns,
        instance_ids=tuple(f"{prefix}/{row}" for row in range(len(rows))),
        unseen=frame.unseen,
        outputs={"p": np.arange(len(rows), dtype=np.float64).reshape(-1, 1)},
    )


@given(ROWS)
def test_rows_come_out_as_they_went_in(rows: list[dict[str, object]]) -> None:
    frame = frame_of(rows)
    assert [frame.row(i) for i in range(len(frame))] == rows


@given(ROWS, st.data())
def test_take_is_the_rows_in_that_order(rows: list[dict[str, object]], data: st.DataObject) -> None:
    frame = frame_of(rows)
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    taken = frame.take(index)
    assert [taken.row(i) for i in range(len(taken))] == [rows[i] for i in index]
    assert taken.instance_ids == tuple(f"id/{i}" for i in index)
    assert taken.outputs["p"][:, 0].tolist() == index
    assert frame.take(np.array(index, dtype=np.intp)).digest == taken.digest


@given(ROWS, st.integers(0, 8), st.integers(0, 8))
def test_cutting_and_joining_changes_nothing(rows: list[dict[str, object]], one: int, two: int) -> None:
    frame = frame_of(rows)
    a, b = sorted((min(one, len(rows)), min(two, len(rows))))
    joined = Frame.concat([frame.take(slice(0, a)), frame.take(slice(a, b)), frame.take(slice(b, None))])
    assert joined.digest == frame.digest
    assert joined.instance_ids == frame.instance_ids
    assert joined.unseen == frame.unseen
    np.testing.assert_array_equal(joined.outputs["p"], frame.outputs["p"])


def test_take_by_mask() -> None:
    frame = frame_of([{"n": float(i), "c": "x", "t": "t"} for i in range(4)])
    assert frame.take(np.array([True, False, False, True])).instance_ids == ("id/0", "id/3")


def test_an_output_that_only_some_have_is_left_out() -> None:
    rows: list[dict[str, object]] = [{"n": 1.0, "c": "x", "t": "t"}]
    bare = from_rows(rows, SCHEMA)
    assert Frame.concat([frame_of(rows), bare]).outputs == {}
    wide = Frame(schema=SCHEMA, columns=bare.columns, outputs={"p": np.zeros((1, 2))})
    assert Frame.concat([frame_of(rows), wide]).outputs == {}


def test_names_are_kept_only_when_all_rows_have_one() -> None:
    rows: list[dict[str, object]] = [{"n": 1.0, "c": "x", "t": "t"}]
    joined = Frame.concat([from_rows(rows, SCHEMA), frame_of(rows)])
    assert len(joined) == 2
    assert joined.instance_ids == ()


def test_frames_of_different_schemas_are_not_joined() -> None:
    with pytest.raises(BadInput, match="frames of different schemas"):
        Frame.concat([from_rows([{"n": 1, "c": "x"}], TABULAR), from_rows([{"n": 1, "c": "x", "t": ""}], SCHEMA)])


def test_the_matrix() -> None:
    frame = from_rows([{"n": 1.5, "c": "y"}, {"n": None, "c": None}, {"n": 0, "c": "z"}], TABULAR)
    np.testing.assert_array_equal(frame.matrix(), [[1.5, 1.0], [np.nan, np.nan], [0.0, UNSEEN]])
    assert frame["c"].tolist() == [1, MISSING, UNSEEN]


def test_text_has_no_place_in_a_matrix() -> None:
    with pytest.raises(BadInput, match="feature 't' is text"):
        frame_of([{"n": 1.0, "c": "x", "t": "7"}]).matrix()


def test_the_digest_is_of_the_cells() -> None:
    def digest(**changed: object) -> str:
        return from_rows([{"n": 1.0, "c": "x", "t": "a"} | changed, {"n": 2.0, "c": "y", "t": "b"}], SCHEMA).digest

    others = [digest(n=3.0), digest(n=None), digest(c="y"), digest(c=None), digest(c="z"), digest(c="zz"), digest(t="")]
    assert len({digest(), *others}) == 8
    rows: list[dict[str, object]] = [{"n": 1.0, "c": "x", "t": "a"}, {"n": 2.0, "c": "y", "t": "b"}]
    assert frame_of(rows, "other").digest == digest()
