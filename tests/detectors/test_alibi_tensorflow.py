"""Every detector of alibi-detect that needs TensorFlow or Prophet: saved there, adopted here, the same verdicts.

make test-tensorflow
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from detectors import artifacts
from detectors.alibi import saved
from detectors.alibi.catalogue import SPECS
from detectors.alibi.host import PYTHON_VARIABLE
from govern import plugins
from govern.detection import InstanceScores, Scores, StatefulDetector, WindowScores
from govern.frame import Frame
from govern.schema import Feature, FeatureSchema

pytestmark = pytest.mark.tensorflow

PROGRAM = Path(__file__).with_name("tensorflow_saved.py")
#: As the program draws its random numbers.
SEED = 3
DRIFT = [
    "MMDDrift", "LSDDDrift", "ClassifierDrift", "SpotTheDiffDrift", "LearnedKernelDrift", "ContextMMDDrift",
    "ClassifierUncertaintyDrift", "RegressorUncertaintyDrift",
]  # fmt: skip
ONLINE = ["MMDDriftOnline", "LSDDDriftOnline"]
OUTLIER = [
    "OutlierAE", "OutlierVAE", "OutlierAEGMM", "OutlierVAEGMM", "OutlierSeq2Seq", "OutlierProphet", "LLR", "IForest",
    "SpectralResidual", "Mahalanobis",
]  # fmt: skip
ADVERSARIAL = ["AdversarialAE", "ModelDistillation"]
#: Those that are made of plain parameters, and the parameters with which the program makes them.
NAMED: dict[str, dict[str, int]] = {
    "MMDDrift": {"n_permutations": 50},
    "LSDDDrift": {"n_permutations": 50},
    "SpotTheDiffDrift": {"n_diffs": 1, "n_folds": 2, "epochs": 1},
    "MMDDriftOnline": {"ert": 20, "window_size": 10, "n_bootstraps": 40},
    "LSDDDriftOnline": {"ert": 20, "window_size": 10, "n_bootstraps": 40},
}
#: Names of features that are given beside the rows.
CONTEXT = {"ContextMMDDrift": ["f0"], "OutlierProphet": ["f0"]}

Told = dict[str, npt.NDArray[np.float64]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Detector -> its saved folder, and what alibi-detect says of a window by itself."""
    python = os.environ.get(PYTHON_VARIABLE)
    assert python, f"{PYTHON_VARIABLE} is to name a Python with alibi-detect and TensorFlow: make test-tensorflow"
    folder = tmp_path_factory.mktemp("tensorflow")
    ran = subprocess.run([python, "-I", PROGRAM, folder], capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stderr
    assert {path.name for path in folder.iterdir()} == {*DRIFT, *ONLINE, *OUTLIER, *ADVERSARIAL}
    return folder


def frame(rows: npt.NDArray[np.float64]) -> Frame:
    columns = tuple(rows.reshape(len(rows), -1).T)
    features = tuple(Feature(name=f"f{n}", kind="numeric") for n in range(len(columns)))
    return Frame(FeatureSchema(format_version=1, model="m", features=features), columns)


def told_by(name: str, made: Path) -> tuple[Frame, Frame, Told]:
    """The reference, the window, and what alibi-detect says of it."""
    with np.load(made / name / "told.npz") as archive:
        told = {key: np.asarray(archive[key], dtype=np.float64) for key in archive.files}
    return frame(told.pop("reference")), frame(told.pop("window")), told


@pytest.fixture
def asked(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[saved.Saved, Frame, Told]:
    """The detector through its artifact, the window, and what it is to say."""
    name = request.param
    _, window, told = told_by(name, made)
    adopted = saved.adopt(made / name / "saved", window.schema, seed=SEED, context=CONTEXT.get(name, []))
    assert adopted.detector == name
    artifacts.save(adopted, tmp_path / "a")
    loaded = artifacts.load(tmp_path / "a")
    assert isinstance(loaded, saved.Saved)
    return loaded, window, told


def close(found: object, expected: object) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("asked", DRIFT, indirect=True)
def test_drift(asked) -> None:
    detector, window, told = asked
    found = detector.score(window)
    assert isinstance(found, WindowScores)
    assert found.alarm == bool(told["alarm"])
    close([one.p_value for one in found.features] or found.p_value, told["p_value"])
    close([one.statistic for one in found.features] or found.statistic, told["statistic"])
    assert repr(detector.score(window)) == repr(found), "the same window, the same scores"


@pytest.mark.parametrize("asked", ONLINE, indirect=True)
def test_online_drift(asked) -> None:
    detector, window, told = asked
    assert isinstance(detector, StatefulDetector)
    memory, found = detector.start(), []
    for start in range(0, len(window), 10):
        part = window.take(slice(start, start + 10))
        scores, memory = detector.advance(detector.unpack(detector.pack(memory)), part, np.zeros(10, dtype=np.int64))
        assert isinstance(scores, WindowScores)
        found.append(scores)
        if start == 10:  # it may be asked anywhere: the process holds nothing that the memory lacks
            detector._child.close()
    last = next((one for one in found if one.alarm), found[-1])
    assert last.alarm == bool(told["alarm"])
    close((last.statistic, last.threshold), (told["statistic"], told["threshold"]))


@pytest.mark.parametrize("asked", [*OUTLIER, *ADVERSARIAL], indirect=True)
def test_instances(asked) -> None:
    detector, window, told = asked
    found: Scores = detector.score(window)
    assert isinstance(found, InstanceScores)
    close(found.scores, told["score"])
    assert found.flagged.tolist() == told["flagged"].astype(bool).tolist()
    assert 0 < found.flagged.sum() < len(window) or detector.detector == "LLR", "of a guess, nothing is shown"
    if detector.detector in ("OutlierAE", "OutlierVAE", "OutlierSeq2Seq"):
        assert found.shares is not None
        brought = told["by_feature"].clip(min=0)
        expected = brought / brought.sum(axis=1, keepdims=True).clip(min=1e-30)
        close(found.shares[found.flagged], expected[found.flagged])
        assert not found.shares[~found.flagged].any()


@pytest.mark.parametrize("asked", ["Mahalanobis"], indirect=True)
def test_mahalanobis_learns_from_window_to_window(asked) -> None:
    detector, window, told = asked
    assert isinstance(detector, StatefulDetector)
    first, memory = detector.advance(detector.start(), window, np.zeros(len(window), dtype=np.int64))
    close(first.scores, told["score"])
    again, later = detector.advance(
        detector.unpack(detector.pack(memory)), window, np.zeros(len(window), dtype=np.int64)
    )
    assert not np.array_equal(again.scores, first.scores)
    assert later["n"] == memory["n"] + len(window)
    close(detector.score(window).scores, told["score"])


@pytest.mark.parametrize("name", NAMED)
def test_by_name_it_is_the_same_as_saved(name: str, made: Path, tmp_path: Path) -> None:
    reference, window, told = told_by(name, made)
    constructor = plugins.load(plugins.DETECTORS, f"alibi_detect.{name}")
    artifacts.save(constructor(seed=SEED, **NAMED[name]).fit(reference), tmp_path / "a")
    found = artifacts.load(tmp_path / "a").score(window)
    assert isinstance(found, WindowScores)
    assert found.alarm == bool(told["alarm"])
    close(found.statistic, told["statistic"])
    close(*((found.threshold, told["threshold"]) if name in ONLINE else (found.p_value, told["p_value"])))


def test_every_detector_that_needs_tensorflow_by_name_is_tested() -> None:
    assert {name for name, spec in SPECS.items() if spec.backend} == set(NAMED)
