"""An encoder, as a server of the tests serves it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from govern.codecs.tensor import Tensor


def encode(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.float64]]:
    age, price = (tensors[name].data.reshape(-1).astype(np.float64) for name in ("age", "price"))
    return {"e": np.stack([np.log(price + 100), age / price], axis=1)}
