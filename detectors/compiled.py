"""Functions that numba compiles."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile at the first call of a process, without the interpreter's lock.

    In memory: a cache beside the source would need a writable installation. Where NUMBA_CACHE_DIR names a folder, as
    the image does, it is kept there, and the next process starts half a second sooner.
    """
    return cast(F, numba.njit(nogil=True, cache=bool(os.environ.get("NUMBA_CACHE_DIR")))(function))
