"""Names as Kubernetes labels, which is what names in a pipeline are."""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Final

_NAME_CHARS_MAX: Final = 63


def free(name: str, taken: Set[str], suffix: str = "2") -> str:
    """The name as a DNS label that is not taken yet."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_NAME_CHARS_MAX].strip("-") or "x"
    found, number = label, 2
    while found in taken:
        tail = f"-{suffix}" if found == label else f"-{suffix}-{number}"
        number += found != label
        found = label[: _NAME_CHARS_MAX - len(tail)].strip("-") + tail
    return found
