from __future__ import annotations

import io

from rich.console import Console

from govern.cli.demo.story import Story
from govern.cli.demo.view import Status, View


def _story() -> tuple[Story, io.StringIO]:
    out = io.StringIO()
    return Story(Console(file=out, width=100, highlight=False)), out


def _status(people: int) -> Status:
    return Status(
        phase="replaying 2016",
        people=people,
        requests=people,
        seen=7,
        captured=5,
        sampled_out=1,
        dropped=1,
        on_bus=5,
        flagged={"outlier": (1, 90), "adversarial": (2, 90)},
        drift_windows=3,
        drift_alarms=1,
        dead_letters=2,
        audit_entries=1234,
    )


def test_a_story_is_numbered_and_fits_its_width() -> None:
    story, out = _story()

    story.stage("First", "because " * 40)
    story.say("word " * 60)
    story.facts([("name", "value " * 40)])
    story.stage("Second", "why")

    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines if line[:1].isdigit()] == ["1", "2"]
    assert max(map(len, lines)) <= 100


def test_a_check_that_does_not_hold_is_remembered_with_its_stage() -> None:
    story, out = _story()

    story.stage("Proof", "why")
    story.check("water is wet", True)
    story.check("fire is cold", False)

    assert story.failed == ["1 Proof: fire is cold"]
    assert story.checks == 2
    assert "✓ water is wet" in out.getvalue()
    assert "NOT SO: fire is cold" in out.getvalue()


def test_without_a_terminal_the_view_prints_a_line_now_and_then() -> None:
    story, out = _story()
    view = View(story.console, 1000)

    with view.shown():
        for people in range(0, 1001, 10):
            view.update(_status(people))
        view.event("something happened")

    lines = out.getvalue().splitlines()
    assert 8 <= len(lines) <= 11
    assert lines[-1].strip() == "something happened"
    assert "1,000 of 1,000 people; 5 captured, 1,234 in the audit log" in lines[-2]
    assert max(map(len, lines)) <= 100


def test_on_a_terminal_the_view_shows_every_figure() -> None:
    out = io.StringIO()
    view = View(Console(file=out, width=100, force_terminal=True, highlight=False, color_system=None), 1000)

    with view.shown():
        view.update(_status(500))

    shown = out.getvalue()
    for text in (
        "7 seen = 5 captured + 1 sampled out + 1 dropped; 5 on the bus",
        "1 of 3 windows differ from 2015",
        "1 of 90 people flagged",
        "2 of 90 people flagged",
        "1,234 entries",
        "500/1000",
    ):
        assert text in shown
