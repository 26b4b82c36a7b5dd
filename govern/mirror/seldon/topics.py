"""The names of Seldon Core v2's topics, and which of them are recorded."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from govern.mirror.join import Side
from govern.mirror.seldon.config import SeldonConfig

Kind = Literal["model", "pipeline"]

_SIDES: Final[dict[str, Side]] = {".inputs": "request", ".outputs": "response"}


class Stream(NamedTuple):
    """One side of one model or pipeline; the errors of all models come in one topic, whose `name` is empty."""

    kind: Kind
    name: str
    side: Side


#: What `<prefix>.<namespace>.errors.errors` carries: answers of models that failed, each naming its model.
ERRORS: Final = Stream("model", "", "response")


class Selection:
    """Which topics and messages count.

    Args:
        namespace: Seldon's namespace.
    """

    def __init__(self, config: SeldonConfig, namespace: str) -> None:
        self._config = config
        self._root = f"{config.prefix}.{namespace}."

    def stream(self, topic: str) -> Stream | None:
        """What a topic carries; None when it is not to be read."""
        if not topic.startswith(self._root):
            return None
        rest = topic.removeprefix(self._root)
        if rest == "errors.errors":
            return ERRORS
        kind, _, named = rest.partition(".")
        for ending, side in _SIDES.items():
            name = named.removesuffix(ending)
            if name == named or not name:
                continue
            if kind == "model" and _any(self._config.models, name):
                return Stream("model", name, side)
            if kind == "pipeline" and _any(self._config.pipelines, name):
                return Stream("pipeline", name, side)
        return None

    def wants(self, kind: Kind, name: str, pipeline: str) -> bool:
        """Whether a message of a stream counts: its pipeline's name does, and, of the errors, its model's."""
        if kind == "pipeline":
            return _any(self._config.pipelines, name)
        return _any(self._config.models, name) and _any(self._config.within, pipeline)


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
