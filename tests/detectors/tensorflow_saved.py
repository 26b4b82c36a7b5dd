"""Detectors of alibi-detect on TensorFlow, fitted, saved and asked: run by an interpreter that has both.

    .venv-tensorflow/bin/python -I tests/detectors/tensorflow_saved.py FOLDER

For each it leaves FOLDER/<name>/saved, and FOLDER/<name>/told.npz: rows of a window, and what it says of them.
Nothing of govern is imported.
"""

from __future__ import annotations

import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_DETERMINISTIC_OPS": "1"}
warnings.simplefilter("ignore")

# ruff: noqa: E402 - TensorFlow reads its settings while it is imported

import numpy as np
import tensorflow as tf
from alibi_detect import ad, cd, od
from alibi_detect.saving import load_detector, save_detector

Made = tuple[Any, np.ndarray]

SEED = 3
WIDTH = 4
rng = np.random.default_rng(0)
X = rng.normal(size=(200, WIDTH)).astype(np.float32)
STRANGE = np.concatenate([X[:30], X[30:40] * 4 + 3]).astype(np.float32)
MOVED = (X[:40] + 1.0).astype(np.float32)


def dense(*units: int, width: int = WIDTH, last: str | None = None) -> tf.keras.Sequential:
    layers = [tf.keras.layers.InputLayer(input_shape=(width,))]
    layers += [tf.keras.layers.Dense(n, activation="tanh") for n in units[:-1]]
    return tf.keras.Sequential([*layers, tf.keras.layers.Dense(units[-1], activation=last)])


def drift(detector: Any) -> Made:
    return detector, MOVED


def outlier(detector: Any, *, epochs: int = 2, **options: Any) -> Made:
    detector.fit(X, epochs=epochs, verbose=False, **options)
    detector.infer_threshold(X, threshold_perc=95)
    return detector, STRANGE


def kernel() -> Any:
    from alibi_detect.utils.tensorflow.kernels import DeepKernel

    return DeepKernel(dense(3))


def series(detector: Any) -> Made:
    wave = np.sin(np.arange(200) / 5)[:, None].astype(np.float32)
    wave = np.concatenate([wave, np.cos(np.arange(200) / 7)[:, None].astype(np.float32)], axis=1)
    detector.fit(wave, epochs=2, verbose=False)
    detector.infer_threshold(wave, threshold_perc=95)
    window = wave[:40].copy()
    window[25] += 3.0
    return detector, window


def likelihood_ratio() -> Made:
    def likelihood() -> tf.keras.Model:
        inputs = tf.keras.layers.Input(shape=(None,), dtype=tf.int32)
        hidden = tf.keras.layers.LSTM(4, return_sequences=True)(tf.one_hot(inputs, 5))
        return tf.keras.Model(inputs=inputs, outputs=tf.keras.layers.Dense(5)(hidden))

    def log_prob(letter: Any, logits: Any) -> Any:
        import tensorflow as tf

        return -tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(letter, tf.int32), logits)

    letters = rng.integers(0, 5, size=(40, WIDTH)).astype(np.float32)
    detector = od.LLR(
        threshold=0.0, model=likelihood(), model_background=likelihood(), log_prob=log_prob, sequential=True
    )
    return detector, letters


def adversarial(detector: Any) -> Made:
    detector.fit(X, epochs=2, verbose=False)
    detector.infer_threshold(X, threshold_perc=95)
    return detector, STRANGE


def mahalanobis() -> Made:
    detector = od.Mahalanobis(n_components=2, start_clip=50)
    detector.infer_threshold(X, threshold_perc=95)
    return detector, STRANGE


def isolation_forest() -> Made:
    detector = od.IForest(n_estimators=10)
    detector.isolationforest.set_params(random_state=0)
    detector.fit(X)
    detector.infer_threshold(X, threshold_perc=95)
    return detector, STRANGE


def spectral_residual() -> Made:
    detector = od.SpectralResidual(threshold=1.0, window_amp=10, window_local=10, n_est_points=5)
    wave = np.sin(np.arange(80) / 5)[:, None].astype(np.float32)
    wave[50] += 4.0
    return detector, wave


def prophet() -> Made:
    import pandas as pd

    detector = od.OutlierProphet(threshold=0.9, uncertainty_samples=50)
    hours = 1_600_000_000 + 3600.0 * np.arange(240)
    values = np.sin(np.arange(240) * np.pi / 12) + 0.1 * rng.normal(size=240)
    detector.fit(pd.DataFrame({"ds": pd.to_datetime(hours, unit="s"), "y": values}))
    values = values[:40].copy()
    values[7] += 9.0
    return detector, np.column_stack((hours[:40] + 3600.0 * 240, values))


DETECTORS: dict[str, Callable[[], Made]] = {
    "MMDDrift": lambda: drift(cd.MMDDrift(X, backend="tensorflow", n_permutations=50)),
    "LSDDDrift": lambda: drift(cd.LSDDDrift(X, backend="tensorflow", n_permutations=50)),
    "ClassifierDrift": lambda: drift(
        cd.ClassifierDrift(X, dense(4, 2), backend="tensorflow", preds_type="logits", n_folds=2, epochs=1, verbose=0)
    ),
    "SpotTheDiffDrift": lambda: drift(
        cd.SpotTheDiffDrift(X, backend="tensorflow", n_diffs=1, n_folds=2, epochs=1, verbose=0)
    ),
    "LearnedKernelDrift": lambda: drift(
        cd.LearnedKernelDrift(X, kernel(), backend="tensorflow", epochs=1, n_permutations=20, verbose=0)
    ),
    "ContextMMDDrift": lambda: drift(
        cd.ContextMMDDrift(X[:, 1:], X[:, :1], backend="tensorflow", n_permutations=20, verbose=False)
    ),
    "ClassifierUncertaintyDrift": lambda: drift(
        cd.ClassifierUncertaintyDrift(X, dense(4, 3, last="softmax"), backend="tensorflow", preds_type="probs")
    ),
    "RegressorUncertaintyDrift": lambda: drift(
        cd.RegressorUncertaintyDrift(X, dense(4, 1), backend="tensorflow", uncertainty_type="mc_dropout", n_evals=3)
    ),
    "MMDDriftOnline": lambda: drift(
        cd.MMDDriftOnline(X, ert=20, window_size=10, backend="tensorflow", n_bootstraps=40, verbose=False)
    ),
    "LSDDDriftOnline": lambda: drift(
        cd.LSDDDriftOnline(X, ert=20, window_size=10, backend="tensorflow", n_bootstraps=40, verbose=False)
    ),
    "OutlierAE": lambda: outlier(od.OutlierAE(encoder_net=dense(3, 2), decoder_net=dense(3, WIDTH, width=2))),
    "OutlierVAE": lambda: outlier(
        od.OutlierVAE(encoder_net=dense(3, 2), decoder_net=dense(3, WIDTH, width=2), latent_dim=2, samples=3)
    ),
    "OutlierAEGMM": lambda: outlier(
        od.OutlierAEGMM(
            encoder_net=dense(3, 1),
            decoder_net=dense(3, WIDTH, width=1),
            gmm_density_net=dense(3, 2, width=3, last="softmax"),
            n_gmm=2,
        )
    ),
    "OutlierVAEGMM": lambda: outlier(
        od.OutlierVAEGMM(
            encoder_net=dense(3, 2),
            decoder_net=dense(3, WIDTH, width=2),
            gmm_density_net=dense(3, 2, width=4, last="softmax"),
            n_gmm=2,
            latent_dim=2,
        )
    ),
    "OutlierSeq2Seq": lambda: series(od.OutlierSeq2Seq(2, 20, latent_dim=4)),
    "LLR": likelihood_ratio,
    "OutlierProphet": prophet,
    "IForest": isolation_forest,
    "Mahalanobis": mahalanobis,
    "SpectralResidual": spectral_residual,
    "AdversarialAE": lambda: adversarial(
        ad.AdversarialAE(
            encoder_net=dense(3, 2), decoder_net=dense(3, WIDTH, width=2), model=dense(4, 3, last="softmax")
        )
    ),
    "ModelDistillation": lambda: adversarial(
        ad.ModelDistillation(distilled_model=dense(3, 3, last="softmax"), model=dense(4, 3, last="softmax"))
    ),
}


def told(name: str, detector: Any, window: np.ndarray) -> dict[str, Any]:
    """What alibi-detect says of the window, asked as its documentation has it."""
    if name.endswith("Online"):
        said = [detector.predict(row)["data"] for row in window]
        said = next((one for one in said if one["is_drift"]), said[-1])
        return {"alarm": said["is_drift"], "statistic": said["test_stat"], "threshold": said["threshold"]}
    if detector.meta["detector_type"] == "drift":
        given = (window[:, 1:], window[:, :1]) if name == "ContextMMDDrift" else (window,)
        said = detector.predict(*given)["data"]
        return {"alarm": said["is_drift"], "statistic": said["distance"], "p_value": said["p_val"]}
    if name == "OutlierProphet":
        import pandas as pd

        said = detector.predict(pd.DataFrame({"ds": pd.to_datetime(window[:, 0], unit="s"), "y": window[:, 1]}))["data"]
        return {
            "score": said["instance_score"]["instance_score"].to_numpy(),
            "flagged": said["is_outlier"]["is_outlier"].to_numpy(),
        }
    said = detector.predict(window.ravel() if name == "SpectralResidual" else window)["data"]
    found = {"score": said["instance_score"], "flagged": said.get("is_outlier", said.get("is_adversarial"))}
    if said.get("feature_score") is not None:
        found["by_feature"] = said["feature_score"]
    return found


def main(folder: Path, names: list[str]) -> None:
    for name in names or DETECTORS:
        sow()
        detector, window = DETECTORS[name]()
        save_detector(detector, folder / name / "saved")
        # As it is opened: thresholds of online detectors are simulated anew.
        sow()
        loaded = load_detector(folder / name / "saved")
        sow(SEED + int(getattr(loaded, "n", 0)) if name == "Mahalanobis" else SEED)
        np.savez(folder / name / "told.npz", reference=X, window=window, **told(name, loaded, window))
        print(name, flush=True)


def sow(seed: int = SEED) -> None:
    random.seed(seed)
    tf.random.set_seed(seed)
    np.random.seed(seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
