"""Run by test_contract.py in another process: load each artifact, score the stored window, print the numbers' bits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from detectors import artifacts
from govern.detection import InstanceScores
from govern.frame import Frame
from govern.schema import FeatureSchema

folder, *names = sys.argv[1:]
schema = FeatureSchema.load(Path(folder) / "schema.yaml")
with np.load(Path(folder) / "window.npz") as stored:
    columns = tuple(stored[f"arr_{position}"] for position in range(len(schema.features)))
    frame = Frame(schema=schema, columns=columns, outputs={"predict_proba": stored["predict_proba"]})
told: dict[str, list[str]] = {}
for name in names:
    scores = artifacts.load(Path(folder) / name).score(frame)
    if isinstance(scores, InstanceScores):
        told[name] = [value.hex() for value in scores.scores.tolist()]
    else:
        told[name] = [value.hex() for one in scores.features for value in (one.statistic, one.p_value)]
print(json.dumps(told))
