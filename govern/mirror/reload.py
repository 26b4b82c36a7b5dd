"""New rules without a restart: read again when the file changes, and on SIGHUP where the process is ours.

What may change is what decides about records; addresses, sizes and folders need a restart. A file that is wrong is
refused as a whole, and the rules in force stay. The file is read and checked away from the traffic: in a thread, or,
where there is no traffic, between two pieces of work.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from pydantic import ValidationError

from govern import looking
from govern.errors import ConfigError, GovernError
from govern.mirror.config import MirrorConfig, load

_log: Final = logging.getLogger(__name__)

#: The fields that a running process takes over.
RELOADED: Final = (
    "rules",
    "request_id_headers",
    "headers",
    "sampling_rate",
    "sampling",
    "redaction",
    "fan_out",
    "destinations",
    "inline",
)
#: How often to look whether the file has changed; Kubernetes itself takes up to a minute to renew a mounted ConfigMap.
LOOK_EVERY_S: Final = 1.0

#: What changes with the file, also where it is a link that is turned to another one.
_State: TypeAlias = tuple[int, int, int]


class RuleFollower(Protocol):
    """What goes by the rules."""

    def apply(self, config: MirrorConfig) -> None:
        """Take the rules over; a GovernError refuses them."""
        ...

    def refused(self, standing: bool) -> None:
        """Show whether the file, as it is now, is refused."""
        ...


class Reload:
    """The source of a process's configuration, for one follower.

    Args:
        path: the YAML file; None = there is nothing to read again.
        flags: as `load` took them.
        config: what it gave at the start.

    Attributes:
        config: with the rules that the follower goes by.
    """

    def __init__(
        self,
        path: Path | None,
        flags: Mapping[str, object],
        config: MirrorConfig,
        *,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.config = config
        self.path = path
        self._flags = flags
        self._environ = environ
        self._read: _State | None = None  # so that a change between the start's reading and the first look is seen

    async def run(self, follower: RuleFollower) -> None:
        """Hand each changed configuration to the follower, on the event loop, until cancelled."""
        with looking.on_hangup() as asked:
            while True:
                signalled = await looking.due(asked, LOOK_EVERY_S)
                self._hand_over(await asyncio.to_thread(self._find, asked=signalled), follower)

    def look(self, follower: RuleFollower) -> None:
        """Hand the configuration to the follower if it has changed since the last look."""
        self._hand_over(self._find(asked=False), follower)

    def _find(self, *, asked: bool) -> MirrorConfig | Exception | None:
        """What the file says now, or why that is refused; None when there is nothing new."""
        state = self._state()
        if not asked and (state is None or state == self._read):
            return None
        self._read = state
        if self.path is None:
            _log.warning("there is no configuration file to read again")
            return None
        try:
            return load(self.path, flags=self._flags, environ=self._environ)
        except Exception as error:  # noqa: BLE001 - see `_hand_over`
            return error

    def _hand_over(self, found: MirrorConfig | Exception | None, follower: RuleFollower) -> None:
        if found is None:
            return
        try:
            if isinstance(found, Exception):
                raise found
            config = _with_rules_of(self.config, found)
            if config != self.config:
                follower.apply(config)
        except GovernError as error:
            _log.error("the new configuration is refused, the rules in force stay: %s", error)
            follower.refused(True)
            return
        except Exception:  # noqa: BLE001 - see below
            # Whatever it is, it must not be the end of following the file, of which nobody would hear.
            _log.exception("the new configuration cannot be taken over, the rules in force stay")
            follower.refused(True)
            return
        follower.refused(False)
        left = [
            name
            for name in MirrorConfig.model_fields
            if name not in RELOADED and getattr(found, name) != getattr(config, name)
        ]
        if left:
            _log.warning("a change of %s takes effect at the next start", ", ".join(left))
        if config == self.config:
            _log.info("the rules are the same as before: %s", digest(config))
            return
        self.config = config
        _log.warning("new rules are taken over: %s", digest(config))

    def _state(self) -> _State | None:
        """Of the file; None without one."""
        try:
            state = self.path.stat() if self.path is not None else None
        except OSError:  # in the middle of being replaced
            return None
        return None if state is None else (state.st_ino, state.st_mtime_ns, state.st_size)


def follow(path: Path | None = None, *, environ: Mapping[str, str] = os.environ) -> Reload:
    """Like `govern.mirror.config.load`, and new rules in the file are taken over.

    Raises:
        ConfigError: as of `load`.
    """
    return Reload(path, {}, load(path, environ=environ), environ=environ)


class Watch:
    """Follows a file from a thread of its own: in a process whose event loop and signals are somebody else's."""

    def __init__(self, reload: Reload, follower: RuleFollower) -> None:
        self._reload = reload
        self._follower = follower
        self._ended = threading.Event()
        if reload.path is not None:
            # A daemon: a file system that hangs must not keep the process from ending.
            threading.Thread(target=self._run, name="govern-reload", daemon=True).start()

    def end(self) -> None:
        """Look no more; a look under way may come to its end."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._reload.look(self._follower)
            self._ended.wait(LOOK_EVERY_S)


def _with_rules_of(config: MirrorConfig, found: MirrorConfig) -> MirrorConfig:
    """
    Raises:
        ConfigError: the new rules do not go with a field that stays as it is.
    """
    values = {name: getattr(found if name in RELOADED else config, name) for name in MirrorConfig.model_fields}
    try:
        return MirrorConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "the new rules", why=error.errors()[0]["msg"], fix="change the field that they do not go with, and restart"
        ) from error


@contextlib.asynccontextmanager
async def reloading(reload: Reload, follower: RuleFollower) -> AsyncIterator[None]:
    """Follow the configuration's changes for as long as the block runs."""
    task = asyncio.create_task(reload.run(follower))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def digest(config: MirrorConfig) -> str:
    """Names a configuration's rules: SHA-256 of their canonical JSON, secrets masked."""
    rules = config.model_dump(mode="json", include=set(RELOADED))
    return hashlib.sha256(json.dumps(rules, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
