"""The in-process predictor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.preprocessing import FunctionTransformer

from explainers.deadline import Deadline, DeadlinePassed
from explainers.predictor import SklearnPredictor
from explainers.target import Target
from govern.errors import ArtifactError, BadInput
from govern.frame import Frame


def test_a_classifier_answers_probabilities(acs: Frame, acs_model: SklearnPredictor) -> None:
    answers = acs_model.predict(acs.take(slice(0, 5)))
    assert answers.shape == (5, 2)
    np.testing.assert_allclose(answers.sum(axis=1), 1.0)


def test_a_regressor_answers_one_column(make_frame: Any) -> None:
    frame = make_frame({"x": np.arange(50.0).tolist()})
    model = HistGradientBoostingRegressor(max_iter=3).fit(frame.matrix(), np.arange(50.0))
    assert SklearnPredictor.of(model).predict(frame).shape == (50, 1)


def test_a_file_is_read_and_its_digest_is_the_models(acs_model: SklearnPredictor, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(acs_model.stored)
    assert SklearnPredictor.open(path).digest == acs_model.digest


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="model file"):
        SklearnPredictor.open(tmp_path / "absent.skops")
    damaged = tmp_path / "damaged.skops"
    damaged.write_bytes(b"no zip")
    with pytest.raises(ArtifactError, match="no skops file"):
        SklearnPredictor.open(damaged)


def test_a_file_that_may_run_code_is_refused() -> None:
    stored = skops.io.dumps(FunctionTransformer(func=Path.exists))
    with pytest.raises(ArtifactError, match="not known to be harmless"):
        SklearnPredictor(stored)


def test_rows_that_the_model_refuses(acs_model: SklearnPredictor, make_frame: Any) -> None:
    with pytest.raises(BadInput, match="refused"):
        acs_model.predict(make_frame({"x": [1.0]}))


def test_a_passed_deadline_asks_nothing(acs: Frame, acs_model: SklearnPredictor) -> None:
    with pytest.raises(DeadlinePassed):
        acs_model.predict(acs, deadline=Deadline.after(-1))


def test_the_target_names_column_and_decision() -> None:
    outputs = np.array([[0.2, 0.8], [0.7, 0.3]])
    assert Target().values(outputs).tolist() == [0.8, 0.3]
    assert Target(column=0).values(outputs).tolist() == [0.2, 0.7]
    assert Target().answers(outputs).tolist() == [1, 0]
    assert Target(threshold=None).answers(outputs).tolist() == [1, 0]
    with pytest.raises(BadInput, match="column 2"):
        Target(column=2).values(outputs)
