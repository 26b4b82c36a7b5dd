"""A detector of alibi-detect as it is asked over the wire: opened from its saved folder, then scored."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import alibi_detect
import numpy as np
from alibi_detect.saving import load_detector
from alibi_detect.utils.frameworks import has_tensorflow

from .making import make, simulated
from .wire import Array, Message

SEEDS: Final = 2**32
#: What an online detector remembers that only grows, and what of it the next row needs.
_HISTORIES: Final = {"test_stats": 1, "drift_preds": 1}
#: alibi-detect's Mahalanobis learns from every row that it scores.
_MAHALANOBIS: Final = ("mean", "C", "n")


class Nothing:
    """Before a detector is opened."""

    def answer(self, asked: Message) -> tuple[Opened, Message]:
        seed = int(asked.said["seed"])
        _sow(seed)
        if "make" in asked.said:
            opened = Opened(make(asked), seed)
            return opened, opened.described()
        folder = Path("saved")
        for name, data in asked.arrays.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.tobytes())
        opened = Opened(load_detector(folder), seed)
        return opened, opened.described()


class Opened:
    """One detector. What it remembers comes with each question and goes with each answer: it may be asked anywhere."""

    def __init__(self, detector: Any, seed: int) -> None:
        self._detector = detector
        self._seed = seed
        self._name = type(detector).__name__
        self._kind = str(detector.meta["detector_type"])
        self._keys: tuple[str, ...] = _MAHALANOBIS if self._name == "Mahalanobis" else ()
        self._keys = getattr(detector, "online_state_keys", getattr(_inner(detector), "online_state_keys", self._keys))
        self._start = self._memory()

    def described(self) -> Message:
        """What it is."""
        inner = _inner(self._detector)
        reference = getattr(inner, "x_ref", None)
        # Of what a function makes of the rows first, it says nothing of the rows.
        shape = getattr(inner, "input_shape", None) if getattr(inner, "preprocess_fn", None) is None else None
        threshold = getattr(self._detector, "threshold", None)
        return Message(
            {
                "detector": self._name,
                "kind": self._kind,
                "alibi_detect": alibi_detect.__version__,
                "remembers": bool(self._keys),
                "correction": getattr(inner, "correction", None),
                "dtype": "float64" if getattr(reference, "dtype", None) == np.float64 else "float32",
                "shape": [int(n) for n in shape] if shape is not None else None,
                "p_value": float(getattr(self._detector, "p_val", getattr(inner, "p_val", None)) or "nan"),
                "threshold": None if threshold is None else float(np.max(threshold)),
                "rows": int(self._detector.shape[1]) if self._name == "OutlierSeq2Seq" else 1,
            },
            {f"memory/{key}": value for key, value in self._start.items()} | simulated(self._detector),
        )

    def answer(self, asked: Message) -> tuple[Opened, Message]:
        memory = {
            key.removeprefix("memory/"): array for key, array in asked.arrays.items() if key.startswith("memory/")
        }
        rows: Any = asked.said["texts"] if "texts" in asked.said else asked.arrays["x"]
        context = asked.arrays.get("context")
        if self._keys:
            self._remember(memory or self._start)
        _sow(self._seed + int(np.asarray(memory.get("t", memory.get("n", 0)))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._keys and self._kind == "drift":
                said = self._online(rows)
            elif self._kind == "drift":
                said = self._batch(rows, context)
            else:
                said = self._instances(rows, context)
        for key, value in self._memory().items() if self._keys else ():
            said.arrays[f"memory/{key}"] = value
        return self, said

    def _batch(self, rows: Any, context: Array | None) -> Message:
        found = (
            self._detector.predict(rows)["data"] if context is None else self._detector.predict(rows, context)["data"]
        )
        return Message(
            {"alarm": bool(found["is_drift"]), "threshold": float(np.min(found["threshold"]))},
            {"p_value": _numbers(found["p_val"]), "statistic": _numbers(found["distance"])},
        )

    def _online(self, rows: Any) -> Message:
        """One row after the other; the statistics are those of the first that alarms, or of the last."""
        told: dict[str, Any] = {}
        alarm_row = -1
        for place, row in enumerate(rows):
            found = self._detector.predict(row)["data"]
            if alarm_row < 0:
                told = found
                alarm_row = place if found["is_drift"] else -1
        # Windows in rows, features in columns: those that are not full yet have no statistic.
        statistic = np.asarray(told["test_stat"], dtype=np.float64)
        if statistic.ndim == 2:
            full = np.where(np.isnan(statistic), -np.inf, statistic).max(axis=0)
            statistic = np.where(np.isfinite(full), full, np.nan)
        threshold = np.broadcast_to(np.asarray(told["threshold"], dtype=np.float64), statistic.shape)
        return Message(
            {"alarm": alarm_row >= 0, "alarm_row": alarm_row},
            {"statistic": _numbers(statistic), "threshold": _numbers(threshold)},
        )

    def _instances(self, rows: Any, context: Array | None) -> Message:
        threshold = getattr(self._detector, "threshold", None)
        if self._name == "OutlierProphet":
            import pandas as pd

            assert context is not None, "checked when it was adopted"
            frame = pd.DataFrame({"ds": pd.to_datetime(context.ravel(), unit="s"), "y": rows.ravel()})
            found = self._detector.predict(frame)["data"]
            found = {"instance_score": found["instance_score"]["instance_score"].to_numpy()}
        elif self._name == "SpectralResidual":
            found = self._detector.predict(rows.ravel(), *(() if context is None else (context.ravel(),)))["data"]
        else:
            found = self._detector.predict(rows)["data"]
        if self._name in ("OutlierSeq2Seq", "OutlierProphet"):
            threshold = 0.0  # its scores are what exceeds the threshold
        if threshold is None:
            raise ValueError("it has no threshold: infer one (`infer_threshold`) before it is saved")
        arrays = {"score": _numbers(found["instance_score"])}
        if (by_feature := found.get("feature_score")) is not None:
            arrays["by_feature"] = np.asarray(by_feature, dtype=np.float64)
        return Message({"threshold": float(threshold)}, arrays)

    def _memory(self) -> dict[str, Array]:
        """What it remembers, without what no later row is compared to."""
        holder = self._holder
        found = {key: np.asarray(getattr(holder, key)) for key in self._keys}
        for key, kept in _HISTORIES.items():
            if key in found:
                found[key] = found[key][-kept:]
        if "xs" in found:
            found["xs"] = found["xs"][-int(holder.max_ws) :]
        if self._name == "Mahalanobis" and self._detector.clip is not None:
            found["clip"] = np.asarray(self._detector.clip)
        return found

    def _remember(self, memory: Mapping[str, Array]) -> None:
        holder = self._holder
        for key, value in memory.items():
            setattr(holder, key, int(value) if key in ("t", "n") else value)
        if self._name == "Mahalanobis":
            self._detector.clip = list(memory["clip"]) if "clip" in memory else None
            if self._detector.n == 0:
                self._detector.mean = self._detector.C = 0

    @property
    def _holder(self) -> Any:
        """Whose attributes the memory is."""
        return self._detector if self._name == "Mahalanobis" else _inner(self._detector)


def _inner(detector: Any) -> Any:
    """The class of the backend, where it has one: parameters and state are its attributes."""
    return getattr(detector, "_detector", detector)


def _numbers(values: Any) -> Array:
    """(k,) float64."""
    return np.atleast_1d(np.asarray(values, dtype=np.float64)).ravel()


def _sow(seed: int) -> None:
    """Have what draws random numbers draw the same for the same question."""
    random.seed(seed)
    np.random.seed(seed % SEEDS)
    if has_tensorflow:
        import tensorflow

        tensorflow.random.set_seed(seed)
