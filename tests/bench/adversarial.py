"""How well detectors tell rows that an attack changed from clean ones: real attacks through a V2 server, on real data.

Attacks know the model's answers only: HopSkipJump and the square attack on handwritten digits, the pointwise attack on
people of the census (`tests/attacks`). Every detector learns from the same clean rows and their answers, and is set to
flag 5 % of clean rows. alibi-detect's adversarial detectors need TensorFlow and are not here.

    .venv/bin/python -m tests.bench.adversarial [--rows 100]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tests.attacks.scenes import SCENES, attack, judged, serving

RATE = 0.05
#: Each is set to flag as many clean rows, by the parameter that it has for it.
DETECTORS: dict[str, dict[str, float]] = {
    "feature_squeezing": {"false_positive_rate": RATE},
    "label_consistency": {"false_positive_rate": RATE},
    "model_distillation": {"false_positive_rate": RATE},
    "mahalanobis": {"contamination": RATE},
    "isolation_forest": {"contamination": RATE},
    "knn": {"contamination": RATE},
}
#: Titles of the tables.
TITLES = {
    "hop_skip_jump": "HopSkipJump on digits",
    "square": "square attack on digits",
    "pointwise": "pointwise attack on people",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100, help="that each attack changes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1), serving(Path(folder)) as url:
        for scene, title in TITLES.items():
            model, norm, _ = SCENES[scene]
            attacked = attack(url, scene, options.rows)
            print(f"\n{title}: {len(attacked.changed)} of {attacked.tried} flipped,", end=" ")
            print(f"{attacked.queries / attacked.tried:,.0f} rows asked for each,", end=" ")
            print(f"moved by {np.median(attacked.moved):.1f} ({norm}, median); {len(attacked.clean)} clean rows\n")
            print("| detector | AUC | changed rows flagged | clean rows flagged |\n| --- | ---: | ---: | ---: |")
            for name, params in DETECTORS.items():
                width = {"image_width": 8} if name == "feature_squeezing" and model == "digits" else {}
                found = judged(attacked, name, {**params, **width})
                print(f"| {name} | {found.auc:.3f} | {100 * found.found:.0f} % | {100 * found.false:.1f} % |")


if __name__ == "__main__":
    main()
