"""Outliers of a time series by its spectral residual: what the rhythm of the values before does not tell."""

from __future__ import annotations

from typing import Final, Self

import numpy as np
import numpy.typing as npt

from detectors import memory as memories
from detectors.base import Fitted, Stored, fitted, require_at_least, require_fraction, require_kinds, require_rows
from detectors.memory import Memory
from detectors.outlier.held_out import scores_needed, threshold_at
from govern.detection import InstanceScores
from govern.errors import BadInput
from govern.frame import Frame
from govern.record import Kind

Floats = npt.NDArray[np.float64]

#: Neighbouring frequencies that a log amplitude is compared with, itself among them: the paper's q.
FREQUENCIES: Final = 3
#: Values before a row whose mean saliency its own is compared with: the paper's z.
LOCAL: Final = 21
#: Values that are made up after a row, so that it is not the last of its segment: the paper's kappa.
AHEAD: Final = 5
#: Slopes that they continue: the paper's m.
SLOPES: Final = 5
#: Added to a mean saliency, which is about 1 / length where nothing stands out, so that no score is infinite.
_LEAST_SALIENCY: Final = 1e-8
#: Of a series whose largest value is 1: an amplitude below so many times its length is what rounding left.
_ROUNDING: Final = 1e-14
#: Segments that are transformed at once: 2 MB for the default length, so that a long window needs no more.
_AT_ONCE: Final = 1024
#: Numbers are clipped to it, as those of other outlier detectors are.
_LARGEST: Final = float(np.finfo(np.float32).max)


def continued(segments: Floats) -> Floats:
    """(n, m) -> (n, m + AHEAD): each series, and the value that the slopes before its last one lead to, repeated.

    As the paper's authors do it in their program: continued from a strange last value itself, as the paper has it, the
    series would go on there, and a spike would look like a step.
    """
    before = segments[:, :-1]
    rise = np.zeros(len(segments))
    for back in range(1, SLOPES + 1):
        rise += (before[:, -1] - before[:, -1 - back]) / back
    ahead = before[:, -SLOPES] + rise
    return np.hstack((segments, np.repeat(ahead[:, None], AHEAD, axis=1)))


def saliency(segments: Floats) -> Floats:
    """(n, m) -> (n, m) >= 0: how much each value of a series stands out of it.

    The series whose spectrum has each amplitude divided by the geometric mean of those around it. The spectrum's first
    amplitude, the series' mean, is left at 1; a frequency that does not occur brings nothing.
    """
    peaks = np.abs(segments).max(axis=1, keepdims=True)
    spectrum = np.fft.rfft(segments / np.where(peaks > 0.0, peaks, 1.0), axis=1)
    least = _ROUNDING * segments.shape[1]
    amplitudes = np.abs(spectrum)
    occurs = amplitudes > least
    heights = np.log(np.maximum(amplitudes, least))
    # A sum over neighbours in one order, whatever the number of rows.
    reach = FREQUENCIES // 2
    around = np.pad(heights[:, 1:], ((0, 0), (reach, reach)), mode="reflect")
    width = heights.shape[1] - 1
    means = sum(around[:, place : place + width] for place in range(FREQUENCIES)) / FREQUENCIES
    residuals = np.zeros_like(heights)
    residuals[:, 1:] = heights[:, 1:] - means
    turned = np.where(occurs, spectrum / np.where(occurs, amplitudes, 1.0), 0.0)
    return np.abs(np.fft.irfft(np.exp(residuals) * turned, n=segments.shape[1], axis=1))


def last_scores(segments: Floats) -> Floats:
    """(n, m) -> (n,) >= -1: how much more the last value of each series stands out than the LOCAL ones before it."""
    found = np.empty(len(segments))
    for start in range(0, len(segments), _AT_ONCE):
        piece = segments[start : start + _AT_ONCE]
        salient = saliency(continued(piece))[:, : piece.shape[1]]
        mean = np.zeros(len(piece))
        for back in range(LOCAL, 0, -1):
            mean += salient[:, -1 - back]
        mean /= LOCAL
        found[start : start + len(piece)] = (salient[:, -1] - mean) / (mean + _LEAST_SALIENCY)
    return found


class SpectralResidualOutlier(Stored):
    """Rows that break the rhythm of the rows before: each numeric feature is a time series, others are not looked at.

    For streams in which a row follows from those before it (counts by the minute, sensors): a value that is ordinary by
    itself, and strange in its place, is found. Each row is judged at the end of a segment of its own, the `past` rows
    before it and the row, so how a stream is cut into windows changes no bit. The row's score is the largest of its
    features'. A missing value is the last one that was there.

    The rows of the reference must be in the order of the stream, and evenly spaced in time, as those of the stream: the
    method knows no clock. Nothing is learned but the threshold, from the scores of all rows that have `past` rows
    before them; a stream begins as if it followed the reference.

    Args:
        contamination: the expected share of flagged rows while nothing changes. Scores of neighbouring rows depend on
            each other, so it is no bound: the reference must be long beside the rhythms of the stream.
        past: how many rows a row is judged by, at least LOCAL. It holds some periods of what recurs; of the default,
            a segment has 128 values, which transform fastest.
        seed: recorded in verdicts; nothing is random.

    References:
        Ren et al. (2019): Time-series anomaly detection service at Microsoft. KDD, section 4.1 (arXiv:1906.03821), and
        their program, github.com/microsoft/anomalydetector;
        Hou, Zhang (2007): Saliency detection: a spectral residual approach. CVPR.
    """

    method = "spectral_residual"
    kind: Final[Kind] = "outlier"
    min_instances = 1
    needs_outputs: Final[tuple[str, ...]] = ()
    tells_shares = True

    def __init__(self, *, contamination: float = 0.01, past: int = 122, seed: int = 0) -> None:
        self.contamination = require_fraction("contamination", contamination, method=self.method)
        self.past = require_at_least("past", past, LOCAL, method=self.method)
        self.seed = seed

    @property
    def threshold(self) -> float:
        """A row with a score above it is flagged."""
        return fitted(self._state, self.method).number("threshold")

    def fit(self, reference: Frame) -> Self:
        """Set the threshold by the reference's own scores.

        Raises:
            BadInput: too few rows for this contamination, no numeric feature, or one without values.
        """
        require_rows(reference, self.past + scores_needed(self.contamination), method=self.method, what="reference")
        columns = require_kinds(reference.schema, "numeric", method=self.method)
        for position in columns:
            if np.isnan(reference.columns[position]).all():
                raise BadInput(
                    f"feature {reference.schema.features[position].name!r} has no value in the reference",
                    why=f"all {len(reference)} are missing",
                    fix="give another reference, or leave the feature out of the schema",
                )
        rows = _rows(reference, columns)
        present = ~np.isnan(rows)
        # Before the first value there is none to carry on.
        first = rows[present.argmax(axis=0), np.arange(len(columns))]
        values = _carried(first, rows)
        scores = self._by_feature(values).max(axis=1)
        self._restore(
            Fitted.of(
                reference,
                method=self.method,
                state_version=self.state_version,
                params={"contamination": self.contamination, "past": self.past, "seed": self.seed},
                arrays={"columns": np.array(columns, dtype=np.int64), "last": values[-self.past :]},
                extra={"threshold": threshold_at(scores, self.contamination), "held_out_rows": len(scores)},
            )
        )
        return self

    def start(self) -> Memory:
        """The last rows of the reference."""
        fitted(self._state, self.method)
        return Memory(0, (self._last,))

    def score(self, window: Frame) -> InstanceScores:
        """What it says of rows that come right after the reference.

        Raises:
            BadInput: no rows, or columns that are not the reference's.
        """
        return self.advance(self.start(), window, np.zeros(len(window), dtype=np.int64))[0]

    def advance(self, memory: Memory, window: Frame, times: npt.NDArray[np.int64]) -> tuple[InstanceScores, Memory]:
        self._require_window(window)
        (before,) = memory.arrays
        values = np.vstack((before, _carried(before[-1], _rows(window, self._columns))))
        by_feature = self._by_feature(values)
        scores = by_feature.max(axis=1)
        flagged = scores > self._threshold
        shares = np.zeros((len(window), len(self.schema.features)))
        shares[np.ix_(flagged, self._columns)] = _shares(by_feature[flagged])
        after = Memory(memory.rows + len(window), (values[-self.past :],))
        return InstanceScores(scores, flagged, self._threshold, shares), after

    def pack(self, memory: Memory) -> bytes:
        return memories.pack(memory)

    def unpack(self, data: bytes) -> Memory:
        fitted(self._state, self.method)
        return memories.unpack(data, method=self.method, accepts=self._accepts)

    def _accepts(self, memory: Memory) -> bool:
        return len(memory.arrays) == 1 and self._is_past(memory.arrays[0], len(self._columns))

    def _is_past(self, values: npt.NDArray[np.float64], width: int) -> bool:
        return values.dtype == np.float64 and values.shape == (self.past, width) and bool(np.isfinite(values).all())

    def _by_feature(self, values: Floats) -> Floats:
        """(past + n, d) -> (n, d) scores of the last n rows."""
        segments = np.lib.stride_tricks.sliding_window_view(values, self.past + 1, axis=0)
        return np.column_stack([last_scores(segments[:, feature]) for feature in range(values.shape[1])])

    def _restore(self, state: Fitted) -> None:
        arrays = state.arrays()
        try:
            self._columns, self._last = arrays["columns"], arrays["last"]
        except KeyError as error:
            raise state.damaged(f"it has no array {error}") from error
        if not self._is_past(self._last, len(self._columns)):
            raise state.damaged(f"`last` is {self._last.dtype} of shape {self._last.shape}")
        self._threshold = state.number("threshold")
        self._state = state


def _rows(frame: Frame, columns: npt.ArrayLike) -> Floats:
    """(n, d), NaN = missing."""
    found = np.column_stack([frame.columns[position] for position in np.asarray(columns).tolist()])
    return np.clip(found.astype(np.float64), -_LARGEST, _LARGEST)


def _carried(before: Floats, rows: Floats) -> Floats:
    """The rows, each missing value as the last one that was there, in `before` (d,) at first."""
    known = np.vstack((before, rows))
    places = np.where(np.isnan(known), 0, np.arange(len(known))[:, None])
    return np.take_along_axis(known, np.maximum.accumulate(places, axis=0), axis=0)[1:]


def _shares(scores: Floats) -> Floats:
    """(n, d) -> (n, d), each row's sum 1: a feature that does not stand out brings nothing, unless none does."""
    parts = np.maximum(scores, 0.0)
    totals = parts.sum(axis=1, keepdims=True)
    largest = scores == scores.max(axis=1, keepdims=True)
    return np.where(
        totals > 0.0, parts / np.where(totals > 0.0, totals, 1.0), largest / largest.sum(axis=1, keepdims=True)
    )
