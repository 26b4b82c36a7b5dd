"""Drift against a baseline that moves along with the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Self

import msgspec
import numpy as np
import numpy.typing as npt

from detectors import memory as memories
from detectors.base import Fitted, Param, Stored, fitted, require_at_least, require_fraction
from detectors.baseline.kept import Baseline, Previous, TimeOfWeek, Trailing
from detectors.baseline.ranges import outside, read_ranges
from detectors.baseline.rows import Layout, Rows
from detectors.drift.feature_test import MIN_ROWS
from detectors.memory import Memory
from govern import artifact, plugins
from govern.detection import WindowScores
from govern.errors import BadInput, ConfigError
from govern.frame import Frame
from govern.record import FeatureResult, Kind

_DAY_HOURS: Final = 24
_WEEK_DAYS: Final = 7
#: Baselines that a window is tested against: the reference and the one that moves.
_BOTH: Final = 2


class MovingBaselineDrift(Stored):
    """A drift detector whose reference is the stream's own past: what came just before, or at this time of the week.

    For streams whose normal moves slowly, or with the hour: a fixed reference alarms for ever once it is out of date.
    The test is that of another detector, fitted anew on the baseline for each window. The reference teaches it the
    schema, and is tested against, too, while `with_reference` says so: then a verdict tells sudden drift (both), drift
    that crept in (the reference's only), and a change within what was normal once (the moving one's only). Results
    against the moving baseline carry its name in `signal`.

    Args:
        detector: whose test it is: a drift detector that remembers nothing and has a `p_val`.
        baseline: "previous", the window before; "trailing", the newest `size` rows; "time_of_week", the same hours of
            the weeks before, UTC.
        with_reference: whether each window is tested against the reference, too. An alarm of either is one; each is
            tested at half of `p_val` (Bonferroni), also while the moving baseline has too few rows.
        p_val: significance level of a window, before the detector's own correction.
        size: rows that are kept, at most. A row takes 8 bytes a numeric feature, 4 a categorical one, 8 an output, and
            16; all of them are stored with each verdict.
        min_rows: fewer rows are no baseline, and nothing is said against them.
        hours: of "time_of_week": how long the slots are into which a week is cut; they divide a day.
        weeks: of "time_of_week": how many are looked back at. A slot has `size` / slots / (`weeks` + 2) rows of each.
        exclude_alarms: whether a window that differs from the moving baseline stays out of it: the alarm stays until
            the stream comes back. Otherwise what is new is learned, and alarms while it is. Where nothing is said,
            windows stay out, but not of "previous": one false alarm while the stream creeps on would end in alarms
            for ever.
        exclude: ranges of time whose rows do not enter the baseline (`detectors.baseline.ranges`). They are judged.
        seed: of the detector's test, and of which rows of a slot are kept.
        params: the further parameters of `detector`.

    References:
        Gama, Zliobaite, Bifet, Pechenizkiy, Bouchachia (2014): A survey on concept drift adaptation. ACM Comput. Surv.
        46, 44:1-44:37, section 3.2 (a fixed reference window and a sliding one).
    """

    method = "moving_baseline"
    kind: Final[Kind] = "drift"

    def __init__(
        self,
        *,
        detector: str = "tabular",
        baseline: str = "trailing",
        with_reference: bool = True,
        p_val: float = 0.05,
        size: int = 5000,
        min_rows: int = 2 * MIN_ROWS,
        hours: int = 6,
        weeks: int = 4,
        exclude_alarms: bool | None = None,
        exclude: str = "",
        seed: int = 0,
        **params: Param,
    ) -> None:
        self.p_val = require_fraction("p_val", p_val, method=self.method)
        self.min_rows = require_at_least("min_rows", min_rows, 2 * MIN_ROWS, method=self.method)
        require_at_least("size", size, min_rows, method=self.method)
        self.seed = seed
        self.with_reference = with_reference
        self.exclude_alarms = baseline != "previous" if exclude_alarms is None else exclude_alarms
        self.baseline = baseline
        self._excluded = read_ranges(exclude, method=self.method)
        self._kept = _baseline(baseline, size=size, min_rows=min_rows, hours=hours, weeks=weeks)
        self._type = _testing(detector)
        self._given: dict[str, Any] = {**params, "p_val": p_val / _BOTH if with_reference else p_val, "seed": seed}
        self._fixed = self._type(**self._given)
        self.min_instances: int = self._fixed.min_instances
        self.needs_outputs: tuple[str, ...] = self._fixed.needs_outputs
        self._params: dict[str, Param] = {
            "detector": detector,
            "baseline": baseline,
            "with_reference": with_reference,
            "p_val": p_val,
            "size": size,
            "min_rows": min_rows,
            "hours": hours,
            "weeks": weeks,
            "exclude_alarms": exclude_alarms,
            "exclude": exclude,
            "seed": seed,
            **params,
        }

    def fit(self, reference: Frame) -> Self:
        """Fit the detector's test on the reference.

        Raises:
            BadInput: as that detector's `fit`.
        """
        inner = fitted(self._type(**self._given).fit(reference)._state, self.method)
        manifest = msgspec.structs.replace(
            inner.manifest, name=self.method, state_version=self.state_version, params=dict(self._params)
        )
        self._restore(Fitted(artifact.seal(manifest, inner.files), inner.schema, inner.files))
        return self

    def score(self, window: Frame) -> WindowScores:
        """What it says of a stream that begins with this window.

        Raises:
            BadInput: fewer than `min_instances` rows, or columns that are not the reference's.
        """
        return self.advance(self.start(), window, np.zeros(len(window), dtype=np.int64))[0]

    def start(self) -> Memory:
        fitted(self._state, self.method)
        return Memory(0, self._layout.empty().arrays())

    def advance(self, memory: Memory, window: Frame, times: npt.NDArray[np.int64]) -> tuple[WindowScores, Memory]:
        """Test the window against the baseline, which it then enters.

        Raises:
            BadInput: fewer than `min_instances` rows, or columns that are not the reference's.
        """
        self._require_window(window)
        # Also where it is not told of: it refuses rows without the outputs that are read.
        fixed = self._fixed.score(window) if self.with_reference or self.needs_outputs else None
        kept = self._layout.read(memory.arrays)
        assert kept is not None, "unpack has checked it"
        moving = self._against(self._kept.against(kept, times), window)
        if moving is None or not (moving.alarm and self.exclude_alarms):
            rows = self._layout.rows(window, times, before=memory.rows, seed=self.seed)
            rows = rows.take(outside(times, self._excluded))
            kept = self._kept.learn(kept, rows) if len(rows) else kept
        after = Memory(memory.rows + len(window), kept.arrays())
        return self._joined(fixed if self.with_reference else None, moving), after

    def pack(self, memory: Memory) -> bytes:
        return memories.pack(memory)

    def unpack(self, data: bytes) -> Memory:
        """What `pack` stored.

        Raises:
            BadInput: the bytes are no memory of this detector.
        """
        fitted(self._state, self.method)
        return memories.unpack(
            data, method=self.method, accepts=lambda memory: self._layout.read(memory.arrays) is not None
        )

    def _against(self, past: Rows, window: Frame) -> WindowScores | None:
        """What the test says when its reference is the past; None when that is too short."""
        if len(past) < self.min_rows:
            return None
        test = self._type(**self._given)
        try:
            test.fit(self._layout.frame(past))
        except BadInput:
            # Rows enough, and of one feature too few values: too short a baseline as well. The window is learned.
            return None
        found: WindowScores = test.score(window)
        return found

    def _joined(self, fixed: WindowScores | None, moving: WindowScores | None) -> WindowScores:
        told = [one for one in (fixed, moving) if one is not None]
        if not told:
            return WindowScores(alarm=False, threshold=self.p_val)
        strongest = min(told, key=lambda one: one.p_value if one.p_value == one.p_value else np.inf)
        times = _BOTH if self.with_reference else 1
        return WindowScores(
            alarm=any(one.alarm for one in told),
            features=(
                *(fixed.features if fixed is not None else ()),
                *(self._named(moving.features) if moving is not None else ()),
            ),
            statistic=strongest.statistic,
            p_value=float(np.minimum(strongest.p_value * times, 1.0)),
            threshold=self.p_val if strongest.p_value == strongest.p_value else strongest.threshold,
            correction=strongest.correction,
        )

    def _named(self, features: Sequence[FeatureResult]) -> tuple[FeatureResult, ...]:
        return tuple(
            msgspec.structs.replace(one, signal=f"{one.signal}_{self.baseline}" if one.signal else self.baseline)
            for one in features
        )

    def _restore(self, state: Fitted) -> None:
        # The test reads its state as its own artifact would hold it.
        manifest = msgspec.structs.replace(
            state.manifest, name=self._type.method, state_version=self._type.state_version, params=self._given
        )
        self._fixed._restore(Fitted(manifest, state.schema, state.files))
        self._layout = Layout.of(state.schema, self.needs_outputs)
        self._state = state


def _baseline(name: str, *, size: int, min_rows: int, hours: int, weeks: int) -> Baseline:
    method = MovingBaselineDrift.method
    if name == "previous":
        return Previous(size, min_rows)
    if name == "trailing":
        return Trailing(size)
    if name != "time_of_week":
        raise BadInput(
            f"{method}: baseline is {name!r}",
            why="known are 'previous', 'trailing' and 'time_of_week'",
            fix="name one of them; for a fixed reference use the detector itself",
        )
    if hours < 1 or _DAY_HOURS % hours:
        raise BadInput(
            f"{method}: hours is {hours}", why="slots divide a day", fix="use 1, 2, 3, 4, 6, 8, 12 or 24 hours"
        )
    require_at_least("weeks", weeks, 1, method=method)
    slots = _WEEK_DAYS * _DAY_HOURS // hours
    # Beside the weeks before, that of the window, and the next, where its last rows may be.
    held = slots * (weeks + 2)
    sample = size // held
    if sample * weeks < min_rows:
        raise BadInput(
            f"{method}: size is {size}",
            why=f"{slots} slots with {weeks} weeks and two more have {sample} rows each, and a slot never gets the "
            f"{min_rows} of min_rows",
            fix=f"keep at least {held * -(-min_rows // weeks)} rows, or make slots longer (`hours`)",
        )
    return TimeOfWeek(hours, weeks, sample)


def _testing(name: str) -> Any:
    """The class of a detector whose test can be fitted anew for each window.

    Raises:
        BadInput: there is none of that name, or it is of another kind.
    """
    try:
        found = plugins.load(plugins.DETECTORS, name)
    except ConfigError as error:
        raise BadInput(f"moving_baseline: detector is {name!r}", why=error.why, fix=error.fix) from error
    usable = isinstance(found, type) and issubclass(found, Stored) and getattr(found, "kind", "") == "drift"
    if not usable or hasattr(found, "advance") or name.startswith("alibi_detect."):
        raise BadInput(
            f"moving_baseline: detector is {name!r}",
            why="it is no native drift detector that judges each window by itself",
            fix="use tabular, ks, cvm, chi_squared, fet, psi, mmd or another of docs/drift.md",
        )
    return found
