"""What the online drift detectors are, but for the statistics that they follow."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Final, Self

import numpy as np
import numpy.typing as npt

from detectors import memory as memories
from detectors.base import (
    Array,
    Fitted,
    Param,
    Stored,
    fitted,
    positions,
    require_at_least,
    require_kinds,
    require_rows,
)
from detectors.memory import Memory
from detectors.online.calibration import Rows, calibrate, min_rows
from detectors.online.tracker import Arrays, Floats, Tracker
from govern.detection import NO_ROW, WindowScores
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import Kind
from govern.schema import FeatureKind, FeatureSchema

#: Rows whose statistics are computed at a time. After an alarm the rest is computed again, from a new start.
_PIECE: Final = 256


class OnlineDrift(Stored):
    """Follows statistics row by row, across windows, and alarms at the row at which one exceeds its threshold.

    Thresholds are such that a stream without change runs `ert` rows, on average, until it alarms (`calibration`). They
    count every row, window and feature, so there is no p-value and no correction. After an alarm it starts anew with
    the next row; a verdict names the first alarm of its window.

    Args:
        ert: expected run time, in rows: one false alarm in so many.
        max_reference: rows of the reference to keep, at most; drawn by the seed.
        seed: of that draw and of the streams by which thresholds are found.
        own: further parameters of the class, as its constructor takes them.
    """

    kind: Final[Kind] = "drift"
    kinds: ClassVar[tuple[FeatureKind, ...]]
    min_instances = 1
    #: Compares a stream with itself, and chance needs more rows to settle than a reference may have.
    long_runs: ClassVar[bool] = False
    #: Arrays that the class stores beside reference and thresholds; by what `_beside` calls them.
    stored_beside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, ert: int, max_reference: int, seed: int, **own: Param) -> None:
        # With fewer rows than that, the windows of a run do not even fill.
        self.ert = require_at_least("ert", ert, 50, method=self.method)
        self.max_reference = require_at_least("max_reference", max_reference, 100, method=self.method)
        self.seed = seed
        self._params: dict[str, Param] = {"ert": ert, "max_reference": max_reference, "seed": seed, **own}

    @property
    def needs_outputs(self) -> tuple[str, ...]:
        return ()

    @property
    @abstractmethod
    def _horizon(self) -> int:
        """Rows since a start after which, without change, a statistic's distribution stays as it is."""

    @property
    def _least_rows(self) -> int:
        """Of a reference."""
        return min_rows(self._horizon)

    def _settles(self, reference: Floats) -> int:
        """The horizon where it depends on the (m, d) reference.

        Raises:
            BadInput: a run would take too many rows to say anything.
        """
        return self._horizon

    @abstractmethod
    def _track(self, reference: Floats, schema: FeatureSchema) -> Tracker:
        """What follows a stream beside these (m, d) rows, which come in random order.

        Raises:
            BadInput: a feature has too few values.
            ArtifactError: what is stored `_beside` them does not belong to them.
        """

    def _beside(self, reference: Floats, schema: FeatureSchema) -> Mapping[str, Array]:
        """What is stored beside these rows.

        Raises:
            BadInput: a parameter does not suit them.
        """
        return {}

    def _names(self, schema: FeatureSchema) -> tuple[str, ...]:
        """Of the d columns that it follows: the features of `kinds`.

        Raises:
            BadInput: there is none.
        """
        return tuple(schema.features[at].name for at in require_kinds(schema, *self.kinds, method=self.method))

    def _read(self, frame: Frame) -> Floats:
        """The (n, d) values of those columns.

        Raises:
            BadInput: they are not what the method is for.
        """
        return rows_of(frame, positions(frame.schema, *self.kinds))

    def _simulated(self, reference: Floats, schema: FeatureSchema) -> tuple[Callable[[Rows], Tracker], Floats]:
        """What `calibrate` takes: how to follow a stream beside the reference without some rows, and the rows."""
        return lambda apart: self._track(np.delete(reference, apart, axis=0), schema), reference

    @abstractmethod
    def _told(self, statistics: Floats, threshold: float, known: Arrays, *, alarm: bool) -> WindowScores:
        """What a verdict says, but for `alarm_row`, of the row whose (k,) statistics these are."""

    @property
    def thresholds(self) -> Floats:
        """(rows,) at each row after a start; later rows take the last one."""
        fitted(self._state, self.method)
        return self._limits

    def fit(self, reference: Frame) -> Self:
        """Keep rows of the reference, and find the thresholds.

        Raises:
            BadInput: too few rows, no feature of these kinds, or one with too few values; or so many are missing that
                it would never alarm.
        """
        require_rows(reference, self._least_rows, method=self.method, what="reference")
        self._names(reference.schema)
        order = np.random.default_rng(self.seed).permutation(len(reference))
        rows = self._read(reference.take(order[: self.max_reference]))
        self._stored = dict(self._beside(rows, reference.schema))
        without, streams = self._simulated(rows, reference.schema)
        horizon = self._settles(rows)
        limits = calibrate(without, streams, horizon=horizon, ert=self.ert, seed=self.seed, long_runs=self.long_runs)
        if np.isinf(limits[-1]):
            raise BadInput(
                f"{self.method}: no stream of {horizon} rows of the reference has values enough for a statistic",
                why="so it would never alarm: most of them are missing",
                fix="leave such features to `data_quality`, or give a reference with fewer missing values",
            )
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params=self._params,
                arrays={"reference": rows, "thresholds": limits, **self._stored},
            )
        )
        return self

    def score(self, window: Frame) -> WindowScores:
        """What it says of a stream that begins with this window.

        Raises:
            BadInput: no row, columns that are not the reference's, or no such output.
        """
        return self.advance(self.start(), window, np.zeros(len(window), dtype=np.int64))[0]

    def start(self) -> Memory:
        fitted(self._state, self.method)
        return Memory(0, self._tracker.begin())

    def advance(self, memory: Memory, window: Frame, times: npt.NDArray[np.int64]) -> tuple[WindowScores, Memory]:
        """What it says of the window that follows, and what it remembers after it. Times are not looked at.

        Raises:
            BadInput: no row, columns that are not the reference's, or no such output.
        """
        self._require_window(window)
        rows = self._read(window)
        told: WindowScores | None = None
        at = 0
        while at < len(rows):
            piece = rows[at : at + _PIECE]
            statistics, known = self._tracker.walk(memory.arrays, piece)
            limits = self._limits[np.minimum(memory.rows + np.arange(len(piece)), len(self._limits) - 1)]
            alarms = np.flatnonzero((statistics > limits[:, None]).any(axis=1))
            if len(alarms) == 0:
                memory = Memory(memory.rows + len(piece), known)
                at += len(piece)
                if told is None and at == len(rows):
                    told = self._told(statistics[-1], float(limits[-1]), known, alarm=False)
                continue
            row = int(alarms[0])
            if told is None or told.alarm_row == NO_ROW:
                _, then = self._tracker.walk(memory.arrays, piece[: row + 1])
                first = self._told(statistics[row], float(limits[row]), then, alarm=True)
                told = WindowScores(
                    alarm=True,
                    features=first.features,
                    statistic=first.statistic,
                    threshold=first.threshold,
                    alarm_row=at + row,
                )
            memory = self.start()
            at += row + 1
        assert told is not None
        return told, memory

    def pack(self, memory: Memory) -> bytes:
        return memories.pack(memory)

    def unpack(self, data: bytes) -> Memory:
        """What `pack` stored.

        Raises:
            BadInput: the bytes are no memory of this detector.
        """
        fitted(self._state, self.method)
        return memories.unpack(
            data, method=self.method, accepts=lambda memory: self._tracker.accepts(memory.arrays, memory.rows)
        )

    def _restore(self, state: Fitted) -> None:
        arrays = state.arrays()
        names = self._names(state.schema)
        self._stored = {name: arrays.pop(name) for name in self.stored_beside if name in arrays}
        if set(arrays) != {"reference", "thresholds"}:
            raise state.damaged(f"its arrays are {sorted(arrays)}, not a reference and thresholds")
        if arrays["reference"].ndim != 2 or arrays["reference"].shape[1] != len(names):
            raise state.damaged(f"its reference is not one of {len(names)} columns")
        if arrays["thresholds"].shape != (self._settles(arrays["reference"]),):
            raise state.damaged(f"its thresholds are not those of {self._settles(arrays['reference'])} rows")
        self._limits: Floats = arrays["thresholds"]
        self._tracker = self._track(arrays["reference"], state.schema)
        self._state = state


def rows_of(frame: Frame, columns: tuple[int, ...]) -> Floats:
    """(n, d) float64 of numeric and categorical features; codes as they are (`MISSING`, `UNSEEN`), NaN of numbers."""
    return np.column_stack([frame.columns[position].astype(np.float64) for position in columns])
