"""What is sent, in which order: three years, then the what-if."""

from __future__ import annotations

from typing import Final

import numpy as np

from govern.cli.demo import people, traffic
from govern.cli.demo.attack import attack, refused
from govern.cli.demo.stages.prepare import Prepared
from govern.errors import BadInput

#: One window of the pipeline's drift step.
WINDOW: Final = 1000
#: Each year fills at least one window; the package carries 20,000 people of each, and the what-if takes up to two
#: windows' of the last: the rest of the one that is open, and one of its own.
MIN_ROWS: Final = len(people.YEARS) * WINDOW
MAX_ROWS: Final = len(people.YEARS) * (20_000 - 2 * WINDOW)
WHAT_IF: Final = "what-if"


def check_rows(rows: int) -> None:
    """
    Raises:
        BadInput: fewer people than fill a window each year, or more than there are.
    """
    if not MIN_ROWS <= rows <= MAX_ROWS:
        raise BadInput(
            f"--rows {rows}",
            why=f"the drift step judges {WINDOW} people at a time, and the package carries {MAX_ROWS} for three years",
            fix=f"ask for {MIN_ROWS} to {MAX_ROWS}",
        )


def plan(prepared: Prepared, rows: int, *, seed: int) -> list[traffic.Segment]:
    """The segments of a replay of so many people, and a what-if that fills a window by itself."""
    rng = np.random.default_rng(seed)
    each = rows // len(people.YEARS)
    everybody = people.replay(each + 2 * WINDOW)
    segments: list[traffic.Segment] = []
    for year in people.YEARS:
        of_year = [one for one in everybody if one.year == year]
        now, later = of_year[:each], of_year[each:]
        candidates = refused(now, prepared.classifier, prepared.schema)
        chosen = rng.choice(len(candidates), traffic.TAMPERED // len(people.YEARS), replace=False)
        tampered = attack([candidates[n] for n in chosen], prepared.classifier, prepared.reference)
        segments.append(traffic.ordinary_year(str(year), now, prepared.schema, tampered=tampered, rng=rng))
    rest = -each * len(people.YEARS) % WINDOW
    segments.append(traffic.what_if(WHAT_IF, later[: rest + WINDOW], prepared.schema))
    return segments
