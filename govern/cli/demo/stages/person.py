"""Stage 6: one person whom the model refused, and why."""

from __future__ import annotations

from typing import Final

from govern.cli.demo.client import Reply
from govern.cli.demo.people import YEARS
from govern.cli.demo.stages.replay import Replayed
from govern.errors import NotFound

#: Refused for sure, yet not out of reach: explanations of such a decision say something.
PROBABLE: Final = (0.15, 0.45)


def refused_person(replayed: Replayed) -> Reply:
    """The first person whom the model refused although, as became known later, they had work; newest year first.

    Raises:
        NotFound: there is none.
    """
    low, high = PROBABLE
    for year in reversed(YEARS):
        for reply in replayed.replies[str(year)]:
            if replayed.known.get(reply.request_id) and low <= reply.probabilities[0] <= high:
                return reply
    raise NotFound(
        "nobody was refused although they had work",
        why=f"of {len(replayed.known)} people it became known, and none fits",
        fix="replay more people with --rows",
    )
