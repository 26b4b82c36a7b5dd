"""Detectors that alibi-detect saved, on rows that are no table: images, embeddings and texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from detectors import artifacts
from detectors.alibi import saved
from govern.detection import WindowScores
from govern.frame import Frame
from govern.schema import Feature, FeatureKind, FeatureSchema

cd = pytest.importorskip("alibi_detect.cd", reason="the extra [alibi] is not installed", exc_type=ImportError)
saving = pytest.importorskip("alibi_detect.saving", reason="the extra [alibi] is not installed", exc_type=ImportError)

pytestmark = pytest.mark.alibi

ROOT = Path(__file__).parents[2]
Rows = npt.NDArray[Any] | list[str]


def frame(rows: Rows, kind: FeatureKind) -> Frame:
    feature = Feature(name="seen", kind=kind, datatype="BYTES" if kind == "text" else "FP64")
    schema = FeatureSchema(format_version=1, model="m", features=(feature,))
    return Frame(schema=schema, columns=(np.array(rows, dtype=object if kind == "text" else np.float64),))


def compare(directly: Any, kind: FeatureKind, windows: list[Rows], folder: Path, outputs: list[str]) -> list[bool]:
    """The alarms of what was adopted, which says of each window what alibi-detect says."""
    saving.save_detector(directly, folder / "saved")
    saved.adopt(folder / "saved", frame(windows[0], kind).schema).save(folder / "a")
    adopted = artifacts.load(folder / "a")
    alarms = []
    for rows in windows:
        found, said = adopted.score(frame(rows, kind)), directly.predict(rows)["data"]
        assert isinstance(found, WindowScores)
        assert [one.feature for one in found.features] == outputs
        assert [one.p_value for one in found.features] == pytest.approx(said["p_val"].tolist(), abs=1e-6)
        assert [one.statistic for one in found.features] == pytest.approx(said["distance"].tolist(), abs=1e-6)
        assert found.alarm == bool(said["is_drift"])
        alarms.append(found.alarm)
    return alarms


@pytest.fixture(scope="module")
def digits() -> npt.NDArray[np.float64]:
    """(1797, 8, 8), in random order."""
    images = np.asarray(load_digits().images, dtype=np.float64)
    return images[np.random.default_rng(1).permutation(len(images))]


def through(components: PCA) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """Defined in here, so that it is saved by value: the process that judges cannot import this module."""

    def project(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return components.transform(rows.reshape(len(rows), -1))

    return project


def test_images(digits: npt.NDArray[np.float64], tmp_path: Path) -> None:
    """Of handwritten digits: others, and others upside down."""
    reference, same = digits[:600], digits[600:800]
    project = through(PCA(4, random_state=0).fit(reference.reshape(600, -1)))
    directly = cd.KSDrift(reference, p_val=0.01, preprocess_fn=project)
    windows: list[Rows] = [same, digits[800:1000, ::-1]]
    alarms = compare(directly, "image", windows, tmp_path, [f"output {i}" for i in range(4)])
    assert alarms == [False, True]


def test_embeddings(digits: npt.NDArray[np.float64], tmp_path: Path) -> None:
    """Of handwritten digits: their principal components, which the detector takes as they come."""
    embed = through(PCA(16, random_state=0).fit(digits[:600].reshape(600, -1)))
    directly = cd.KSDrift(embed(digits[:600]), p_val=0.01)
    windows: list[Rows] = [embed(digits[600:800]), embed(digits[800:1000, ::-1])]
    alarms = compare(directly, "embedding", windows, tmp_path, [f"output {i}" for i in range(16)])
    assert alarms == [False, True]


def test_texts(tmp_path: Path) -> None:
    """Lines of prose; then lines of a program."""

    def lines(file: str) -> list[str]:
        return [line for line in (ROOT / file).read_text().splitlines() if line.strip()]

    def measured(texts: list[str]) -> npt.NDArray[np.float64]:
        import numpy

        letters = [sum(one.isalpha() for one in text) / len(text) for text in texts]
        return numpy.column_stack(([len(text) for text in texts], letters)).astype(float)

    prose = lines("LICENSE")
    prose = [prose[i] for i in np.random.default_rng(2).permutation(len(prose))]
    directly = cd.KSDrift(prose[:100], p_val=0.01, preprocess_fn=measured)
    program = lines("detectors/base.py")[:60]
    alarms = compare(directly, "text", [prose[100:160], program], tmp_path, ["output 0", "output 1"])
    assert alarms == [False, True]
