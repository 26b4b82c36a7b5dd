"""Pipelines of files and of a fleet, as one worker runs them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from govern.errors import ConfigError
from govern.runtime.loader import LoadedPipeline
from govern.telemetry.logging import get_logger

log = get_logger("govern.worker")


@dataclass(frozen=True, slots=True)
class Following:
    """What a worker has of its fleet.

    Attributes:
        pipelines: those that can be loaded; of one whose newest form cannot, the form before, if there is any.
        refused: names of those whose newest form cannot be loaded.
    """

    pipelines: tuple[LoadedPipeline, ...]
    refused: frozenset[str]


NOTHING: Final = Following((), frozenset())


class Together:
    """A file's pipeline wins over one of the fleet with the same name, which is refused.

    Args:
        refused: told the names of the fleet's pipelines that are refused, whenever there may be others.
    """

    def __init__(self, refused: Callable[[frozenset[str]], None]) -> None:
        self._refused = refused
        self._of_files: tuple[LoadedPipeline, ...] = ()
        self._of_fleet = NOTHING

    def files(self, pipelines: Sequence[LoadedPipeline]) -> list[LoadedPipeline]:
        """All that run when the files hold these."""
        self._of_files = tuple(pipelines)
        return self._all()

    def fleet(self, following: Following) -> list[LoadedPipeline]:
        """All that run when this has become of the fleet."""
        self._of_fleet = following
        return self._all()

    def _all(self) -> list[LoadedPipeline]:
        clashing = _clashing(self._of_files, self._of_fleet.pipelines)
        for name, why in clashing.items():
            log.error("pipeline of the fleet refused", pipeline=name, why=why)
        self._refused(self._of_fleet.refused | frozenset(clashing))
        return [*self._of_files, *(one for one in self._of_fleet.pipelines if one.whole not in clashing)]


def _clashing(of_files: Sequence[LoadedPipeline], of_fleet: Sequence[LoadedPipeline]) -> dict[str, str]:
    """Those of the fleet that have a name of others, or a part that has one, each with the reason.

    It is the same ones in every worker, whatever of the fleet it saw first.
    """
    owners = dict.fromkeys((one.plan.name for one in of_files), "")
    parts = sorted((one.whole, one.plan.name) for one in of_fleet)
    for whole, name in (*((whole, whole) for whole, _ in parts), *parts):
        owners.setdefault(name, whole)
    why = {"": "a file of this worker holds one of its name"}
    return {
        whole: why.get(owners[name], f"its part {name} has the name of another, or of a part of {owners[name]}")
        for whole, name in parts
        if owners[name] != whole
    }


def check_together(pipelines: Sequence[LoadedPipeline], namespace: str) -> None:
    """
    Raises:
        ConfigError: two have the same name, or one belongs to another namespace.
    """
    seen: set[str] = set()
    for one in pipelines:
        if one.plan.name in seen:
            raise ConfigError(
                f"pipeline {one.plan.name!r} is given twice",
                why="pipelines are told apart by name",
                fix="rename one (metadata.name)",
            )
        seen.add(one.plan.name)
        if one.plan.namespace != namespace:
            raise ConfigError(
                f"pipeline {one.plan.name!r} belongs to namespace {one.plan.namespace!r}",
                why=f"this command was given {namespace!r}",
                fix=f"set metadata.namespace, or use --namespace {one.plan.namespace}",
            )
