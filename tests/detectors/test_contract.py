"""What every registered detector promises, a user's own included."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from detectors import artifacts
from detectors.alibi.catalogue import SPECS
from govern import artifact, plugins
from govern.detection import NO_ROW, Detector, InstanceScores, Scores, StatefulDetector, WindowScores, remembers
from govern.errors import ArtifactError, BadInput, MissingExtra
from govern.frame import Frame
from govern.schema import FeatureSchema

ALIBI = importlib.util.find_spec("alibi_detect") is not None
#: What alibi-detect saved is not fitted: test_alibi_saved.py.
NAMES = [name for name in plugins.names(plugins.DETECTORS) if not name.startswith("alibi_detect.saved_")]
#: What this table is not for: columns of two values, one column, thresholds that take minutes to simulate, a joint test
#: that names no features, rows that are scored together; and what needs TensorFlow. test_alibi.py has these.
UNLIKE = {
    *(f"alibi_detect.{name}" for name, spec in SPECS.items() if spec.binary or spec.alone or spec.backend),
    *(f"alibi_detect.{name}" for name in ("CVMDriftOnline", "ClassifierDrift", "Mahalanobis")),
}
BORROWED = [name for name in NAMES if name.startswith("alibi_detect.")]
AVAILABLE = [name for name in NAMES if name not in UNLIKE and (ALIBI or name not in BORROWED)]
#: Those that a sequence of windows can be given to.
STATEFUL = [
    name
    for name in [*AVAILABLE, *(["alibi_detect.Mahalanobis"] if ALIBI else [])]
    if remembers(plugins.load(plugins.DETECTORS, name))
]
#: What a detector cannot be constructed without.
NEEDED = {"context_mmd": {"context": "x1,c0"}}
REFERENCE_ROWS = 600


@pytest.fixture(scope="module")
def reference(make_table) -> Frame:
    return _locked(make_table(REFERENCE_ROWS, seed=1))


@pytest.fixture(scope="module")
def window(make_table) -> Frame:
    return _locked(make_table(200, seed=2, shift=0.5))


@pytest.fixture(scope="module")
def fitted(reference) -> Callable[[str], Detector]:
    """A detector by its name, fitted once: it is never changed."""
    return functools.cache(lambda name: _unfitted(name).fit(reference))


@pytest.fixture(scope="module", params=AVAILABLE)
def detector(request, fitted) -> Detector:
    return fitted(request.param)


@pytest.fixture(scope="module", params=STATEFUL)
def stateful(request, fitted) -> StatefulDetector:
    return fitted(request.param)


@pytest.fixture(scope="module")
def stream(make_table) -> Frame:
    """Rows that come to differ from the reference."""
    quiet, moved = make_table(400, seed=3), make_table(400, seed=4, shift=0.7)
    return _locked(Frame.concat([quiet, moved]))


def _windows(detector: Detector, stream: Frame) -> list[tuple[Frame, npt.NDArray[np.int64]]]:
    """The stream cut into windows of different sizes, with the times of their rows."""
    sizes = [max(detector.min_instances, size) for size in (1, 40, 7, 100, 1, 64)]
    ends = np.cumsum([*sizes, *sizes])
    times = np.arange(len(stream), dtype=np.int64) * 10**9
    times.setflags(write=False)
    places = [slice(start, end) for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    return [(_locked(stream.take(place)), times[place]) for place in places]


def _unfitted(name: str) -> Detector:
    return plugins.load(plugins.DETECTORS, name)(**NEEDED.get(name, {}))


def _locked(frame: Frame) -> Frame:
    """The frame with arrays that raise when written to."""
    for array in (*frame.columns, *frame.outputs.values()):
        array.setflags(write=False)
    return frame


def bits(scores: Scores) -> list[object]:
    """Everything that the scores say, so that equal lists mean equal bits."""
    if isinstance(scores, InstanceScores):
        return [scores.scores.tobytes(), scores.flagged.tobytes(), scores.threshold.hex()]
    numbers = [scores.alarm, scores.correction, scores.alarm_row]
    numbers += [value.hex() for value in (scores.statistic, scores.p_value, scores.threshold)]
    for one in scores.features:
        numbers += [one.label, one.n, one.is_drift, one.statistic_name, one.effect_size_name]
        numbers += [float(value).hex() for value in (one.statistic, one.p_value, one.effect_size, one.threshold)]
    return numbers


def _with_schema(frame: Frame, **changes: object) -> Frame:
    """The frame, its first feature changed."""
    first, *rest = frame.schema.features
    features = (msgspec.structs.replace(first, **changes), *rest)
    return dataclasses.replace(frame, schema=msgspec.structs.replace(frame.schema, features=features))


def test_names_itself_as_it_is_registered(detector):
    assert isinstance(detector, Detector)
    assert plugins.load(plugins.DETECTORS, detector.method) is type(detector)
    assert detector.kind in ("drift", "outlier", "adversarial")
    assert detector.min_instances >= 1


def test_knows_the_reference(detector, reference):
    assert detector.schema == reference.schema
    assert detector.reference_digest == reference.digest
    assert len(bytes.fromhex(detector.digest)) == 32


def test_scores_by_its_kind(detector, window):
    scores = detector.score(window)
    if detector.kind == "drift":
        assert isinstance(scores, WindowScores)
        assert scores.features
        if remembers(detector) and detector.min_instances == 1:
            # Row by row there is no p-value: the alarm is a statistic above the threshold of its row.
            assert np.isnan(scores.p_value)
            assert scores.alarm == (scores.alarm_row != NO_ROW) == (scores.statistic > scores.threshold)
            assert scores.alarm or not any(one.is_drift for one in scores.features)
            return
        joint = not np.isnan(scores.p_value)
        # A joint test alarms by itself, and names the features that differ by themselves.
        assert scores.alarm == (
            scores.p_value < scores.threshold if joint else any(o.is_drift for o in scores.features)
        )
        assert scores.alarm or not any(one.is_drift for one in scores.features)
        assert all(one.is_drift == (one.p_value < one.threshold) for one in scores.features if scores.alarm)
        assert all(one.feature and one.statistic_name and one.n == len(window) for one in scores.features)
    else:
        assert isinstance(scores, InstanceScores)
        assert scores.scores.shape == scores.flagged.shape == (len(window),)
        assert scores.scores.dtype == np.float64
        assert np.isfinite(scores.scores).all()
        assert (scores.flagged == (scores.scores > scores.threshold)).all()


def test_scoring_is_pure(detector, window, make_table):
    before = bits(detector.score(window))
    detector.score(make_table(300, seed=9, shift=-2.0))
    assert bits(detector.score(window)) == before


def test_fit_is_reproducible(detector, reference, window):
    again = _unfitted(detector.method).fit(reference)
    assert again.digest == detector.digest
    assert bits(again.score(window)) == bits(detector.score(window))


def test_a_row_is_scored_by_itself(detector, window):
    if detector.kind == "drift":
        # One that remembers judges by the rows of its own windows.
        assert remembers(detector) or detector.score(window).features[0].n == len(window)
        return
    # Or, by one that remembers, with those before it: never with those after it.
    starts = [0 if remembers(detector) else row for row in range(20)]
    alone = [detector.score(window.take(slice(start, row + 1))).scores[-1] for row, start in enumerate(starts)]
    assert alone == detector.score(window).scores[:20].tolist()


def test_survives_the_disk(detector, window, tmp_path):
    artifacts.save(detector, tmp_path / "a")
    loaded = artifacts.load(tmp_path / "a")
    assert type(loaded) is type(detector)
    assert (loaded.digest, loaded.reference_digest, loaded.seed) == (
        detector.digest,
        detector.reference_digest,
        detector.seed,
    )
    assert loaded.schema == detector.schema
    assert bits(loaded.score(window)) == bits(detector.score(window))
    loaded.save(tmp_path / "b")
    assert _content(tmp_path / "a") == _content(tmp_path / "b")


def test_same_scores_in_another_process(fitted, window, tmp_path):
    window_file = tmp_path / "window.npz"
    np.savez(window_file, *window.columns, predict_proba=window.outputs["predict_proba"])
    (tmp_path / "schema.yaml").write_text(window.schema.to_yaml())
    names = [name for name in AVAILABLE if name not in BORROWED]
    for name in names:
        fitted(name).save(tmp_path / name)
    program = Path(__file__).with_name("score_elsewhere.py")
    ran = subprocess.run(
        [sys.executable, program, tmp_path, *names], capture_output=True, text=True, timeout=280, check=True
    )
    told = json.loads(ran.stdout)
    for name in names:
        assert told[name] == _flat(artifacts.load(tmp_path / name).score(window)), name


def _flat(scores: Scores) -> list[str]:
    if isinstance(scores, InstanceScores):
        return [value.hex() for value in scores.scores.tolist()]
    return [value.hex() for one in scores.features for value in (one.statistic, one.p_value)]


def _content(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def test_artifact_is_json_and_plain_arrays(detector, tmp_path):
    detector.save(tmp_path / "a")
    files = _content(tmp_path / "a")
    json.loads(files.pop(artifact.MANIFEST))
    assert files
    for name, data in files.items():
        assert name.endswith(".npz")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays: list[npt.NDArray[np.generic]] = [archive[member] for member in archive.files]
        assert all(array.dtype.kind in "if" for array in arrays)


@pytest.mark.parametrize("name", AVAILABLE)
def test_unfitted_says_so(name, window, tmp_path):
    detector = _unfitted(name)
    for use in (
        lambda: detector.score(window),
        lambda: detector.schema,
        lambda: detector.digest,
        lambda: detector.reference_digest,
        lambda: detector.save(tmp_path / "a"),
    ):
        with pytest.raises(BadInput, match="neither fitted nor loaded"):
            use()


def test_too_small_a_reference(detector, reference):
    with pytest.raises(BadInput, match=r"has 5 rows: at least \d+ are needed"):
        _unfitted(detector.method).fit(reference.take(slice(0, 5)))


def test_smallest_window(detector, window):
    least = detector.min_instances
    detector.score(window.take(slice(0, least)))
    with pytest.raises(BadInput, match=rf"window has {least - 1} rows: at least {least} are needed"):
        detector.score(window.take(slice(0, least - 1)))


def test_another_schema_is_refused(detector, window):
    with pytest.raises(BadInput, match=r"feature 0 is 'other' \(numeric\) in the window and 'x0' \(numeric\)"):
        detector.score(_with_schema(window, name="other"))
    fewer = FeatureSchema(format_version=1, model="made", features=window.schema.features[:2])
    with pytest.raises(BadInput, match="the window has 2 features, the reference 5"):
        detector.score(dataclasses.replace(window, schema=fewer, columns=window.columns[:2]))


def test_an_edited_title_is_accepted(detector, window):
    edited = _with_schema(window, title="age", protected=True, pii=True)
    assert bits(detector.score(edited)) == bits(detector.score(window))


def test_needed_outputs_are_named(detector, window):
    bare = dataclasses.replace(window, outputs={})
    if not detector.needs_outputs:
        assert bits(detector.score(bare)) == bits(detector.score(window))
        return
    assert set(detector.needs_outputs) <= set(window.outputs)
    with pytest.raises(BadInput, match=repr(detector.needs_outputs[0])):
        detector.score(bare)


def test_changed_data_is_refused(detector, tmp_path):
    detector.save(tmp_path / "a")
    data = next(entry for entry in (tmp_path / "a").iterdir() if entry.suffix == ".npz")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ArtifactError, match="wrong digest"):
        artifacts.load(tmp_path / "a")


def _edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / artifact.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "format_version is 99: this release of govern reads version 1"),
        ({"state_version": 99}, r"is 99: this release reads version \d"),
        ({"group": "govern.explainers"}, "belongs to govern.explainers"),
        ({"name": "nobody.Knows"}, "fitted by 'nobody.Knows', which is not known here"),
        ({"params": {"colour": "red"}}, "parameters are refused"),
        ({"schema": {}}, "schema is damaged"),
    ],
)
def test_foreign_artifacts_are_refused(detector, tmp_path, changes, message):
    detector.save(tmp_path / "a")
    _edit_manifest(tmp_path / "a", **changes)
    with pytest.raises(ArtifactError, match=message):
        artifacts.load(tmp_path / "a")


def test_anothers_artifact_is_refused(detector, fitted, tmp_path):
    other = "isolation_forest" if detector.kind == "drift" else "chi_squared"
    fitted(other).save(tmp_path / "a")
    with pytest.raises(ArtifactError, match=f"fitted by '{other}'"):
        type(detector).load(tmp_path / "a")
    _edit_manifest(tmp_path / "a", name=detector.method, state_version=detector.state_version, params={})
    with pytest.raises(ArtifactError, match="holds no state that it can read"):
        artifacts.load(tmp_path / "a")


def test_what_it_says_first_is_its_score(stateful, stream):
    for window, times in _windows(stateful, stream):
        found, _ = stateful.advance(stateful.start(), window, times)
        assert bits(found) == bits(stateful.score(window))
        if isinstance(found, WindowScores):
            assert -1 <= found.alarm_row < len(window)
            assert found.alarm or found.alarm_row == -1


def test_a_memory_is_never_changed(stateful, stream):
    """What came before one window is what comes before any other: one that fails leaves no trace."""
    memory = stateful.start()
    for window, times in _windows(stateful, stream):
        before = stateful.pack(memory)
        first, after = stateful.advance(memory, window, times)
        again, same = stateful.advance(memory, window, times)
        assert bits(first) == bits(again)
        assert stateful.pack(after) == stateful.pack(same)
        assert stateful.pack(memory) == before
        memory = after
    assert stateful.pack(memory) != stateful.pack(stateful.start())


def test_a_memory_survives_its_bytes(stateful, stream, tmp_path):
    """Whoever goes on elsewhere, with the artifact and what was stored, says the same to the last bit."""
    artifacts.save(stateful, tmp_path / "a")
    elsewhere = artifacts.load(tmp_path / "a")
    memory, packed = stateful.start(), elsewhere.pack(elsewhere.start())
    for window, times in _windows(stateful, stream):
        assert stateful.pack(memory) == packed
        assert elsewhere.pack(elsewhere.unpack(packed)) == packed
        here, memory = stateful.advance(memory, window, times)
        there, after = elsewhere.advance(elsewhere.unpack(packed), window, times)
        packed = elsewhere.pack(after)
        assert bits(here) == bits(there)


def test_what_is_no_memory_is_refused(stateful):
    packed = stateful.pack(stateful.start())
    for foreign in (b"", b"\xff", packed[: len(packed) // 2], packed + b"\0"):
        with pytest.raises(BadInput):
            stateful.unpack(foreign)


def test_a_window_that_cannot_be_judged_is_refused_whatever_is_remembered(stateful, stream):
    window, times = _windows(stateful, stream)[1]
    with pytest.raises(BadInput, match="feature 0 is 'other'"):
        stateful.advance(stateful.start(), _with_schema(window, name="other"), times)


def test_absent_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifacts.load(tmp_path / "nowhere")


@pytest.mark.skipif(ALIBI, reason="the extra is installed here")
@pytest.mark.parametrize("name", BORROWED)
def test_missing_extra_says_what_to_install(name, reference, monkeypatch):
    monkeypatch.delenv("GOVERN_ALIBI_PYTHON", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'govern\[alibi\]'"):
        plugins.load(plugins.DETECTORS, name)().fit(reference)


@pytest.mark.skipif(ALIBI, reason="the extra is installed here")
def test_an_artifact_of_a_missing_extra_says_what_to_install(reference, tmp_path):
    plugins.load(plugins.DETECTORS, "ks")().fit(reference).save(tmp_path / "a")
    _edit_manifest(tmp_path / "a", name="alibi_detect.KSDrift")
    with pytest.raises(MissingExtra, match=r"pip install 'govern\[alibi\]'"):
        artifacts.load(tmp_path / "a")
