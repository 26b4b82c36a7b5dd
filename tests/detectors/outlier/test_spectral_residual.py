"""The spectral residual: the saliency beside alibi-detect's, streams cut anywhere, spikes in the CO2 of Mauna Loa."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from detectors import memory as memories
from detectors.memory import Memory
from detectors.outlier.spectral_residual import (
    AHEAD,
    FREQUENCIES,
    LOCAL,
    SpectralResidualOutlier,
    continued,
    last_scores,
    saliency,
)
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame
from govern.schema import FORMAT_VERSION, Feature, FeatureSchema

CO2 = Path(__file__).parents[2] / "data" / "mauna_loa_co2.csv"
#: Rows of its first half, which stand for normal.
KNOWN = 1142
SPIKE_PPM = 4.0


def frame(**columns: npt.NDArray[np.float64]) -> Frame:
    features = tuple(Feature(name=name, kind="numeric") for name in columns)
    schema = FeatureSchema(format_version=FORMAT_VERSION, model="series", features=features)
    return Frame(schema=schema, columns=tuple(columns.values()))


@pytest.fixture(scope="module")
def co2() -> npt.NDArray[np.float64]:
    with CO2.open(encoding="utf-8", newline="") as lines:
        return np.array([float(row["co2"] or "nan") for row in csv.DictReader(lines)])


@pytest.fixture(scope="module")
def detector(co2) -> SpectralResidualOutlier:
    return SpectralResidualOutlier().fit(frame(co2=co2[:KNOWN]))


def segments(series: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    present = series[~np.isnan(series)]
    return np.lib.stride_tricks.sliding_window_view(present, length)[::97]


def filled(series: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    complete = series.copy()
    for place in np.flatnonzero(np.isnan(series)):
        complete[place] = complete[place - 1]
    return complete


@pytest.mark.skipif(importlib.util.find_spec("alibi_detect") is None, reason="alibi-detect is in an environment apart")
@pytest.mark.parametrize("length", [60, 123, 256])
def test_saliency_and_score_agree_with_alibi_detect(co2, length):
    """On the same values: those that it makes up at the end are others (`continued` tells why)."""
    from alibi_detect.od import SpectralResidual

    class Continued(SpectralResidual):
        def add_est_points(self, X, t):
            return continued(X[None])[0]

    oracle = Continued(window_amp=FREQUENCIES, window_local=LOCAL, n_est_points=AHEAD, threshold=1.0)
    # It adds 1e-8 to each amplitude, which is nothing to these; ours does not depend on the unit.
    for one in 1e6 * segments(co2, length):
        np.testing.assert_allclose(saliency(one[None])[0], oracle.saliency_map(one), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(last_scores(one[None]), oracle.score(one)[-1:], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("length", [60, 123])
def test_saliency_is_that_of_the_definition(co2, length):
    """Each amplitude divided by the geometric mean of its own and its neighbours', the whole spectrum written out."""
    pieces = segments(co2, length)
    spectrum = np.fft.fft(pieces, axis=1)
    heights = np.log(np.abs(spectrum))
    for place in range(1, length):
        half = min(place, length - place)
        around = [abs(half - 1) or 2, half, half + 1 if half < length // 2 else half - 1]
        spectrum[:, place] *= np.exp(-heights[:, around].mean(axis=1))
    spectrum[:, 0] /= np.abs(spectrum[:, 0])
    np.testing.assert_allclose(saliency(pieces), np.abs(np.fft.ifft(spectrum, axis=1)), rtol=1e-8)


def test_a_series_is_continued_as_its_authors_do():
    """The example of a line, and of a spike at its end, which is not continued."""
    line = np.arange(30.0)
    assert continued(line[None])[0, 30:].tolist() == [24.0 + 5.0] * AHEAD
    line[-1] = 1000.0
    assert continued(line[None])[0, 29:].tolist() == [1000.0] + [29.0] * AHEAD


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(min_value=1, max_value=399), max_size=12, unique=True))
def test_how_a_stream_is_cut_changes_nothing(detector, co2, cuts):
    stream = co2[KNOWN : KNOWN + 400]
    whole, after = detector.advance(detector.start(), frame(co2=stream), np.zeros(400, dtype=np.int64))
    packed, scores, shares = detector.pack(detector.start()), [], []
    for window in np.split(stream, sorted(cuts)):
        found, memory = detector.advance(
            detector.unpack(packed), frame(co2=window), np.zeros(len(window), dtype=np.int64)
        )
        packed = detector.pack(memory)
        scores.append(found.scores)
        shares.append(found.shares)
    assert np.concatenate(scores).tobytes() == whole.scores.tobytes()
    assert np.concatenate(shares).tobytes() == whole.shares.tobytes()
    assert packed == detector.pack(after)


def test_it_finds_values_that_are_strange_in_their_place_only(detector, co2):
    """Weeks of the half that was not seen, moved by half of what a year swings, and more: hardly one is a record."""
    rng = np.random.default_rng(0)
    stream = co2[KNOWN:].copy()
    at = np.arange(20, len(stream) - 20, 40)
    at += rng.integers(0, 20, len(at))
    at = at[~np.isnan(stream[at])]
    low, high = np.nanmin(stream), np.nanmax(stream)
    quiet = detector.score(frame(co2=stream))
    assert quiet.flagged.mean() <= 0.03
    stream[at] += SPIKE_PPM * rng.choice([-1.0, 1.0], len(at))
    assert ((stream[at] >= low) & (stream[at] <= high)).mean() > 0.9
    found = detector.score(frame(co2=stream))
    strange = np.isin(np.arange(len(stream)), at)
    assert roc_auc_score(strange, found.scores) > 0.97
    assert found.flagged[at].mean() > 0.7


def test_at_most_its_share_of_the_reference_is_flagged(detector, co2):
    """Of the rows that have a past in it."""
    past = detector.past
    began = Memory(0, (filled(co2)[:past, None],))
    found, _ = detector.advance(began, frame(co2=co2[past:KNOWN]), np.zeros(KNOWN - past, dtype=np.int64))
    assert 0.0 < found.flagged.mean() <= detector.contamination


def test_a_missing_value_is_the_last_one(detector, co2):
    """Within a window, and from one to the next."""
    assert np.isnan(co2).sum() == 59
    stream = co2[KNOWN : KNOWN + 100].copy()
    stream[[50, 51, 80]] = np.nan
    times = np.zeros(100, dtype=np.int64)
    wanted, after = detector.advance(detector.start(), frame(co2=filled(stream)), times)
    memory, found = detector.start(), []
    for piece in (slice(0, 50), slice(50, 51), slice(51, 100)):
        scores, memory = detector.advance(memory, frame(co2=stream[piece]), times[piece])
        found.append(scores.scores)
    assert np.concatenate(found).tolist() == wanted.scores.tolist()
    assert detector.pack(memory) == detector.pack(after)


def test_a_reference_that_begins_without_a_value():
    series = np.sin(np.arange(400) / 3)
    late, early = series.copy(), series.copy()
    late[:5], early[:5] = np.nan, series[5]
    one, other = (SpectralResidualOutlier(contamination=0.05).fit(frame(x=x)) for x in (late, early))
    assert one.threshold == other.threshold


def test_what_never_changes_never_stands_out():
    for value in (0.0, 7.3, -1e300, np.inf):
        constant = np.full(400, value)
        fitted = SpectralResidualOutlier(contamination=0.05).fit(frame(x=constant))
        found = fitted.score(frame(x=constant))
        np.testing.assert_allclose(found.scores, 0.0, atol=1e-6)
        assert np.isfinite(fitted.score(frame(x=np.array([1e308, -np.inf, 1e-320, np.nan]))).scores).all()


def test_scores_know_no_unit(co2):
    pieces = segments(co2, 123)
    assert last_scores(pieces * 2.0**20).tolist() == last_scores(pieces).tolist()


def test_shares_name_the_series_that_stands_out(co2):
    rng = np.random.default_rng(1)
    noise = np.sin(np.arange(len(co2)) / 7) + 0.1 * rng.normal(size=len(co2))
    both = frame(co2=co2, wave=noise)
    fitted = SpectralResidualOutlier().fit(both.take(slice(0, KNOWN)))
    stream = both.take(slice(KNOWN, None))
    stream.columns[1][300] += 5.0
    found = fitted.score(stream)
    assert fitted.tells_shares
    assert found.flagged[300]
    assert found.shares[300, 1] > 0.8
    np.testing.assert_allclose(found.shares[found.flagged].sum(axis=1), 1.0)
    assert (found.shares[~found.flagged] == 0.0).all()


def test_shares_add_up_where_nothing_stands_out():
    """With a contamination so high that what lies below its surroundings is flagged."""
    rng = np.random.default_rng(1)
    rows = frame(a=rng.normal(size=600), b=rng.normal(size=600))
    found = SpectralResidualOutlier(contamination=0.95).fit(rows).score(rows)
    assert (found.scores[found.flagged] <= 0.0).any()
    np.testing.assert_allclose(found.shares[found.flagged].sum(axis=1), 1.0)


def test_what_it_cannot_be_fitted_on_is_refused(make_table, co2):
    with pytest.raises(BadInput, match="has no numeric feature"):
        SpectralResidualOutlier().fit(make_table(600, numeric=0))
    with pytest.raises(BadInput, match="'gone' has no value in the reference"):
        SpectralResidualOutlier().fit(frame(co2=co2, gone=np.full(len(co2), np.nan)))
    with pytest.raises(BadInput, match="has 220 rows: at least 221 are needed"):
        SpectralResidualOutlier().fit(frame(co2=co2[:220]))
    with pytest.raises(BadInput, match=f"past is {LOCAL - 1}: the least possible is {LOCAL}"):
        SpectralResidualOutlier(past=LOCAL - 1)


def test_a_past_that_is_none_of_its_own_is_refused(detector, co2):
    last = detector.start().arrays[0]
    for wrong in ((), (last[1:],), (last, last), (last.astype(np.float32),), (np.full_like(last, np.nan),)):
        with pytest.raises(BadInput, match="are not those of this detector"):
            detector.unpack(memories.pack(Memory(3, wrong)))
    shorter = SpectralResidualOutlier(past=100).fit(frame(co2=co2[:KNOWN]))
    state = dataclasses.replace(shorter._state, files=detector._state.files)
    with pytest.raises(ArtifactError, match=r"`last` is float64 of shape \(122, 1\)"):
        shorter._restore(state)
