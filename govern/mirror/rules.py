"""What a configuration says of a request: whether it is an inference, of which model, and how many of its kind to keep.

Immutable, and taken as a whole by each exchange when it begins: to change the rules is to put another object in its
place.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from govern.mirror.body import PATH_BYTES_MAX, TYPE_BYTES_MAX, text
from govern.mirror.config import MirrorConfig
from govern.mirror.sampling import Shares, shares
from govern.record import Sampling

#: Paths whose rule is remembered: a pod serves a few models.
_PATHS_REMEMBERED: Final = 1024


class Route(NamedTuple):
    """What a request's path says."""

    protocol: str
    model: str
    version: str
    shares: Shares
    #: As a record says it.
    path: str
    #: What its records say of their sampling, and those of requests that failed.
    sampling: Sampling
    sampling_failed: Sampling


class Said(NamedTuple):
    """What a request's message says, where a protocol puts it there and not into the path."""

    model: bytes = b""
    version: bytes = b""
    id: bytes = b""


NOTHING_SAID: Final = Said()


class Rules:
    """The rules of one configuration."""

    def __init__(self, config: MirrorConfig) -> None:
        self.kept_headers = tuple(name.encode("latin-1") for name in config.headers)
        self.id_headers = tuple(name.encode("latin-1") for name in config.request_id_headers)
        self.error_status = config.sampling.error_status
        self.route = lru_cache(_PATHS_REMEMBERED)(self._find)
        self._known = lru_cache(_PATHS_REMEMBERED)(self._route)
        self._config = config
        self._rules = tuple((rule.method.encode(), re.compile(rule.path.encode()), rule) for rule in config.rules)

    def shares(self, service: str, model: str) -> Shares:
        """How many of a model's requests to keep."""
        return shares(self._config.sampling_rate, self._config.sampling, service=service, model=model)

    def completed(self, route: Route, said: Said) -> Route:
        """The route, with what the message says in the place of what neither configuration nor path do."""
        model = route.model or text(said.model, TYPE_BYTES_MAX)
        version = route.version or text(said.version, TYPE_BYTES_MAX)
        return self._known(route.protocol, model, version, route.path)

    def _find(self, method: bytes, path: bytes) -> Route | None:
        for wanted, pattern, rule in self._rules:
            match = pattern.fullmatch(path) if method == wanted else None
            if match:
                groups = match.groupdict()
                model = self._config.model or _name(groups.get("model"))
                version = self._config.revision or _name(groups.get("version"))
                return self._known(rule.protocol, model, version, text(path, PATH_BYTES_MAX))
        return None

    def _route(self, protocol: str, model: str, version: str, path: str) -> Route:
        fates = self.shares(self._config.service, model)
        return Route(protocol, model, version, fates, path, fates.label(failed=False), fates.label(failed=True))


def _name(group: bytes | None) -> str:
    return text(unquote_to_bytes(group or b""), TYPE_BYTES_MAX)
