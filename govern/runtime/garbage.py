"""How often Python looks for garbage in a worker.

A batch of decoded requests is thousands of lists and strings that live for a moment, and have no cycles. With CPython's
defaults they make it go through everything that the process holds, some hundred thousand objects of the imported
packages among them, over and over: more than half of a worker's time with requests of one row.
"""

from __future__ import annotations

import gc
from typing import Final

#: New objects that make it look at the young ones (CPython: 700): some two batches of messages.
_YOUNG: Final = 50_000
#: Looks at the younger generation that make it look at the older one (CPython: 10 and 10).
_OLDER: Final = (20, 50)


def settle() -> None:
    """Take what is there now as there for good, and look at what comes less often. Call it when all is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *_OLDER)
