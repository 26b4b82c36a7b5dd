"""A detector step inside a flow: what it says of the rows of one request."""

from __future__ import annotations

import asyncio

import numpy as np

from govern.codecs.tensor import Tensor
from govern.pipeline.references import EMITTED, FLAGGED
from govern.runtime.flow.message import Call
from govern.runtime.serving.detector import DetectorModel
from govern.runtime.serving.step import DetectorStep


class InlineDetector:
    """An outlier or adversarial detector, in a thread. What it emits has the names of `govern.pipeline.references`:

    - `is_outlier` (`is_adversarial`): BOOL (n,), whether each row is flagged.
    - `instance_score`: FP64 (n,).
    - `outliers` (`adversarials`): INT64 (k,), the flagged rows, from 0; only when there are some, so that a step with
      this trigger runs for requests that were flagged.
    """

    def __init__(self, name: str, step: DetectorStep) -> None:
        self._model = DetectorModel(name, step)

    async def __call__(self, call: Call, /) -> list[Tensor]:
        said = {one.name: one for one in await asyncio.to_thread(self._model.infer, list(call.tensors))}
        kind = self._model.step.kind
        tensors = [said[name] for name in EMITTED[kind]]
        rows = np.flatnonzero(tensors[0].data)
        return [*tensors, Tensor(FLAGGED[kind], "INT64", rows.astype(np.int64))] if rows.size else tensors
