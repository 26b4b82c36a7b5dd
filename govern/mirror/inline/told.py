"""Reading what inline steps said of a call from the headers that its record keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

#: How the name of a step's header begins.
PREFIX: Final = "govern-"
#: What counts: a step that was skipped had nothing to judge.
_WORDS: Final = frozenset(("ok", "alarm", "unjudged"))


def told(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each step that was asked, in lower case, and its word.

    >>> list(told({"govern-outlier": 'alarm; score="0.7"', "govern-drift": "skipped; reason=status", "via": "ok"}))
    [('outlier', 'alarm')]
    """
    for name, value in headers.items():
        word = value.partition(";")[0]
        if name.startswith(PREFIX) and word in _WORDS:
            yield name.removeprefix(PREFIX), word
