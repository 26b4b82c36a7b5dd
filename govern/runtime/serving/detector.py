"""A detector step as a V2 model: the features of its rows in, what it says of them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from govern.codecs.frames import to_frame
from govern.codecs.tensor import Tensor, objects
from govern.detection import InstanceScores, WindowScores, tells_shares
from govern.errors import DecodeError
from govern.frame import Frame
from govern.record import FeatureResult
from govern.runtime.serving.model import VERSION_DIGITS, ModelMetadata, TensorMetadata, feature_inputs
from govern.runtime.serving.step import DetectorStep

#: What a drift step calls a test that is of the window as a whole and not of one feature.
WHOLE: Final = "*"
#: `InstanceScores.shares`: features in the order of the schema, zeros in rows that are not flagged.
SHARES: Final = "instance_shares"

_PLATFORM: Final = "govern_detector"


class DetectorModel:
    """What is served of a detector step.

    Inputs are the features as the monitored model takes them: one tensor for each, or all in one of shape (n, d); and
    the outputs of the model that the detector compares, by their names.
    """

    def __init__(self, name: str, step: DetectorStep) -> None:
        self.step = step
        inputs = [
            *feature_inputs(step.schema),
            *(TensorMetadata(name=one, datatype="FP64", shape=(-1, -1)) for one in step.detector.needs_outputs),
        ]
        self.metadata = ModelMetadata(
            name=name,
            inputs=tuple(inputs),
            outputs=_outputs(step),
            versions=(step.detector.digest[:VERSION_DIGITS],),
            platform=_PLATFORM,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        return self.step.labels

    def check_names(self, names: Sequence[str], /) -> None:
        """Nothing: the schema says which forms there are when the frame is made."""

    def infer(self, inputs: list[Tensor], /) -> list[Tensor]:
        """
        Raises:
            BadInput: no rows of the schema, too few of them, or without an output that the detector compares.
        """
        step = self.step
        compared = [one for one in inputs if one.name in step.detector.needs_outputs]
        frame = to_frame([one for one in inputs if one not in compared], step.schema)
        whole = Frame(
            schema=frame.schema,
            columns=frame.columns,
            unseen=frame.unseen,
            outputs={one.name: _matrix(one, len(frame)) for one in compared},
        )
        scores = step.score(whole)
        return _drift(scores) if isinstance(scores, WindowScores) else _instances(step, scores)


def _outputs(step: DetectorStep) -> tuple[TensorMetadata, ...]:
    if step.kind == "drift":
        per_feature = [("feature", "BYTES"), ("p_value", "FP64"), ("statistic", "FP64"), ("threshold", "FP64")]
        return (
            TensorMetadata(name="is_drift", datatype="BOOL", shape=(1,)),
            *(TensorMetadata(name=name, datatype=datatype, shape=(-1,)) for name, datatype in per_feature),
        )
    outputs = (
        TensorMetadata(name=f"is_{step.kind}", datatype="BOOL", shape=(-1,)),
        TensorMetadata(name="instance_score", datatype="FP64", shape=(-1,)),
        TensorMetadata(name="threshold", datatype="FP64", shape=(1,)),
    )
    if not tells_shares(step.detector):
        return outputs
    return (*outputs, TensorMetadata(name=SHARES, datatype="FP64", shape=(-1, len(step.detector.schema.features))))


def _drift(scores: WindowScores) -> list[Tensor]:
    whole = FeatureResult(feature=WHOLE, statistic=scores.statistic, p_value=scores.p_value, threshold=scores.threshold)
    tests = scores.features or (whole,)
    return [
        Tensor("is_drift", "BOOL", np.array([scores.alarm])),
        Tensor("feature", "BYTES", objects([one.label for one in tests])),
        Tensor("p_value", "FP64", np.array([one.p_value for one in tests])),
        Tensor("statistic", "FP64", np.array([one.statistic for one in tests])),
        Tensor("threshold", "FP64", np.array([one.threshold for one in tests])),
    ]


def _instances(step: DetectorStep, scores: InstanceScores) -> list[Tensor]:
    tensors = [
        Tensor(f"is_{step.kind}", "BOOL", scores.flagged),
        Tensor("instance_score", "FP64", scores.scores),
        Tensor("threshold", "FP64", np.array([scores.threshold])),
    ]
    # Only what the metadata promise: a client may lay out its answer by them.
    if scores.shares is not None and tells_shares(step.detector):
        tensors.append(Tensor(SHARES, "FP64", scores.shares))
    return tensors


def _matrix(tensor: Tensor, rows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    data = tensor.data
    if data.dtype.kind not in "fiub" or data.ndim == 0 or len(data) != rows:
        raise DecodeError(
            f"tensor {tensor.name!r} is {tensor.datatype} of shape {list(data.shape)}",
            why=f"it is an output of the model for {rows} rows",
            fix="send the numbers that the model answered for these rows",
        )
    return data.reshape(rows, -1).astype(np.float64)
