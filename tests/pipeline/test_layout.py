"""Any graph is laid out so that boxes keep apart and lines pass between them; its picture says all that is in it."""

from __future__ import annotations

from itertools import combinations, pairwise
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from govern.pipeline.graph import graph
from govern.pipeline.layout import Box, Edge, layout
from govern.pipeline.svg import svg
from tests.pipeline.conftest import Load, kinds


@st.composite
def drawings(draw: st.DrawFn) -> tuple[list[Box], list[Edge]]:
    sizes = draw(st.lists(st.tuples(st.integers(40, 300), st.integers(1, 6)), min_size=1, max_size=12))
    boxes = [
        Box(f"b{number}", width, 30.0 + 18 * ports, tuple(39.0 + 18 * port for port in range(ports)), 15.0)
        for number, (width, ports) in enumerate(sizes)
    ]
    ends = st.sampled_from(boxes)
    pairs = draw(st.lists(st.tuples(ends, ends, st.integers(0, 5)), max_size=20))
    edges = [Edge(left.name, right.name, port % len(right.ports)) for left, right, port in pairs]
    return boxes, list(dict.fromkeys(edges))


@settings(max_examples=120, deadline=None)
@given(drawings())
def test_boxes_keep_apart_and_lines_pass_between_them(drawing: tuple[list[Box], list[Edge]]) -> None:
    boxes, edges = drawing
    found = layout(boxes, edges)
    at = {box.name: (*found.places[box.name], box) for box in boxes}
    for (x, y, one), (other_x, other_y, other) in combinations(at.values(), 2):
        apart_x = x + one.width < other_x or other_x + other.width < x
        assert apart_x or y + one.height < other_y or other_y + other.height < y
    assert {*found.lines, *found.returns} == set(edges)
    for edge, points in (*found.lines.items(), *found.returns.items()):
        (x, y, source), (end_x, end_y, target) = at[edge.source], at[edge.target]
        assert points[0] == (x + source.width, y + source.leaves)
        assert points[-1] == (end_x, end_y + target.ports[edge.port])
        assert all(0 <= y <= found.height for _, y in points)
    for points in found.lines.values():
        assert all(left[0] <= right[0] for left, right in pairwise(points))
        for (x, y), (end_x, _) in zip(points[2:-1:2], points[3::2], strict=False):
            through = (one for one in at.values() if one[0] < end_x and x < one[0] + one[2].width)
            assert all(not top <= y <= top + box.height for _, top, box in through), "a line passes behind a box"


def test_a_chain_goes_straight_and_a_way_back_below() -> None:
    boxes = [Box(name, 100, 50, (25,), 25) for name in "abc"]
    found = layout(boxes, [Edge("a", "b", 0), Edge("b", "c", 0), Edge("c", "a", 0)])
    assert [found.places[name][1] for name in "abc"] == [0, 0, 0]
    assert found.places["a"][0] < found.places["b"][0] < found.places["c"][0]
    assert list(found.returns) == [Edge("c", "a", 0)]
    assert max(y for _, y in found.returns[Edge("c", "a", 0)]) > 50


def test_a_long_text_is_cut_and_shows_whole_when_pointed_at(load: Load, called: str) -> None:
    long = "package.with.a.very.long.name.of.its.own:function"
    (pipeline,) = load(called.replace("pkg.clean:rows", long).replace("rows: x", "a<b: x"))
    root = ElementTree.fromstring(svg([graph(pipeline, kinds=kinds)]))
    namespace = "{http://www.w3.org/2000/svg}"
    assert long in [one.text for one in root.iter(f"{namespace}title")]
    assert "clean.outputs (a<b as x)" in [one.text for one in root.iter(f"{namespace}text")]
    assert len([one for one in root.iter(f"{namespace}path") if "return" in one.get("class", "")]) == 1
