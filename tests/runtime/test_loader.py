"""A pipeline takes only artifacts that are what its file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from govern.errors import ArtifactError, ConfigError
from govern.runtime.loader import load
from tests.runtime.conftest import Fitted


def test_an_artifact_of_another_method_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    file.write_text(file.read_text().replace("type: tabular,", "type: ks,"))
    with pytest.raises(ConfigError, match=r"step 'drift': detector\.type is 'ks'") as caught:
        load(file)
    assert "'tabular'" in caught.value.why


def test_an_artifact_that_was_fitted_on_another_schema_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    schema = file.parent / "schema.yaml"
    schema.write_text(schema.read_text().replace("name: AGEP", "name: AGE", 1))
    with pytest.raises(ArtifactError, match=r"step 'drift': artifact .* does not fit schema\.yaml"):
        load(file)


BEHIND = """
    - name: encoder
      model: {url: http://encoder:8080}
    - name: outlier
      detector: {type: isolation_forest, params: {n_estimators: 20}, artifact: artifacts/outlier}
      inputs: [encoder]
    - name: explain
      explainer: {name: why}
      inputs: [watch.inputs]
      triggers: [outlier.outputs.outliers]
"""


def test_a_detector_of_what_others_return_has_a_schema_of_its_own(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    head = file.read_text().partition("  steps:")[0]
    file.write_text(f"{head}  steps:{BEHIND}")
    (loaded,) = load(file)
    assert loaded.flow is not None
    assert loaded.fed == {"outlier"}
    schema = file.parent / "schema.yaml"
    schema.write_text(schema.read_text().replace("name: AGEP", "name: AGE", 1))
    with pytest.raises(ConfigError, match=r"step 'explain': trigger outlier") as caught:
        load(file)
    assert "rows of another schema than the model's" in caught.value.why
    file.write_text(f"{head}  steps:{BEHIND.partition('    - name: explain')[0]}")
    (loaded,) = load(file)
    assert loaded.schema_of("outlier") == loaded.detectors["outlier"].schema != loaded.schema


def test_a_function_that_is_not_there_is_refused_before_anything_runs(fitted: Fitted, tmp_path: Path) -> None:
    file = fitted.write(tmp_path / "pipeline", "default")
    encode = "    - {name: encode, transformer: {callable: 'somewhere:encode'}}\n"
    file.write_text(file.read_text().replace("  steps:\n", f"  steps:\n{encode}"))
    with pytest.raises(ConfigError, match="step 'encode'"):
        load(file)
