"""alibi-detect's detectors for MLServer: `mlserver_models.py FOLDER HTTP_PORT GRPC_PORT METRICS_PORT`, run in its own
environment.

Writes a folder for `mlserver start` with the models `drift` (TabularDrift) and `outlier` (IForest), fitted on rows like
those of `stream.py`, a category as its code: half of 20 features numeric, the others categorical.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import numpy as np
from alibi_detect.cd import TabularDrift
from alibi_detect.od import IForest
from alibi_detect.saving import save_detector

REFERENCE_ROWS: Final = 10_000
FEATURES: Final = 20
CATEGORIES: Final = 8
#: Share of the reference that is flagged, as govern's detector has it.
FLAGGED_PERCENT: Final = 1.0


def main(folder: Path, http_port: int, grpc_port: int, metrics_port: int) -> None:
    rng = np.random.default_rng(1)
    numeric = FEATURES // 2
    codes = rng.integers(0, CATEGORIES, (REFERENCE_ROWS, FEATURES - numeric))
    reference = np.hstack([rng.normal(size=(REFERENCE_ROWS, numeric)), codes])
    drift = TabularDrift(reference, categories_per_feature=dict.fromkeys(range(numeric, FEATURES)))
    outlier = IForest(n_estimators=100)
    outlier.fit(reference)
    outlier.infer_threshold(reference, threshold_perc=100 - FLAGGED_PERCENT)
    for name, detector in (("drift", drift), ("outlier", outlier)):
        save_detector(detector, folder / name / "detector")
        settings = {
            "name": name,
            "implementation": "mlserver_alibi_detect.AlibiDetectRuntime",
            "parameters": {"uri": "./detector"},
        }
        (folder / name / "model-settings.json").write_text(json.dumps(settings))
    server = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "metrics_dir": str(folder),
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(server))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
