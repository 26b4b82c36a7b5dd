"""What alibi-detect's MMDDrift and LSDDDrift, on TensorFlow, say of many windows: run by an interpreter that has both.

    .venv-tensorflow/bin/python -I tests/detectors/tensorflow_kernels.py FOLDER

For each seed it leaves FOLDER/<seed>.npz: the rows, the widths and what was drawn at random, the statistics and the
p-values. TensorFlow computes in float64, so that what differs is the method and not the rounding. Nothing of govern is
imported.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_DETERMINISTIC_OPS": "1"}
warnings.simplefilter("ignore")

# ruff: noqa: E402 - TensorFlow reads its settings while it is imported

import numpy as np
import tensorflow as tf
from alibi_detect.cd import LSDDDrift, MMDDrift
from scipy.spatial.distance import pdist

SEEDS = 50
PERMUTATIONS = 199
KERNELS = ("gaussian", "multiscale_gaussian", "laplacian", "energy")
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)

tf.keras.backend.set_floatx("float64")


class Lambda(logging.Handler):
    """The largest difference that alibi-detect's choice of lambda bears is told in its log only."""

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage().split()
        if words[:4] == ["Using", "lambda", "value", "of"]:
            # It is one of 1, 1/4, 1/16 ..., of which the log has two digits.
            self.told = 4.0 ** round(np.log(float(words[4])) / np.log(4))


def distances(x: Any, y: Any) -> Any:
    return tf.convert_to_tensor(x)[:, None, :] - tf.convert_to_tensor(y)[None, :, :]


def mmd(name: str, reference: np.ndarray, window: np.ndarray, seed: int) -> dict[str, Any]:
    gamma = 1 / np.median(pdist(reference, "cityblock" if name == "laplacian" else "sqeuclidean"))

    def laplacian(x: Any, y: Any, infer_sigma: bool = False) -> Any:
        return tf.exp(-gamma * tf.reduce_sum(tf.abs(distances(x, y)), axis=-1))

    def energy(x: Any, y: Any, infer_sigma: bool = False) -> Any:
        return -tf.norm(distances(x, y), axis=-1)

    settings: dict[str, Any]
    if name in ("gaussian", "multiscale_gaussian"):
        scales = np.array(SCALES if name == "multiscale_gaussian" else (1.0,))
        settings = {"sigma": np.sqrt(1 / (2 * gamma * scales)), "configure_kernel_from_x_ref": False}
    else:
        settings = {"kernel": {"laplacian": laplacian, "energy": energy}[name], "configure_kernel_from_x_ref": False}
    detector = MMDDrift(reference, backend="tensorflow", n_permutations=PERMUTATIONS, **settings)
    np.random.seed(seed)
    said = detector.predict(window)["data"]
    return {"gamma": gamma, "statistic": said["distance"], "p_value": said["p_val"], "alarm": said["is_drift"]}


def lsdd(reference: np.ndarray, window: np.ndarray, seed: int) -> dict[str, Any]:
    gamma = 1 / np.median(pdist(reference, "sqeuclidean"))
    handler = Lambda()
    logger = logging.getLogger("alibi_detect.utils.tensorflow.distance")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    np.random.seed(seed)
    detector = LSDDDrift(
        reference,
        backend="tensorflow",
        sigma=np.array([np.sqrt(1 / (2 * gamma))]),
        n_permutations=PERMUTATIONS,
        n_kernel_centers=len(reference) // 4,
    )
    # As it was just drawn: the first rows of this order are the kernels' centres.
    order = np.random.RandomState(seed).permutation(len(reference))
    said = detector.predict(window)["data"]
    logger.removeHandler(handler)
    return {
        "gamma": gamma, "order": order, "ridge": handler.told,
        "statistic": said["distance"], "p_value": said["p_val"], "alarm": said["is_drift"],
    }  # fmt: skip


def main(folder: Path) -> None:
    # Where MMDDrift draws by numpy, LSDDDrift does by TensorFlow: here by numpy, too, so that it can be drawn again.
    tf.random.shuffle = lambda numbers: tf.constant(np.random.permutation(numbers.numpy()))
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        m, n, width = 4 * int(rng.integers(20, 60)), int(rng.integers(30, 100)), int(rng.integers(1, 7))
        reference = rng.normal(size=(m, width))
        reference = (reference - reference.mean(axis=0)) / reference.std(axis=0)
        window = rng.normal(rng.choice([0.0, 0.15, 0.3]), rng.choice([1.0, 1.2]), size=(n, width))
        name = KERNELS[seed % len(KERNELS)]
        told = {f"mmd_{key}": value for key, value in mmd(name, reference, window, seed).items()}
        told |= {f"lsdd_{key}": value for key, value in lsdd(reference, window, seed).items()}
        np.savez(folder / f"{seed}.npz", reference=reference, window=window, kernel=name, **told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
