"""What a configuration says of a request: whether it is an inference, of which model, and how many of its kind to keep.

Immutable, and taken as a whole by each exchange when it begins: to change the rules is to put another object in its
place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec

from govern.mirror.body import PATH_BYTES_MAX, TYPE_BYTES_MAX, text
from govern.mirror.config import MirrorConfig
from govern.mirror.sampling import Shares, shares
from govern.mirror.seen import Common, wanted_headers
from govern.record import Capture

#: Paths whose rule is remembered: a pod serves a few models.
_PATHS_REMEMBERED: Final = 1024
_NOBODY: Final = Capture()


class Route(NamedTuple):
    """What a request's path says."""

    protocol: str
    model: str
    version: str
    shares: Shares
    #: As a record says it.
    path: str
    #: What all its records have in common: a `Common`, encoded.
    common: msgspec.Raw


class Said(NamedTuple):
    """What a request's message says, where a protocol puts it there and not into the path."""

    model: bytes = b""
    version: bytes = b""
    id: bytes = b""


NOTHING_SAID: Final = Said()

#: Name and value of a header.
Pair = tuple[bytes, bytes]
#: Headers that a record may need, and no others: what is not here lies nowhere.
Picked = dict[bytes, bytes]


class Rules:
    """The rules of one configuration.

    Args:
        capture: who captures by them, as the records say it.
    """

    def __init__(self, config: MirrorConfig, capture: Capture = _NOBODY) -> None:
        self.kept_headers = tuple(name.encode("latin-1") for name in (*config.headers, *_told(config)))
        self.id_headers = tuple(name.encode("latin-1") for name in config.request_id_headers)
        self._wanted_headers = wanted_headers((*self.kept_headers, *self.id_headers))
        #: The steps that the HTTP proxy asks before it answers, if there are any.
        self.inline = config.inline
        self.error_status = config.sampling.error_status
        self.route = lru_cache(_PATHS_REMEMBERED)(self._find)
        self._known = lru_cache(_PATHS_REMEMBERED)(self._route)
        self._config = config
        self._capture = capture
        self._rules = tuple((rule.method.encode(), re.compile(rule.path.encode()), rule) for rule in config.rules)

    def picked(self, headers: Iterable[Pair]) -> Picked:
        """Those of a request's or a response's headers (names in lower case) that its record may need."""
        wanted = self._wanted_headers
        return {name: value for name, value in headers if name in wanted}

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
        config = self._config
        fates = self.shares(config.service, model)
        common = Common(
            namespace=config.namespace,
            service=config.service,
            model=model,
            revision=version,
            endpoint=config.endpoint,
            protocol=protocol,
            path=path,
            sampling=fates.label(failed=False),
            sampling_failed=fates.label(failed=True),
            kept_headers=self.kept_headers,
            id_headers=self.id_headers,
            capture=self._capture,
        )
        return Route(protocol, model, version, fates, path, msgspec.Raw(msgspec.msgpack.encode(common)))


def _told(config: MirrorConfig) -> tuple[str, ...]:
    """The headers by which inline steps speak: a record tells what the caller was told."""
    return tuple(step.header for step in config.inline.steps) if config.inline else ()


def _name(group: bytes | None) -> str:
    return text(unquote_to_bytes(group or b""), TYPE_BYTES_MAX)
