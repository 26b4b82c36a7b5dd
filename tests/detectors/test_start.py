"""What a process that only scores loads, and what it need not compile again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stdout.strip()


def test_the_demos_detectors_load_nothing_that_only_fitting_needs() -> None:
    modules = "detectors.drift.tabular, detectors.outlier.isolation_forest, detectors.adversarial.model_distillation"

    loaded = run(f"import sys, {modules}; print({{'sklearn', 'scipy.stats', 'pandas'}} & sys.modules.keys())")

    assert loaded == "set()"


def test_a_test_of_each_feature_compiles_nothing() -> None:
    """Most drift detectors need no compiler, of 50 MB and most of a second; `sketched` loads it when it counts."""
    assert (
        run("import sys, detectors.drift.sketched, detectors.drift.tabular; print('numba' in sys.modules)") == "False"
    )


def test_a_compiled_function_is_kept_where_numba_cache_dir_says(tmp_path: Path) -> None:
    program = """
import numpy as np
from detectors import distances
print(distances.project(np.ones((2, 3)), np.ones((3, 1))).tolist(), sum(distances._project.stats.cache_hits.values()))
"""

    first, second = (run(program, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2))

    assert first == "[[3.0], [3.0]] 0"
    assert second == "[[3.0], [3.0]] 1"
