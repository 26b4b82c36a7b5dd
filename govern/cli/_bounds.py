"""From where to where in a stream: times, or places in a partition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from govern.errors import BadInput
from govern.record import Window

_PLACE: Final = re.compile(r"(\d+):(\d+)")
_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Bound:
    """One end: a time in nanoseconds, or an offset of a partition.

    A window is at or after it when its last response was given then or later, or its last record is there or behind.
    """

    at: int
    partition: int | None = None

    @classmethod
    def read(cls, text: str, option: str) -> Self:
        """
        Raises:
            BadInput: it is neither a time with its zone nor a place.
        """
        if place := _PLACE.fullmatch(text):
            return cls(int(place[2]), int(place[1]))
        try:
            when = datetime.fromisoformat(text)
        except ValueError as error:
            raise BadInput(
                f"{option} {text}", why=str(error), fix="write it as 2026-11-25T09:00:00Z, or as partition:offset"
            ) from error
        if when.tzinfo is None:
            raise BadInput(f"{option} {text}", why="it names no time zone", fix=f"write {text}Z for UTC")
        return cls(int(when.replace(microsecond=0).timestamp()) * _NS + when.microsecond * 1000)

    def reached(self, window: Window) -> bool:
        return (window.t_last if self.partition is None else window.last_offset) >= self.at


@dataclass(frozen=True, slots=True)
class Bounds:
    """The first counts, the second does not; None = there is no end. An offset leaves only windows of its partition."""

    first: Bound | None
    last: Bound | None

    @classmethod
    def read(cls, since: str, until: str) -> Self:
        """Of what `--from` and `--to` say.

        Raises:
            BadInput: one of them is wrong, or they are offsets of two partitions.
        """
        first = Bound.read(since, "--from") if since else None
        last = Bound.read(until, "--to") if until else None
        partitions = {one.partition for one in (first, last) if one is not None and one.partition is not None}
        if len(partitions) > 1:
            raise BadInput(
                f"--from {since} --to {until}",
                why="offsets of two partitions have no order",
                fix="name one partition, or times",
            )
        return cls(first, last)

    def hold(self, window: Window) -> bool:
        ends = [one for one in (self.first, self.last) if one is not None]
        return (
            all(one.partition in (None, window.partition) for one in ends)
            and (self.first is None or self.first.reached(window))
            and (self.last is None or not self.last.reached(window))
        )
