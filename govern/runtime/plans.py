"""Which plans have judged a partition, and from which offset on: facts for whoever looks at a verdict later.

Key `@plan/<pipeline>` of the checkpoint: the plans of that name that were in force, oldest first, published in the
transaction that carries the first verdicts of the newest. What a step's open window was collected for lies with the
window itself (`fingerprint`): a window belongs to one detector, one batch and one stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from govern.runtime.checkpoint import FORMAT_VERSION, decode_versioned
from govern.runtime.loader import LoadedPipeline

_PREFIX: Final = b"@plan/"
#: Plans of one name that are remembered: those of a pipeline that is refitted every day, for three months.
_KEPT: Final = 92


class InForce(NamedTuple):
    """A plan that judges from an offset on; `digest` is "" from where on none of this name did."""

    digest: str
    first_offset: int


class PlanState(msgspec.Struct, frozen=True, kw_only=True):
    format_version: int
    in_force: tuple[InForce, ...]

    def at(self, offset: int) -> str:
        """The digest of the plan that was in force where this offset was judged; "" when that is not known."""
        found = [one.digest for one in self.in_force if one.first_offset <= offset]
        return found[-1] if found else ""


class Plans:
    """The plans of one partition, as its holder knows them."""

    def __init__(self) -> None:
        self._states: dict[str, PlanState] = {}
        self._changed: set[str] = set()

    def restore(self, table: Mapping[bytes, bytes]) -> None:
        """Take up what a checkpoint says.

        Raises:
            BadInput: it is of another format version.
        """
        self._states = read_plans(table)
        self._changed.clear()

    def note(
        self, pipelines: Iterable[LoadedPipeline], position: int, places: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """From `position` on, these judge and no others.

        Args:
            places: of pipelines that are at another offset.
        """
        now = {one.plan.name: one.plan.digest for one in pipelines}
        for name in self._states.keys() | now.keys():
            before = self._states[name].in_force if name in self._states else ()
            digest = now.get(name, "")
            if (before[-1].digest if before else "") != digest:
                in_force = (*before, InForce(digest, places.get(name, position)))[-_KEPT:]
                self._states[name] = PlanState(format_version=FORMAT_VERSION, in_force=in_force)
                self._changed.add(name)

    def changed(self) -> list[tuple[bytes, bytes]]:
        """Checkpoint entries that differ from what was last taken."""
        names, self._changed = sorted(self._changed), set()
        return [(_PREFIX + name.encode(), msgspec.msgpack.encode(self._states[name])) for name in names]


def read_plans(table: Mapping[bytes, bytes]) -> dict[str, PlanState]:
    """Pipeline -> its plans, of a partition's checkpoint.

    Raises:
        BadInput: they are of another format version.
    """
    return {
        key.removeprefix(_PREFIX).decode(): decode_versioned(value, PlanState, "plan")
        for key, value in table.items()
        if is_plan(key)
    }


def is_plan(key: bytes) -> bool:
    """Whether a key of the checkpoint is of a plan."""
    return key.startswith(_PREFIX)


def fingerprint(loaded: LoadedPipeline, step: str) -> str:
    """SHA-256, hex, of what makes a window of this step: who judges it, of which stream, and what closes it.

    A step whose fingerprint changes begins a new window. One that is handed the rows which other steps made begins one
    with every change of its pipeline.
    """
    planned, source = loaded.plan.step(step), loaded.plan.source
    made_of: tuple[str | int, ...] = (
        loaded.plan.digest if step in loaded.fed else "",
        loaded.detectors[step].digest,
        source.service,
        source.model,
        planned.batch_size,
        planned.window_ms,
    )
    if planned.rolling:
        made_of = (*made_of, "rolling")
    return hashlib.sha256(msgspec.json.encode(made_of)).hexdigest()
