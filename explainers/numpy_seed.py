"""Libraries that draw from numpy's process-wide generator, made reproducible."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

#: Guards what is global already: `numpy.random`'s legacy state. Explanations that need it run one at a time.
_LOCK: Final = threading.Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block `numpy.random.*` gives the sequence of `seed`; afterwards it goes on as if never touched.

    Only blocks of this function exclude each other: code of other threads that draws from the same generator
    meanwhile is not stopped.
    """
    with _LOCK:
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
