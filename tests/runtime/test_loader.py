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
